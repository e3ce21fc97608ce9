//! What the platform knows.

use std::collections::HashMap;
use std::net::TcpStream;

use serde_json::Value;

use super::bus::Bus;
use crate::http_message::Head;
use crate::scenario::{ResponseSpec, Rule};

/// How a platform behaves, placeholders expanded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) tokens: Vec<Token>,
    pub(crate) internal_key: Option<String>,
    pub(crate) rules: Vec<Rule>,
}

/// A token with the text made for it.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) name: String,
    pub(crate) text: String,
    /// `None`: the platform does not know the token.
    pub(crate) claims: Option<Value>,
}

/// A request as received.
#[derive(Clone, Debug)]
pub(crate) struct LoggedRequest {
    pub(crate) method: String,
    /// With the query.
    pub(crate) target: String,
    pub(crate) head: Head,
    pub(crate) body: String,
}

impl LoggedRequest {
    /// The target without the query.
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The body as JSON; null when it is not.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }
}

/// Workspace and runtime target.
pub(crate) type PresenceKey = (String, Option<String>);

/// Everything the connections of a platform share.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) tokens: Vec<Token>,
    pub(crate) internal_key: Option<String>,
    pub(crate) presence: HashMap<PresenceKey, Value>,
    pub(crate) bus: Bus,
    pub(crate) stopped: bool,
    rules: Vec<ActiveRule>,
    requests: Vec<LoggedRequest>,
    /// How many requests to a path a scenario has taken.
    taken: HashMap<String, usize>,
    connections: Vec<TcpStream>,
}

#[derive(Debug)]
struct ActiveRule {
    rule: Rule,
    used: u64,
}

impl State {
    pub(crate) fn new(settings: Settings) -> Self {
        let mut state = Self {
            tokens: settings.tokens,
            internal_key: settings.internal_key,
            presence: HashMap::new(),
            bus: Bus::default(),
            stopped: false,
            rules: Vec::new(),
            requests: Vec::new(),
            taken: HashMap::new(),
            connections: Vec::new(),
        };
        state.set_rules(settings.rules);
        state
    }

    pub(crate) fn set_rules(&mut self, rules: Vec<Rule>) {
        self.rules = rules.into_iter().map(|rule| ActiveRule { rule, used: 0 }).collect();
    }

    /// Takes a connection in; false once the platform has stopped.
    pub(crate) fn admit(&mut self, connection: TcpStream) -> bool {
        self.connections.push(connection);
        !self.stopped
    }

    /// Stops, and gives back the connections to be closed.
    pub(crate) fn stop(&mut self) -> Vec<TcpStream> {
        self.stopped = true;
        std::mem::take(&mut self.connections)
    }

    pub(crate) fn log(&mut self, request: LoggedRequest) {
        self.requests.push(request);
    }

    /// The response of the first rule that fits, which is used up a little by this.
    pub(crate) fn apply_rule(&mut self, request: &LoggedRequest) -> Option<ResponseSpec> {
        let token = request.json()["relayToken"].as_str().map(str::to_owned);
        let tokens = &self.tokens;
        let token_fits = |name: &str| {
            let named = tokens.iter().find(|token| token.name == name);
            named.is_some_and(|named| Some(&named.text) == token.as_ref())
        };
        let fitting = self.rules.iter_mut().find(|ActiveRule { rule, used }| {
            rule.path == request.path()
                && rule.method.as_ref().is_none_or(|method| *method == request.method)
                && rule.token.as_deref().is_none_or(token_fits)
                && rule.times.is_none_or(|times| *used < times)
        })?;
        fitting.used += 1;
        Some(fitting.rule.response.clone())
    }

    /// How many requests to `path` have not been taken yet.
    pub(crate) fn untaken(&self, path: &str) -> usize {
        self.requests_to(path).count() - self.taken_from(path)
    }

    /// Takes at most `count` requests to `path`, in the order of their arrival.
    pub(crate) fn take(&mut self, path: &str, count: usize) -> Vec<LoggedRequest> {
        let skipped = self.taken_from(path);
        let taken: Vec<_> = self.requests_to(path).skip(skipped).take(count).cloned().collect();
        self.taken.insert(path.to_owned(), skipped + taken.len());
        taken
    }

    /// The body of a request to `path`; a negative index counts from the end.
    pub(crate) fn body(&self, path: &str, index: i64) -> Option<String> {
        let from_end = index < 0;
        let index = usize::try_from(if from_end { -1 - index } else { index }).ok()?;
        let mut requests: Vec<_> = self.requests_to(path).collect();
        if from_end {
            requests.reverse();
        }
        requests.get(index).map(|request| request.body.clone())
    }

    fn requests_to<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a LoggedRequest> {
        self.requests.iter().filter(move |request| request.path() == path)
    }

    fn taken_from(&self, path: &str) -> usize {
        self.taken.get(path).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(target: &str, body: &str) -> LoggedRequest {
        LoggedRequest {
            method: "POST".to_owned(),
            target: target.to_owned(),
            head: Head::default(),
            body: body.to_owned(),
        }
    }

    fn state(rules: Value) -> State {
        let token = Token { name: "t".to_owned(), text: "secret".to_owned(), claims: None };
        let rules = serde_json::from_value(rules).unwrap();
        State::new(Settings { tokens: vec![token], internal_key: None, rules })
    }

    #[test]
    fn requests_are_taken_once_and_in_order() {
        let mut state = state(json!([]));
        for (target, body) in [("/a?q=1", "1"), ("/b", "2"), ("/a", "3")] {
            state.log(request(target, body));
        }
        assert_eq!(state.untaken("/a"), 2);
        assert_eq!(state.take("/a", 1)[0].body, "1");
        assert_eq!(state.take("/a", 9)[0].body, "3");
        assert_eq!(state.untaken("/a"), 0);
        assert_eq!(state.body("/a", -1).as_deref(), Some("3"));
        assert_eq!(state.body("/a", 0).as_deref(), Some("1"));
        assert_eq!(state.body("/a", 2), None);
    }

    #[test]
    fn the_first_fitting_rule_with_uses_left_applies() {
        let mut state = state(json!([
            {"path": "/v", "token": "t", "times": 1, "response": {"status": 201}},
            {"path": "/v", "method": "GET", "response": {"status": 202}},
            {"path": "/v", "token": "t", "response": {"status": 203}},
        ]));
        let mut status = |body: &str| state.apply_rule(&request("/v?x", body))?.status;
        assert_eq!(status(r#"{"relayToken":"secret"}"#), Some(201));
        assert_eq!(status(r#"{"relayToken":"secret"}"#), Some(203));
        assert_eq!(status(r#"{"relayToken":"other"}"#), None);
        assert_eq!(status("garbage"), None);
    }
}
