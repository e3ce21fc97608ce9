//! A shard on a real driver, and peers with sockets of their own.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use relay_contract::{
    AdmissionId, Claims, Command, Credential, Event, Grant, Limits, Preflight, Scope, ShardId, Tick,
};
use relay_driver::{AnyDriver, Choice, Config, Driver, open};
use relay_mailbox::{Bell, Receiver, Ring, Sender, lane};
use relay_shard::{HealthFacts, Ports, Shard, ShardConfig};
use relay_wire::http1::{TrustedProxies, UpgradeRules};

/// A shard that is turned by hand on a real driver, and the control plane's ends of its lanes.
pub(crate) struct Bench {
    pub(crate) shard: Shard<AnyDriver>,
    commands: Sender<Command>,
    events: Receiver<Event>,
    port: u16,
}

struct Silent;

impl Ring for Silent {
    fn ring(&self) {}
}

impl Bench {
    pub(crate) fn new(choice: Choice, limits: Limits) -> Self {
        let config = Config::default();
        let driver = open(choice, &config).expect("the driver opens").driver;
        let (commands, orders) = lane(64, driver.bell());
        let (to_control, events) = lane(64, Bell::new(Silent));
        let (_home, arrivals) = lane(1, driver.bell());
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
        let (_certificates, door) = lane(1, driver.bell());
        let homes = Vec::new();
        let ports = Ports { commands: orders, events: to_control, arrivals, homes, door };
        let mut shard = Shard::new(shard_config, driver, ports);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
        let port = listener.local_addr().expect("it is bound").port();
        shard.driver_mut().listen(OwnedFd::from(listener)).expect("a fresh driver");
        Self { shard, commands, events, port }
    }

    pub(crate) fn turn(&mut self) {
        self.shard.turn(Some(Duration::from_millis(1))).expect("the kernel turns");
    }

    /// Opens a WebSocket on a socket that does not block; the control plane admits everybody.
    pub(crate) fn connect(&mut self, role: &str) -> TcpStream {
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
                claims_digest: 0,
                credential: Credential::default(),
                address: request.address,
            };
            let home = ShardId(0);
            let sent =
                self.commands.send(Command::Admit { connection, grant: Box::new(grant), home });
            assert!(sent.is_ok(), "the lane has room");
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
pub(crate) fn masked(payload: &[u8]) -> (Vec<u8>, usize) {
    let len = u16::try_from(payload.len()).expect("a small frame");
    let mut frame = vec![0x81, 0x80 | 126];
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(&[1, 2, 3, 4]);
    frame.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ [1, 2, 3, 4][index % 4]));
    let forwarded = frame.len() - 4;
    (frame, forwarded)
}
