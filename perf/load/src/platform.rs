//! The least platform that admits the load: a validate endpoint that believes every token.
//!
//! A token reads `<role>.<workspace>.<target>.<client>`; its claims are what it says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Starts the platform; it serves until the process ends.
pub(crate) fn start() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("the platform's port")?;
    let address = listener.local_addr()?;
    thread::Builder::new().name("platform".into()).spawn(move || {
        for socket in listener.incoming().flatten() {
            // A connection that fails is the relay's to open again.
            let serve = move || drop(serve(&socket));
            drop(thread::Builder::new().name("platform".into()).spawn(serve));
        }
    })?;
    Ok(address)
}

/// A token that the platform admits.
pub(crate) fn token(role: &str, workspace: &str, target: &str, client: &str) -> String {
    format!("{role}.{workspace}.{target}.{client}")
}

/// Answers requests on one connection until it ends.
fn serve(socket: &TcpStream) -> Result<()> {
    socket.set_nodelay(true)?;
    let mut reader = BufReader::new(socket);
    let mut writer = socket;
    loop {
        let mut length = 0;
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().context("content-length")?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let answer = answer(&body).to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        writer.write_all([head, answer].concat().as_bytes())?;
    }
}

/// The claims that the token in the request spells out.
fn answer(body: &[u8]) -> Value {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let token = request["relayToken"].as_str().unwrap_or_default();
    let parts: Vec<&str> = token.split('.').collect();
    let [role, workspace, target, client] = parts[..] else {
        return json!({"ok": false, "reason": "INVALID_RELAY_TOKEN"});
    };
    let mut claims = json!({
        "role": role,
        "workspaceId": workspace,
        "runtimeTargetId": target,
        "machineId": "machine",
    });
    if role == "client" {
        claims["scope"] = "runtime".into();
        claims["clientId"] = client.into();
    }
    json!({"ok": true, "claims": claims})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_believed() {
        let body = json!({"relayToken": token("client", "w1", "t1", "c1")}).to_string();
        let answer = answer(body.as_bytes());
        assert_eq!(answer["ok"], true);
        assert_eq!(answer["claims"]["workspaceId"], "w1");
        assert_eq!(answer["claims"]["scope"], "runtime");
    }

    #[test]
    fn anything_else_is_not() {
        assert_eq!(answer(b"{}")["ok"], false);
        assert_eq!(answer(b"no json")["ok"], false);
    }
}
