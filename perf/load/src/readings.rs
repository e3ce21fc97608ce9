//! What the relay under test says of itself when a window begins and when it ends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::io::Errno;
use rustix::thread::{ClockId, Timespec, clock_nanosleep_absolute};
use serde::Serialize;

use crate::span::Span;
use crate::subject::ADMIN_TOKEN;

/// Samples of `/metrics`, a line each, without comments: for `relay plan`. Zeros are left out, but
/// not those of buckets, whose bounds say where the next one begins.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Readings {
    pub(crate) before: Vec<String>,
    pub(crate) after: Vec<String>,
}

/// Readings on their way.
pub(crate) struct Reader(JoinHandle<Result<Readings>>);

impl Reader {
    /// Reads when the measured part of a span begins, and shortly before it ends.
    pub(crate) fn start(address: SocketAddr, span: Span) -> Self {
        Self(thread::spawn(move || {
            sleep_until(span.measure_ns);
            let before = samples(address)?;
            sleep_until(span.end_ns.saturating_sub(LEAD_NS));
            Ok(Readings { before, after: samples(address)? })
        }))
    }

    /// Waits for the second reading.
    ///
    /// Errors: the relay did not answer as a relay does.
    pub(crate) fn finish(self) -> Result<Readings> {
        let read = self.0.join().map_err(|_| anyhow!("the reader of metrics panicked"))?;
        read.context("the relay's metrics")
    }
}

/// Waits for a moment on the clock of spans.
fn sleep_until(moment_ns: u64) {
    let moment = Timespec {
        tv_sec: (moment_ns / 1_000_000_000).cast_signed(),
        tv_nsec: (moment_ns % 1_000_000_000).cast_signed(),
    };
    while clock_nanosleep_absolute(ClockId::Monotonic, &moment) == Err(Errno::INTR) {}
}

fn samples(address: SocketAddr) -> Result<Vec<String>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: relay\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\
         Connection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer of HTTP")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{}", head.lines().next().unwrap_or_default());
    Ok(body.lines().filter(|line| tells_something(line)).map(str::to_owned).collect())
}

fn tells_something(line: &str) -> bool {
    let Some((name, value)) = line.rsplit_once(' ') else { return false };
    !line.starts_with('#') && (value != "0" || name.contains("_bucket{"))
}

/// The second reading begins so long before the window's end, so that the load still runs.
const LEAD_NS: u64 = 200_000_000;
/// How long a relay under load may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_zeros_are_left_out_but_bounds_of_buckets_are_kept() {
        let text = "# HELP a An a.\n# TYPE a counter\na 0\na{shard=\"0\"} 10\nb 0.5\n\nc 0\n\
                    d_bucket{le=\"1\"} 0\n";
        let kept: Vec<_> = text.lines().filter(|line| tells_something(line)).collect();
        assert_eq!(kept, ["a{shard=\"0\"} 10", "b 0.5", "d_bucket{le=\"1\"} 0"]);
    }
}
