//! Both ends on real sockets, with a stand-in for the relay between them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use relay_endpoint::{
    Client, ClientConfig, ClientProfile, ClientSettings, ConversationId, Daemon, DaemonConfig,
    DaemonSettings, Handler, KeyPair, Limits, MessageId, Observation, Observer, Profile, Received,
    RelayAddress, Replies, Retry, SendError, StartError, Trust, Undelivered,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tungstenite::handshake::server::{Request, Response};
use tungstenite::{Message, accept_hdr};

trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

/// Passes texts between the daemon and all clients. One thread per connection.
struct StandIn {
    port: u16,
    stop: Arc<AtomicBool>,
    drop_all: Arc<Mutex<u64>>,
    accepting: Option<JoinHandle<()>>,
}

type Peers = Arc<Mutex<Vec<(bool, Sender<String>)>>>;

impl StandIn {
    fn start(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let drop_all = Arc::new(Mutex::new(0));
        let (stopped, dropping) = (stop.clone(), drop_all.clone());
        let accepting = thread::spawn(move || {
            let peers = Peers::default();
            for tcp in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                tcp.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
                tcp.set_nodelay(true).unwrap();
                let (tls, peers, dropping) = (tls.clone(), peers.clone(), dropping.clone());
                thread::spawn(move || serve(tcp, tls, &peers, &dropping));
            }
        });
        Self { port, stop, drop_all, accepting: Some(accepting) }
    }

    /// Cuts every connection that is open now.
    fn cut(&self) {
        *self.drop_all.lock().unwrap() += 1;
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.cut();
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        self.accepting.take().unwrap().join().unwrap();
    }
}

fn serve(tcp: TcpStream, tls: Option<Arc<ServerConfig>>, peers: &Peers, dropping: &Mutex<u64>) {
    let epoch = *dropping.lock().unwrap();
    // The handshake may take longer than one read's patience.
    tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let patience = tcp.try_clone().unwrap();
    let wire: Box<dyn Wire> = match tls {
        None => Box::new(tcp),
        Some(config) => Box::new(StreamOwned::new(ServerConnection::new(config).unwrap(), tcp)),
    };
    let mut daemon = false;
    #[allow(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
    let look = |request: &Request, response: Response| {
        daemon = request.uri().query().unwrap().contains("role=workspace-daemon");
        assert_eq!(request.headers()["authorization"], "Bearer token-of-a-test");
        Ok(response)
    };
    let Ok(mut web) = accept_hdr(wire, look) else {
        return;
    };
    patience.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
    let (sender, receiver): (_, Receiver<String>) = channel();
    peers.lock().unwrap().push((daemon, sender));
    while *dropping.lock().unwrap() == epoch {
        while let Ok(text) = receiver.try_recv() {
            if web.send(Message::text(text)).is_err() {
                return;
            }
        }
        match web.read() {
            Ok(Message::Text(text)) => {
                let mut peers = peers.lock().unwrap();
                peers.retain(|(other, to)| *other == daemon || to.send(text.to_string()).is_ok());
            }
            Ok(_) => {}
            Err(tungstenite::Error::Io(error))
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

fn keys(seed: u64) -> KeyPair {
    KeyPair::generate(&mut StdRng::seed_from_u64(seed))
}

fn limits() -> Limits {
    Limits {
        rotate_after: 5,
        handshake_deadline: Duration::from_secs(3),
        retry: Retry {
            first: Duration::from_millis(10),
            longest: Duration::from_millis(50),
            jitter: Duration::from_millis(5),
            pause: Duration::from_millis(50),
            ..Retry::default()
        },
        ..Limits::default()
    }
}

fn address(url: &str) -> RelayAddress {
    RelayAddress::new(url, "ws1", Some("rt1".into()), "token-of-a-test".into()).unwrap()
}

fn client_config(address: RelayAddress, observer: impl Observer + 'static) -> ClientConfig {
    ClientConfig {
        address,
        settings: ClientSettings {
            keys: keys(2),
            daemon: *keys(1).public(),
            profile: ClientProfile::NoiseIk,
            limits: limits(),
        },
        observer: Box::new(observer),
    }
}

fn daemon_config(address: RelayAddress) -> DaemonConfig {
    DaemonConfig {
        address,
        settings: DaemonSettings {
            keys: keys(1),
            required: Profile::NoiseIk,
            peers: Box::new(HashMap::new()),
            limits: limits(),
        },
        observer: Box::new(()),
    }
}

fn echo(_: ConversationId, text: String) -> Option<String> {
    Some(format!("echo {text}"))
}

const PATIENCE: Duration = Duration::from_secs(20);

fn text(client: &Client) -> String {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(Received::Text(text)) = client.recv(PATIENCE).unwrap() {
            return text;
        }
    }
    panic!("no text in time");
}

#[test]
fn texts_go_there_and_back_over_rotations() {
    let relay = StandIn::start(None);
    let url = format!("ws://127.0.0.1:{}/ws", relay.port);
    let daemon = Daemon::serve(daemon_config(address(&url)), echo).unwrap();
    let client = Client::connect(client_config(address(&url), ()), PATIENCE).unwrap();
    for number in 0..40 {
        client.send(format!("{number}")).unwrap();
    }
    for number in 0..40 {
        assert_eq!(text(&client), format!("echo {number}"));
    }
    assert!(daemon.is_running());
    daemon.stop();
}

#[test]
fn texts_go_there_and_back_over_tls() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![made.cert.der().clone()], key)
    .unwrap();
    let relay = StandIn::start(Some(Arc::new(config)));
    let trust = Trust::pem(made.cert.pem().as_bytes()).unwrap();
    let url = format!("wss://localhost:{}/ws", relay.port);
    let address = address(&url).with_trust(trust);
    let _daemon = Daemon::serve(daemon_config(address.clone()), echo).unwrap();
    let client = Client::connect(client_config(address, ()), PATIENCE).unwrap();
    let long = "x".repeat(300_000);
    client.send(long.clone()).unwrap();
    assert_eq!(text(&client), format!("echo {long}"));
}

#[test]
fn ends_come_back_when_the_relay_cuts_them_off() {
    let relay = StandIn::start(None);
    let url = format!("ws://127.0.0.1:{}/ws", relay.port);
    let _daemon = Daemon::serve(daemon_config(address(&url)), echo).unwrap();
    let (seen, lost) = channel();
    let observer = move |_: Instant, what: &Observation<'_>| {
        if let Observation::Disconnected(_) = what {
            let _ = seen.send(());
        }
    };
    let client = Client::connect(client_config(address(&url), observer), PATIENCE).unwrap();
    // The handshakes' deadlines are long compared with this: a daemon that comes later than the
    // client is asked again only then. So the daemon is shown to be back first, by a client of its
    // own.
    relay.cut();
    lost.recv_timeout(PATIENCE).unwrap();
    let probe = Client::connect(client_config(address(&url), ()), PATIENCE).unwrap();
    drop(probe);
    client.send("again").unwrap();
    assert_eq!(text(&client), "echo again");
}

#[test]
fn plaintext_is_seen_at_the_ends_and_not_between() {
    let relay = StandIn::start(None);
    let url = format!("ws://127.0.0.1:{}/ws", relay.port);
    let _daemon = Daemon::serve(daemon_config(address(&url)), echo).unwrap();
    let seen: Arc<Mutex<(Vec<String>, Vec<String>)>> = Arc::default();
    let log = seen.clone();
    let observer = move |_: Instant, what: &Observation<'_>| {
        let mut log = log.lock().unwrap();
        match what {
            Observation::TextQueued { text, .. } | Observation::TextReceived { text, .. } => {
                log.0.push((*text).to_owned());
            }
            Observation::FrameSent { frame, .. } | Observation::FrameReceived { frame } => {
                log.1.push((*frame).to_owned());
            }
            _ => {}
        }
    };
    let client = Client::connect(client_config(address(&url), observer), PATIENCE).unwrap();
    client.send("hidden").unwrap();
    assert_eq!(text(&client), "echo hidden");
    let seen = seen.lock().unwrap();
    assert_eq!(seen.0, ["hidden", "echo hidden"]);
    assert!(seen.1.len() >= 4);
    assert!(seen.1.iter().all(|frame| !frame.contains("hidden")));
}

#[test]
fn a_client_without_a_relay_gives_up_in_time_and_reports_what_waited() {
    // Bound and closed again: nobody listens there.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("ws://127.0.0.1:{port}/ws");
    let timeout = Duration::from_millis(50);
    let outcome = Client::connect(client_config(address(&url), ()), timeout);
    assert!(matches!(outcome, Err(StartError::Timeout)));

    let mut config = client_config(address(&url), ());
    config.settings.limits.queue_messages_max = 1;
    let client = Client::start(config).unwrap();
    let first = send_patiently(&client, "one");
    send_patiently(&client, "two");
    let refused = Received::Undelivered { message: first, reason: Undelivered::QueueFull };
    assert_eq!(client.recv(PATIENCE).unwrap(), Some(refused));
}

/// The lane to the client's thread is as short as its queue.
fn send_patiently(client: &Client, text: &str) -> MessageId {
    loop {
        match client.send(text) {
            Ok(message) => return message,
            Err(SendError::Busy) => thread::yield_now(),
            Err(SendError::Ended) => panic!("the client has ended"),
        }
    }
}

struct Greeter {
    reports: Sender<(MessageId, Undelivered)>,
    greeted: Sender<ConversationId>,
}

impl Handler for Greeter {
    fn on_text(&mut self, from: ConversationId, text: String, replies: &mut Replies) {
        replies.send(from, format!("first {text}"));
        replies.send(from, format!("second {text}"));
        let _ = self.greeted.send(from);
    }

    fn on_undelivered(&mut self, message: MessageId, reason: Undelivered) {
        let _ = self.reports.send((message, reason));
    }
}

#[test]
fn a_daemon_speaks_unasked_and_hears_what_was_not_sent() {
    let relay = StandIn::start(None);
    let url = format!("ws://127.0.0.1:{}/ws", relay.port);
    let (reports, reported) = channel();
    let (greeted, greetings) = channel();
    let handler = Greeter { reports, greeted };
    let daemon = Daemon::serve(daemon_config(address(&url)), handler).unwrap();
    let client = Client::connect(client_config(address(&url), ()), PATIENCE).unwrap();
    client.send("hello").unwrap();
    assert_eq!(text(&client), "first hello");
    assert_eq!(text(&client), "second hello");
    let conversation = greetings.recv_timeout(PATIENCE).unwrap();
    daemon.sender().send(conversation, "unasked").unwrap();
    assert_eq!(text(&client), "unasked");
    let nobody = ConversationId(999);
    let message = daemon.sender().send(nobody, "lost").unwrap();
    let report = reported.recv_timeout(PATIENCE).unwrap();
    assert_eq!(report, (message, Undelivered::NoConversation));
}
