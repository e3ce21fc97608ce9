//! What the platform answers.

use serde_json::{Value, json};

use super::bus::Pull;
use super::state::{LoggedRequest, PresenceKey, State};
use crate::members::Members;
use crate::scenario::ResponseSpec;
use crate::watched::{Deadline, Watched};

/// What to do about a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) delay_ms: u64,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Delivery,
}

/// How the body of an answer is delivered, if at all.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Delivery {
    Whole(String),
    /// Chunked, one character every so many milliseconds.
    Dripping {
        text: String,
        every_ms: u64,
    },
    /// Headers, one byte of a hundred, then nothing.
    Stalled,
    /// Ten bytes of a hundred, then the end of the connection.
    Cut,
    /// Not even headers.
    Hanging,
    /// The connection is closed at once.
    Dropped,
}

impl Answer {
    /// Decides on a request; waits where the platform's interface says so.
    pub(crate) fn to(request: &LoggedRequest, state: &Watched<State>) -> Self {
        if let Some(response) = state.update(|state| state.apply_rule(request)) {
            return Self::by_rule(response);
        }
        let Some(call) = request.path().strip_prefix(INTERNAL_PATH) else {
            return Self::json(404, &json!({"ok": false, "reason": "NOT_FOUND"}));
        };
        let key = state.with(|state| state.internal_key.clone());
        if key.is_some_and(|key| request.head.header("x-relay-internal-key") != Some(&key)) {
            return Self::json(401, &json!({"ok": false, "reason": "INVALID_INTERNAL_KEY"}));
        }
        let body = request.json();
        match (request.method.as_str(), call) {
            ("POST", "validate") => validate(&body, state),
            ("POST", "presence/upsert") => upsert(body, state),
            ("POST", "presence/resolve") => resolve(&body, state),
            ("POST", "bus/publish") => publish(&request.body, state),
            ("POST", "bus/pull") => pull(&body, state),
            _ => Self::json(404, &json!({"ok": false, "reason": "NOT_FOUND"})),
        }
    }

    fn json(status: u16, body: &Value) -> Self {
        let headers = vec![json_type()];
        Self { delay_ms: 0, status, headers, body: Delivery::Whole(body.to_string()) }
    }

    fn by_rule(response: ResponseSpec) -> Self {
        let mut headers = vec![json_type()];
        for (name, value) in response.headers {
            let place = headers.iter().position(|(known, _)| known.eq_ignore_ascii_case(&name));
            match place {
                Some(place) => headers[place] = (name, value),
                None => headers.push((name, value)),
            }
        }
        let json = response.json.map(|json| json.to_string());
        let text = response.text.or(json).unwrap_or_default();
        let body = if response.hang {
            Delivery::Hanging
        } else if response.drop {
            Delivery::Dropped
        } else if response.stall_after_headers {
            Delivery::Stalled
        } else if response.cut_body {
            Delivery::Cut
        } else if let Some(every_ms) = response.drip_ms {
            Delivery::Dripping { text, every_ms }
        } else {
            Delivery::Whole(text)
        };
        let status = match body {
            Delivery::Stalled | Delivery::Cut => 200,
            _ => response.status.unwrap_or(200),
        };
        Self { delay_ms: response.delay_ms, status, headers, body }
    }
}

fn validate(body: &Value, state: &Watched<State>) -> Answer {
    let claims = state.with(|state| {
        let presented = body["relayToken"].as_str();
        let token = state.tokens.iter().find(|token| Some(token.text.as_str()) == presented);
        token.and_then(|token| token.claims.clone())
    });
    match claims {
        Some(claims) => Answer::json(200, &json!({"ok": true, "claims": claims})),
        None => Answer::json(401, &json!({"ok": false, "reason": "INVALID_RELAY_TOKEN"})),
    }
}

fn upsert(body: Value, state: &Watched<State>) -> Answer {
    let key = presence_key(&body);
    state.update(|state| {
        if body["daemonConnected"] == json!(false) {
            let stored = state.presence.get(&key);
            if stored.is_some_and(|stored| stored["relayId"] == body["relayId"]) {
                state.presence.remove(&key);
            }
        } else {
            state.presence.insert(key, body);
        }
    });
    Answer::json(200, &json!({"ok": true}))
}

fn resolve(body: &Value, state: &Watched<State>) -> Answer {
    let key = presence_key(body);
    let stored = state.with(|state| state.presence.get(&key).cloned());
    let connected = stored.is_some();
    let stored = stored.unwrap_or_default();
    let answer = json!({
        "ok": true,
        "relayId": stored["relayId"],
        "relayWsBaseUrl": stored["relayWsBaseUrl"],
        "daemonConnected": connected,
        "stale": false,
        "runtimeTargetId": body["runtimeTargetId"],
        "machineId": stored["machineId"],
    });
    Answer::json(200, &answer)
}

fn publish(body: &str, state: &Watched<State>) -> Answer {
    match serde_json::from_str::<Members<Value>>(body) {
        Ok(frame) => {
            state.update(|state| state.bus.append(None, frame));
            Answer::json(200, &json!({"ok": true}))
        }
        Err(_) => Answer::json(400, &json!({"ok": false, "reason": "INVALID_JSON"})),
    }
}

fn pull(body: &Value, state: &Watched<State>) -> Answer {
    let number = |name: &str| body[name].as_u64();
    let pull = Pull {
        relay_id: body["relayId"].as_str().unwrap_or_default().to_owned(),
        since_id: number("sinceId").unwrap_or_default(),
        limit: number("limit").map_or(usize::MAX, |limit| limit.try_into().unwrap_or(usize::MAX)),
    };
    let wait_ms = number("waitMs").unwrap_or_default().min(PULL_WAIT_MS_MAX);
    let frames = state.wait(Deadline::after_ms(wait_ms), |state| {
        let frames = state.bus.pull(&pull);
        (!frames.is_empty() || state.stopped).then_some(frames)
    });
    Answer::json(200, &json!({"ok": true, "frames": frames.unwrap_or_default()}))
}

fn presence_key(body: &Value) -> PresenceKey {
    let text = |name: &str| body[name].as_str().map(str::to_owned);
    (text("workspaceId").unwrap_or_default(), text("runtimeTargetId"))
}

fn json_type() -> (String, String) {
    ("content-type".to_owned(), "application/json".to_owned())
}

const INTERNAL_PATH: &str = "/api/runtime/internal/relay/";
const PULL_WAIT_MS_MAX: u64 = 2_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_message::Head;
    use crate::platform::state::{Settings, Token};

    fn platform() -> Watched<State> {
        let token = |name: &str, claims| Token {
            name: name.to_owned(),
            text: format!("text-of-{name}"),
            claims,
        };
        let tokens = vec![token("known", Some(json!({"role": "client"}))), token("literal", None)];
        Watched::new(State::new(Settings { tokens, ..Settings::default() }))
    }

    fn post(platform: &Watched<State>, call: &str, body: &Value) -> (u16, Value) {
        let request = LoggedRequest {
            method: "POST".to_owned(),
            target: format!("{INTERNAL_PATH}{call}"),
            head: Head::default(),
            body: body.to_string(),
        };
        let answer = Answer::to(&request, platform);
        let Delivery::Whole(body) = answer.body else { panic!("{answer:?}") };
        (answer.status, serde_json::from_str(&body).unwrap())
    }

    #[test]
    fn only_known_tokens_are_valid() {
        let platform = platform();
        let valid = post(&platform, "validate", &json!({"relayToken": "text-of-known"}));
        assert_eq!(valid, (200, json!({"ok": true, "claims": {"role": "client"}})));
        for token in ["text-of-literal", "x"] {
            let refused = post(&platform, "validate", &json!({"relayToken": token}));
            assert_eq!(refused, (401, json!({"ok": false, "reason": "INVALID_RELAY_TOKEN"})));
        }
    }

    #[test]
    fn presence_is_resolved_until_its_own_relay_withdraws_it() {
        let platform = platform();
        let resolve = json!({"workspaceId": "w", "runtimeTargetId": "r"});
        let mut upsert = json!({
            "workspaceId": "w", "runtimeTargetId": "r", "machineId": "m", "relayId": "a",
            "relayWsBaseUrl": "ws://a", "daemonConnected": true,
        });
        post(&platform, "presence/upsert", &upsert);
        upsert["daemonConnected"] = json!(false);
        upsert["relayId"] = json!("b");
        post(&platform, "presence/upsert", &upsert);
        let found = json!({
            "ok": true, "relayId": "a", "relayWsBaseUrl": "ws://a", "daemonConnected": true,
            "stale": false, "runtimeTargetId": "r", "machineId": "m",
        });
        assert_eq!(post(&platform, "presence/resolve", &resolve), (200, found));
        upsert["relayId"] = json!("a");
        post(&platform, "presence/upsert", &upsert);
        let (_, lost) = post(&platform, "presence/resolve", &resolve);
        assert_eq!((&lost["relayId"], &lost["daemonConnected"]), (&json!(null), &json!(false)));
    }

    #[test]
    fn a_published_frame_is_pulled_with_an_id_and_without_a_wait() {
        let platform = platform();
        let frame = json!({"sourceRelayId": "a", "targetRelayId": "b", "payload": "p"});
        post(&platform, "bus/publish", &frame);
        let pull = json!({"relayId": "b", "sinceId": 0, "limit": 5, "waitMs": 2000});
        let (_, pulled) = post(&platform, "bus/pull", &pull);
        assert_eq!(pulled["frames"][0]["payload"], "p");
        assert_eq!(pulled["frames"][0]["id"], 1);
    }

    #[test]
    fn a_wrong_internal_key_is_refused_below_the_internal_path_only() {
        let platform = platform();
        platform.update(|state| state.internal_key = Some("key".to_owned()));
        let refused = json!({"ok": false, "reason": "INVALID_INTERNAL_KEY"});
        assert_eq!(post(&platform, "validate", &json!({})), (401, refused));
    }

    #[test]
    fn rules_describe_every_way_not_to_answer() {
        let body = |response: Value| {
            let response = serde_json::from_value(response).unwrap();
            let answer = Answer::by_rule(response);
            (answer.status, answer.headers[0].1.clone(), answer.body)
        };
        let json_type = || "application/json".to_owned();
        assert_eq!(body(json!({"hang": true})).2, Delivery::Hanging);
        assert_eq!(body(json!({"drop": true})).2, Delivery::Dropped);
        assert_eq!(body(json!({"status": 500, "cutBody": true})).0, 200);
        assert_eq!(body(json!({"stallAfterHeaders": true})).2, Delivery::Stalled);
        let dripping = Delivery::Dripping { text: "{}".to_owned(), every_ms: 3 };
        assert_eq!(body(json!({"json": {}, "dripMs": 3})), (200, json_type(), dripping));
        let text = (418, "a/b".to_owned(), Delivery::Whole("t".to_owned()));
        let headers = json!({"Content-Type": "a/b"});
        assert_eq!(body(json!({"status": 418, "text": "t", "headers": headers})), text);
    }
}
