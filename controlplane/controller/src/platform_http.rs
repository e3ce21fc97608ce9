//! Calls to the platform: one connection pool, one deadline, one byte limit.

use std::error::Error;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::notices::Notices;
use crate::platform_tls::{self, PlatformTlsError, Roots, Stamp};
use crate::settings::{ASKED_AT_ONCE, PlatformTls, Verify};

/// Speaks HTTP/1.1 with the platform. Redirects are not followed: what is behind one was not named
/// by the operator. Nothing is retried, except a request that a kept-alive connection never took.
#[derive(Debug)]
pub(crate) struct PlatformHttp {
    tls: PlatformTls,
    roots: Roots,
    current: Mutex<Current>,
    notices: Notices,
}

#[derive(Debug)]
struct Current {
    stamp: Stamp,
    client: Pool,
    /// Files that could not be used, and when they were read.
    refused: Option<(Stamp, Instant)>,
}

type Pool = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// What one call may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallLimits {
    /// From the first byte of the connection to the last of the answer, however it drips.
    pub(crate) timeout: Duration,
    /// Bytes of the answer's body.
    pub(crate) response_bytes_max: usize,
}

/// A whole answer. Its `Debug` shows neither headers nor body: both may carry credentials.
pub(crate) struct PlatformAnswer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why there is no whole answer. Upstream's fault; a later call may succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The deadline passed.
    #[error("no whole answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The body is longer than allowed.
    #[error("the answer is longer than {0} bytes")]
    TooLarge(usize),
    /// The body does not fit beside those of other calls. Our fault.
    #[error("other answers take all the room there is")]
    NoRoom,
    /// Connecting, TLS or HTTP failed, or the answer was cut.
    #[error("{0}")]
    Failed(String),
}

impl fmt::Debug for PlatformAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlatformAnswer")
            .field("status", &self.status)
            .field("header_count", &self.headers.len())
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

impl PlatformHttp {
    /// Reads the TLS files and opens nothing yet.
    ///
    /// # Errors
    /// [`PlatformTlsError`].
    pub(crate) fn new(tls: PlatformTls, notices: Notices) -> Result<Self, PlatformTlsError> {
        Self::with(tls, Roots::NamedOrSystem, notices)
    }

    /// For others than the platform: whoever they are is always checked, by the system's
    /// authorities and by those of the platform, and nobody is shown its client certificate.
    ///
    /// # Errors
    /// [`PlatformTlsError`].
    pub(crate) fn of_others(tls: &PlatformTls, notices: Notices) -> Result<Self, PlatformTlsError> {
        let ca_path = tls.ca_path.clone();
        let tls = PlatformTls { verify: Verify::Auto, ca_path, client: None };
        Self::with(tls, Roots::NamedAndSystem, notices)
    }

    fn with(tls: PlatformTls, roots: Roots, notices: Notices) -> Result<Self, PlatformTlsError> {
        let stamp = platform_tls::stamp(&tls);
        let current = Current { stamp, client: pool(&tls, roots)?, refused: None };
        Ok(Self { tls, roots, current: Mutex::new(current), notices })
    }

    /// Makes one call. Dropping the future closes its connection.
    ///
    /// # Errors
    /// [`CallError`]; any status is an answer.
    pub(crate) async fn call(
        &self,
        request: Request<Full<Bytes>>,
        limits: CallLimits,
    ) -> Result<PlatformAnswer, CallError> {
        self.call_with_room(request, limits, |_| true).await
    }

    /// Makes one call. `has_room` is asked about bytes of the answer's body before they are kept.
    ///
    /// # Errors
    /// [`CallError`]; any status is an answer.
    pub(crate) async fn call_with_room(
        &self,
        request: Request<Full<Bytes>>,
        limits: CallLimits,
        has_room: impl FnMut(usize) -> bool,
    ) -> Result<PlatformAnswer, CallError> {
        let client = self.client();
        let exchange = async {
            let response = client.request(request).await;
            read(response.map_err(|error| failed(&error))?, limits, has_room).await
        };
        match tokio::time::timeout(limits.timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::Timeout(limits.timeout)),
        }
    }

    /// The pool, made anew when the client certificate changed. Files that cannot be used (half
    /// written, say) leave the pool as it is; they are read again when they change, or after
    /// [`REREAD_INTERVAL`], because reading them holds up everybody else.
    fn client(&self) -> Pool {
        // Every change of the value is one assignment: a panic cannot leave half of it.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = platform_tls::stamp(&self.tls);
        if stamp != current.stamp && !current.refused_lately(stamp) {
            match pool(&self.tls, self.roots) {
                Ok(client) => {
                    *current = Current { stamp, client, refused: None };
                    self.notices.info("client_certificate_reloaded");
                }
                Err(error) => {
                    current.refused = Some((stamp, Instant::now()));
                    self.notices.warn("client_certificate_reload_failed", error.to_string());
                }
            }
        }
        current.client.clone()
    }
}

impl Current {
    fn refused_lately(&self, stamp: Stamp) -> bool {
        self.refused.is_some_and(|(refused, at)| refused == stamp && at.elapsed() < REREAD_INTERVAL)
    }
}

async fn read(
    response: Response<Incoming>,
    limits: CallLimits,
    mut has_room: impl FnMut(usize) -> bool,
) -> Result<PlatformAnswer, CallError> {
    let bytes_max = limits.response_bytes_max;
    let (head, body) = response.into_parts();
    let announced = body.size_hint().lower();
    if announced > u64::try_from(bytes_max).unwrap_or(u64::MAX) {
        return Err(CallError::TooLarge(bytes_max));
    }
    let mut body = Limited::new(body, bytes_max);
    // Gathered in one piece, which whoever reads it can take over.
    let mut gathered = Vec::new();
    let whole = usize::try_from(announced).ok().filter(|&announced| announced > 0);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                let piece = frame.into_data().unwrap_or_default();
                let needed = gathered.len() + piece.len();
                let room = gathered.capacity();
                if needed > room {
                    // It doubles, but not beyond what was announced.
                    let more = needed.max((2 * room).min(whole.unwrap_or(bytes_max))) - room;
                    if !has_room(more) {
                        return Err(CallError::NoRoom);
                    }
                    gathered.reserve_exact(room + more - gathered.len());
                }
                gathered.extend_from_slice(&piece);
            }
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(CallError::TooLarge(bytes_max));
            }
            Err(error) => return Err(failed(error.as_ref())),
        }
    }
    Ok(PlatformAnswer { status: head.status, headers: head.headers, body: gathered.into() })
}

/// An error with all its causes. They name hosts and system errors, never what was sent.
fn failed(error: &(dyn Error + 'static)) -> CallError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    CallError::Failed(text)
}

fn pool(tls: &PlatformTls, roots: Roots) -> Result<Pool, PlatformTlsError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(platform_tls::config(tls, roots)?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new())
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .pool_max_idle_per_host(POOL_IDLE_MAX)
        .pool_timer(TokioTimer::new())
        .build(connector))
}

/// How soon client certificate files that cannot be used are read again although they look the
/// same.
const REREAD_INTERVAL: Duration = Duration::from_secs(1);

/// Shorter than every deadline that matters, longer than a lost SYN.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// Below the 5 s after which Node servers close a quiet connection, so that we seldom meet one
/// closing.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Quiet connections kept per host: those of a burst, so that its calls need not connect anew. They
/// are gone [`POOL_IDLE_TIMEOUT`] after it.
const POOL_IDLE_MAX: usize = ASKED_AT_ONCE;

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;
    use std::time::SystemTime;

    use super::*;
    use crate::settings::ClientCertificate;

    /// Writes a client certificate and its key, changed so many seconds after 1970.
    fn write(dir: &Path, changed_secs: u64, certificate: &str, key: &str) {
        for (name, text) in [("client.crt", certificate), ("client.key", key)] {
            let path = dir.join(name);
            fs::write(&path, text).unwrap();
            let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(changed_secs);
            File::options().write(true).open(&path).unwrap().set_modified(changed).unwrap();
        }
    }

    #[test]
    fn debug_of_an_answer_shows_what_it_is_and_not_what_it_says() {
        let mut headers = HeaderMap::new();
        headers.insert("set-cookie", "hush".parse().unwrap());
        let body = Bytes::from_static(b"hush");
        let shown = format!("{:?}", PlatformAnswer { status: StatusCode::OK, headers, body });
        assert!(!shown.contains("hush"), "{shown}");
        assert!(shown.contains("header_count: 1, body_bytes: 4"), "{shown}");
    }

    #[test]
    fn files_that_cannot_be_used_are_reported_once_and_not_read_for_every_call() {
        let dir = tempfile::tempdir().unwrap();
        let pair = rcgen::generate_simple_self_signed(vec!["relay".to_owned()]).unwrap();
        let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
        write(dir.path(), 1, &certificate, &key);
        let tls = PlatformTls {
            client: Some(ClientCertificate {
                cert_path: dir.path().join("client.crt"),
                key_path: dir.path().join("client.key"),
                passphrase: None,
            }),
            ..PlatformTls::default()
        };
        let (notices, mut noticed) = Notices::channel();
        let http = PlatformHttp::new(tls, notices).unwrap();
        let refused = || http.current.lock().unwrap().refused;
        write(dir.path(), 2, "half a certificate", &key);
        http.client();
        let first = refused().expect("read once");
        http.client();
        assert_eq!(refused(), Some(first), "not read again");
        let entry = noticed.try_recv().expect("the operator is told");
        assert_eq!(entry.event, "client_certificate_reload_failed");
        assert!(noticed.try_recv().is_err(), "once");
        write(dir.path(), 3, &certificate, &key);
        http.client();
        assert_eq!(refused(), None);
        assert_ne!(http.current.lock().unwrap().stamp, first.0, "in use");
        assert_eq!(noticed.try_recv().unwrap().event, "client_certificate_reloaded");
    }
}
