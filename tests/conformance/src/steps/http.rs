//! Requests to a relay, and its metrics.

use anyhow::Context;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::{STEP_MS, poll};
use crate::http_message::{Response, latin1_bytes};
use crate::members::Members;
use crate::raw_socket::RawSocket;
use crate::step::{Http, Parse, Step};
use crate::transport::error_name;
use crate::watched::Deadline;
use crate::world::{Relay, World};

pub(super) fn request(world: &World<'_>, step: &Step, arguments: &Http) -> anyhow::Result<Value> {
    if arguments.parse.is_some() || arguments.contains.is_some() {
        poll(step, || observe(world, step, arguments))
    } else {
        observe(world, step, arguments)
    }
}

pub(super) fn metrics(world: &World<'_>, step: &Step) -> anyhow::Result<Value> {
    poll(step, || {
        let relay = world.relay(step.relay.as_deref())?;
        let token = relay.variable("RELAY_ADMIN_TOKEN").unwrap_or_default();
        let request = Request {
            method: "GET".to_owned(),
            target: "/metrics".to_owned(),
            headers: vec![("authorization".to_owned(), format!("Bearer {token}"))],
            body: None,
        };
        let answer = exchange(world, relay, &request, Deadline::after_ms(STEP_MS))?;
        Ok(match answer {
            Err(error) => json!({"error": error}),
            Ok(answer) if answer.status != Some(200) => json!({"status": answer.status}),
            Ok(answer) => metric_values(&answer.body, |name| world.compares_metric(name)),
        })
    })
}

/// A request, placeholders expanded.
struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<String>,
}

/// What came back.
struct Answer {
    status: Option<u16>,
    content_type: Option<String>,
    body: String,
}

fn observe(world: &World<'_>, step: &Step, arguments: &Http) -> anyhow::Result<Value> {
    let headers =
        arguments.headers.iter().map(|(name, value)| Ok((name.to_owned(), world.expand(value)?)));
    let request = Request {
        method: arguments.method.clone().unwrap_or_else(|| "GET".to_owned()),
        target: world.expand(&arguments.target)?,
        headers: headers.collect::<anyhow::Result<_>>()?,
        body: arguments.body.as_ref().map(|body| world.expand(body)).transpose()?,
    };
    let relay = world.relay(step.relay.as_deref())?;
    let deadline = Deadline::after_ms(step.timeout_ms(STEP_MS));
    let answer = match exchange(world, relay, &request, deadline)? {
        Ok(answer) => answer,
        Err(error) => return Ok(json!({"error": error})),
    };
    if let Some(contains) = &arguments.contains {
        let contains = answer.body.contains(&world.expand(contains)?);
        return Ok(json!({"contains": contains, "status": answer.status}));
    }
    let content_type = answer.content_type.as_ref().map(|value| world.observe(value));
    let mut observed = json!({"status": answer.status, "headers": {"content-type": content_type}});
    match arguments.parse {
        None => observed["body"] = world.observe(&answer.body),
        Some(Parse::Json) => {
            let json: Value = serde_json::from_str(&answer.body).unwrap_or_default();
            observed["json"] = world.normaliser.json(&json);
        }
        Some(Parse::Logs) => observed["logs"] = observe_logs(world, &answer.body),
    }
    Ok(observed)
}

/// Sends a request on a new connection. Inner error: the name of what went wrong with it.
fn exchange(
    world: &World<'_>,
    relay: &Relay,
    request: &Request,
    deadline: Deadline,
) -> anyhow::Result<Result<Answer, String>> {
    let socket = match RawSocket::connect(relay.port, world.tls_to(relay)?) {
        Ok(socket) => socket,
        Err(error) => return Ok(Err(error_name(&error))),
    };
    socket.send(&request.encode(relay.port));
    let bodiless = request.method == "HEAD";
    let answer = socket.received().wait(deadline, |received| {
        let mut responses = Response::parse_all(&received.bytes, received.ended);
        let response = (!responses.is_empty()).then(|| responses.swap_remove(0));
        match response {
            Some(response) if response.body.complete || bodiless => Some(Ok(response)),
            _ if received.ended => Some(Err("ECONNRESET".to_owned())),
            _ => None,
        }
    });
    let answer = answer.unwrap_or_else(|| Err("ETIMEDOUT".to_owned()));
    Ok(answer.map(|response| Answer {
        status: response.head.status(),
        content_type: response.head.header("content-type").map(str::to_owned),
        body: String::from_utf8_lossy(&response.body.bytes).into_owned(),
    }))
}

impl Request {
    fn encode(&self, port: u16) -> Vec<u8> {
        let mut headers = Vec::new();
        let given = |name: &str| self.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        if !given("host") {
            headers.push(("Host".to_owned(), format!("127.0.0.1:{port}")));
        }
        headers.extend(self.headers.iter().cloned());
        let body = self.body.as_deref().unwrap_or_default();
        let has_body = self.body.is_some() || !matches!(self.method.as_str(), "GET" | "HEAD");
        if has_body && !given("content-length") && !given("transfer-encoding") {
            headers.push(("Content-Length".to_owned(), body.len().to_string()));
        }
        if !given("connection") {
            headers.push(("Connection".to_owned(), "close".to_owned()));
        }
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let mut bytes = latin1_bytes(&text);
        bytes.extend(body.as_bytes());
        bytes
    }
}

fn observe_logs(world: &World<'_>, body: &str) -> Value {
    /// The list of entries is the only list of objects in the answer, whatever its name.
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Part {
        Entries(Vec<Members<Value>>),
        Other(IgnoredAny),
    }

    let parts: Members<Part> = serde_json::from_str(body).unwrap_or_default();
    let entries = parts.0.into_iter().find_map(|(_, part)| match part {
        Part::Entries(entries) => Some(entries),
        Part::Other(_) => None,
    });
    let observed = entries
        .context("no list of entries")
        .map(|entries| entries.iter().map(|entry| observe_entry(world, entry)).collect());
    observed.unwrap_or(Value::Null)
}

fn observe_entry(world: &World<'_>, entry: &Members<Value>) -> Value {
    let keys: Vec<_> = entry.iter().map(|(name, _)| name).collect();
    let mut observed = super::relay::observe_event(world, |name| entry.get(name));
    if entry.get("event") == Some(&json!("relay_started")) {
        observed.remove("details");
    }
    observed.insert("keys".to_owned(), json!(keys));
    Value::Object(observed)
}

/// The values of unlabelled metrics that are not zero.
fn metric_values(text: &str, compares: impl Fn(&str) -> bool) -> Value {
    let mut values = Map::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.split_once(' ') else {
            continue;
        };
        let Ok(value) = value.trim().parse::<f64>() else {
            continue;
        };
        if value != 0.0 && compares(name) {
            values.insert(name.to_owned(), json!(value));
        }
    }
    Value::Object(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_leave_out_zeros_labels_and_unknown_names() {
        let text = "# HELP a b\n# TYPE a counter\na 1\nb 0\nc{x=\"y\"} 3\nother 5\nd 2.5\n\n";
        let values = metric_values(text, |name| name.len() == 1);
        assert_eq!(values, json!({"a": 1.0, "d": 2.5}));
    }

    #[test]
    fn a_request_names_host_length_and_end() {
        let request = Request {
            method: "POST".to_owned(),
            target: "/t".to_owned(),
            headers: vec![("host".to_owned(), "h".to_owned())],
            body: Some("é".to_owned()),
        };
        let expected =
            "POST /t HTTP/1.1\r\nhost: h\r\nContent-Length: 2\r\nConnection: close\r\n\r\né";
        assert_eq!(request.encode(1), expected.as_bytes());
    }
}
