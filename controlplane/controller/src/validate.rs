//! The validate call: the platform decides about a token.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, InvalidHeaderValue};
use http::{Method, Request};
use http_body_util::Full;
use relay_admission::{Denial, judge_answer};
use relay_contract::{Claims, Secret, UpgradeRequest};
use serde::Serialize;

use crate::platform_http::{CallError, CallLimits, PlatformHttp};
use crate::settings::Settings;

/// Makes validate calls. Source: relay specification, section 4.
#[derive(Debug)]
pub(crate) struct Validator {
    url: http::Uri,
    internal_key: Option<HeaderValue>,
    limits: CallLimits,
}

/// Why validate calls cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ValidatorError {
    /// The URL is none that HTTP can call.
    #[error("RELAY_VALIDATE_URL is no URL that can be called")]
    Url,
    /// The internal key has characters a header cannot carry.
    #[error("RELAY_INTERNAL_KEY has characters that an HTTP header cannot carry")]
    InternalKey,
}

/// The body; the order of members is part of the wire.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Question<'a> {
    relay_token: &'a str,
    role: &'static str,
    workspace_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime_target_id: Option<&'a str>,
}

impl Validator {
    pub(crate) fn new(settings: &Settings) -> Result<Self, ValidatorError> {
        Ok(Self {
            url: settings.validate_url.as_str().parse().map_err(|_| ValidatorError::Url)?,
            internal_key: settings
                .internal_key
                .as_ref()
                .map(key_header)
                .transpose()
                .map_err(|_| ValidatorError::InternalKey)?,
            limits: CallLimits {
                timeout: settings.admission_timeout,
                response_bytes_max: settings.admission_response_bytes_max,
            },
        })
    }

    /// Asks the platform once. Every failure is a denial: the peer sees 401.
    ///
    /// # Errors
    /// A [`Denial`] with the platform's reason, or ours.
    pub(crate) async fn validate(
        &self,
        platform: &PlatformHttp,
        request: &UpgradeRequest,
        token: &Secret,
    ) -> Result<Claims, Denial> {
        let answer = platform
            .call(self.request(request, token), self.limits)
            .await
            .map_err(|error| denial(&error))?;
        judge_answer(answer.status.as_u16(), &answer.body)
            .map_err(|denial| without_token(denial, token))
    }

    fn request(&self, request: &UpgradeRequest, token: &Secret) -> Request<Full<Bytes>> {
        let question = Question {
            relay_token: token.expose(),
            role: request.role.name(),
            workspace_id: request.workspace_id.as_str(),
            runtime_target_id: request.target_id.as_ref().map(|id| id.as_str()),
        };
        let body = serde_json::to_vec(&question).expect("text is always JSON");
        let mut call = Request::new(Full::new(Bytes::from(body)));
        *call.method_mut() = Method::POST;
        *call.uri_mut() = self.url.clone();
        let headers = call.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = &self.internal_key {
            headers.insert(INTERNAL_KEY, key.clone());
        }
        call
    }
}

fn key_header(key: &Secret) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut header = HeaderValue::from_str(key.expose())?;
    header.set_sensitive(true);
    Ok(header)
}

/// A platform that quotes the token it was shown is not quoted in our log.
fn without_token(denial: Denial, token: &Secret) -> Denial {
    let start: String = token.expose().chars().take(QUOTE_CHARS).collect();
    if denial.reason.contains(&start) {
        return Denial::new("VALIDATION_FAILED", denial.status);
    }
    denial
}

fn denial(error: &CallError) -> Denial {
    match error {
        CallError::TooLarge(_) => Denial::new("ADMISSION_RESPONSE_TOO_LARGE", 502),
        CallError::Timeout(_) => Denial::new("ADMISSION_TIMEOUT", 504),
        CallError::Failed(text) => Denial::new(&format!("ADMISSION_UNREACHABLE: {text}"), 504),
    }
}

/// Characters of a token by which a quotation is known, even one that is cut short.
const QUOTE_CHARS: usize = 16;

const INTERNAL_KEY: HeaderName = HeaderName::from_static("x-relay-internal-key");
