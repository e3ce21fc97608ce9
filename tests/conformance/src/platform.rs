//! The HTTP platform behind the relay.

mod answer;
mod bus;
mod connection;
mod state;

use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::Context;
use rustls::ServerConfig;
use serde_json::Value;

use crate::members::Members;
use crate::scenario::Rule;
use crate::watched::{Deadline, Watched};

use state::State;
pub(crate) use state::{LoggedRequest, Settings, Token};

/// A running platform. Dropping it ends all its connections.
pub(crate) struct Platform {
    port: u16,
    state: Arc<Watched<State>>,
    acceptor: Option<JoinHandle<()>>,
}

impl Platform {
    /// Takes a free port of this machine; nothing is answered before [`Platform::serve`].
    pub(crate) fn bind() -> anyhow::Result<(TcpListener, u16)> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("binding the platform")?;
        let port = listener.local_addr()?.port();
        Ok((listener, port))
    }

    /// Starts answering.
    pub(crate) fn serve(
        listener: TcpListener,
        settings: Settings,
        tls: Option<Arc<ServerConfig>>,
    ) -> anyhow::Result<Self> {
        let port = listener.local_addr()?.port();
        let state = Arc::new(Watched::new(State::new(settings)));
        let accepting = Arc::clone(&state);
        let acceptor = thread::spawn(move || accept(&listener, &accepting, tls.as_ref()));
        Ok(Self { port, state, acceptor: Some(acceptor) })
    }

    /// Replaces the rules.
    pub(crate) fn set_rules(&self, rules: Vec<Rule>) {
        self.state.update(|state| state.set_rules(rules));
    }

    /// Waits for `count` requests to `path` that have not been taken yet, and takes so many.
    /// On timeout: as many as there are.
    pub(crate) fn take_requests(
        &self,
        path: &str,
        count: usize,
        deadline: Deadline,
    ) -> Vec<LoggedRequest> {
        self.state.wait(deadline, |state| (state.untaken(path) >= count).then_some(()));
        self.state.update(|state| state.take(path, count))
    }

    /// Takes all requests to `path` that have not been taken yet.
    pub(crate) fn take_all_requests(&self, path: &str) -> Vec<LoggedRequest> {
        self.state.update(|state| state.take(path, usize::MAX))
    }

    /// The body of a request to `path`, counted from the end when `index` is negative.
    pub(crate) fn body(&self, path: &str, index: i64, deadline: Deadline) -> Option<String> {
        self.state.wait(deadline, |state| state.body(path, index))
    }

    /// Puts a frame on the bus.
    pub(crate) fn inject(&self, deliver_to: Option<String>, frame: Members<Value>) {
        self.state.update(|state| state.bus.append(deliver_to, frame));
    }

    /// Puts the last frame on the bus once more.
    pub(crate) fn replay(&self) -> anyhow::Result<()> {
        let replayed = self.state.update(|state| state.bus.replay());
        replayed.context("nothing on the bus to replay")
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        let connections = self.state.update(State::stop);
        for connection in connections {
            // An error means that the relay has closed it before.
            let _ = connection.shutdown(Shutdown::Both);
        }
        // The connection wakes the acceptor, which then sees that it shall stop.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().expect("the acceptor does not panic");
        }
    }
}

fn accept(listener: &TcpListener, state: &Arc<Watched<State>>, tls: Option<&Arc<ServerConfig>>) {
    for socket in listener.incoming() {
        let Ok(socket) = socket else { return };
        let Ok(owned) = socket.try_clone() else {
            return;
        };
        if !state.with(|state| state.admit(owned)) {
            return;
        }
        let (state, tls) = (Arc::clone(state), tls.cloned());
        thread::spawn(move || connection::serve(socket, &state, tls));
    }
}
