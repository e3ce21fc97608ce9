//! The relay program as a child process.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A running relay. Killed when dropped.
///
/// With `RELAY_SHAPE=two` in the environment it is two processes: `child` is the data plane, and a
/// control plane decides for it over a Unix socket.
pub struct Relay {
    child: Child,
    /// Ends with it.
    control: Option<ControlPlane>,
    port: u16,
    lines: mpsc::Receiver<String>,
    /// Whether the child is not the relay, but its parent.
    is_wrapped: bool,
    /// Held open and not read.
    _unread: Option<ChildStdout>,
}

/// How long a relay may take to start or to say something expected.
const PATIENCE: Duration = Duration::from_secs(20);

/// The smallest pipe there is.
const PAGE_BYTES: usize = 4096;

impl Relay {
    /// Starts `relay serve` on a free port of loopback with these variables, and waits until it
    /// listens.
    pub fn serve(variables: &[(&str, &str)]) -> Result<Self> {
        Self::serve_program(&program()?, variables)
    }

    /// The same with a program that is named here instead of by `RELAY_BIN`.
    pub fn serve_program(program: &Path, variables: &[(&str, &str)]) -> Result<Self> {
        let port = free_port()?;
        let port_text = port.to_string();
        let all = on_loopback(&port_text, variables);
        Self::spawn(command(program, &["serve"]), port, &all)
    }

    /// The same, as one process whatever shape is under test: for what is about a process.
    pub fn serve_as_one(variables: &[(&str, &str)]) -> Result<Self> {
        let port = free_port()?;
        let port_text = port.to_string();
        let all = on_loopback(&port_text, variables);
        Self::spawn_one(command(&program()?, &["serve"]), port, &all)
    }

    /// Starts `relay serve` on a free port of loopback as a member of this group, which must be the
    /// own one where root does not start it.
    pub fn serve_in_group(group: u32, variables: &[(&str, &str)]) -> Result<Self> {
        let port = free_port()?;
        let port_text = port.to_string();
        let all = on_loopback(&port_text, variables);
        let mut relay = command(&program()?, &["serve"]);
        relay.gid(group);
        Self::spawn(relay, port, &all)
    }

    /// Starts `relay serve` where these variables say, and nowhere else.
    pub fn serve_where_told(variables: &[(&str, &str)]) -> Result<Self> {
        Self::spawn(command(&program()?, &["serve"]), 0, variables)
    }

    /// Starts `relay serve` with a listening socket as its descriptor 3, as a service manager
    /// would.
    pub fn serve_handed(listener: OwnedFd, variables: &[(&str, &str)]) -> Result<Self> {
        Self::spawn(handed(listener)?, 0, variables)
    }

    /// Starts `relay serve` on a free port of loopback as the first process of a namespace of its
    /// own, as in a container. Needs root, or a kernel that lets anybody make namespaces.
    pub fn serve_as_first_process(variables: &[(&str, &str)]) -> Result<Self> {
        let port = free_port()?;
        let port_text = port.to_string();
        let all = on_loopback(&port_text, variables);
        let relay = command(&program()?, &["serve"]);
        let mut unshare = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            unshare.args(["--user", "--map-root-user"]);
        }
        unshare.args(["--pid", "--fork", "--kill-child", "--"]);
        unshare.arg(relay.get_program()).args(relay.get_args()).env_clear();
        for (name, value) in relay.get_envs() {
            if let Some(value) = value {
                unshare.env(name, value);
            }
        }
        Self::spawn(unshare, port, &all)
    }

    /// Starts `relay serve` on a free port of loopback, whose stdout, a pipe of one page, nobody
    /// reads from the moment it listens.
    pub fn serve_unread(variables: &[(&str, &str)]) -> Result<Self> {
        let port = free_port()?;
        let port_text = port.to_string();
        let mut all = on_loopback(&port_text, variables);
        let (sender, attached) = mpsc::channel();
        let control = ControlPlane::for_shape(&all, &sender)?;
        let url = control.as_ref().map(ControlPlane::url);
        if let Some(url) = &url {
            all.extend([("RELAY_ROLE", "dataplane"), ("RELAY_CONTROL_URL", url.as_str())]);
        }
        let (child, stdout) = start(command(&program()?, &["serve"]), &all)?;
        rustix::pipe::fcntl_setpipe_size(&stdout, PAGE_BYTES)?;
        let mut reader = BufReader::new(stdout);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let unread = Some(reader.into_inner());
        if control.is_some() {
            wait_for(&attached, "data_plane_attached")?;
        }
        let lines = mpsc::channel().1;
        let is_wrapped = false;
        let relay = Self { child, control, port, lines, is_wrapped, _unread: unread };
        match line.contains("[relay] listening") {
            true => Ok(relay),
            false => bail!("it says {line:?} first"),
        }
    }

    fn spawn_one(command: Command, port: u16, variables: &[(&str, &str)]) -> Result<Self> {
        let is_wrapped = command.get_program() == "unshare";
        let (sender, lines) = mpsc::channel();
        let (child, stdout) = start(command, variables)?;
        tell_lines(stdout, sender);
        let mut relay = Self { child, control: None, port, lines, is_wrapped, _unread: None };
        relay.wait_for("[relay] listening")?;
        Ok(relay)
    }

    fn spawn(command: Command, port: u16, variables: &[(&str, &str)]) -> Result<Self> {
        let is_wrapped = command.get_program() == "unshare";
        let (sender, lines) = mpsc::channel();
        let Some(control) = ControlPlane::for_shape(variables, &sender)? else {
            return Self::spawn_one(command, port, variables);
        };
        let url = control.url();
        let mut all = variables.to_vec();
        all.extend([("RELAY_ROLE", "dataplane"), ("RELAY_CONTROL_URL", url.as_str())]);
        let (child, stdout) = start(command, &all)?;
        tell_lines(stdout, sender);
        let mut relay =
            Self { child, control: Some(control), port, lines, is_wrapped, _unread: None };
        // Two processes write them: either may come first.
        let mut expected = vec!["[relay] listening", "data_plane_attached"];
        while !expected.is_empty() {
            let line = relay.wait_for("")?;
            expected.retain(|text| !line.contains(text));
        }
        Ok(relay)
    }

    /// Bearer token of the admin endpoints.
    pub const ADMIN_TOKEN: &str = "end-to-end-admin-token";

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("asking for the relay's end")
    }

    /// Its WebSocket endpoint.
    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}/ws", self.port)
    }

    /// Waits for a line on stdout that contains this text.
    pub fn wait_for(&mut self, text: &str) -> Result<String> {
        wait_for(&self.lines, text)
    }

    /// Starts a data plane on a free port of loopback that asks this control plane, and returns
    /// when it listens.
    pub fn serve_apart(control: &ControlPlane, variables: &[(&str, &str)]) -> Result<Self> {
        let port = free_port()?;
        let (port_text, url) = (port.to_string(), control.url());
        let mut all = vec![
            ("HOST", "127.0.0.1"),
            ("PORT", port_text.as_str()),
            ("RELAY_ROLE", "dataplane"),
            ("RELAY_CONTROL_URL", url.as_str()),
        ];
        all.extend(variables);
        let (child, stdout) = start(command(&program()?, &["serve"]), &all)?;
        let (sender, lines) = mpsc::channel();
        tell_lines(stdout, sender);
        let mut relay =
            Self { child, control: None, port, lines, is_wrapped: false, _unread: None };
        relay.wait_for("[relay] listening")?;
        Ok(relay)
    }

    /// Kills it, so that it can do nothing about it.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to stop and waits for its end.
    pub fn stop(self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.ended()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.relay_id()?)?;
        let pid = Pid::from_raw(id).context("a child has an id")?;
        kill_process(pid, signal).context("signalling the relay")
    }

    /// Has its configuration read again, by every process there is.
    pub fn hang_up(&self) -> Result<()> {
        self.signal(Signal::HUP)?;
        let Some(control) = &self.control else { return Ok(()) };
        let pid = Pid::from_raw(i32::try_from(control.child.id())?).context("a child has an id")?;
        kill_process(pid, Signal::HUP).context("signalling the control plane")
    }

    /// Of how many processes it is: one, or data plane and control plane.
    pub fn process_count(&self) -> usize {
        1 + usize::from(self.control.is_some())
    }

    /// Waits for its end.
    pub fn ended(mut self) -> Result<ExitStatus> {
        self.child.wait().context("waiting for the relay")
    }

    /// The processes it has to bury, the dead among them.
    pub fn children(&self) -> Result<Vec<u32>> {
        children_of(self.relay_id()?)
    }

    /// Its process, seen from here.
    pub fn relay_id(&self) -> Result<u32> {
        match self.is_wrapped {
            false => Ok(self.child.id()),
            true => children_of(self.child.id())?.first().copied().context("it has ended"),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The control plane of a relay in two processes. Killed when dropped.
pub struct ControlPlane {
    child: Child,
    /// Where its socket is.
    folder: PathBuf,
    lines: mpsc::Receiver<String>,
}

impl ControlPlane {
    /// Starts one that listens on a Unix socket of its own.
    pub fn start(variables: &[(&str, &str)]) -> Result<Self> {
        let name = format!("relay-e2e-{}-{}", std::process::id(), free_port()?);
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder)?;
        let (sender, lines) = mpsc::channel();
        let child = Self::spawn(&folder, variables, sender)?;
        Ok(Self { child, folder, lines })
    }

    /// Starts one whose lines go there, if relays are to be two processes.
    fn for_shape(variables: &[(&str, &str)], lines: &mpsc::Sender<String>) -> Result<Option<Self>> {
        if std::env::var_os("RELAY_SHAPE").is_none_or(|shape| shape != "two") {
            return Ok(None);
        }
        let mut control = Self::start(variables)?;
        let theirs = std::mem::replace(&mut control.lines, mpsc::channel().1);
        let lines = lines.clone();
        thread::spawn(move || theirs.into_iter().try_for_each(|line| lines.send(line)));
        Ok(Some(control))
    }

    /// Returns when it listens.
    fn spawn(
        folder: &Path,
        variables: &[(&str, &str)],
        lines: mpsc::Sender<String>,
    ) -> Result<Child> {
        let url = format!("unix:{}/control.sock", folder.display());
        let mut all = vec![("RELAY_ROLE", "controlplane"), ("RELAY_CONTROL_LISTEN", url.as_str())];
        all.extend(variables);
        let (child, stdout) = start(command(&program()?, &["serve"]), &all)?;
        let mut reader = BufReader::new(stdout);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if !line.contains("[relay] deciding") {
            bail!("the control plane says {line:?} first");
        }
        tell_lines(reader, lines);
        Ok(child)
    }

    /// Where data planes find it.
    pub fn url(&self) -> String {
        format!("unix:{}/control.sock", self.folder.display())
    }

    /// Kills it, so that it can do nothing about it.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts another one in the same place, and returns when it listens.
    pub fn start_again(&mut self, variables: &[(&str, &str)]) -> Result<()> {
        let (sender, lines) = mpsc::channel();
        self.child = Self::spawn(&self.folder, variables, sender)?;
        self.lines = lines;
        Ok(())
    }

    /// Waits for a line on stdout that contains this text.
    pub fn wait_for(&mut self, text: &str) -> Result<String> {
        wait_for(&self.lines, text)
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
        let _removed = std::fs::remove_dir_all(&self.folder);
    }
}

fn start(mut command: Command, variables: &[(&str, &str)]) -> Result<(Child, ChildStdout)> {
    let mut child = command
        .env("RELAY_MODE", "dev")
        .env("RELAY_ENABLE_ADMIN_HTTP", "1")
        .env("RELAY_ADMIN_TOKEN", Relay::ADMIN_TOKEN)
        // A busy machine makes the platform slow, which few tests are about.
        .env("RELAY_ADMISSION_TIMEOUT_MS", "60000")
        .env("RELAY_ADMISSION_WAIT_MS", "60000")
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .context("the relay does not start")?;
    let stdout = child.stdout.take().context("a piped child has an output")?;
    Ok((child, stdout))
}

/// The processes whose parent is that one.
fn children_of(id: u32) -> Result<Vec<u32>> {
    let mut children = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{id}/task"))? {
        // A thread may end between the listing and the reading.
        let Ok(listed) = std::fs::read_to_string(task?.path().join("children")) else { continue };
        children.extend(listed.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
    }
    Ok(children)
}

/// Runs the program to its end with these arguments and variables.
pub fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Output> {
    let output = command(&program()?, arguments).envs(variables.iter().copied()).output();
    output.context("the relay does not start")
}

/// Runs `relay serve` to its end with a listening socket as its descriptor 3, as a service manager
/// would.
pub fn run_handed(listener: OwnedFd, variables: &[(&str, &str)]) -> Result<Output> {
    let output = handed(listener)?.envs(variables.iter().copied()).output();
    output.context("the relay does not start")
}

/// `relay serve` with a listening socket as its descriptor 3.
fn handed(listener: OwnedFd) -> Result<Command> {
    // The shell keeps its process id when it becomes the relay.
    let hand_over =
        "export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=edge; exec \"$@\" 3<&0 0</dev/null";
    let relay = command(&program()?, &["serve"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", hand_over, "sh"]).arg(relay.get_program()).args(relay.get_args());
    shell.env_clear();
    for (name, value) in relay.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    shell.stdin(Stdio::from(listener));
    Ok(shell)
}

/// The program under test.
fn program() -> Result<PathBuf> {
    let Some(program) = std::env::var_os("RELAY_BIN") else {
        bail!("RELAY_BIN does not name the relay program, for example target/release/relay");
    };
    Ok(program.into())
}

/// The program with an environment of its own: a path, a home, and what the caller's says of the
/// relay.
fn command(program: &Path, arguments: &[&str]) -> Command {
    let own = |name: &OsString| {
        let ours = ["RELAY_BIN", "RELAY_SHAPE"];
        name.to_str().is_some_and(|name| name.starts_with("RELAY_") && !ours.contains(&name))
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| own(name) || name == "PATH"))
        .env("HOME", "/nonexistent");
    command
}

/// These variables, and that the relay listens on this port of loopback.
fn on_loopback<'v>(port: &'v str, variables: &[(&'v str, &'v str)]) -> Vec<(&'v str, &'v str)> {
    [("HOST", "127.0.0.1"), ("PORT", port)].into_iter().chain(variables.iter().copied()).collect()
}

/// A port of loopback that nobody uses at the moment, and that nobody is given by chance: it lies
/// below those the kernel hands out, and tests beside this one are given others.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..PORT_COUNT {
        let turn = NEXT.fetch_add(1, Ordering::Relaxed);
        // Processes that run at the same time begin far from each other.
        let start = std::process::id().wrapping_mul(997) % u32::from(PORT_COUNT);
        let offset = (start + u32::from(turn)) % u32::from(PORT_COUNT);
        let port = PORT_FIRST + u16::try_from(offset)?;
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("every port from {PORT_FIRST} on is in use")
}

/// Above well-known services, and below `net.ipv4.ip_local_port_range` as it is by default.
const PORT_FIRST: u16 = 20_000;
const PORT_COUNT: u16 = 12_000;

fn wait_for(lines: &mpsc::Receiver<String>, text: &str) -> Result<String> {
    loop {
        let line = lines.recv_timeout(PATIENCE);
        let line = line.with_context(|| format!("no line with {text:?} on stdout"))?;
        if line.contains(text) {
            return Ok(line);
        }
    }
}

fn tell_lines(output: impl Read + Send + 'static, lines: mpsc::Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
}
