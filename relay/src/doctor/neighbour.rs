//! Who holds a place already: a relay, which may be this one's own life before, or somebody else.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use relay_wire::http1::TrustedProxies;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme,
    StreamOwned,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Who it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Holder {
    /// A relay: it says so.
    Relay,
    /// Whoever it is, it answers nobody who has no certificate, as a relay may be told to.
    AsksCertificate,
    /// Somebody else, or nobody who answers.
    Other,
}

/// How a relay at a place is spoken to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manner<'a> {
    /// Whether its port speaks TLS.
    pub(super) tls: bool,
    /// Who has to begin with a PROXY header, where one is asked for.
    pub(super) proxies: Option<&'a TrustedProxies>,
}

/// Asks who listens at an address. The relay that runs may speak TLS where the next one will not,
/// or the other way about; so both are tried.
pub(super) fn at_address(address: SocketAddr, manner: Manner<'_>) -> Holder {
    let holder = |tls| holder(ask_address(address, Manner { tls, ..manner }));
    match holder(manner.tls) {
        Holder::Other => holder(!manner.tls),
        known => known,
    }
}

/// Asks who listens at a file. There is no TLS there, and whoever may open it counts as a proxy.
pub(super) fn at_file(socket: UnixStream, manner: Manner<'_>) -> Holder {
    holder(health(&mut Patient::new(socket), manner.proxies.is_some()))
}

fn holder(answer: io::Result<String>) -> Holder {
    match answer {
        Ok(answer) if answer.contains("\"service\":\"relay\"") => Holder::Relay,
        Err(error) if is_about_certificate(&error) => Holder::AsksCertificate,
        Ok(_) | Err(_) => Holder::Other,
    }
}

/// Whether the handshake ended for want of a certificate of ours. TLS 1.2 has no word of its own
/// for that.
fn is_about_certificate(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(
        error,
        Some(rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure
        ))
    )
}

fn ask_address(mut address: SocketAddr, manner: Manner<'_>) -> io::Result<String> {
    // Nobody can be reached at "every address".
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let socket = TcpStream::connect_timeout(&address, TIMEOUT)?;
    let own = socket.local_addr()?.ip();
    let is_proxy = manner.proxies.is_some_and(|proxies| proxies.contains(own));
    let mut socket = Patient::new(socket);
    if !manner.tls {
        return health(&mut socket, is_proxy);
    }
    if is_proxy {
        socket.write_all(PROXY_HEADER)?;
    }
    let name = ServerName::IpAddress(address.ip().into());
    let session = ClientConnection::new(believing_anyone()?, name).map_err(io::Error::other)?;
    health(&mut StreamOwned::new(session, socket), false)
}

/// The answer to `/health`, as far as it fits.
fn health(socket: &mut (impl Read + Write), is_proxy: bool) -> io::Result<String> {
    if is_proxy {
        socket.write_all(PROXY_HEADER)?;
    }
    socket.write_all(b"GET /health HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n")?;
    socket.flush()?;
    let mut answer = [0; 1024];
    let mut len = 0;
    while len < answer.len() {
        match socket.read(&mut answer[len..]) {
            Ok(0) => break,
            Ok(received) => len += received,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // What came before a reset counts.
            Err(_) if len > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&answer[..len]).into_owned())
}

/// A socket that is given up on, however it drips.
struct Patient<S> {
    socket: S,
    until: Instant,
}

impl<S: Timed> Patient<S> {
    fn new(socket: S) -> Self {
        Self { socket, until: Instant::now() + TIMEOUT }
    }

    fn hurry(&self) -> io::Result<()> {
        match self.until.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(ErrorKind::TimedOut.into()),
            left => self.socket.set_timeouts(left),
        }
    }
}

impl<S: Timed> Read for Patient<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.hurry()?;
        self.socket.read(buffer)
    }
}

impl<S: Timed> Write for Patient<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hurry()?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

trait Timed: Read + Write {
    /// How long each call may take.
    fn set_timeouts(&self, timeout: Duration) -> io::Result<()>;
}

impl Timed for TcpStream {
    fn set_timeouts(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))?;
        self.set_write_timeout(Some(timeout))
    }
}

impl Timed for UnixStream {
    fn set_timeouts(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))?;
        self.set_write_timeout(Some(timeout))
    }
}

/// TLS for this question alone: it says nothing that others may not hear, and the answer decides
/// nothing but a line of the report.
fn believing_anyone() -> io::Result<Arc<ClientConfig>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Believes whoever answers. The certificate of a relay that runs is another check's.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Says that we speak for ourselves, as the health checks of a proxy do. Source: "The PROXY
/// protocol, versions 1 & 2", §2.1.
const PROXY_HEADER: &[u8] = b"PROXY UNKNOWN\r\n";

/// How long a neighbour on this machine may take for its whole answer.
const TIMEOUT: Duration = Duration::from_secs(3);

#[cfg(test)]
#[path = "neighbour_tests.rs"]
mod tests;
