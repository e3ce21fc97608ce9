//! The validate call: the platform decides about a token.

use std::collections::HashSet;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use relay_admission::{Denial, judge_answer};
use relay_contract::{Claims, Secret, UpgradeRequest};
use serde::Serialize;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::internal_keys::{INTERNAL_KEY, InternalKeys};
use crate::notices::Notices;
use crate::platform_http::{CallError, CallLimits, PlatformAnswer, PlatformHttp};
use crate::settings::Settings;

/// Makes validate calls. Source: relay specification, section 4.
#[derive(Debug)]
pub(crate) struct Validator {
    url: http::Uri,
    keys: InternalKeys,
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
    pub(crate) fn new(settings: &Settings, notices: Notices) -> Result<Self, ValidatorError> {
        let keys = [&settings.internal_key, &settings.internal_key_previous];
        let keys = InternalKeys::new(keys.into_iter().flatten(), notices);
        Ok(Self {
            url: settings.validate_url.as_str().parse().map_err(|_| ValidatorError::Url)?,
            keys: keys.map_err(|_| ValidatorError::InternalKey)?,
            limits: CallLimits {
                timeout: settings.admission_timeout,
                response_bytes_max: settings.admission_response_bytes_max,
            },
        })
    }

    /// Asks the platform once, during a rotation of the internal key perhaps twice. Every failure
    /// is a denial: the peer sees 401.
    ///
    /// # Errors
    /// A [`Denial`] with the platform's reason, or ours.
    pub(crate) async fn validate(
        &self,
        platform: &PlatformHttp,
        request: &UpgradeRequest,
        token: &Secret,
    ) -> Result<Claims, Denial> {
        let answer = self.ask(platform, request, token).await.map_err(|error| denial(&error))?;
        judge_answer(answer.status.as_u16(), &answer.body)
            .map_err(|denial| without_token(denial, token))
    }

    /// How often the platform was asked again with the other internal key.
    pub(crate) fn retried(&self) -> u64 {
        self.keys.retried()
    }

    /// One that asks with other internal keys and within other limits.
    ///
    /// # Errors
    /// When a header cannot carry a key.
    pub(crate) fn with<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a Secret>,
        limits: CallLimits,
    ) -> Result<Self, ValidatorError> {
        let keys = self.keys.replaced(keys).map_err(|_| ValidatorError::InternalKey)?;
        Ok(Self { url: self.url.clone(), keys, limits })
    }

    /// The platform's answer. A 401 or 403 may mean the token or our key, so while there are two
    /// keys it is asked again with the other; both calls share the deadline of one.
    async fn ask(
        &self,
        platform: &PlatformHttp,
        request: &UpgradeRequest,
        token: &Secret,
    ) -> Result<PlatformAnswer, CallError> {
        let began = Instant::now();
        let keys = &self.keys;
        let (first, key) = keys.in_use();
        let answer = platform.call(self.request(request, token, key), self.limits).await?;
        if !is_key_doubt(answer.status) {
            return Ok(answer);
        }
        let Some((other, key)) = keys.other_than(first) else {
            return Ok(answer);
        };
        let timeout = self.limits.timeout.saturating_sub(began.elapsed());
        let limits = CallLimits { timeout, ..self.limits };
        match platform.call(self.request(request, token, Some(key)), limits).await {
            Ok(second) if second.status.is_success() => {
                keys.use_from_now_on(other);
                Ok(second)
            }
            // The first answer was as good: the token is what is refused.
            Ok(_) | Err(_) => Ok(answer),
        }
    }

    fn request(
        &self,
        request: &UpgradeRequest,
        token: &Secret,
        key: Option<&HeaderValue>,
    ) -> Request<Full<Bytes>> {
        let question = Question {
            relay_token: token.expose(),
            role: request.role.name(),
            workspace_id: request.workspace_id.as_str(),
            runtime_target_id: request.target_id.as_ref().map(|id| id.as_str()),
        };
        let mut call = Request::new(Full::new(wiped_body(&question, token)));
        *call.method_mut() = Method::POST;
        *call.uri_mut() = self.url.clone();
        let headers = call.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = key {
            headers.insert(INTERNAL_KEY, key.clone());
        }
        call
    }
}

/// The body in memory that is wiped when the call is over. It is sized before it is written: a
/// buffer that grows leaves pieces of the token behind.
fn wiped_body(question: &Question<'_>, token: &Secret) -> Bytes {
    let escaped_bytes = |byte| if needs_escape(byte) { JSON_ESCAPE_BYTES_MAX } else { 1 };
    let token_bytes: usize = token.expose().bytes().map(escaped_bytes).sum();
    let mut body = Zeroizing::new(Vec::with_capacity(token_bytes + QUESTION_BYTES));
    serde_json::to_writer(&mut *body, question).expect("text is always JSON");
    Bytes::from_owner(body)
}

/// Whether JSON may write more than the byte itself. Source: RFC 8259 §7.
fn needs_escape(byte: u8) -> bool {
    byte < b' ' || matches!(byte, b'"' | b'\\' | 0x7f)
}

/// Whether an answer may be about our key instead of the token.
fn is_key_doubt(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

/// A platform that quotes the token it was shown is not quoted in our log.
fn without_token(denial: Denial, token: &Secret) -> Denial {
    match quotes(&denial.reason, token.expose()) {
        true => Denial::new("VALIDATION_FAILED", denial.status),
        false => denial,
    }
}

/// Whether a text has a piece of the token, wherever in the token it stands.
///
/// Cost: a look-up for each byte of the token; the text has [`Denial::REASON_CHARS_MAX`] characters
/// at most.
fn quotes(text: &str, token: &str) -> bool {
    // A token that is shorter than a piece is one.
    let piece_bytes = token.len().clamp(1, QUOTE_BYTES);
    let pieces: HashSet<_> = text.as_bytes().windows(piece_bytes).collect();
    !pieces.is_empty() && token.as_bytes().windows(piece_bytes).any(|it| pieces.contains(it))
}

fn denial(error: &CallError) -> Denial {
    match error {
        CallError::TooLarge(_) => Denial::new("ADMISSION_RESPONSE_TOO_LARGE", 502),
        CallError::Timeout(_) => Denial::new("ADMISSION_TIMEOUT", 504),
        CallError::NoRoom | CallError::Failed(_) => {
            Denial::new(&format!("ADMISSION_UNREACHABLE: {error}"), 504)
        }
    }
}

/// Bytes of a token by which a quotation is known. Fewer may be chance: reasons are words, and
/// tokens hold names in plain sight. Fewer than these, of a token that is worth something, tell
/// nothing that could be guessed on from.
const QUOTE_BYTES: usize = 12;

/// Bytes that JSON may make of one: a control character becomes an escape of six.
const JSON_ESCAPE_BYTES_MAX: usize = 6;

/// Bytes of a question beside its token: names, and two identifiers of 128 characters at most.
const QUESTION_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ1c2VyIn0.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg";

    #[test]
    fn a_piece_of_the_token_is_a_quotation_wherever_it_stands() {
        let end = TOKEN.len();
        for piece in [&TOKEN[..12], &TOKEN[30..42], &TOKEN[end - 12..], &TOKEN[5..40], TOKEN] {
            assert!(quotes(&format!("no such token: ...{piece}"), TOKEN), "{piece}");
            assert!(quotes(piece, TOKEN), "{piece}");
        }
        assert!(quotes("the token short is not known", "short"), "whole, if it is shorter");
    }

    #[test]
    fn words_and_snippets_are_none() {
        for text in ["", "TOKEN_REVOKED", "unknown token", &TOKEN[..11], &TOKEN[end_of(11)..]] {
            assert!(!quotes(text, TOKEN), "{text}");
        }
        assert!(!quotes("TOKEN_REVOKED", ""));
    }

    fn end_of(bytes: usize) -> usize {
        TOKEN.len() - bytes
    }
}
