//! Everything one scenario runs against: relays, platform, Redis, connections.

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::ClientConfig;
use serde_json::Value;
use tempfile::TempDir;

use crate::members::Members;
use crate::normalise::Normaliser;
use crate::placeholders::Placeholders;
use crate::platform::{Platform, Settings, Token};
use crate::port;
use crate::raw_socket::RawSocket;
use crate::redis_server::RedisServer;
use crate::relay_process::RelayProcess;
use crate::scenario::{Need, PlatformTls, RelaySpec, ResponseSpec, Rule, Scenario, TokenSpec};
use crate::suite::Setup;
use crate::websocket::WebSocket;

/// The fresh surroundings of one scenario. Dropping it ends everything in it.
pub(crate) struct World<'a> {
    setup: &'a Setup,
    pub(crate) relays: Vec<Relay>,
    pub(crate) websockets: HashMap<String, Opened>,
    pub(crate) raw_sockets: HashMap<String, RawSocket>,
    pub(crate) platform: Platform,
    pub(crate) redis: Option<RedisServer>,
    pub(crate) placeholders: Placeholders,
    pub(crate) normaliser: Normaliser,
}

/// A connection by its name, or the error that came instead.
pub(crate) type Opened = Result<WebSocket, String>;

/// A relay of the scenario, running or not.
pub(crate) struct Relay {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) process: Option<RelayProcess>,
    _home: TempDir,
}

impl Relay {
    /// The value of a variable the relay is started with.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        let mut env = self.env.iter();
        env.find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl<'a> World<'a> {
    /// Makes everything but the relay processes.
    pub(crate) fn prepare(setup: &'a Setup, scenario: &Scenario) -> anyhow::Result<Self> {
        let (listener, platform_port) = Platform::bind()?;
        let redis = scenario.needs(Need::Redis).then(RedisServer::start).transpose()?;
        let mut names = Names::default();
        names.add_platform(platform_port);
        if let Some(redis) = &redis {
            names.add_redis(redis.port());
        }
        names.add_certificates(setup)?;
        let mut ports = Vec::new();
        for (name, _) in scenario.relays.iter() {
            let port = port::free()?;
            names.add_relay(name, port);
            ports.push(port);
        }
        let tokens = names.add_tokens(&scenario.platform.tokens)?;
        let platform = start_platform(setup, scenario, &names, listener, tokens)?;
        let Names { placeholders, normaliser } = names;
        let relays = scenario
            .relays
            .iter()
            .zip(ports)
            .map(|((name, spec), port)| prepare_relay(setup, name, spec, port, &placeholders))
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            setup,
            relays,
            websockets: HashMap::new(),
            raw_sockets: HashMap::new(),
            platform,
            redis,
            placeholders,
            normaliser,
        })
    }

    /// Starts a relay and waits until it listens.
    pub(crate) fn start_relay(&mut self, name: &str) -> anyhow::Result<()> {
        self.spawn_relay(name)?;
        let relay = self.relay(Some(name))?;
        let process = relay.process.as_ref().context("the relay was just started")?;
        process.wait_listening(relay.port).with_context(|| format!("starting relay {name}"))
    }

    /// Starts a relay that may end by itself.
    pub(crate) fn spawn_relay(&mut self, name: &str) -> anyhow::Result<()> {
        let program = self.setup.relay.clone();
        let relay = self.relays.iter_mut().find(|relay| relay.name == name);
        let relay = relay.with_context(|| format!("no relay {name}"))?;
        relay.process = Some(RelayProcess::spawn(&program, &relay.env, self.setup.shape)?);
        Ok(())
    }

    /// The relay a step means: the named one, else the first.
    pub(crate) fn relay(&self, name: Option<&str>) -> anyhow::Result<&Relay> {
        let relay = match name {
            Some(name) => self.relays.iter().find(|relay| relay.name == name),
            None => self.relays.first(),
        };
        relay.with_context(|| format!("no relay {}", name.unwrap_or("at all")))
    }

    /// The running process of a relay.
    pub(crate) fn process(&self, name: Option<&str>) -> anyhow::Result<&RelayProcess> {
        let relay = self.relay(name)?;
        let process = relay.process.as_ref();
        process.with_context(|| format!("relay {} has not been started", relay.name))
    }

    /// TLS settings for connections to a relay that speaks TLS.
    pub(crate) fn tls_to(&self, relay: &Relay) -> anyhow::Result<Option<Arc<ClientConfig>>> {
        let speaks_tls = relay.variable("RELAY_TLS") == Some("1");
        speaks_tls.then(|| self.setup.certificates.client_config()).transpose()
    }

    pub(crate) fn websocket(&self, conn: &str) -> anyhow::Result<&WebSocket> {
        let opened = self.websockets.get(conn);
        let opened = opened.with_context(|| format!("no WebSocket connection {conn}"))?;
        opened.as_ref().map_err(|error| anyhow!("connection {conn} was not made: {error}"))
    }

    pub(crate) fn raw_socket(&self, conn: &str) -> anyhow::Result<&RawSocket> {
        self.raw_sockets.get(conn).with_context(|| format!("no TCP connection {conn}"))
    }

    pub(crate) fn redis(&mut self) -> anyhow::Result<&mut RedisServer> {
        self.redis.as_mut().context("the scenario does not say that it needs Redis")
    }

    /// Whether a metric is one of those that are compared.
    pub(crate) fn compares_metric(&self, name: &str) -> bool {
        self.setup.metrics.contains(name)
    }

    pub(crate) fn expand(&self, text: &str) -> anyhow::Result<String> {
        self.placeholders.expand(text)
    }

    pub(crate) fn observe(&self, text: &str) -> Value {
        self.normaliser.observe(text)
    }
}

/// The names of this run's particulars, both ways.
#[derive(Default)]
struct Names {
    placeholders: Placeholders,
    normaliser: Normaliser,
}

impl Names {
    fn add_platform(&mut self, port: u16) {
        self.placeholders.set("platform", format!("http://127.0.0.1:{port}"));
        self.placeholders.set("platform.port", port.to_string());
        self.normaliser.add_port("platform", port);
    }

    fn add_redis(&mut self, port: u16) {
        self.placeholders.set("redis", format!("redis://127.0.0.1:{port}"));
        self.normaliser.add_port("redis", port);
    }

    fn add_relay(&mut self, name: &str, port: u16) {
        self.placeholders.set(format!("port:{name}"), port.to_string());
        self.normaliser.add_port(name, port);
    }

    fn add_certificates(&mut self, setup: &Setup) -> anyhow::Result<()> {
        let certificates = &setup.certificates;
        let files = [
            ("tls.ca", certificates.ca_file()),
            ("tls.cert", certificates.certificate_file()),
            ("tls.key", certificates.key_file()),
        ];
        for (name, file) in files {
            let file = file.to_str().context("the temporary directory has an odd name")?;
            self.placeholders.set(name, file);
        }
        self.normaliser.set_certificates_dir(&certificates.dir().to_string_lossy());
        Ok(())
    }

    fn add_tokens(&mut self, specs: &Members<TokenSpec>) -> anyhow::Result<Vec<Token>> {
        let mut tokens = Vec::new();
        for (name, spec) in specs.iter() {
            let (text, claims) = match spec {
                TokenSpec::Literal(text) => (self.placeholders.expand(text)?, None),
                TokenSpec::Claims(claims) => {
                    (unique_token()?, Some(self.placeholders.expand_json(claims)?))
                }
            };
            self.placeholders.set(format!("token:{name}"), text.as_str());
            self.normaliser.add_token(name, &text);
            tokens.push(Token { name: name.to_owned(), text, claims });
        }
        Ok(tokens)
    }
}

/// The rules of a platform with placeholders expanded.
pub(crate) fn expand_rules(
    rules: &[Rule],
    placeholders: &Placeholders,
) -> anyhow::Result<Vec<Rule>> {
    let expand_one = |rule: &Rule| {
        let response = &rule.response;
        let text = response.text.as_ref().map(|text| placeholders.expand(text)).transpose()?;
        let json = response.json.as_ref().map(|json| placeholders.expand_json(json)).transpose()?;
        let headers = response.headers.iter();
        let headers: anyhow::Result<_> =
            headers.map(|(name, value)| Ok((name.clone(), placeholders.expand(value)?))).collect();
        let response = ResponseSpec { text, json, headers: headers?, ..response.clone() };
        Ok(Rule { path: placeholders.expand(&rule.path)?, response, ..rule.clone() })
    };
    rules.iter().map(expand_one).collect()
}

fn start_platform(
    setup: &Setup,
    scenario: &Scenario,
    names: &Names,
    listener: TcpListener,
    tokens: Vec<Token>,
) -> anyhow::Result<Platform> {
    let spec = &scenario.platform;
    let settings = Settings {
        tokens,
        internal_key: spec.internal_key.clone(),
        rules: expand_rules(&spec.responses, &names.placeholders)?,
    };
    let tls =
        spec.tls.map(|tls| setup.certificates.server_config(tls == PlatformTls::ClientCertificate));
    Platform::serve(listener, settings, tls.transpose()?)
}

fn prepare_relay(
    setup: &Setup,
    name: &str,
    spec: &RelaySpec,
    port: u16,
    placeholders: &Placeholders,
) -> anyhow::Result<Relay> {
    let home = tempfile::tempdir()?;
    let mut env = Members::default();
    env.set("PATH", std::env::var("PATH").unwrap_or_default());
    env.set("HOME", home.path().to_string_lossy().into_owned());
    env.set("HOST", "127.0.0.1".to_owned());
    env.set("PORT", port.to_string());
    for (name, value) in &setup.env {
        env.set(name, value.clone());
    }
    for (name, value) in spec.env.iter() {
        match value {
            Some(value) => env.set(name, placeholders.expand(value)?),
            None => env.0.retain(|(present, _)| present != name),
        }
    }
    Ok(Relay { name: name.to_owned(), port, env: env.0, process: None, _home: home })
}

/// A token that looks like nothing and occurs nowhere else.
fn unique_token() -> anyhow::Result<String> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).context("random bytes for a token")?;
    Ok(format!("conformance.{}", URL_SAFE_NO_PAD.encode(bytes)))
}
