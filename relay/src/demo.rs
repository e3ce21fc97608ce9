//! `relay demo`: two ends talk through a relay that cannot read them.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use relay_contract::{Profile, Secret};
use relay_endpoint::{
    Client, ClientConfig, ClientProfile, ClientSettings, ConversationId, Daemon, DaemonConfig,
    DaemonSettings, KeyPair, Limits, Observation, Received, RelayAddress,
};
use relay_platform::TokenClaims;

use crate::cli::DemoArguments;
use crate::latency::Latency;
use crate::sandbox::{Plan, Sandbox, flag};
use crate::screen::{Screen, Tone};

/// Messages shown in full before the rest is only counted.
const SHOWN: u64 = 3;
/// How long anything may take before the demonstration has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often to look whether a signal has ended the relay.
const GLANCE: Duration = Duration::from_millis(200);
const WORKSPACE: &str = "demo";
const TARGET: &str = "demo-machine";
/// A rate no demonstration reaches.
const UNLIMITED: &str = "4000000000";

/// Talks until every message has come back, or until a signal ends it.
///
/// Errors: a message was lost or changed, or an end could not connect.
pub(crate) fn run(arguments: &DemoArguments, mut screen: Screen) -> Result<()> {
    let sandbox = start(arguments)?;
    introduce(&mut screen, &sandbox);
    let mut talk = Talk::start(&sandbox)?;
    let mut round = 0;
    while sandbox.is_running() {
        round += 1;
        let latency = talk.round(&mut screen, round, arguments.messages, &sandbox)?;
        report(&mut screen, &latency, arguments.messages, round);
        if arguments.once {
            let all = latency.count() == arguments.messages;
            ensure!(all, "interrupted before every message had arrived");
            break;
        }
    }
    drop(talk);
    sandbox.stop()
}

fn start(arguments: &DemoArguments) -> Result<Sandbox> {
    let mut settings = [
        "RELAY_RUNTIME_RATE_PER_MINUTE",
        "RELAY_RUNTIME_RATE_PER_MINUTE_WORKSPACE",
        "RELAY_DAEMON_RUNTIME_RATE_PER_MINUTE",
    ]
    .map(|name| flag(name, UNLIMITED))
    .to_vec();
    settings.extend(arguments.settings());
    let plan = Plan { port: arguments.port, key: None, settings };
    Sandbox::start(plan, io::sink())
}

fn introduce(screen: &mut Screen, sandbox: &Sandbox) {
    let title = "Two ends talk through a relay that cannot read them.";
    screen.line(&screen.paint(Tone::Strong, title));
    screen.line(&format!(
        "  relay     {} (driver {}; its rate limits are lifted for this)",
        sandbox.url(),
        sandbox.driver()
    ));
    screen.line(&format!(
        "  platform  http://{} (embedded: signs and validates tokens)",
        sandbox.platform_address()
    ));
}

/// Both ends, and a view of what passes between them.
struct Talk {
    client: Client,
    _daemon: Daemon,
    /// Encrypted frames as the relay delivered them to the daemon.
    tap: Receiver<String>,
    /// What the daemon decrypted.
    heard: Receiver<String>,
}

impl Talk {
    fn start(sandbox: &Sandbox) -> Result<Self> {
        let daemon_keys = key_pair()?;
        let daemon_key = *daemon_keys.public();
        let (tap_sender, tap) = channel();
        let (heard_sender, heard) = channel();
        let (connected_sender, connected) = channel();
        let daemon = Daemon::serve(
            DaemonConfig {
                address: address(sandbox, TokenClaims::daemon(WORKSPACE, TARGET))?,
                settings: DaemonSettings {
                    keys: daemon_keys,
                    required: Profile::NoiseIk,
                    peers: Box::new(HashMap::new()),
                    limits: Limits::default(),
                },
                observer: Box::new(move |_: Instant, seen: &Observation<'_>| {
                    watch(seen, &connected_sender, &tap_sender);
                }),
            },
            move |_: ConversationId, text: String| {
                // Nobody listens any more when the demonstration ends.
                let _ended = heard_sender.send(text.clone());
                Some(text)
            },
        )
        .context("the daemon did not start")?;
        connected.recv_timeout(PATIENCE).context("the daemon did not reach the relay")?;
        let config = ClientConfig {
            address: address(sandbox, TokenClaims::client(WORKSPACE, TARGET, "demo-client"))?,
            settings: ClientSettings {
                keys: key_pair()?,
                daemon: daemon_key,
                profile: ClientProfile::NoiseIk,
                limits: Limits::default(),
            },
            observer: Box::new(()),
        };
        let client = Client::connect(config, PATIENCE).context("the client has no session")?;
        Ok(Self { client, _daemon: daemon, tap, heard })
    }

    /// Sends so many messages, each after the answer to the one before.
    ///
    /// Errors: one that was lost, changed on its way, or readable between the ends.
    fn round(
        &mut self,
        screen: &mut Screen,
        round: u64,
        messages: u64,
        sandbox: &Sandbox,
    ) -> Result<Latency> {
        let mut latency = Latency::new();
        for number in 1..=messages {
            let text = format!("message {number} of round {round}: the secret is {}", nonce()?);
            let Some((answer, took)) = self.exchange(&text, sandbox)? else {
                break;
            };
            latency.record(took);
            ensure!(answer == text, "message {number} was changed on its way");
            let heard = self.heard.recv_timeout(PATIENCE).context("nothing was heard")?;
            ensure!(heard == text, "the daemon heard another message than {number}");
            let frame = self.tap.recv_timeout(PATIENCE).context("nothing passed the relay")?;
            ensure!(!frame.contains(&text), "message {number} passed the relay readable");
            if round == 1 && number <= SHOWN {
                show(screen, &text, &frame, &answer, took);
            } else {
                screen.progress(number, messages);
            }
        }
        Ok(latency)
    }

    /// Sends a text and waits for its answer; nothing when a signal ended the relay meanwhile.
    fn exchange(&self, text: &str, sandbox: &Sandbox) -> Result<Option<(String, Duration)>> {
        let sent = Instant::now();
        self.client.send(text)?;
        while sent.elapsed() < PATIENCE {
            match self.client.recv(GLANCE)? {
                Some(Received::Text(answer)) => return Ok(Some((answer, sent.elapsed()))),
                _ if !sandbox.is_running() => return Ok(None),
                Some(Received::Undelivered { reason, .. }) => bail!("not delivered: {reason}"),
                // The relay announces what the client deals with by itself.
                Some(Received::Status { .. }) | None => {}
            }
        }
        bail!("no answer within {} seconds", PATIENCE.as_secs())
    }
}

/// Keeps encrypted frames; a handshake is none.
fn watch(seen: &Observation<'_>, connected: &Sender<()>, tap: &Sender<String>) {
    // Whoever hung up has seen enough.
    match seen {
        Observation::Connected => drop(connected.send(())),
        Observation::FrameReceived { frame } if frame.contains(r#""ciphertext""#) => {
            drop(tap.send((*frame).to_owned()));
        }
        _ => {}
    }
}

fn show(screen: &mut Screen, text: &str, frame: &str, answer: &str, took: Duration) {
    let plain = |text| screen.paint(Tone::Plaintext, text);
    let lines = [
        String::new(),
        format!("  client says   {}", plain(text)),
        format!("  relay sees    {}", screen.paint(Tone::Ciphertext, frame)),
        format!("  daemon hears  {}", plain(text)),
        format!(
            "  client gets   {} {}",
            plain(answer),
            screen.paint(Tone::Faint, &format!("({} µs)", took.as_micros()))
        ),
    ];
    for line in lines {
        screen.line(&line);
    }
}

fn report(screen: &mut Screen, latency: &Latency, messages: u64, round: u64) {
    if round == 1 {
        screen.line("");
        let title = "Round trips, end to end and back";
        screen.line(&screen.paint(Tone::Strong, title));
        screen.line(latency.bars().trim_end());
    }
    let all = format!("{} of {messages} messages arrived intact", latency.count());
    let all = screen.paint(Tone::Good, &all);
    screen.line(&format!("  {all}   {}", latency.line()));
}

fn address(sandbox: &Sandbox, claims: TokenClaims) -> Result<RelayAddress> {
    let token: Secret = sandbox.token(claims)?;
    let target = Some(TARGET.into());
    Ok(RelayAddress::new(&sandbox.url(), WORKSPACE, target, token)?)
}

fn key_pair() -> Result<KeyPair> {
    loop {
        let mut scalar = [0; relay_endpoint::SECRET_BYTES];
        getrandom::fill(&mut scalar).context("the operating system gave no randomness")?;
        // One draw in 2^32 is no scalar of the curve.
        if let Ok(pair) = KeyPair::from_private_bytes(&scalar) {
            return Ok(pair);
        }
    }
}

fn nonce() -> Result<String> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).context("the operating system gave no randomness")?;
    Ok(format!("{:08x}", u32::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    /// What a demonstration writes.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn demonstrate(driver: &str) {
        let cli = Cli::try_parse_from([
            "relay",
            "demo",
            "--once",
            "--messages",
            "300",
            "--driver",
            driver,
            "--shards",
            "2",
        ]);
        let Some(Command::Demo(arguments)) = cli.expect("valid").command else {
            panic!("another command");
        };
        let page = Page::default();
        run(&arguments, Screen::plain(page.clone())).expect("every message intact");
        let page = String::from_utf8(page.0.lock().expect("not poisoned").clone());
        let page = page.expect("text");
        assert!(page.contains("300 of 300 messages arrived intact"), "{page}");
        let seen = page.lines().filter(|line| line.contains("relay sees"));
        let seen: Vec<_> = seen.collect();
        assert_eq!(seen.len(), 3);
        assert!(!seen.iter().any(|line| line.contains("the secret is")), "{page}");
    }

    // Three hundred messages are enough for one rotation of keys.
    #[test]
    fn every_message_of_a_demonstration_arrives_intact() {
        demonstrate("epoll");
    }

    #[test]
    fn the_default_driver_carries_a_demonstration() {
        demonstrate("auto");
    }
}
