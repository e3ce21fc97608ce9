//! The way in: where a relay listens, and whether it speaks TLS there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::{Domain, Socket, Type};

use crate::line::Line;
use crate::peer::{Answer, End, Peer};

/// An address, and what has to be trusted there.
#[derive(Clone, Debug)]
pub struct Door {
    address: SocketAddr,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Door {
    /// Where HTTP is spoken without anything before it.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }

    /// Where TLS comes first. Sessions are not resumed: every handshake is a whole one, which costs
    /// the relay most.
    ///
    /// Errors: the file has no certificate, or the name is none that a certificate may have.
    pub fn tls(address: SocketAddr, authorities: &Path, name: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(authorities)
            .with_context(|| format!("reading {}", authorities.display()))?
        {
            roots.add(certificate?)?;
        }
        ensure!(!roots.is_empty(), "{} has no certificate in PEM", authorities.display());
        let mut config =
            ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::disabled();
        let name = ServerName::try_from(name.to_owned()).context("the certificate's name")?;
        Ok(Self { address, tls: Some((Arc::new(config), name)) })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether TLS comes first.
    pub fn speaks_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Connects, from an address of loopback if one is named, and says nothing.
    ///
    /// Errors: what the kernel says; a relay that has no room may refuse.
    pub(crate) fn connect(&self, from: Option<Ipv4Addr>) -> io::Result<Line> {
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, None)?;
        if let (Some(from), IpAddr::V4(_)) = (from, self.address.ip()) {
            // The port is chosen at connect, so that each address has its own 28,000.
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::from((from, 0)).into())?;
        }
        socket.connect_timeout(&self.address.into(), PATIENCE)?;
        socket.set_tcp_nodelay(true)?;
        let socket = TcpStream::from(socket);
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(match &self.tls {
            None => Line::plain(socket),
            Some((config, name)) => {
                let session = ClientConnection::new(Arc::clone(config), name.clone());
                Line::tls(socket, session.map_err(io::Error::other)?)
            }
        })
    }

    /// What is answered to a request for this target, with a bearer token if there is one.
    ///
    /// With a token, 503 means that a shard was silent for a second, as happens on a busy machine:
    /// it is asked again for a while.
    ///
    /// Errors: nobody listens, or there is another answer than 200, or not all of it.
    pub fn get(&self, target: &str, bearer: Option<&str>) -> Result<String> {
        let deadline = Instant::now() + SILENCE_MAX;
        loop {
            let answer = self.ask(target, bearer)?;
            let is_late = answer.0 == Answer::Status(503) && bearer.is_some();
            if is_late && Instant::now() < deadline {
                continue;
            }
            let (answer, body, end) = answer;
            ensure!(answer == Answer::Status(200), "{target} answers {answer:?}");
            ensure!(end == End::Fin, "the answer to {target} ends with {end:?}");
            return Ok(String::from_utf8(body)?);
        }
    }

    fn ask(&self, target: &str, bearer: Option<&str>) -> Result<(Answer, Vec<u8>, End)> {
        let mut peer = Peer::connect(self, None)?;
        let token =
            bearer.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n{token}\r\n");
        peer.send(request.as_bytes());
        let answer = peer.answer();
        let (body, end) = peer.rest();
        Ok((answer, body, end))
    }
}

/// How long the relay may take for anything it must answer at once, on a busy machine. It is below
/// the deadlines that a relay has by default for heads and handshakes, which would end what should
/// have been ended before.
const PATIENCE: Duration = Duration::from_secs(8);

/// How long shards may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(20);
