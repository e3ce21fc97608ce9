//! The limit of a heartbeat: sockets that are pinged and answer, and nothing else.
//!
//! A plain epoll loop: one send per ping, one receive per pong, pings spread evenly over the
//! interval. No WebSocket, no deadlines, nothing known of a socket but its descriptor. It wakes
//! fifty times a second, whatever arrives meanwhile: waking for each pong would cost more than the
//! pong.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::processor;

/// Accepts so many sockets and pings each once per interval, until the process ends.
pub(crate) fn serve(listener: &TcpListener, connections: usize, interval_ms: u64) -> Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut sockets: Vec<OwnedFd> = Vec::with_capacity(connections);
    while sockets.len() < connections {
        let (socket, _) = listener.accept().context("accepting")?;
        socket.set_nodelay(true)?;
        rustix::net::send(&socket, GREETING, SendFlags::NOSIGNAL)?;
        let data = epoll::EventData::new_u64(sockets.len() as u64);
        epoll::add(&epoll, &socket, data, epoll::EventFlags::IN)?;
        sockets.push(socket.into());
    }
    let mut events = Vec::with_capacity(EVENTS_MAX);
    let began = processor::now_ns();
    let interval_ns = interval_ms.max(1) as f64 * 1e6;
    let mut pinged = 0;
    loop {
        let due = (processor::now_ns() - began) as f64 / interval_ns * connections as f64;
        while pinged < due as usize {
            rustix::net::send(&sockets[pinged % connections], PING, SendFlags::NOSIGNAL)?;
            pinged += 1;
        }
        loop {
            match epoll::wait(&epoll, spare_capacity(&mut events), Some(&AT_ONCE)) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                let at = { event.data }.u64() as usize;
                take_pong(&sockets[at])?;
            }
        }
        processor::rest(GRAIN);
    }
}

fn take_pong(socket: &OwnedFd) -> Result<()> {
    let mut pong = [0; 16];
    match rustix::net::recv(socket, &mut pong, RecvFlags::empty()) {
        Ok((0, _)) => bail!("a socket ended"),
        Ok(_) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What an accepted socket hears first, so that its owner knows that it was.
const GREETING: &[u8] = b"HTTP/1.1 101 Raw\r\n\r\n";
/// An empty ping. Source: RFC 6455 §5.5.2.
const PING: &[u8] = &[0x89, 0];
/// Sockets served in one turn, at most.
const EVENTS_MAX: usize = 1024;
/// Asks without waiting.
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
/// From one turn to the next.
const GRAIN: Duration = Duration::from_millis(20);
