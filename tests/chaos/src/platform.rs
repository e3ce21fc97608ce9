//! The platform behind the relay, which misbehaves when told to.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use relay_platform::Issuer;
use serde_json::{Value, json};

use crate::pass::Mint;
use crate::processors;

/// What the platform does with the requests that follow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mood {
    /// Judges tokens and answers at once.
    Honest,
    /// Answers honestly once it is honest again, or after minutes.
    Slow,
    /// Sends more bytes than the relay takes.
    Oversize,
    /// Promises a body and ends the connection in its middle.
    Cut,
    /// Sends a byte now and then, for ever.
    Dripping,
    /// Names another place.
    Redirecting,
    /// Answers 200 with something that is no JSON.
    Malformed,
    /// Answers with something that is no HTTP.
    Garbage,
    /// Closes every connection it is offered.
    Down,
}

/// A platform on loopback. It serves until the process ends.
#[derive(Clone)]
pub struct Platform {
    state: Arc<State>,
    address: SocketAddr,
}

struct State {
    issuer: Arc<Issuer>,
    mood: Mutex<Mood>,
    changed: Condvar,
    validations: AtomicU64,
    strays: AtomicU64,
}

impl Platform {
    /// Starts one that accepts this mint's tokens.
    pub fn start(mint: &Mint) -> Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("the platform's port")?;
        // The 128 that std asks for are fewer than the connections of one burst; who finds no place
        // is late by the seconds after which a SYN is sent again.
        rustix::net::listen(&listener, BACKLOG).context("the platform's backlog")?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            issuer: mint.issuer(),
            mood: Mutex::new(Mood::Honest),
            changed: Condvar::new(),
            validations: AtomicU64::new(0),
            strays: AtomicU64::new(0),
        });
        let platform = Self { state: Arc::clone(&state), address };
        thread::Builder::new().name("platform".into()).spawn(move || {
            // Hundreds of answers at once would delay what the kernel delivers for the pair.
            processors::go_last();
            for socket in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                // A connection that fails is the relay's to open again.
                let serve = move || drop(serve(&socket, &state));
                drop(thread::Builder::new().name("platform".into()).spawn(serve));
            }
        })?;
        Ok(platform)
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it does this.
    pub fn set(&self, mood: Mood) {
        *self.state.mood() = mood;
        self.state.changed.notify_all();
    }

    /// Validate calls that have come, answered or not.
    pub fn validations(&self) -> u64 {
        self.state.validations.load(Ordering::Relaxed)
    }

    /// Requests for anything that is neither a validation nor inside the executor's paths.
    pub fn strays(&self) -> u64 {
        self.state.strays.load(Ordering::Relaxed)
    }

    /// Waits until so many validate calls have come; false when they do not.
    pub fn await_validations(&self, count: u64, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut mood = self.state.mood();
        while self.validations() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let woken = self.state.changed.wait_timeout(mood, left);
            mood = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl State {
    /// Every change is one assignment: a panic cannot leave half of it.
    fn mood(&self) -> MutexGuard<'_, Mood> {
        self.mood.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the mood is another one, at most this long.
    fn wait_while(&self, mood: Mood, patience: Duration) {
        let guard = self.mood();
        let waited = self.changed.wait_timeout_while(guard, patience, |now| *now == mood);
        drop(waited);
    }
}

/// Answers requests on one connection until it ends.
fn serve(socket: &TcpStream, state: &State) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut reader = BufReader::new(socket);
    loop {
        if *state.mood() == Mood::Down {
            return Ok(());
        }
        let Some((path, body)) = request(&mut reader)? else {
            return Ok(());
        };
        let answer = state.judge(&path, &body).to_string();
        let mood = *state.mood();
        if !deliver(socket, state, mood, &answer)? {
            return Ok(());
        }
    }
}

/// Path and body of the next request; `None` at the end.
fn request(reader: &mut impl BufRead) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut len = 0;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            len = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body)?;
    Ok(Some((path, body)))
}

impl State {
    fn judge(&self, path: &str, body: &[u8]) -> Value {
        if path != relay_platform::VALIDATE_PATH {
            if !path.contains(OWN_PATHS) {
                self.strays.fetch_add(1, Ordering::Relaxed);
            }
            return json!({ "ok": true });
        }
        self.validations.fetch_add(1, Ordering::Relaxed);
        // Whoever waits for validations holds the mood while it looks.
        drop(self.mood());
        self.changed.notify_all();
        let question: Value = serde_json::from_slice(body).unwrap_or_default();
        match self.issuer.judge(question["relayToken"].as_str().unwrap_or_default()) {
            Ok(claims) => json!({ "ok": true, "claims": claims }),
            Err(refused) => json!({ "ok": false, "reason": refused.to_string() }),
        }
    }
}

/// Answers as the mood has it; whether the connection goes on.
fn deliver(mut to: &TcpStream, state: &State, mood: Mood, answer: &str) -> io::Result<bool> {
    match mood {
        Mood::Honest => {}
        Mood::Slow => state.wait_while(Mood::Slow, SLOW_MAX),
        Mood::Oversize => {
            write!(to, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
            let chunk = "x".repeat(64 << 10);
            for _ in 0..OVERSIZE_CHUNKS {
                write!(to, "{:x}\r\n{chunk}\r\n", chunk.len())?;
            }
            return Ok(false);
        }
        Mood::Cut => {
            write!(to, "HTTP/1.1 200 OK\r\ncontent-length: 4096\r\n\r\n{{\"ok\":true")?;
            return Ok(false);
        }
        Mood::Dripping => {
            write!(to, "HTTP/1.1 200 OK\r\ncontent-length: 4096\r\n\r\n")?;
            while *state.mood() == Mood::Dripping {
                to.write_all(b" ")?;
                state.wait_while(Mood::Dripping, DRIP);
            }
            return Ok(false);
        }
        Mood::Redirecting => {
            write!(to, "HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n")?;
            return Ok(true);
        }
        Mood::Malformed => {
            write!(to, "HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{{\"ok\":true,,")?;
            return Ok(true);
        }
        Mood::Garbage => {
            to.write_all(&[0xff; 512])?;
            return Ok(false);
        }
        Mood::Down => return Ok(false),
    }
    write!(
        to,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}",
        answer.len()
    )?;
    Ok(true)
}

/// Connections that may wait to be accepted: several times what a relay opens at once.
const BACKLOG: i32 = 1024;
/// Chunks of 64 KiB in an answer that is too large: sixteen times what the relay takes.
const OVERSIZE_CHUNKS: usize = 64;
/// Between two bytes of a dripping answer: more often than any idle time-out.
const DRIP: Duration = Duration::from_millis(100);
/// Longer than anybody waits for an answer.
const SLOW_MAX: Duration = Duration::from_secs(300);
/// What every path has that a worker here may call.
const OWN_PATHS: &str = "/managed-executors/ex1";

#[cfg(test)]
mod tests {
    use std::io::Read;

    use relay_platform::SigningKey;

    use super::*;

    fn ask(platform: &Platform) -> Result<String> {
        let mut socket = TcpStream::connect(platform.address)?;
        let path = relay_platform::VALIDATE_PATH;
        let request = format!("POST {path} HTTP/1.1\r\ncontent-length: 2\r\n\r\n{{}}");
        // Some moods end with a reset, at any step.
        let asked = socket.write_all(request.as_bytes());
        let said = asked.and_then(|()| socket.shutdown(std::net::Shutdown::Write));
        let mut answer = Vec::new();
        drop(said.and_then(|()| socket.read_to_end(&mut answer)));
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    #[test]
    fn each_mood_shows_in_the_answer() -> Result<()> {
        let platform = Platform::start(&Mint::new(SigningKey::generate()?))?;
        assert!(ask(&platform)?.ends_with(r#"{"ok":false,"reason":"INVALID_RELAY_TOKEN"}"#));
        for (mood, said) in [
            (Mood::Cut, r#"{"ok":true"#),
            (Mood::Redirecting, "302 Found"),
            (Mood::Malformed, ",,"),
            (Mood::Oversize, "chunked"),
            (Mood::Down, ""),
        ] {
            platform.set(mood);
            let answer = ask(&platform)?;
            assert!(answer.contains(said), "{mood:?}: {answer}");
        }
        assert_eq!(platform.validations(), 5);
        Ok(())
    }
}
