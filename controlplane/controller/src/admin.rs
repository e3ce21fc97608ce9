//! Who may read what the operator reads, and which paths there are.

use std::fmt;

use relay_contract::{ControlRequest, Secret};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::protobuf;
use crate::settings::AdminAccess;

/// Decides about requests for the operator's paths. Its `Debug` shows no digest of a token.
pub(crate) struct Gate {
    enabled: bool,
    /// Whether operators have a door of their own.
    separate: bool,
    /// Digests of the tokens, so that a comparison tells nothing about them, their length included.
    tokens_sha256: Vec<[u8; 32]>,
}

/// Where a request came in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Door {
    /// The relay's port, where everybody is.
    Relay,
    /// The operators' own.
    Operator,
}

/// How metrics are shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Format {
    /// Lines for everybody.
    Text,
    /// What Prometheus prefers where it wants native histograms.
    Protobuf,
}

impl Format {
    /// What the `Accept` header prefers. Looked at once the [`Gate`] has let the request in:
    /// strangers have nothing of theirs parsed.
    pub(crate) fn asked(request: &ControlRequest) -> Self {
        match protobuf::is_preferred(request.accept.as_deref()) {
            true => Self::Protobuf,
            false => Self::Text,
        }
    }
}

/// What a request may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Route {
    /// `/health`, for everybody; at the operators' door alone, because shards answer it themselves.
    Health,
    /// `/ready`, for everybody.
    Ready,
    /// `/state`
    State,
    /// `/metrics`, in the [`Format`] that the request asks for.
    Metrics,
    /// `/histograms`
    Histograms,
    /// `/node`, with the scopes that have most traffic.
    Node {
        /// `?hot=1`
        hot: bool,
    },
    /// `/logs`, with ours (`?all=1`), without details (`?summary=1`).
    Logs {
        /// `?all=1`
        all: bool,
        /// `?summary=1`
        summary: bool,
    },
}

/// Why a request gets nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refused {
    /// No such path, or one that shall look like it.
    NotFound,
    /// The token is missing or wrong.
    Unauthorized,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Gate");
        shown.field("enabled", &self.enabled).field("separate", &self.separate);
        shown.finish_non_exhaustive()
    }
}

impl Gate {
    pub(crate) fn new(access: &AdminAccess) -> Self {
        Self {
            enabled: access.enabled,
            separate: access.separate,
            tokens_sha256: [&access.token, &access.previous_token]
                .into_iter()
                .flatten()
                .map(|token| digest(token.expose()))
                .collect(),
        }
    }

    /// What this request may have. With the operator's paths off, or at another door, they look
    /// like every path that does not exist. Source: relay specification, section 2 and 0.
    pub(crate) fn judge(&self, door: Door, request: &ControlRequest) -> Result<Route, Refused> {
        let query = request.query.as_deref();
        let route = match &*request.path {
            "/health" if door == Door::Operator => return Ok(Route::Health),
            "/ready" => return Ok(Route::Ready),
            "/state" => Route::State,
            "/metrics" => Route::Metrics,
            "/histograms" => Route::Histograms,
            "/node" => Route::Node { hot: is_set(query, "hot") },
            "/logs" => Route::Logs { all: is_set(query, "all"), summary: is_set(query, "summary") },
            _ => return Err(Refused::NotFound),
        };
        if !self.enabled || (self.separate && door == Door::Relay) {
            return Err(Refused::NotFound);
        }
        if !self.admits(shown_token(request)) {
            return Err(Refused::Unauthorized);
        }
        Ok(route)
    }

    /// Takes as long whichever token it is, and whether it is one.
    fn admits(&self, shown: Option<&str>) -> bool {
        let Some(shown) = shown.map(digest) else {
            return false;
        };
        let known = self.tokens_sha256.iter();
        known.fold(Choice::from(0), |found, token| found | shown.ct_eq(token)).into()
    }
}

/// The token a request shows. A Bearer header wins, even when it is wrong; another scheme does not
/// count.
fn shown_token(request: &ControlRequest) -> Option<&str> {
    let bearer = request.authorization.as_ref().and_then(bearer);
    bearer.or_else(|| Some(request.admin_token.as_ref()?.expose().trim()))
}

/// `/^Bearer\s+(.+)$/i`, trimmed.
fn bearer(authorization: &Secret) -> Option<&str> {
    let text = authorization.expose();
    let (scheme, rest) = text.split_at_checked("Bearer".len())?;
    let token = rest.trim();
    let is_bearer = scheme.eq_ignore_ascii_case("Bearer") && rest.starts_with([' ', '\t']);
    (is_bearer && !token.is_empty()).then_some(token)
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Whether the query says `name=1`. The first mention counts.
fn is_set(query: Option<&str>, name: &str) -> bool {
    let pairs = query.unwrap_or_default().split('&');
    let mut values = pairs.filter_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    values.next() == Some("1")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn gate(enabled: bool, token: Option<&str>) -> Gate {
        Gate::new(&AdminAccess {
            enabled,
            token: token.map(Secret::from),
            previous_token: None,
            separate: false,
        })
    }

    fn request(target: &str, bearer: Option<&str>, own: Option<&str>) -> ControlRequest {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.into())),
            None => (target, None),
        };
        ControlRequest {
            path: path.into(),
            query,
            authorization: bearer.map(Secret::from),
            admin_token: own.map(Secret::from),
            accept: None,
            address: Ipv4Addr::LOCALHOST.into(),
        }
    }

    fn judged(bearer: Option<&str>, own: Option<&str>) -> Result<Route, Refused> {
        gate(true, Some("right")).judge(Door::Relay, &request("/state", bearer, own))
    }

    #[test]
    fn either_header_carries_the_token() {
        assert_eq!(judged(Some("Bearer right"), None), Ok(Route::State));
        assert_eq!(judged(Some("bEARER \t right "), None), Ok(Route::State));
        assert_eq!(judged(None, Some(" right ")), Ok(Route::State));
    }

    #[test]
    fn a_wrong_bearer_is_not_saved_by_the_other_header() {
        assert_eq!(judged(Some("Bearer bad"), Some("right")), Err(Refused::Unauthorized));
        assert_eq!(judged(Some("Basic bad"), Some("right")), Ok(Route::State));
        assert_eq!(judged(Some("Bearer"), Some("right")), Ok(Route::State));
    }

    #[test]
    fn nothing_or_something_else_is_unauthorized() {
        for shown in [None, Some("Bearer "), Some("Bearer righ"), Some("Bearer right2"), Some("é")]
        {
            assert_eq!(judged(shown, None), Err(Refused::Unauthorized), "{shown:?}");
        }
    }

    #[test]
    fn during_a_rotation_both_tokens_open_and_nothing_else_does() {
        let gate = Gate::new(&AdminAccess {
            enabled: true,
            token: Some(Secret::from("new")),
            previous_token: Some(Secret::from("old")),
            separate: false,
        });
        for (shown, expected) in [
            ("Bearer new", Ok(Route::Node { hot: false })),
            ("Bearer old", Ok(Route::Node { hot: false })),
            ("Bearer newold", Err(Refused::Unauthorized)),
            ("Bearer older", Err(Refused::Unauthorized)),
        ] {
            assert_eq!(
                gate.judge(Door::Relay, &request("/node", Some(shown), None)),
                expected,
                "{shown}"
            );
        }
    }

    #[test]
    fn without_a_configured_token_nobody_gets_in() {
        for shown in [None, Some("Bearer "), Some("Bearer x")] {
            let judged = gate(true, None).judge(Door::Relay, &request("/logs", shown, Some("")));
            assert_eq!(judged, Err(Refused::Unauthorized));
        }
    }

    #[test]
    fn debug_of_the_gate_shows_no_digest() {
        let shown = format!("{:?}", gate(true, Some("right")));
        assert_eq!(shown, "Gate { enabled: true, separate: false, .. }");
    }

    #[test]
    fn switched_off_it_looks_like_nothing() {
        let gate = gate(false, Some("right"));
        for path in ["/state", "/logs", "/metrics", "/histograms", "/node", "/other"] {
            let judged = gate.judge(Door::Relay, &request(path, Some("Bearer right"), None));
            assert_eq!(judged, Err(Refused::NotFound), "{path}");
        }
        assert_eq!(gate.judge(Door::Relay, &request("/ready", None, None)), Ok(Route::Ready));
    }

    #[test]
    fn with_a_door_of_their_own_operators_are_unknown_at_the_other() {
        let gate = Gate { separate: true, ..gate(true, Some("right")) };
        let judged = |door, path| gate.judge(door, &request(path, Some("Bearer right"), None));
        for path in ["/state", "/logs", "/metrics", "/histograms", "/node"] {
            assert_eq!(judged(Door::Relay, path), Err(Refused::NotFound), "{path}");
            assert!(judged(Door::Operator, path).is_ok(), "{path}");
        }
        assert_eq!(judged(Door::Relay, "/ready"), Ok(Route::Ready));
        assert_eq!(judged(Door::Operator, "/health"), Ok(Route::Health));
    }

    #[test]
    fn the_query_selects_logs() {
        let gate = gate(true, Some("right"));
        for (target, all, summary) in [
            ("/logs", false, false),
            ("/logs?summary=1", false, true),
            ("/logs?x=2&all=1", true, false),
            ("/logs?all=0&all=1", false, false),
            ("/logs?all", false, false),
        ] {
            let judged = gate.judge(Door::Relay, &request(target, Some("Bearer right"), None));
            assert_eq!(judged, Ok(Route::Logs { all, summary }), "{target}");
        }
    }
}
