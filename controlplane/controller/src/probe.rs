//! Single calls to the platform, made as the relay makes them, by whoever wants to know whether
//! they would succeed.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, DATE, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::Full;
use relay_contract::Secret;
use url::Url;

use crate::internal_keys::{INTERNAL_KEY, InternalKeys};
use crate::notices::Notices;
use crate::platform_http::{CallLimits, PlatformHttp};
use crate::platform_tls::PlatformTlsError;
use crate::settings::PlatformTls;

/// Asks the platform with the TLS, the deadlines and the byte limits of a running relay.
#[derive(Debug)]
pub struct Probe {
    http: PlatformHttp,
    notices: Notices,
}

/// What came back. Its `Debug` does not show the body.
pub struct ProbeAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The `Date` header, as sent.
    pub date: Option<String>,
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
    /// Reads the TLS files and opens nothing yet.
    ///
    /// # Errors
    /// [`PlatformTlsError`], as the relay would report it at its start.
    pub fn new(tls: PlatformTls) -> Result<Self, PlatformTlsError> {
        // Nobody reads them: a probe does not live long enough for files to change.
        let (notices, _) = Notices::channel();
        Ok(Self { http: PlatformHttp::new(tls, notices.clone())?, notices })
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
        self.call(request, url, timeout).await
    }

    /// Fetches a document, showing nothing of ours.
    ///
    /// # Errors
    /// [`ProbeError`]; any status is an answer.
    pub async fn fetch(&self, url: &Url, timeout: Duration) -> Result<ProbeAnswer, ProbeError> {
        self.call(Request::new(Full::new(Bytes::new())), url, timeout).await
    }

    async fn call(
        &self,
        mut request: Request<Full<Bytes>>,
        url: &Url,
        timeout: Duration,
    ) -> Result<ProbeAnswer, ProbeError> {
        *request.uri_mut() = url.as_str().parse::<Uri>().map_err(|_| ProbeError::Url)?;
        let limits = CallLimits { timeout, response_bytes_max: ANSWER_BYTES_MAX };
        let answer = self.http.call(request, limits).await;
        let answer = answer.map_err(|error| ProbeError::Failed(error.to_string()))?;
        let date = answer.headers.get(DATE).and_then(|date| date.to_str().ok());
        Ok(ProbeAnswer {
            status: answer.status.as_u16(),
            date: date.map(str::to_owned),
            body: answer.body,
        })
    }
}

impl fmt::Debug for ProbeAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbeAnswer")
            .field("status", &self.status)
            .field("date", &self.date)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

/// A question in the form of every other, about a token that says what it is.
const QUESTION: &[u8] =
    br#"{"relayToken":"relay-doctor-no-token","role":"client","workspaceId":"relay-doctor"}"#;

/// Bytes of one answer: the default of `RELAY_INTERNAL_API_MAX_RESPONSE_BYTES`.
pub const ANSWER_BYTES_MAX: usize = 256 << 10;
