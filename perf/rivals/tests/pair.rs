//! A pair talks through each rival, and what must be refused is.
//!
//! The platform here believes tokens that spell out their workspace and target.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;

use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::Response;
use tungstenite::http::StatusCode;
use tungstenite::{Error, Message, WebSocket};

/// A running rival. It ends with this value.
struct Rival {
    child: Child,
    address: SocketAddr,
}

type Socket = WebSocket<TcpStream>;

impl Rival {
    fn start(name: &str) -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = free.local_addr().expect("bound");
        drop(free);
        let mut child = Command::new(env!("CARGO_BIN_EXE_relay-rivals"))
            .arg(name)
            .env("HOST", address.ip().to_string())
            .env("PORT", address.port().to_string())
            .env("SERVER_URL", format!("http://{}", platform()))
            .env("RELAY_MAX_FRAME_BYTES", FRAME_BYTES_MAX.to_string())
            .env("RELAY_MAX_PENDING_BYTES", (2 * FRAME_BYTES_MAX).to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("it speaks");
        assert!(line.contains("listening on"), "{line}");
        Self { child, address }
    }

    /// Connects with a token for workspace `w` and target `t`.
    fn connect(&self, role: &str, workspace: &str) -> Result<(Socket, Response), StatusCode> {
        let socket = TcpStream::connect(self.address).expect("it listens");
        socket.set_nodelay(true).expect("a socket");
        let query = format!("role={role}&workspaceId={workspace}&runtimeTargetId=t");
        let mut request =
            format!("ws://{}/ws?{query}", self.address).into_client_request().expect("a request");
        let token = "Bearer w.t".parse().expect("a header");
        request.headers_mut().insert("authorization", token);
        match tungstenite::client(request, socket) {
            Ok(opened) => Ok(opened),
            Err(tungstenite::HandshakeError::Failure(Error::Http(answer))) => Err(answer.status()),
            Err(error) => panic!("{error}"),
        }
    }

    /// A daemon and a client that owns session `s`.
    fn pair(&self) -> (Socket, Socket) {
        let (mut daemon, _) = self.connect("workspace-daemon", "w").expect("it is admitted");
        let (mut client, _) = self.connect("client", "w").expect("it is admitted");
        pass(&mut client, &mut daemon, r#"{"type":"relay_key_exchange_init","requestId":"r"}"#);
        let response = r#"{"type":"relay_key_exchange_response","requestId":"r","sessionId":"s"}"#;
        pass(&mut daemon, &mut client, response);
        (daemon, client)
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}

/// One message that arrives as it was sent.
fn pass(from: &mut Socket, to: &mut Socket, text: &str) {
    from.send(Message::text(text)).expect("sends");
    assert_eq!(receive(to), text);
}

fn receive(from: &mut Socket) -> String {
    from.read().expect("receives").into_text().expect("text").to_string()
}

fn envelope(len: usize) -> String {
    let head = r#"{"type":"e2ee","sessionId":"s","ciphertext":""#;
    format!("{head}{}\"}}", "Az09+/ü".repeat(len / 8))
}

/// The rivals that bring their own framing and the one that does not.
const RIVALS: [&str; 3] = ["axum", "monoio", "glommio"];
const FRAME_BYTES_MAX: usize = 1 << 20;

#[test]
fn a_pair_talks_both_ways_in_frames_of_all_sizes() {
    for name in RIVALS {
        let rival = Rival::start(name);
        let (mut daemon, mut client) = rival.pair();
        for len in [0, 80, 200, 4096, 65_500, 65_600, 300_000, 1_000_000] {
            pass(&mut client, &mut daemon, &envelope(len));
            pass(&mut daemon, &mut client, &envelope(len));
        }
    }
}

#[test]
fn many_frames_in_flight_arrive_in_order_and_whole() {
    for name in RIVALS {
        let rival = Rival::start(name);
        let (mut daemon, mut client) = rival.pair();
        let texts: Vec<String> =
            (0..600).map(|index: usize| envelope(index * 7919 % 5000)).collect();
        let expected = texts.clone();
        let reader = thread::spawn(move || {
            for expected in expected {
                assert_eq!(receive(&mut daemon), expected);
            }
        });
        for text in texts {
            client.write(Message::text(text)).expect("sends");
        }
        client.flush().expect("sends");
        reader.join().expect(name);
    }
}

#[test]
fn a_ping_is_answered() {
    for name in RIVALS {
        let rival = Rival::start(name);
        let (_daemon, mut client) = rival.pair();
        client.send(Message::Ping("are you there".into())).expect("sends");
        assert_eq!(client.read().expect("receives"), Message::Pong("are you there".into()));
    }
}

#[test]
fn claims_of_another_workspace_are_refused() {
    for name in RIVALS {
        let rival = Rival::start(name);
        let refused = rival.connect("client", "v").expect_err("another workspace");
        assert_eq!(refused, StatusCode::UNAUTHORIZED, "{name}");
    }
}

#[test]
fn what_is_no_json_or_too_large_ends_the_connection_and_reaches_nobody() {
    for name in RIVALS {
        for text in [r#"{"type":"e2ee","sessionId":"s""#.to_owned(), envelope(FRAME_BYTES_MAX)] {
            let rival = Rival::start(name);
            let (mut daemon, mut client) = rival.pair();
            // It may be cut while it still sends.
            drop(client.send(Message::text(text)));
            while client.read().is_ok() {}
            let (mut other, _) = rival.connect("client", "w").expect("it is admitted");
            let init = r#"{"type":"relay_key_exchange_init","requestId":"q"}"#;
            pass(&mut other, &mut daemon, init);
        }
    }
}

#[test]
fn a_receiver_that_does_not_read_is_cut() {
    for name in RIVALS {
        let rival = Rival::start(name);
        let (mut daemon, mut client) = rival.pair();
        let text = envelope(100_000);
        // More than sockets and queue hold; once the daemon is gone, frames go nowhere.
        for _ in 0..2000 {
            client.send(Message::text(text.clone())).expect("sends");
        }
        while daemon.read().is_ok() {}
        let (mut daemon, _) = rival.connect("workspace-daemon", "w").expect("the place is free");
        let init = r#"{"type":"relay_key_exchange_init","requestId":"q"}"#;
        pass(&mut client, &mut daemon, init);
    }
}

/// A platform that believes tokens of the form `workspace.target`.
fn platform() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            thread::spawn(move || answer_all(&socket));
        }
    });
    address
}

fn answer_all(socket: &TcpStream) -> Option<()> {
    let mut reader = BufReader::new(socket);
    let mut writer = socket;
    loop {
        let mut length = 0;
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|len| *len > 0)?;
        while line.trim() != "" {
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().ok()?;
            }
            line.clear();
            reader.read_line(&mut line).ok()?;
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let question: serde_json::Value = serde_json::from_slice(&body).ok()?;
        let (workspace, target) = question["relayToken"].as_str()?.split_once('.')?;
        let claims = serde_json::json!({"workspaceId": workspace, "runtimeTargetId": target});
        let answer = serde_json::json!({"ok": true, "claims": claims}).to_string();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
        writer.write_all([head, answer].concat().as_bytes()).ok()?;
    }
}
