//! An independent WebSocket implementation at both ends.

use std::net::TcpStream;

use anyhow::{Result, bail};
use relay_e2e::{Platform, Relay};
use relay_platform::TokenClaims;
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket, connect};

type Socket = WebSocket<MaybeTlsStream<TcpStream>>;

struct Stage {
    platform: Platform,
    relay: Relay,
}

impl Stage {
    fn set() -> Result<Self> {
        let platform = Platform::start()?;
        let relay = Relay::serve(&[("SERVER_URL", &platform.url())])?;
        Ok(Self { platform, relay })
    }

    fn open(&self, role: &str, claims: TokenClaims) -> Result<Socket> {
        let query = format!("role={role}&workspaceId=ws1&runtimeTargetId=rt1");
        let mut request = format!("{}?{query}", self.relay.url()).into_client_request()?;
        let token = self.platform.token(claims)?;
        let bearer = format!("Bearer {}", token.expose()).parse()?;
        request.headers_mut().insert("authorization", bearer);
        Ok(connect(request)?.0)
    }

    fn pair(&self) -> Result<(Socket, Socket)> {
        let daemon = self.open("workspace-daemon", TokenClaims::daemon("ws1", "rt1"))?;
        let client = self.open("client", TokenClaims::client("ws1", "rt1", "cl1"))?;
        Ok((daemon, client))
    }
}

fn frame(seq: u32, ciphertext: &str) -> String {
    serde_json::json!({
        "type": "e2ee", "version": 2, "profile": "noise-ik", "sessionId": "s", "epoch": 1,
        "seq": seq, "iv": "aXY", "tag": "dGFn", "ciphertext": ciphertext,
    })
    .to_string()
}

fn text(socket: &mut Socket) -> Result<String> {
    loop {
        match socket.read()? {
            Message::Text(text) => return Ok(text.to_string()),
            Message::Ping(_) | Message::Pong(_) => {}
            other => bail!("received {other:?}"),
        }
    }
}

#[test]
fn a_frame_arrives_byte_for_byte() -> Result<()> {
    let stage = Stage::set()?;
    let (mut daemon, mut client) = stage.pair()?;
    // Spaces, escapes and member order are the client's own.
    let odd = frame(1, "AAAA").replace(":", " : ").replace("\"type\"", "\"\\u0074ype\"");
    client.send(Message::text(&odd))?;
    assert_eq!(text(&mut daemon)?, odd);
    Ok(())
}

#[test]
fn a_burst_of_frames_keeps_its_order() -> Result<()> {
    let stage = Stage::set()?;
    let (mut daemon, mut client) = stage.pair()?;
    for seq in 1..=200 {
        client.write(Message::text(frame(seq, &"x".repeat(seq as usize * 37))))?;
    }
    client.flush()?;
    for seq in 1..=200 {
        assert_eq!(text(&mut daemon)?, frame(seq, &"x".repeat(seq as usize * 37)));
    }
    Ok(())
}

#[test]
fn a_ping_is_answered_with_its_payload() -> Result<()> {
    let stage = Stage::set()?;
    let mut client = stage.open("client", TokenClaims::client("ws1", "rt1", "cl1"))?;
    client.send(Message::Ping("are you there".into()))?;
    assert_eq!(client.read()?, Message::Pong("are you there".into()));
    Ok(())
}

#[test]
fn a_close_is_answered_with_its_code_and_reason() -> Result<()> {
    let stage = Stage::set()?;
    let mut client = stage.open("client", TokenClaims::client("ws1", "rt1", "cl1"))?;
    let goodbye = CloseFrame { code: CloseCode::Library(4321), reason: "enough".into() };
    client.close(Some(goodbye.clone()))?;
    assert_eq!(client.read()?, Message::Close(Some(goodbye)));
    Ok(())
}

#[test]
fn a_second_daemon_is_told_that_there_is_one() -> Result<()> {
    let stage = Stage::set()?;
    let _first = stage.open("workspace-daemon", TokenClaims::daemon("ws1", "rt1"))?;
    let mut second = stage.open("workspace-daemon", TokenClaims::daemon("ws1", "rt1"))?;
    let Message::Close(Some(close)) = second.read()? else { bail!("it was not closed") };
    assert_eq!(u16::from(close.code), 4008);
    assert_eq!(close.reason.as_str(), "daemon already connected");
    Ok(())
}
