//! A worker's call to the platform, and what it has to be.

use std::borrow::Cow;

use relay_contract::WorkerRequest;

use super::cold::members;
use super::object::{Members, Value};
use super::text::{is_blank, lossy};

/// The call that a whole text is, if it is one.
pub(super) fn of(text: &[u8]) -> Option<WorkerRequest> {
    let [request_id, method, path, headers, body] =
        members(text, ["requestId", "method", "path", "headers", "body"])?;
    let call = Call {
        request_id: request_id.and_then(Text::of),
        method: method.and_then(Text::of),
        path: path.and_then(Text::of),
        headers,
        body: match body {
            Some(body) => Some(Text::of(body)?),
            None => None,
        },
    };
    call.into_request()
}

/// The members of a call: `None` where one is missing, or is no string and has to be one.
pub(super) struct Call<'t> {
    pub(super) request_id: Option<Text<'t>>,
    pub(super) method: Option<Text<'t>>,
    pub(super) path: Option<Text<'t>>,
    /// An object, if it is there.
    pub(super) headers: Option<Value<'t>>,
    pub(super) body: Option<Text<'t>>,
}

/// A decoded string.
pub(super) enum Text<'t> {
    /// As it stands in the text, with lone surrogates.
    Wtf8(Cow<'t, [u8]>),
    /// They are replaced.
    Utf8(String),
}

impl Call<'_> {
    /// What the platform is asked, if all is as it has to be.
    pub(super) fn into_request(self) -> Option<WorkerRequest> {
        let request_id = self.request_id.filter(|id| !is_blank(id.as_bytes()))?;
        let method = self.method?;
        let method = METHODS.into_iter().find(|name| name.as_bytes() == method.as_bytes())?;
        let path = self.path.filter(|path| path.as_bytes().starts_with(WORKER_PATH_PREFIX))?;
        let headers = match self.headers {
            Some(headers) => allowed_headers(headers.members()?),
            None => Vec::new(),
        };
        let body = self.body.map_or_else(String::new, Text::into_string);
        Some(WorkerRequest {
            request_id: request_id.into_string(),
            method: method.into(),
            path: path.into_string(),
            headers,
            body: (method != "GET").then_some(body),
        })
    }
}

impl<'t> Text<'t> {
    fn of(value: Value<'t>) -> Option<Self> {
        value.string().map(Self::Wtf8)
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Wtf8(text) => text,
            Self::Utf8(text) => text.as_bytes(),
        }
    }

    fn into_string(self) -> String {
        match self {
            Self::Wtf8(text) => lossy(text),
            Self::Utf8(text) => text,
        }
    }
}

/// Headers a worker may set, names in lower case, each once: the last value at the first one's
/// place.
fn allowed_headers(members: Members<'_>) -> Vec<(Box<str>, String)> {
    let mut headers: Vec<(Box<str>, String)> = Vec::new();
    for (name, value) in members {
        let is_name = |allowed: &&str| allowed.as_bytes().eq_ignore_ascii_case(&name);
        let allowed = WORKER_HEADERS.into_iter().find(is_name);
        let (Some(name), Some(value)) = (allowed, value.string()) else {
            continue;
        };
        let value = lossy(value);
        match headers.iter_mut().find(|(known, _)| &**known == name) {
            Some((_, place)) => *place = value,
            None => headers.push((name.into(), value)),
        }
    }
    headers
}

/// Methods a worker may use.
const METHODS: [&str; 3] = ["GET", "POST", "PATCH"];

/// What every worker path starts with.
const WORKER_PATH_PREFIX: &[u8] = b"/api/runtime/workspaces/";

/// Headers a worker may set.
const WORKER_HEADERS: [&str; 11] = [
    "authorization",
    "accept",
    "content-type",
    "x-viewport-run-lease",
    "x-viewport-assignment-claim",
    "x-viewport-worker-fingerprint",
    "x-viewport-worker-timestamp",
    "x-viewport-worker-nonce",
    "x-viewport-worker-body-sha256",
    "x-viewport-worker-signature",
    "x-viewport-server-id",
];
