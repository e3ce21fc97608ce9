//! The two requests of a relay, over HTTP.

use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use relay_contract::{Role, Secret};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use tokio::net::TcpListener;

use crate::{Issuer, Refused, TokenClaims};

/// Where tokens are validated.
pub const VALIDATE_PATH: &str = "/api/runtime/internal/relay/validate";
/// Where the key set lies.
pub const JWKS_PATH: &str = "/.well-known/jwks.json";

/// Bytes of one request. Protects memory; a validate call carries a token of 4,096 characters.
const REQUEST_BYTES_MAX: usize = 64 << 10;

/// What is served.
pub struct Service {
    /// Makes and judges tokens.
    pub issuer: Issuer,
    /// Shared secrets of which a caller of the validate endpoint must show one: two while they are
    /// rotated; none means anybody may ask.
    pub internal_keys: Vec<Secret>,
}

/// The routes, without a listener.
pub fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route(VALIDATE_PATH, post(validate))
        .route(JWKS_PATH, get(key_set))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .with_state(service)
}

/// Serves until `stop` is done; requests under way are answered first.
///
/// Errors: what the listener reports. The caller binds, so it knows the address before this starts;
/// plain HTTP belongs on loopback.
pub async fn serve(
    service: Arc<Service>,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, router(service)).with_graceful_shutdown(stop).await
}

/// The body of a validate call. Source: relay specification, section 4.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Question {
    relay_token: String,
    role: Role,
    workspace_id: String,
    runtime_target_id: Option<String>,
}

async fn validate(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Response {
    if !service.knows_caller(&headers) {
        return refusal(StatusCode::UNAUTHORIZED, "INVALID_INTERNAL_KEY");
    }
    let Ok(question) = serde_json::from_slice::<Question>(&body) else {
        return refusal(StatusCode::BAD_REQUEST, "INVALID_REQUEST");
    };
    match service.answer(&question) {
        Ok(claims) => Json(serde_json::json!({ "ok": true, "claims": claims })).into_response(),
        Err(refused) => refusal(StatusCode::UNAUTHORIZED, &refused.to_string()),
    }
}

async fn key_set(State(service): State<Arc<Service>>) -> Response {
    Json(service.issuer.key_set()).into_response()
}

fn refusal(status: StatusCode, reason: &str) -> Response {
    let body = serde_json::json!({ "ok": false, "reason": reason });
    (status, Json(body)).into_response()
}

impl Service {
    fn knows_caller(&self, headers: &HeaderMap) -> bool {
        if self.internal_keys.is_empty() {
            return true;
        }
        let shown = headers.get("x-relay-internal-key");
        // Digests have one length, so the comparison tells nothing about the key's.
        let shown = Sha256::digest(shown.map_or(&[][..], |value| value.as_bytes()));
        let known = self.internal_keys.iter().map(|key| Sha256::digest(key.expose().as_bytes()));
        known.fold(Choice::from(0), |found, key| found | shown.ct_eq(&key)).into()
    }

    /// A token counts only for what it was issued for.
    fn answer(&self, question: &Question) -> Result<TokenClaims, Refused> {
        let claims = self.issuer.judge(&question.relay_token)?;
        if claims.role != Some(question.role) {
            return Err(Refused::Role);
        }
        if claims.workspace_id.as_ref() != Some(&question.workspace_id) {
            return Err(Refused::Workspace);
        }
        let asked = question.runtime_target_id.as_ref();
        if asked.is_some() && claims.runtime_target_id.as_ref() != asked {
            return Err(Refused::Target);
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;
    use crate::SigningKey;

    fn service(internal_keys: &[&str]) -> Arc<Service> {
        Arc::new(Service {
            issuer: Issuer::new(SigningKey::generate().expect("randomness")),
            internal_keys: internal_keys.iter().copied().map(Secret::from).collect(),
        })
    }

    fn token(service: &Service) -> String {
        let claims = TokenClaims::client("ws1", "rt1", "cl1");
        let lifetime = Duration::from_secs(60);
        let token = service.issuer.issue(claims, SystemTime::now(), lifetime);
        token.expect("issued").expose().to_owned()
    }

    async fn ask(service: &Arc<Service>, key: &str, body: Value) -> (u16, Value) {
        let request = Request::post(VALIDATE_PATH)
            .header("x-relay-internal-key", key)
            .body(Body::from(body.to_string()))
            .expect("a request");
        let response = router(service.clone()).oneshot(request).await.expect("an answer");
        let status = response.status().as_u16();
        let bytes = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        (status, serde_json::from_slice(&bytes).expect("JSON"))
    }

    #[tokio::test]
    async fn a_token_is_good_for_its_own_role_workspace_and_target() {
        let service = service(&[]);
        let token = token(&service);
        let good = json!({ "relayToken": token, "role": "client", "workspaceId": "ws1" });
        let (status, body) = ask(&service, "", good.clone()).await;
        assert_eq!((status, &body["ok"]), (200, &json!(true)));
        assert_eq!(body["claims"]["clientId"], "cl1");
        for (member, value, reason) in [
            ("relayToken", "a.b.c", "INVALID_RELAY_TOKEN"),
            ("role", "worker", "RELAY_TOKEN_ROLE_MISMATCH"),
            ("workspaceId", "ws2", "RELAY_TOKEN_WORKSPACE_MISMATCH"),
            ("runtimeTargetId", "rt2", "RELAY_TOKEN_TARGET_MISMATCH"),
        ] {
            let mut bad = good.clone();
            bad[member] = json!(value);
            let (status, body) = ask(&service, "", bad).await;
            assert_eq!((status, body["reason"].as_str()), (401, Some(reason)));
        }
    }

    #[tokio::test]
    async fn the_internal_key_is_asked_for_first() {
        let service = service(&["right", "old"]);
        let body = json!({ "relayToken": token(&service), "role": "client", "workspaceId": "ws1" });
        let (status, answer) = ask(&service, "wrong", body.clone()).await;
        assert_eq!((status, answer["reason"].as_str()), (401, Some("INVALID_INTERNAL_KEY")));
        for key in ["right", "old"] {
            assert_eq!(ask(&service, key, body.clone()).await.0, 200, "{key}");
        }
    }

    #[tokio::test]
    async fn a_body_that_is_no_question_is_refused() {
        let (status, body) = ask(&service(&[]), "", json!([])).await;
        assert_eq!((status, body["ok"].as_bool()), (400, Some(false)));
    }

    #[tokio::test]
    async fn the_key_set_names_the_key_and_hides_its_secret() {
        let service = service(&[]);
        let request = Request::get(JWKS_PATH).body(Body::empty()).expect("a request");
        let response = router(service.clone()).oneshot(request).await.expect("an answer");
        let bytes = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        let set: Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(set["keys"][0]["kid"], service.issuer.key().key_id());
        assert!(set["keys"][0].get("d").is_none());
    }
}
