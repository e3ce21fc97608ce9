//! A relay with a small platform of its own, on loopback.

use std::future::Future;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use relay_contract::Secret;
use relay_platform::{Issuer, JWKS_PATH, Service, SigningKey, TokenClaims, VALIDATE_PATH};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use crate::config::{Config, FlagValue, Machine};
use crate::serve::Relay;
use crate::token;

/// How long tokens of a sandbox are good for.
pub(crate) const TOKEN_LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// What a sandbox may differ in.
pub(crate) struct Plan<'a> {
    /// Port of the relay; 0 takes a free one.
    pub(crate) port: u16,
    /// Signing key in a file; none makes one for this run.
    pub(crate) key: Option<&'a Path>,
    /// Further settings; they win over the sandbox's own.
    pub(crate) settings: Vec<FlagValue>,
}

/// Both run until this is stopped, or a signal stops the relay.
pub(crate) struct Sandbox {
    relay: Option<JoinHandle<Result<()>>>,
    stop: UnboundedSender<()>,
    platform: Platform,
    address: SocketAddr,
    driver: &'static str,
    admin_token: Secret,
}

impl Sandbox {
    /// Starts the platform, then the relay that asks it. The relay's journal goes to `log`.
    ///
    /// The environment counts where the sandbox has no will of its own: `RELAY_DRIVER`, limits.
    pub(crate) fn start(plan: Plan<'_>, log: impl Write + Send + 'static) -> Result<Self> {
        let signing_key = match plan.key {
            Some(path) => token::load_or_create(path)?,
            None => SigningKey::generate()?,
        };
        let internal_key = random_secret()?;
        let admin_token = random_secret()?;
        let platform = Platform::start(signing_key, internal_key.clone())?;
        let mut flags = loopback(platform.address, &internal_key, &admin_token);
        if plan.port != 0 {
            let url = format!("ws://127.0.0.1:{}/ws", plan.port);
            flags.push(flag("RELAY_LISTEN_PORT", &plan.port.to_string()));
            flags.push(flag("RELAY_PUBLIC_WS_BASE_URL", &url));
        }
        flags.extend(plan.settings);
        let mut config = Config::parse(&flags, &Machine)?.config;
        if plan.port == 0 {
            config.listen.port = 0;
        }
        let relay = Relay::start(&config, Vec::new(), log)?;
        let address = relay.address().context("the sandbox listens over TCP")?;
        let driver = relay.driver();
        let stop = relay.stopper();
        let relay =
            std::thread::Builder::new().name("relay".to_owned()).spawn(move || relay.run())?;
        Ok(Self { relay: Some(relay), stop, platform, address, driver, admin_token })
    }

    /// A token of the platform.
    pub(crate) fn token(&self, claims: TokenClaims) -> Result<Secret> {
        let issuer = &self.platform.service.issuer;
        let token = issuer.issue(claims, SystemTime::now(), TOKEN_LIFETIME);
        token.context("cannot sign a token")
    }

    /// Where the relay listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the platform listens.
    pub(crate) fn platform_address(&self) -> SocketAddr {
        self.platform.address
    }

    /// The relay's WebSocket endpoint.
    pub(crate) fn url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    /// What moves the relay's bytes.
    pub(crate) fn driver(&self) -> &'static str {
        self.driver
    }

    /// Opens the relay's operator endpoints.
    pub(crate) fn admin_token(&self) -> &Secret {
        &self.admin_token
    }

    /// Whether the relay still runs; a signal ends it.
    pub(crate) fn is_running(&self) -> bool {
        self.relay.as_ref().is_some_and(|relay| !relay.is_finished())
    }

    /// Waits until a signal has ended the relay.
    pub(crate) fn wait(mut self) -> Result<()> {
        self.join()
    }

    /// Ends the relay as a signal would, and waits.
    pub(crate) fn stop(mut self) -> Result<()> {
        // A relay that has ended by itself takes no orders.
        let _ended = self.stop.send(());
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        let relay = self.relay.take().context("joined once")?;
        let ended = relay.join().map_err(|_| anyhow!("the relay panicked"))?;
        self.platform.stop();
        ended
    }
}

/// The embedded platform on a thread of its own.
struct Platform {
    service: Arc<Service>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Platform {
    fn start(key: SigningKey, internal_key: Secret) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .context("cannot listen on loopback for the platform")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let service =
            Arc::new(Service { issuer: Issuer::new(key), internal_keys: vec![internal_key] });
        let (stop, stopped) = oneshot::channel();
        let serving = serve(Arc::clone(&service), listener, async {
            // A sender that is gone means the same.
            let _told = stopped.await;
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("platform".to_owned()).spawn(move || {
            if let Err(error) = runtime.block_on(serving) {
                eprintln!("relay: the embedded platform ended: {error}");
            }
        })?;
        Ok(Self { service, address, stop: Some(stop), thread: Some(thread) })
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It reported its own end.
            let _ended = thread.join();
        }
    }
}

async fn serve(
    service: Arc<Service>,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    relay_platform::serve(service, listener, stop).await
}

/// What makes a relay a sandbox, whatever the environment says.
fn loopback(platform: SocketAddr, internal_key: &Secret, admin_token: &Secret) -> Vec<FlagValue> {
    let server = format!("http://{platform}");
    vec![
        flag("HOST", "127.0.0.1"),
        flag("RELAY_MODE", "dev"),
        flag("RELAY_TLS", "0"),
        flag("RELAY_BACKPLANE_MODE", "single"),
        flag("RELAY_PUBLIC_WS_BASE_URL", "ws://127.0.0.1/ws"),
        flag("SERVER_URL", &server),
        flag("RELAY_VALIDATE_URL", &format!("{server}{VALIDATE_PATH}")),
        flag("RELAY_JWKS_URL", &format!("{server}{JWKS_PATH}")),
        flag("RELAY_ADMISSION", "both"),
        flag("RELAY_INTERNAL_KEY", internal_key.expose()),
        flag("RELAY_ENABLE_ADMIN_HTTP", "1"),
        flag("RELAY_ADMIN_TOKEN", admin_token.expose()),
    ]
}

/// A setting as if it stood on the command line.
pub(crate) fn flag(name: &str, value: &str) -> FlagValue {
    FlagValue { flag: "(sandbox)".to_owned(), name: name.to_owned(), value: value.to_owned() }
}

fn random_secret() -> Result<Secret> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).context("the operating system gave no randomness")?;
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    Ok(Secret::new(digits.collect()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    fn get(address: SocketAddr, path: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(address).expect("connected");
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    fn sandbox() -> Sandbox {
        let plan = Plan { port: 0, key: None, settings: vec![flag("RELAY_SHARDS", "1")] };
        Sandbox::start(plan, std::io::sink()).expect("started")
    }

    #[test]
    fn a_sandbox_answers_and_stops_when_told() {
        let sandbox = sandbox();
        let health = get(sandbox.address(), "/health", "");
        assert!(health.starts_with("HTTP/1.1 200 OK\r\n"), "{health}");
        let keys = get(sandbox.platform_address(), JWKS_PATH, "");
        assert!(keys.contains("\"ES256\""), "{keys}");
        sandbox.stop().expect("a clean end");
    }

    #[test]
    fn its_operator_endpoints_open_with_its_own_token_alone() {
        let sandbox = sandbox();
        let bearer = format!("Authorization: Bearer {}\r\n", sandbox.admin_token().expose());
        let state = get(sandbox.address(), "/state", &bearer);
        assert!(state.starts_with("HTTP/1.1 200 "), "{state}");
        let refused = get(sandbox.address(), "/state", "Authorization: Bearer guess\r\n");
        assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
        sandbox.stop().expect("a clean end");
    }
}
