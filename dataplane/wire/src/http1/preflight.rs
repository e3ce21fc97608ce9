//! What a shard can judge of an upgrade: steps 5 to 8 of the order in the relay specification,
//! section 3.

use relay_contract::{Preflight, Role, Secret, TargetId, UpgradeRequest, WorkspaceId};

use super::head::{Head, RequestTarget, latin1};
use super::origin::{AllowedOrigins, Origin};
use crate::envelope::trim_js;

/// What an operator sets about upgrades.
#[derive(Clone, Debug, Default)]
pub struct UpgradeRules {
    /// Whether `?token=` is taken as a last resort. Development only.
    pub query_token_allowed: bool,
    /// Whose pages may connect. What is no browser states no origin and is not asked for one.
    pub allowed_origins: AllowedOrigins,
}

/// Judges URL, path, origin, query and token of an upgrade, in this order.
///
/// Cost: some allocations; this is once per connection.
pub fn preflight(head: &Head<'_>, rules: &UpgradeRules) -> Preflight {
    let Some(target) = head.request_target() else {
        return Preflight::UnparsableUrl;
    };
    if target.path() != UPGRADE_PATH {
        return Preflight::OtherPath;
    }
    if let Err(origin) = judge_origin(head, &rules.allowed_origins) {
        let origin = origin.map(|origin| origin.to_string().into());
        return Preflight::ForeignOrigin { origin };
    }
    let Some(request) = upgrade_request(&target) else {
        return Preflight::InvalidQuery;
    };
    let token = header_token(head)
        .or_else(|| protocol_token(head))
        .or_else(|| if rules.query_token_allowed { query_token(&target) } else { None });
    match token {
        Some(token) => Preflight::Ask { request, token: Secret::new(token) },
        None => Preflight::MissingToken,
    }
}

/// Whether the page may connect, if it is one; the error is the origin it states. Several `Origin`
/// headers state none.
fn judge_origin(head: &Head<'_>, allowed: &AllowedOrigins) -> Result<(), Option<Origin>> {
    let mut values = head.all("origin");
    let Some(value) = values.next() else {
        return Ok(());
    };
    let origin = if values.next().is_none() { Origin::parse(value) } else { None };
    if allowed.allow(origin.as_ref()) { Ok(()) } else { Err(origin) }
}

/// The query, if it fits its schema. Of several equal names the first counts; others are ignored.
fn upgrade_request(target: &RequestTarget) -> Option<UpgradeRequest> {
    let role = target.parameter("role")?;
    let workspace_id = target.parameter("workspaceId")?;
    let target_id = target.parameter("runtimeTargetId");
    if !is_id(&workspace_id) || target_id.as_deref().is_some_and(|id| !is_id(id)) {
        return None;
    }
    Some(UpgradeRequest {
        role: Role::parse(&role)?,
        workspace_id: WorkspaceId::from(workspace_id),
        target_id: target_id.map(TargetId::from),
    })
}

/// `^[A-Za-z0-9._:-]{1,128}$`
fn is_id(text: &str) -> bool {
    let of_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    (1..=ID_UNITS_MAX).contains(&text.len()) && text.bytes().all(of_alphabet)
}

/// `/^Bearer\s+(.+)$/i` of the Authorization header, trimmed.
fn header_token(head: &Head<'_>) -> Option<String> {
    let value = latin1(head.header("authorization")?);
    let (scheme, rest) = value.split_at_checked("Bearer".len())?;
    let token = trim(rest);
    // What is trimmed at the front is exactly what separates scheme and token.
    let separated = !rest.starts_with(token);
    let is_bearer = scheme.eq_ignore_ascii_case("bearer");
    (is_bearer && separated && has_token_length(token)).then(|| token.to_owned())
}

/// The first offered subprotocol of the form `auth.<token>` whose token has a valid length.
fn protocol_token(head: &Head<'_>) -> Option<String> {
    head.joined("sec-websocket-protocol")?
        .split(',')
        .filter_map(|offer| trim(offer).strip_prefix("auth."))
        .find(|token| has_token_length(token))
        .map(str::to_owned)
}

fn query_token(target: &RequestTarget) -> Option<String> {
    let token = target.parameter("token")?;
    let token = trim(&token);
    has_token_length(token).then(|| token.to_owned())
}

fn has_token_length(token: &str) -> bool {
    (TOKEN_UNITS_MIN..=TOKEN_UNITS_MAX).contains(&token.encode_utf16().count())
}

/// `String.prototype.trim`.
fn trim(text: &str) -> &str {
    std::str::from_utf8(trim_js(text.as_bytes())).expect("white space ends at character boundaries")
}

/// Where WebSockets are.
const UPGRADE_PATH: &str = "/ws";

/// UTF-16 units of an id in the query.
const ID_UNITS_MAX: usize = 128;

/// UTF-16 units of a token.
const TOKEN_UNITS_MIN: usize = 10;
const TOKEN_UNITS_MAX: usize = 4096;

#[cfg(test)]
#[path = "preflight_tests.rs"]
mod tests;
