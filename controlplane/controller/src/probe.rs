//! Single calls to the platform, made as the relay makes them, by whoever wants to know whether
//! they would succeed.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AGE, CONTENT_TYPE, DATE, HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::Full;
use relay_contract::Secret;
use url::Url;

use crate::internal_keys::{INTERNAL_KEY, InternalKeys};
use crate::jwks::KeyServers;
use crate::notices::Notices;
use crate::platform_http::{CallLimits, PlatformHttp};
use crate::platform_tls::PlatformTlsError;
use crate::revocation_file::{RevocationFile, RevocationFileError};
use crate::settings::PlatformTls;

/// Asks the platform and key servers with the TLS, the deadlines and the byte limits of a running
/// relay.
#[derive(Debug)]
pub struct Probe {
    platform: Arc<PlatformHttp>,
    key_servers: KeyServers,
    notices: Notices,
}

/// What came back. Its `Debug` does not show the body.
pub struct ProbeAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The `Date` header, as sent.
    pub date: Option<String>,
    /// The `Age` header: how long a cache on the way has had the answer, which keeps its date.
    pub age_secs: Option<u64>,
    /// The body, at most [`ANSWER_BYTES_MAX`] bytes.
    pub body: Bytes,
}

/// Why there is no whole answer.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The URL is none that HTTP can call.
    #[error("no URL that HTTP can call")]
    Url,
    /// The internal key has characters a header cannot carry.
    #[error("the internal key has characters that an HTTP header cannot carry")]
    InternalKey,
    /// Connecting, TLS or HTTP failed, or it took too long. Names hosts and system errors, never
    /// what was sent.
    #[error("{0}")]
    Failed(String),
}

impl Probe {
    /// Reads the TLS files and opens nothing yet. `platform` is where the platform is, for which
    /// alone its settings hold.
    ///
    /// # Errors
    /// [`PlatformTlsError`], as the relay would report it at its start.
    pub fn new(tls: &PlatformTls, platform: &Url) -> Result<Self, PlatformTlsError> {
        // Nobody reads them: a probe does not live long enough for files to change.
        let (notices, _) = Notices::channel();
        let http = Arc::new(PlatformHttp::new(tls.clone(), notices.clone())?);
        let key_servers = KeyServers::new(&http, platform, tls, notices.clone())?;
        Ok(Self { platform: http, key_servers, notices })
    }

    /// How many revocations a relay would find in its file; none where there is no file yet.
    /// Changes nothing, and does not find out whether the file can be written.
    ///
    /// # Errors
    /// [`RevocationFileError`], as the relay would report it at its start.
    pub fn revocations(path: &Path) -> Result<usize, RevocationFileError> {
        RevocationFile::at(path.to_owned()).read().map(|kept| kept.len())
    }

    /// Asks whether a token that nobody issued is good. The key is sent as given, or not at all.
    ///
    /// # Errors
    /// [`ProbeError`]; any status is an answer.
    pub async fn validate(
        &self,
        url: &Url,
        key: Option<&Secret>,
        timeout: Duration,
    ) -> Result<ProbeAnswer, ProbeError> {
        let mut request = Request::new(Full::new(Bytes::from_static(QUESTION)));
        *request.method_mut() = Method::POST;
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(CONTENT_TYPE, json);
        let keys = InternalKeys::new(key, self.notices.clone());
        let keys = keys.map_err(|_| ProbeError::InternalKey)?;
        if let (_, Some(key)) = keys.in_use() {
            request.headers_mut().insert(INTERNAL_KEY, key.clone());
        }
        *request.uri_mut() = uri(url)?;
        call(&self.platform, request, timeout).await
    }

    /// Fetches a key set, showing nothing of ours: from the platform by its settings, from others
    /// apart from them.
    ///
    /// # Errors
    /// [`ProbeError`]; any status is an answer.
    pub async fn fetch(&self, url: &Url, timeout: Duration) -> Result<ProbeAnswer, ProbeError> {
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = uri(url)?;
        call(self.key_servers.of(request.uri()), request, timeout).await
    }
}

fn uri(url: &Url) -> Result<Uri, ProbeError> {
    url.as_str().parse().map_err(|_| ProbeError::Url)
}

async fn call(
    http: &PlatformHttp,
    request: Request<Full<Bytes>>,
    timeout: Duration,
) -> Result<ProbeAnswer, ProbeError> {
    let limits = CallLimits { timeout, response_bytes_max: ANSWER_BYTES_MAX };
    let answer = http.call(request, limits).await;
    let answer = answer.map_err(|error| ProbeError::Failed(error.to_string()))?;
    let header = |name: HeaderName| answer.headers.get(name).and_then(|value| value.to_str().ok());
    Ok(ProbeAnswer {
        status: answer.status.as_u16(),
        date: header(DATE).map(str::to_owned),
        age_secs: header(AGE).and_then(|age| age.trim().parse().ok()),
        body: answer.body,
    })
}

impl fmt::Debug for ProbeAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbeAnswer")
            .field("status", &self.status)
            .field("date", &self.date)
            .field("age_secs", &self.age_secs)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

/// A question in the form of every other, about a token that says what it is.
const QUESTION: &[u8] =
    br#"{"relayToken":"relay-doctor-no-token","role":"client","workspaceId":"relay-doctor"}"#;

/// Bytes of one answer: the default of `RELAY_INTERNAL_API_MAX_RESPONSE_BYTES`.
pub const ANSWER_BYTES_MAX: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rustls::ServerConfig;
    use rustls::crypto::aws_lc_rs;
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::settings::Verify;

    /// Serves an answer over TLS, with a certificate that nobody vouches for; returns its URL.
    async fn strange_server() -> Url {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let Ok(mut socket) = acceptor.accept(socket).await else {
                    continue;
                };
                let _ = socket.read(&mut [0; 1024]).await;
                let answer = b"HTTP/1.1 200 OK\r\nAge: 7\r\nContent-Length: 2\r\n\r\n{}";
                let _ = socket.write_all(answer).await;
                let _ = socket.shutdown().await;
            }
        });
        Url::parse(&format!("https://localhost:{port}/keys")).unwrap()
    }

    #[tokio::test]
    async fn what_is_not_checked_of_the_platform_is_checked_of_other_key_servers() {
        let url = strange_server().await;
        let tls = PlatformTls { verify: Verify::Never, ..PlatformTls::default() };
        let patience = Duration::from_secs(60);
        let answer = Probe::new(&tls, &url).unwrap().fetch(&url, patience).await.unwrap();
        assert_eq!((answer.status, answer.age_secs), (200, Some(7)));
        let platform = Url::parse("https://platform.corp").unwrap();
        // Auto believes the name localhost; an address it does not.
        let mut url = url;
        url.set_host(Some("127.0.0.1")).unwrap();
        let refused = Probe::new(&tls, &platform).unwrap().fetch(&url, patience).await;
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("certificate"), "{error}");
    }

    #[test]
    fn kept_revocations_are_counted_and_nothing_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("revocations");
        assert_eq!(Probe::revocations(&path).unwrap(), 0);
        // What a relay is about to put in place stays as it is.
        let draft = dir.path().join("revocations.new");
        std::fs::write(&draft, "half").unwrap();
        let kept =
            "{\"relayRevocations\":1}\n{\"kind\":\"keyId\",\"name\":\"k\",\"untilSecs\":1}\n";
        std::fs::write(&path, kept).unwrap();
        assert_eq!(Probe::revocations(&path).unwrap(), 1);
        assert_eq!(std::fs::read_to_string(&draft).unwrap(), "half");
        std::fs::write(&path, "spoilt").unwrap();
        assert!(matches!(Probe::revocations(&path), Err(RevocationFileError::Malformed { .. })));
    }
}
