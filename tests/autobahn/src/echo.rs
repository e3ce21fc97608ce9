//! One connection: the handshake, then every message back to where it came from.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::ControlFlow;
use std::time::Duration;

use relay_wire::envelope::Scanner;
use relay_wire::http1;
use relay_wire::websocket::{self, DataOpcode, Decoder, Opcode, Piece, Step};

/// Serves one connection until either side ends it. `receive_bytes` is the most one receive brings.
///
/// Errors: the socket's; the peer has then seen whatever it had sent answered in order, or less.
pub(crate) fn serve(mut socket: TcpStream, receive_bytes: usize) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let Some(early) = shake_hands(&mut socket, receive_bytes)? else {
        return Ok(());
    };
    let mut echo = Echo { socket, decoder: Decoder::new(), scanner: Scanner::new(), open: vec![] };
    let mut buffer = early;
    loop {
        if echo.answer(&mut buffer)?.is_break() {
            return echo.part();
        }
        buffer.resize(receive_bytes, 0);
        let received = echo.socket.read(&mut buffer)?;
        if received == 0 {
            return Ok(());
        }
        buffer.truncate(received);
    }
}

/// Reads the request and answers it. Returns what came behind it, or nothing after a refusal.
fn shake_hands(socket: &mut TcpStream, receive_bytes: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    loop {
        match http1::parse_head(&bytes, HEAD_BYTES_MAX) {
            Ok(None) => {}
            Ok(Some(head)) => {
                let answer = http1::handshake(&head);
                let early = bytes[head.len()..].to_vec();
                return match answer {
                    Ok(answer) => socket.write_all(&answer).map(|()| Some(early)),
                    Err(refusal) => socket.write_all(&refusal).map(|()| None),
                };
            }
            Err(error) => return socket.write_all(error.response()).map(|()| None),
        }
        let filled = bytes.len();
        bytes.resize(filled + receive_bytes, 0);
        let received = socket.read(&mut bytes[filled..])?;
        bytes.truncate(filled + received);
        if received == 0 {
            return Ok(None);
        }
    }
}

/// An open connection.
struct Echo {
    socket: TcpStream,
    decoder: Decoder,
    scanner: Scanner,
    /// The message so far, of one that did not come whole in one buffer.
    open: Vec<u8>,
}

impl Echo {
    /// Answers everything one receive brought. Breaks when the connection is to end.
    fn answer(&mut self, buffer: &mut [u8]) -> io::Result<ControlFlow<()>> {
        let mut at = 0;
        loop {
            let next = self.decoder.next(buffer, at, MESSAGE_BYTES_MAX, &mut self.scanner);
            at = match next {
                Ok(Step::NeedMore) => return Ok(ControlFlow::Continue(())),
                Ok(Step::Piece(piece)) => {
                    self.echo(&piece, buffer)?;
                    piece.at
                }
                Ok(Step::Ping { payload, at }) => {
                    self.socket.write_all(&websocket::pong_frame(payload.bytes(buffer)))?;
                    at
                }
                Ok(Step::Pong { at, .. }) => at,
                Ok(Step::Close { code, payload, .. }) => {
                    let reason = payload.bytes(buffer).get(2..).unwrap_or_default();
                    self.socket.write_all(&websocket::close_frame(code, reason))?;
                    return Ok(ControlFlow::Break(()));
                }
                Err(error) => {
                    let farewell = websocket::close_frame(Some(error.close_code()), b"");
                    self.socket.write_all(&farewell)?;
                    return Ok(ControlFlow::Break(()));
                }
            };
        }
    }

    /// Sends a message back once it is whole: from the bytes it came in where it came whole, as a
    /// shard forwards it, else from a copy.
    fn echo(&mut self, piece: &Piece, buffer: &mut [u8]) -> io::Result<()> {
        let opcode = match piece.opcode {
            DataOpcode::Text => Opcode::Text,
            DataOpcode::Binary => Opcode::Binary,
        };
        let payload = piece.payload.clone();
        if piece.first && piece.last {
            let room = piece.header_room;
            let len = payload.len();
            if let Some(start) = websocket::place_header(buffer, payload.start, room, opcode, len) {
                return self.socket.write_all(&buffer[start..payload.end]);
            }
        }
        self.open.extend_from_slice(&buffer[payload]);
        if piece.last {
            let (header, header_len) = websocket::header(opcode, self.open.len());
            self.socket.write_all(&header[..header_len])?;
            self.socket.write_all(&self.open)?;
            self.open.clear();
        }
        Ok(())
    }

    /// Ends the connection: what the peer still sends is read, because a reset would overtake our
    /// last words.
    fn part(mut self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)?;
        self.socket.set_read_timeout(Some(PART_TIMEOUT))?;
        io::copy(&mut self.socket, &mut io::sink())?;
        Ok(())
    }
}

const HEAD_BYTES_MAX: usize = 16 << 10;

/// The suite's largest message has 16 MiB.
const MESSAGE_BYTES_MAX: usize = 32 << 20;

/// How long a peer may take to end its side.
const PART_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread::{self, JoinHandle};

    use tungstenite::protocol::CloseFrame;
    use tungstenite::protocol::frame::coding::CloseCode;
    use tungstenite::{Message, WebSocket};

    use super::*;

    /// A client of another implementation, and the server's end.
    fn connect(receive_bytes: usize) -> (WebSocket<TcpStream>, JoinHandle<io::Result<()>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || serve(listener.accept()?.0, receive_bytes));
        let socket = TcpStream::connect(address).unwrap();
        let url = format!("ws://{address}/");
        let (client, _) = tungstenite::client::client(url, socket).unwrap();
        (client, server)
    }

    #[test]
    fn messages_come_back_however_they_are_cut() {
        for receive_bytes in [1, 5, 32 << 10] {
            let (mut client, server) = connect(receive_bytes);
            let messages = [
                Message::text(""),
                Message::text("é€😀".repeat(100)),
                Message::binary(vec![0xff; 70_000]),
            ];
            for message in messages {
                client.send(message.clone()).unwrap();
                assert_eq!(client.read().unwrap(), message, "{receive_bytes}");
            }
            client.close(None).unwrap();
            while client.read().is_ok() {}
            drop(client);
            server.join().unwrap().unwrap();
        }
    }

    #[test]
    fn a_close_comes_back_with_code_and_reason() {
        let (mut client, server) = connect(32 << 10);
        let frame = CloseFrame { code: CloseCode::Away, reason: "bye".into() };
        client.close(Some(frame.clone())).unwrap();
        assert_eq!(client.read().unwrap(), Message::Close(Some(frame)));
        drop(client);
        server.join().unwrap().unwrap();
    }

    #[test]
    fn a_violation_is_told_its_code() {
        let (mut client, server) = connect(32 << 10);
        // A masked, empty frame of an opcode that does not exist.
        client.get_mut().write_all(b"\x83\x80\0\0\0\0").unwrap();
        let Message::Close(Some(frame)) = client.read().unwrap() else {
            panic!("no close frame");
        };
        assert_eq!(frame.code, CloseCode::Protocol);
        drop(client);
        server.join().unwrap().unwrap();
    }
}
