//! What a forwarded frame costs once everything has its working size: no allocation, no copy.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use relay_contract::{
    AdmissionId, Claims, Command, Counter, Event, Grant, Limits, Preflight, Scope, ShardId, Tick,
};
use relay_driver::{AnyDriver, Choice, Config, Driver, Uring, open};
use relay_mailbox::{Bell, Receiver, Ring, Sender, lane};
use relay_shard::{HealthFacts, Ports, Shard, ShardConfig};
use relay_wire::http1::{TrustedProxies, UpgradeRules};

/// A shard that is turned by hand, and the control plane's ends of its lanes.
struct Bench {
    shard: Shard<AnyDriver>,
    commands: Sender<Command>,
    events: Receiver<Event>,
    port: u16,
}

struct Silent;

impl Ring for Silent {
    fn ring(&self) {}
}

impl Bench {
    fn new(choice: Choice) -> Self {
        let config = Config::default();
        let driver = open(choice, &config).expect("the driver opens").driver;
        let (commands, orders) = lane(64, driver.bell());
        let (to_control, events) = lane(64, Bell::new(Silent));
        let (_home, arrivals) = lane(1, driver.bell());
        let limits = Limits {
            runtime_per_minute: u32::MAX,
            runtime_per_minute_workspace: u32::MAX,
            ..Limits::default()
        };
        let shard_config = ShardConfig {
            shard: ShardId(0),
            limits: Arc::new(limits),
            hash_key: [3; 16],
            upgrade_rules: UpgradeRules::default(),
            trusted_proxies: TrustedProxies::default(),
            proxy_protocol: false,
            health: HealthFacts { started: Tick::default(), verbose: None },
            unix_ms_at_origin: 0,
            receive_buffers: usize::from(config.buffer_count),
            tls: None,
        };
        let (_certificates, tls) = lane(1, driver.bell());
        let homes = Vec::new();
        let ports = Ports { commands: orders, events: to_control, arrivals, homes, tls };
        let mut shard = Shard::new(shard_config, driver, ports);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
        let port = listener.local_addr().expect("it is bound").port();
        shard.driver_mut().listen(OwnedFd::from(listener)).expect("a fresh driver");
        Self { shard, commands, events, port }
    }

    fn turn(&mut self) {
        self.shard.turn(Some(Duration::from_millis(1))).expect("the kernel turns");
    }

    /// Opens a WebSocket; the control plane admits everybody.
    fn connect(&mut self, role: &str) -> TcpStream {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("it listens");
        let request = format!(
            "GET /ws?role={role}&workspaceId=w&runtimeTargetId=t HTTP/1.1\r\nHost: h\r\n\
             Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Authorization: Bearer 0123456789\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).expect("it fits");
        socket.set_nonblocking(true).expect("a socket can");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            self.turn();
            self.admit();
            answer.extend(drain(&mut socket));
        }
        assert!(answer.starts_with(b"HTTP/1.1 101"), "it was admitted");
        socket
    }

    fn admit(&mut self) {
        while let Some(event) = self.events.receive() {
            let Event::AdmissionAsked { connection, request } = event else {
                continue;
            };
            let Preflight::Ask { request: asked, .. } = request.preflight else {
                continue;
            };
            let claims = Claims {
                workspace_id: Some("w".into()),
                runtime_target_id: Some("t".into()),
                client_id: Some("c".into()),
                scope: Some(Scope::Runtime),
                ..Claims::default()
            };
            let grant = Grant {
                admission: AdmissionId(1),
                request: asked,
                claims,
                address: request.address,
            };
            let home = ShardId(0);
            let sent =
                self.commands.send(Command::Admit { connection, grant: Box::new(grant), home });
            assert!(sent.is_ok(), "the lane has room");
        }
    }

    /// Sends the bytes and turns until as many bytes as expected came out at the other end.
    fn forward(&mut self, from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8], expected: usize) {
        from.write_all(bytes).expect("the socket has room");
        let mut received = 0;
        let mut buffer = [0; 64 << 10];
        while received < expected {
            self.turn();
            loop {
                match to.read(&mut buffer) {
                    Ok(count) => received += count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
}

fn drain(socket: &mut TcpStream) -> Vec<u8> {
    let mut buffer = [0; 4096];
    match socket.read(&mut buffer) {
        Ok(count) => buffer[..count].to_vec(),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Vec::new(),
        Err(error) => panic!("{error}"),
    }
}

/// A masked client frame and the length it has when it is forwarded.
fn masked(payload: &[u8]) -> (Vec<u8>, usize) {
    let len = u16::try_from(payload.len()).expect("a small frame");
    let mut frame = vec![0x81, 0x80 | 126];
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(&[1, 2, 3, 4]);
    frame.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ [1, 2, 3, 4][index % 4]));
    let forwarded = frame.len() - 4;
    (frame, forwarded)
}

fn a_forwarded_frame_costs_nothing(choice: Choice) {
    let mut bench = Bench::new(choice);
    let mut daemon = bench.connect("workspace-daemon");
    let mut client = bench.connect("client");
    let text = format!(
        concat!(
            r#"{{"type":"e2ee","version":2,"profile":"noise-ik","sessionId":"s","epoch":1,"#,
            r#""seq":1,"iv":"aXY","tag":"dGFn","ciphertext":"{}"}}"#
        ),
        "x".repeat(150)
    );
    let (frame, forwarded) = masked(text.as_bytes());
    // Sixteen frames in one write, as a pipelining client sends them.
    let burst = frame.repeat(16);
    for _ in 0..200 {
        bench.forward(&mut client, &mut daemon, &burst, forwarded * 16);
    }
    let before = bench.shard.counters();
    let cost = allocation_counter::measure(|| {
        for _ in 0..200 {
            bench.forward(&mut client, &mut daemon, &burst, forwarded * 16);
        }
    });
    let after = bench.shard.counters();
    let counted = |counter| after.of(counter) - before.of(counter);
    assert_eq!(counted(Counter::FramesClientToDaemon), 3200);
    assert_eq!(counted(Counter::CopiedBytes), 0, "no byte was copied");
    assert_eq!(cost.count_total, 0, "{} bytes were allocated", cost.bytes_total);
}

/// The driver's tables and the switchboard's count; what doubles as it grows is mostly empty.
#[test]
fn an_idle_connection_holds_no_more_than_it_is_charged() {
    const CONNECTIONS: usize = 256;
    let mut bench = Bench::new(Choice::Epoll);
    let _daemon = bench.connect("workspace-daemon");
    let mut clients = Vec::with_capacity(CONNECTIONS);
    let before = bench.shard.audit().charged_bytes;
    let cost = allocation_counter::measure(|| {
        clients.extend((0..CONNECTIONS).map(|_| bench.connect("client")));
    });
    let charged = bench.shard.audit().charged_bytes - before;
    assert_eq!(charged, CONNECTIONS * relay_shard::IDLE_CONNECTION_BYTES);
    let held = usize::try_from(cost.bytes_current).expect("connections take memory");
    assert!(held <= charged, "{held} bytes held where {charged} are charged");
}

#[test]
fn a_forwarded_frame_allocates_and_copies_nothing_on_the_ring() {
    if let Err(unsupported) = Uring::probe() {
        return eprintln!("not run: {}", unsupported.reason);
    }
    a_forwarded_frame_costs_nothing(Choice::Uring);
}

#[test]
fn a_forwarded_frame_allocates_and_copies_nothing_on_the_fallback() {
    a_forwarded_frame_costs_nothing(Choice::Epoll);
}
