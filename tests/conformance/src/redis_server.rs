//! A Redis server of the scenario's own.

use std::io;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use redis::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::port;
use crate::watched::{Deadline, pause_ms};

/// An empty Redis that keeps nothing. Dropping it kills it.
pub(crate) struct RedisServer {
    port: u16,
    process: Child,
    connection: Option<Connection>,
    dir: TempDir,
}

impl RedisServer {
    /// Starts a server on a free port. Errors: there is no `redis-server`, or it does not start.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut failure = None;
        for _ in 0..START_ATTEMPTS {
            let port = port::free()?;
            let mut process = spawn(port, &dir)?;
            match wait_listening(&mut process, port) {
                Ok(()) => {
                    return Ok(Self { port, process, connection: None, dir });
                }
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.context("no attempt was made")?)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Kills the server and, `down_ms` later, starts an empty one on the same port.
    pub(crate) fn restart(&mut self, down_ms: u64) -> anyhow::Result<()> {
        self.connection = None;
        self.kill();
        pause_ms(down_ms);
        self.process = spawn(self.port, &self.dir)?;
        wait_listening(&mut self.process, self.port)
    }

    /// Carries out one command.
    pub(crate) fn command(&mut self, args: &[String]) -> anyhow::Result<redis::Value> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(connect(self.port)?),
        };
        let mut command = redis::Cmd::new();
        for arg in args {
            command.arg(arg);
        }
        command.query(connection).with_context(|| format!("redis command {args:?}"))
    }

    fn kill(&mut self) {
        // Errors mean that it has ended already, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A reply as JSON, its texts rewritten by `text`.
pub(crate) fn reply_json(reply: &redis::Value, text: &impl Fn(&str) -> Value) -> Value {
    match reply {
        redis::Value::Int(number) => json!(number),
        redis::Value::BulkString(bytes) => text(&String::from_utf8_lossy(bytes)),
        redis::Value::SimpleString(status) => text(status),
        redis::Value::Okay => json!("OK"),
        redis::Value::Double(number) => json!(number),
        redis::Value::Boolean(truth) => json!(truth),
        redis::Value::Array(items) | redis::Value::Set(items) => {
            items.iter().map(|item| reply_json(item, text)).collect()
        }
        redis::Value::Nil => Value::Null,
        other => json!(format!("{other:?}")),
    }
}

fn spawn(port: u16, dir: &TempDir) -> anyhow::Result<Child> {
    let process = Command::new(PROGRAM)
        .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    match process {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!(
                "{PROGRAM} is not on the PATH: install Redis (Debian: apt-get install redis-server)"
            )
        }
        process => process.context("starting redis-server"),
    }
}

fn wait_listening(process: &mut Child, port: u16) -> anyhow::Result<()> {
    let deadline = Deadline::after_ms(START_MS);
    while !deadline.passed() {
        if let Some(exit) = process.try_wait()? {
            bail!("redis-server ended with {exit} instead of listening");
        }
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(());
        }
        pause_ms(START_POLL_MS);
    }
    process.kill()?;
    process.wait()?;
    bail!("redis-server took no connections within {START_MS} ms");
}

fn connect(port: u16) -> anyhow::Result<Connection> {
    let client = redis::Client::open(("127.0.0.1", port))?;
    let connection = client.get_connection_with_timeout(COMMAND_TIMEOUT)?;
    connection.set_read_timeout(Some(COMMAND_TIMEOUT))?;
    Ok(connection)
}

const PROGRAM: &str = "redis-server";
const START_ATTEMPTS: u32 = 3;
const START_MS: u64 = 5_000;
const START_POLL_MS: u64 = 5;
const COMMAND_TIMEOUT: Duration = Duration::from_secs(4);
