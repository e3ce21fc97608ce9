//! Worker calls: a worker's request goes to the platform, and its answer comes back.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, COOKIE, HeaderValue, SET_COOKIE,
};
use http::{HeaderMap, HeaderName, Method, Request, Uri};
use http_body_util::Full;
use relay_contract::{WorkerRequest, WorkerResponse};
use url::Url;

use crate::call_bytes::{CallBytes, CallShare};
use crate::platform_http::{CallError, CallLimits, PlatformAnswer, PlatformHttp};

/// Makes worker calls, under the same trust settings as every other call to the platform.
///
/// Source: relay specification, section 13 and 14.
pub(crate) struct WorkerCalls {
    pub(crate) platform: Arc<PlatformHttp>,
    pub(crate) origin: Url,
    pub(crate) limits: CallLimits,
    /// What they hold: requests from the beginning, answers as they come.
    pub(crate) bytes: CallBytes,
}

/// What became of a call.
pub(crate) struct Called {
    pub(crate) response: WorkerResponse,
    /// Whether the answer found no room beside those of other calls.
    pub(crate) is_crowded_out: bool,
    /// What it holds until the answer is on its way.
    pub(crate) share: CallShare,
}

impl WorkerCalls {
    /// The share of a call that is to be made. `None` when there is no room for it.
    pub(crate) fn share(&self, request: &WorkerRequest) -> Option<CallShare> {
        let WorkerRequest { request_id, method, path, headers, body } = request;
        let headers: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let body = body.as_ref().map_or(0, String::len);
        self.bytes.take(request_id.len() + method.len() + path.len() + headers + body)
    }

    /// Makes one call. Whatever fails is an answer of 502.
    pub(crate) async fn call(&self, request: WorkerRequest, mut share: CallShare) -> Called {
        let WorkerRequest { request_id, method, path, headers, body } = request;
        let Some(call) = self.request(&method, &path, &headers, body) else {
            return Called { response: failed(request_id), is_crowded_out: false, share };
        };
        let has_room = |bytes| share.grow(bytes);
        let answer = self.platform.call_with_room(call, self.limits, has_room).await;
        let is_crowded_out = matches!(answer, Err(CallError::NoRoom));
        let response = match answer {
            Ok(answer) => response(request_id, answer),
            Err(_) => failed(request_id),
        };
        Called { response, is_crowded_out, share }
    }

    /// The request, if it can be sent as it stands.
    fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(Box<str>, String)],
        body: Option<String>,
    ) -> Option<Request<Full<Bytes>>> {
        let method = Method::from_bytes(method.as_bytes()).ok()?;
        let body = match method {
            Method::GET => Bytes::new(),
            _ => Bytes::from(body.unwrap_or_default()),
        };
        // Of an empty body hyper says nothing, and some servers answer 411 to that.
        let announces_nothing = body.is_empty() && method != Method::GET;
        let mut call = Request::new(Full::new(body));
        *call.method_mut() = method;
        *call.uri_mut() = self.uri(path)?;
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            call.headers_mut().insert(name, header_value(value)?);
        }
        if announces_nothing {
            call.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Some(call)
    }

    /// The path on the platform's origin. The switchboard has checked that it stays in the
    /// executor's subtree; here it must also survive URL parsing without a segment lost or won, and
    /// stay on the origin. `None` otherwise.
    fn uri(&self, path: &str) -> Option<Uri> {
        let url = self.origin.join(path).ok()?;
        let raw = path.split(['?', '#']).next().unwrap_or_default();
        // A parser takes a backslash for a slash and drops control characters; a dot segment takes
        // a segment away or leaves an empty one.
        let is_plain = !raw.contains(|c: char| c == '\\' || c.is_ascii_control());
        let shape = |path: &str| path.split('/').map(str::is_empty).collect::<Vec<_>>();
        let is_kept = url.origin() == self.origin.origin() && shape(url.path()) == shape(raw);
        if !(path.starts_with('/') && is_plain && is_kept) {
            return None;
        }
        url.as_str().split('#').next()?.parse().ok()
    }
}

/// The answer to a call that could not be made: too many are in flight, or they hold too much.
pub(crate) fn busy(request_id: String) -> WorkerResponse {
    of_ours(request_id, 503, r#"{"ok":false,"reason":"WORKER_TRANSPORT_BUSY"}"#)
}

fn failed(request_id: String) -> WorkerResponse {
    let body = r#"{"ok":false,"reason":"WORKER_TRANSPORT_FORWARD_FAILED"}"#;
    of_ours(request_id, 502, body)
}

fn of_ours(request_id: String, status: u16, body: &str) -> WorkerResponse {
    WorkerResponse {
        request_id,
        status,
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: body.to_owned(),
        forwarded: false,
    }
}

fn response(request_id: String, answer: PlatformAnswer) -> WorkerResponse {
    let encoding = answer.headers.get(CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| encoding != "identity") {
        // We asked for none, and the body of a frame is text.
        return failed(request_id);
    }
    WorkerResponse {
        request_id,
        status: answer.status.as_u16(),
        headers: shown(&answer.headers),
        body: text(answer.body),
        forwarded: true,
    }
}

/// Bytes as text, where they are: what is none becomes U+FFFD.
fn text(body: Bytes) -> String {
    let body = String::from_utf8(body.into());
    body.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Response headers as the reference shows them: sorted by name, several of one name joined,
/// credentials left out.
fn shown(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut joined: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in headers {
        if [AUTHORIZATION, COOKIE, SET_COOKIE].contains(name) {
            continue;
        }
        // Header bytes are Latin-1 to JavaScript.
        let value = value.as_bytes().iter().copied().map(char::from);
        let text = joined.entry(name.as_str()).or_default();
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.extend(value);
    }
    let pairs = joined.into_iter();
    pairs.map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A header value as `fetch` sends it: Latin-1, without blanks around it. `None` when it cannot be
/// sent.
fn header_value(text: &str) -> Option<HeaderValue> {
    let trimmed = text.trim_matches([' ', '\t', '\r', '\n']);
    let bytes: Option<Vec<u8>> = trimmed.chars().map(|c| u8::try_from(c).ok()).collect();
    HeaderValue::from_bytes(&bytes?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notices::Notices;
    use crate::settings::PlatformTls;

    fn calls() -> WorkerCalls {
        WorkerCalls {
            platform: Arc::new(
                PlatformHttp::new(PlatformTls::default(), Notices::channel().0).unwrap(),
            ),
            origin: Url::parse("https://platform.example/ignored").unwrap(),
            limits: CallLimits {
                timeout: std::time::Duration::from_secs(1),
                response_bytes_max: 1,
            },
            bytes: CallBytes::new(1),
        }
    }

    fn uri(path: &str) -> Option<String> {
        calls().uri(path).map(|uri| uri.to_string())
    }

    #[test]
    fn a_path_lands_on_the_platforms_origin() {
        assert_eq!(
            uri("/api/runtime/workspaces/w/x?a=1&b=%20").as_deref(),
            Some("https://platform.example/api/runtime/workspaces/w/x?a=1&b=%20")
        );
    }

    #[test]
    fn a_path_that_parsing_would_change_is_not_sent() {
        for path in [
            "/api/w/../x",
            "/api/w/%2e%2E/x",
            "/api/w/.",
            "/api\\..\\x",
            "/api/x\ty",
            "/api/.\t./x",
            "//other.example/api",
            "https://other.example/api",
            "relative",
            "",
        ] {
            assert_eq!(uri(path), None, "{path}");
        }
    }

    #[test]
    fn a_body_is_taken_over_and_what_is_no_text_replaced() {
        let body = Bytes::from("grüße".as_bytes().to_vec());
        let start = body.as_ptr();
        let taken = text(body);
        assert_eq!((&*taken, taken.as_ptr()), ("grüße", start), "no copy");
        assert_eq!(text(Bytes::from(b"a\xffb".to_vec())), "a\u{fffd}b");
    }

    #[test]
    fn response_headers_are_sorted_joined_and_without_credentials() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-custom", "v"),
            ("set-cookie", "a=b"),
            ("connection", "keep-alive"),
            ("vary", "a"),
            ("vary", "b"),
            ("authorization", "secret"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let shown: Vec<_> =
            shown(&headers).into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
        assert_eq!(shown, ["connection: keep-alive", "vary: a, b", "x-custom: v"]);
    }

    #[test]
    fn header_values_are_latin_1_or_not_sent() {
        assert_eq!(header_value(" é ").unwrap().as_bytes(), [0xe9]);
        assert!(header_value("a\nb").is_none());
        assert!(header_value("😀").is_none());
    }
}
