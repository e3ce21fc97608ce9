//! The embedded platform, served in this process.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use relay_contract::Secret;
use relay_platform::{Issuer, Service, SigningKey, TokenClaims, serve};
use tokio::sync::oneshot;

/// A platform on loopback that issues and validates real tokens. Stops when dropped.
pub struct Platform {
    service: Arc<Service>,
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Platform {
    /// Starts one with a key of its own.
    pub fn start() -> Result<Self> {
        let issuer = Issuer::new(SigningKey::generate()?);
        let service = Arc::new(Service { issuer, internal_keys: Vec::new() });
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        // The 128 that std asks for are fewer than a relay may open at once; who finds no place is
        // late by the seconds after which a SYN is sent again.
        rustix::net::listen(&listener, BACKLOG)?;
        let port = listener.local_addr()?.port();
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&service);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime needs a few descriptors");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener);
                let listener = listener.expect("the listener does not block");
                let stopped = async { drop(stopped.await) };
                serve(served, listener, stopped).await.expect("loopback serves");
            });
        });
        Ok(Self { service, port, stop: Some(stop), thread: Some(thread) })
    }

    /// Its origin.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Signs a token that is good for ten minutes.
    pub fn token(&self, claims: TokenClaims) -> Result<Secret> {
        self.token_for(claims, Duration::from_secs(600))
    }

    /// Signs a token that is good for so long.
    pub fn token_for(&self, claims: TokenClaims, lifetime: Duration) -> Result<Secret> {
        self.service.issuer.issue(claims, SystemTime::now(), lifetime).context("signing")
    }
}

/// Connections that may wait to be accepted: several times what a relay opens at once.
pub(crate) const BACKLOG: i32 = 1024;

impl Drop for Platform {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Nothing to learn from a server that is no longer needed.
            let _ended = thread.join();
        }
    }
}
