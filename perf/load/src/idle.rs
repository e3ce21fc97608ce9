//! `relay-load idle`: what an authenticated connection costs while it does nothing.
//!
//! Children open the connections, each from its own loopback address, so that neither the
//! descriptors of one process nor the ports of one address run out.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde::Serialize;

use crate::arguments::{Idle, IdleChild};
use crate::figures::write_json;
use crate::platform;
use crate::processor::{self, Machine, Resident};
use crate::secured::{Certificate, Duplex, Trust};
use crate::subject::{PENDING_BYTES_MAX, Subject};
use crate::upgrade::Upgrade;

/// The result as it is written down.
#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    connections: usize,
    clients_per_workspace: usize,
    before: Resident,
    after: Resident,
    total_bytes_per_connection: f64,
    anonymous_bytes_per_connection: f64,
    shared_bytes_per_connection: f64,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Idle) -> Result<()> {
    let platform = platform::start()?;
    let certificate = arguments.tls.then(Certificate::new).transpose()?;
    let trusted = certificate.as_ref().map(Certificate::chain);
    let subject = Subject::relay_with(
        &arguments.relay()?,
        arguments.driver.as_deref(),
        platform,
        arguments.processors(),
        PENDING_BYTES_MAX,
        certificate.as_ref(),
    )?;
    // The first connections make the relay touch what it touches once.
    let share = arguments.clients_per_workspace;
    let mut children = vec![start_child(&subject, share, trusted.as_deref(), 0, WARM_UP)?];
    wait_ready(&mut children)?;
    let before = processor::resident(subject.process())?;
    let mut left = arguments.connections;
    while left > 0 {
        let count = left.min(arguments.per_process);
        left -= count;
        let number = children.len();
        println!("process {number}: opening {count} connections");
        children.push(start_child(&subject, share, trusted.as_deref(), number, count)?);
    }
    wait_ready(&mut children[1..])?;
    let after = processor::resident(subject.process())?;
    let per_connection = |bytes: fn(&Resident) -> u64| {
        bytes(&after).saturating_sub(bytes(&before)) as f64 / arguments.connections as f64
    };
    let report = Report {
        machine: processor::machine(),
        connections: arguments.connections,
        clients_per_workspace: arguments.clients_per_workspace,
        before,
        after,
        total_bytes_per_connection: per_connection(|resident| resident.total_bytes),
        anonymous_bytes_per_connection: per_connection(|resident| resident.anonymous_bytes),
        shared_bytes_per_connection: per_connection(|resident| resident.shared_bytes),
    };
    println!(
        "{} idle connections: {:.0} bytes of resident memory each, of it anonymous {:.0}, shared \
         {:.0}; the relay went from {} to {} KiB (the kernel's memory for sockets is not in it)",
        report.connections,
        report.total_bytes_per_connection,
        report.anonymous_bytes_per_connection,
        report.shared_bytes_per_connection,
        before.total_bytes / 1024,
        after.total_bytes / 1024
    );
    write_json(arguments.json.as_deref(), &report)
}

/// A child with its connections. It holds them until its input ends, which it does with this value.
pub(crate) struct Holder {
    child: Child,
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Opens connections that do nothing, by a child, and waits until it has them.
pub(crate) fn hold(subject: &Subject, number: usize, count: usize) -> Result<Holder> {
    let mut holder = start_child(subject, CLIENTS_PER_WORKSPACE, None, number, count)?;
    wait_ready(std::slice::from_mut(&mut holder))?;
    Ok(holder)
}

fn start_child(
    subject: &Subject,
    clients_per_workspace: usize,
    trusted: Option<&Path>,
    number: usize,
    count: usize,
) -> Result<Holder> {
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(trusted) = trusted {
        command.arg("idle-child").arg("--certificate").arg(trusted);
    } else {
        command.arg("idle-child");
    }
    let child = command
        .args(["--relay-address", &subject.address.to_string()])
        .args(["--number", &number.to_string()])
        .args(["--connections", &count.to_string()])
        .args(["--clients-per-workspace", &clients_per_workspace.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting a child")?;
    Ok(Holder { child })
}

/// Waits for the line with which each child says that it holds its connections.
fn wait_ready(holders: &mut [Holder]) -> Result<()> {
    for holder in holders {
        let stdout = holder.child.stdout.take().context("its output is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line.trim() == READY, "a child failed; its own words stand above");
    }
    Ok(())
}

/// The child: opens its connections, says so, and holds them until its input ends.
pub(crate) fn run_child(arguments: &IdleChild) -> Result<()> {
    let mut held = Vec::with_capacity(arguments.connections);
    let trust = arguments.certificate.as_deref().map(Trust::of).transpose()?;
    let source = Ipv4Addr::new(127, 0, 1, u8::try_from(arguments.number + 1)?);
    for index in 0..arguments.connections {
        let workspace =
            format!("idle-{}-{}", arguments.number, index / arguments.clients_per_workspace);
        let client = format!("client-{index}");
        let token = platform::token("client", &workspace, "target", &client);
        let socket = connect(source, arguments.relay_address)
            .with_context(|| format!("connection {index} from {source}"))?;
        let mut socket: Box<dyn Duplex> = match &trust {
            Some(trust) => trust.session(socket)?,
            None => Box::new(socket),
        };
        let upgrade =
            Upgrade { role: "client", workspace: &workspace, target: "target", token: &token };
        upgrade.perform(&mut socket)?;
        held.push(socket);
    }
    println!("{READY}");
    std::io::stdout().flush()?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

/// Connects from a given address.
fn connect(source: Ipv4Addr, to: SocketAddr) -> Result<TcpStream> {
    let flags = SocketFlags::CLOEXEC;
    let socket: OwnedFd =
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(source, 0))?;
    rustix::net::connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

/// Connections that share a workspace where nobody says how many.
const CLIENTS_PER_WORKSPACE: usize = 50;
/// Connections made before the first reading.
const WARM_UP: usize = 100;
/// What a child prints when it holds its connections.
const READY: &str = "ready";
