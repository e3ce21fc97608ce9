//! `relay.control.v1`: what operators and orchestrators ask over gRPC.
//!
//! `access` says who may make which call, `service` takes the calls
//! to the controller, and `answers` is what the controller does about them. Nothing of it runs
//! unless [`crate::Controller::serve_control`] was called.

mod access;
mod answers;
mod audit;
mod bounds;
mod connections;
mod draining;
mod health;
mod histograms;
mod moving;
mod permitted;
mod revoking;
mod scopes;
mod service;
mod state;
mod watchers;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use relay_contract::Secret;
use relay_grpc::DESCRIPTORS;
use relay_grpc::control::v1::control_server::{ControlServer, SERVICE_NAME};
use relay_link::Door;
use tokio::sync::mpsc;
use tonic::transport::Server;

pub use relay_link::{DoorSocket as ControlSocket, DoorTls as ControlTls};

pub(crate) use answers::{Asked, Reported};
pub use audit::{AuditFile, AuditSink};
pub(crate) use watchers::Watchers;

use access::Access;
use audit::Audit;
use health::Health;
use service::Service;

use crate::clock::Clock;
use crate::notices::Notices;

/// Where the control API is served, and to whom.
#[derive(Debug)]
pub struct ControlApi {
    /// Bound and listening already.
    pub socket: ControlSocket,
    /// Who may ask.
    pub access: ControlAccess,
    /// Where changing calls are written down.
    pub audit: AuditSink,
    /// The commit the program was built from.
    pub commit: &'static str,
}

/// The tokens of the control API. Without any, whoever reaches the socket is an operator: the
/// program lets that be on loopback, and where certificates say who may come.
#[derive(Clone, Debug, Default)]
pub struct ControlAccess {
    /// `RELAY_CONTROL_API_READER_TOKEN`, and the one before it.
    pub readers: Vec<Secret>,
    /// `RELAY_CONTROL_API_OPERATOR_TOKEN`, and the one before it.
    pub operators: Vec<Secret>,
}

/// What the controller keeps of its API.
#[derive(Debug)]
pub(crate) struct Desk {
    /// What is asked; for ever silent without an API.
    pub(crate) asked: mpsc::Receiver<Asked>,
    /// The API, until it is opened.
    pub(crate) server: Option<Api>,
    commit: &'static str,
    tallies: Arc<Tallies>,
    access: Arc<Access>,
}

/// What is counted outside the controller's task.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    /// Connections closed at once because too many were open.
    connections_refused: AtomicU64,
    /// Calls without the right token.
    unauthorized: AtomicU64,
    /// Calls that found the controller busy.
    overloaded: AtomicU64,
    /// Changing calls that could not be written down, and were not made.
    unaudited: AtomicU64,
    /// Lines that the audit log lacks.
    audit_lines_lost: AtomicU64,
}

/// The server, before it runs.
#[derive(Debug)]
pub(crate) struct Api {
    socket: ControlSocket,
    service: Service,
}

impl Desk {
    /// The desk of a controller without an API.
    pub(crate) fn closed() -> Self {
        let asked = mpsc::channel(1).1;
        let access = Arc::new(Access::new(&ControlAccess::default()));
        Self { asked, server: None, commit: "unknown", tallies: Arc::default(), access }
    }

    /// The desk of an API that is not served yet.
    ///
    /// # Errors
    /// The audit log cannot be opened.
    pub(crate) fn new(
        api: ControlApi,
        clock: Arc<dyn Clock>,
        notices: Notices,
    ) -> io::Result<Self> {
        let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
        let tallies = Arc::<Tallies>::default();
        let access = Arc::new(Access::new(&api.access));
        let service = Service {
            access: Arc::clone(&access),
            questions,
            tallies: Arc::clone(&tallies),
            audit: Arc::new(Audit::open(api.audit, clock)?),
            notices,
        };
        let server = Api { socket: api.socket, service };
        Ok(Self { asked, server: Some(server), commit: api.commit, tallies, access })
    }

    /// Lets others in from the next call on; who watches with a token that ends is told so.
    pub(crate) fn replace_tokens(&self, tokens: &ControlAccess) {
        self.access.replace(tokens);
    }

    pub(crate) fn tallies(&self) -> &Tallies {
        &self.tallies
    }
}

impl Tallies {
    pub(crate) fn connections_refused(&self) -> u64 {
        self.connections_refused.load(Ordering::Relaxed)
    }

    pub(crate) fn unauthorized(&self) -> u64 {
        self.unauthorized.load(Ordering::Relaxed)
    }

    pub(crate) fn overloaded(&self) -> u64 {
        self.overloaded.load(Ordering::Relaxed)
    }

    pub(crate) fn unaudited(&self) -> u64 {
        self.unaudited.load(Ordering::Relaxed)
    }

    pub(crate) fn audit_lines_lost(&self) -> u64 {
        self.audit_lines_lost.load(Ordering::Relaxed)
    }
}

impl Api {
    /// Serves for ever. Dropping the future closes every connection.
    ///
    /// # Errors
    /// The socket cannot be watched.
    pub(crate) async fn serve(self) -> io::Result<()> {
        let Self { socket, service } = self;
        let tallies = Arc::clone(&service.tallies);
        let refused = move || {
            tallies.connections_refused.fetch_add(1, Ordering::Relaxed);
        };
        let (door, connections) = Door::open(socket, CONNECTIONS_MAX, Arc::new(refused))?;
        let health = Health::new(service.clone()).into_server();
        let control = ControlServer::new(service).max_decoding_message_size(REQUEST_BYTES_MAX);
        let served = Server::builder()
            .max_concurrent_streams(CALLS_PER_CONNECTION_MAX)
            .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
            .http2_max_header_list_size(HEADER_BYTES_MAX)
            .add_service(control)
            .add_service(health)
            .add_service(reflected().build_v1().expect(COMPILED))
            .add_service(reflected().build_v1alpha().expect(COMPILED))
            .serve_with_incoming(connections);
        tokio::select! {
            served = served => served.map_err(io::Error::other),
            () = door.watch() => Ok(()),
        }
    }
}

/// For tools that have no schema. Those of before 2023 know `v1alpha` alone.
fn reflected() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(SERVICE_NAME)
        .with_service_name(health::SERVICE)
}

/// Why reflection cannot fail.
const COMPILED: &str = "the schemas were compiled with the program";

/// Connections at a time. Protects descriptors and memory from whoever reaches the socket. Reached:
/// closed at once, counted by `relay_control_connections_refused_total`.
const CONNECTIONS_MAX: usize = 64;

/// Questions on their way to the controller. Reached: RESOURCE_EXHAUSTED, with a count.
const QUESTIONS_MAX: usize = 64;

/// Bytes of a request. Protects memory from whoever reaches the socket; the largest request there
/// is names a dozen things. Reached: the call is refused.
const REQUEST_BYTES_MAX: usize = 64 << 10;

/// Calls of one connection at a time. Reached: the client waits, by HTTP/2.
const CALLS_PER_CONNECTION_MAX: u32 = 64;

/// Bytes of a call's headers. Reached: the call is refused.
const HEADER_BYTES_MAX: u32 = 16 << 10;

/// How often a quiet connection is asked whether it is there.
const KEEP_ALIVE_INTERVAL: std::time::Duration = std::time::Duration::from_secs(20);

/// What the answer to that may take. Reached: closed.
const KEEP_ALIVE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
