//! Echoes WebSocket messages on the relay's own codec, for the Autobahn test suite.
//!
//! It is a server for tests and nothing else: a blocking thread per connection, no admission, no
//! deadlines. Everything between the socket and the message is the code that shards run: the
//! handshake, the decoder on a receive buffer, unmasking in place, the header written in front of
//! the payload. Start with `echo`; `cargo xtask autobahn` runs the suite against it.
#![forbid(unsafe_code)]

mod echo;

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::thread;

use anyhow::{Context, Result};
use clap::Parser;

/// An echo server on the relay's codec. Prints one address per line, and serves until killed.
#[derive(Debug, Parser)]
struct Arguments {
    /// Bytes of one receive; one port is opened for each. Small ones cut every frame in pieces
    #[arg(long, value_name = "BYTES", default_values_t = [32 << 10])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    receive_bytes: Vec<u32>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut ports = Vec::new();
    for receive_bytes in arguments.receive_bytes {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port")?;
        writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
        ports.push(thread::spawn(move || serve(&listener, receive_bytes as usize)));
    }
    for port in ports {
        // A thread that panicked has said why.
        let _ended = port.join();
    }
    Ok(())
}

fn serve(listener: &TcpListener, receive_bytes: usize) {
    for socket in listener.incoming().flatten() {
        thread::spawn(move || {
            // A peer that breaks off in the middle is one of the suite's cases.
            let _ended = echo::serve(socket, receive_bytes);
        });
    }
}
