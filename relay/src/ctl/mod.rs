//! `relay ctl`: the control API of a running relay, for people and scripts.

mod address;
mod arguments;
mod credentials;
mod histograms;
mod limits;
mod lists;
mod report;
mod table;

use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use relay_grpc::control::v1 as proto;
use relay_grpc::control::v1::control_client::ControlClient;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Status};

pub(crate) use arguments::CtlArguments;

use crate::screen;
use address::{Address, Bearer, Unreachable};
use arguments::{Call, WatchArguments};

/// Calls, with the token.
type Client = ControlClient<InterceptedService<Channel, Bearer>>;

/// How a call ended that did not do what was asked.
#[derive(Debug, thiserror::Error)]
enum Failed {
    /// The arguments of the connection do not fit together.
    #[error("{0:#}")]
    Arguments(anyhow::Error),
    /// Nobody is there.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// The connection ended before there was an answer. A relay that asks for certificates and is
    /// shown none it knows ends it after the client's handshake is done.
    #[error(
        "the connection ended: {0}; where the relay asks for a certificate, --cert and --key show \
         it one"
    )]
    Broken(String),
    /// The relay refused.
    #[error("{}", refusal(.0))]
    Refused(Box<Status>),
    /// It is not ready, which was the question.
    #[error("not ready: {0}")]
    NotReady(String),
    /// Somebody is left after the time they were given.
    #[error("{0} connections are left")]
    NotEmpty(u64),
    /// A workspace is not where it was to be.
    #[error("it is not there yet; the relay's log says why (workspace_move_failed)")]
    NotMoved,
    /// Connections end, but later tokens are not refused.
    #[error(
        "too many revocations are in force: connections end, but their peers may come back; revoke \
         a workspace, a subject or a key instead of single tokens"
    )]
    NotRemembered,
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        let is_of_transport =
            |cause: &&(dyn Error + 'static)| cause.is::<tonic::transport::Error>();
        match status.source().filter(is_of_transport) {
            Some(cause) => Self::Broken(table::plain(&address::causes(cause))),
            None => Self::Refused(Box::new(status)),
        }
    }
}

impl Failed {
    /// What scripts go by; `relay ctl --help` explains each.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Arguments(_) => 2,
            Self::Unreachable(_) | Self::Broken(_) => 3,
            Self::Refused(status) => match status.code() {
                Code::Unavailable | Code::DeadlineExceeded => 3,
                Code::Unauthenticated | Code::PermissionDenied => 4,
                _ => 1,
            },
            Self::NotReady(_) => 5,
            Self::NotEmpty(_) | Self::NotMoved | Self::NotRemembered => 1,
        }
    }
}

/// Makes one call and prints what it brought.
pub(crate) fn run(arguments: &CtlArguments) -> ExitCode {
    match call(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            screen::say(io::stderr(), format_args!("relay: {failed}\n"));
            ExitCode::from(failed.exit_code())
        }
    }
}

fn call(arguments: &CtlArguments) -> Result<(), Failed> {
    let address = Address::of(&arguments.connection).map_err(Failed::Arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failed::Arguments(error.into()))?;
    runtime.block_on(async {
        let (channel, bearer) = address.connect().await?;
        let client = ControlClient::with_interceptor(channel, bearer)
            .max_decoding_message_size(ANSWER_BYTES_MAX);
        perform(client, arguments).await
    })
}

async fn perform(mut client: Client, arguments: &CtlArguments) -> Result<(), Failed> {
    let show = Show { json: arguments.connection.json };
    match &arguments.call {
        Call::Info => {
            let answer = client.get_info(proto::GetInfoRequest {}).await?.into_inner();
            show.answer(&answer, report::info);
        }
        Call::State => {
            let answer = client.get_state(proto::GetStateRequest {}).await?.into_inner();
            show.answer(&answer, report::state);
        }
        Call::Ready => {
            let answer = client.get_readiness(proto::GetReadinessRequest {}).await?.into_inner();
            let readiness = answer.readiness.clone().unwrap_or_default();
            show.answer(&answer, |_| report::readiness(&readiness));
            if !readiness.ready {
                return Err(Failed::NotReady(report::reasons(&readiness)));
            }
        }
        Call::Watch(wanted) => watch(client, show, wanted).await?,
        Call::Scopes { workspace } => lists::scopes(client, show, workspace.clone()).await?,
        Call::Connections(filter) => lists::connections(client, show, filter).await?,
        Call::Revocations => lists::revocations(client, show).await?,
        Call::Histograms { names, shards, hdr } => {
            let request = proto::GetHistogramsRequest {
                shard_ids: shards.clone(),
                names: names.clone(),
                with_hdr_log: *hdr,
            };
            lists::histograms(client, show, request).await?;
        }
        Call::Keys => {
            let answer = client.list_key_sets(proto::ListKeySetsRequest {}).await?.into_inner();
            show.answer(&answer, credentials::key_sets);
        }
        Call::Close(close) => {
            let request = proto::CloseConnectionsRequest {
                filter: Some(lists::filter(&close.filter)),
                all: close.all,
                dry_run: close.dry_run,
            };
            let answer = client.close_connections(request).await?.into_inner();
            show.answer(&answer, |answer| report::closed(answer, close.dry_run));
        }
        Call::Revoke(revoke) => {
            let answer = client.revoke(credentials::request(revoke)).await?.into_inner();
            show.answer(&answer, credentials::revoked);
            if !answer.is_remembered {
                return Err(Failed::NotRemembered);
            }
        }
        Call::Limits { workspace } => {
            let workspace_id = workspace.clone().unwrap_or_default();
            let request = proto::GetLimitsRequest { workspace_id };
            let answer = client.get_limits(request).await?.into_inner();
            show.answer(&answer, limits::in_force);
        }
        Call::SetLimits(change) => {
            let request = limits::request(change).map_err(Failed::Arguments)?;
            let answer = client.set_limits(request).await?.into_inner();
            show.answer(&answer, |answer| format!("done; version {}\n", answer.version));
        }
        Call::Reload => {
            let answer = client.reload(proto::ReloadRequest {}).await?.into_inner();
            show.answer(&answer, report::reloaded);
        }
        Call::Drain(order) => {
            let request = proto::DrainRequest {
                window_ms: order.window_ms.unwrap_or(0),
                redirect_url: order.redirect.clone().unwrap_or_default(),
            };
            let answer = client.drain(request).await?.into_inner();
            show.answer(&answer, report::drain);
            if let Some(seconds) = order.wait {
                return wait_until_empty(client, Duration::from_secs(seconds)).await;
            }
        }
        Call::Resume => {
            let answer = client.resume(proto::ResumeRequest {}).await?.into_inner();
            show.answer(&answer, report::resumed);
        }
        Call::Move { workspace, shard, wait } => {
            let request =
                proto::MoveWorkspaceRequest { workspace_id: workspace.clone(), shard_id: *shard };
            let answer = client.move_workspace(request).await?.into_inner();
            if answer.is_moving {
                let patience = Duration::from_secs(*wait);
                wait_until_there(client, workspace, *shard, patience).await?;
            }
            show.answer(&answer, |answer| report::moved(answer, *shard));
        }
        Call::LogLevel { level } => {
            let log_level = report::log_level(*level).into();
            let request = proto::SetLogLevelRequest { log_level };
            let answer = client.set_log_level(request).await?.into_inner();
            show.answer(&answer, report::previous_log_level);
        }
    }
    Ok(())
}

/// Shows what changes until the relay ends or nobody reads.
async fn watch(mut client: Client, show: Show, wanted: &WatchArguments) -> Result<(), Failed> {
    let request = proto::WatchStateRequest {
        workspace_id: wanted.workspace.clone().unwrap_or_default(),
        interval_ms: wanted.interval_ms,
    };
    let mut messages = client.watch_state(request).await?.into_inner();
    while let Some(message) = messages.message().await? {
        show.answer(&message, report::watched);
    }
    Ok(())
}

/// Waits until the relay has no connections any more.
async fn wait_until_empty(mut client: Client, patience: Duration) -> Result<(), Failed> {
    let mut left = 0;
    let empty = async {
        let request = proto::WatchStateRequest::default();
        let mut messages = client.watch_state(request).await?.into_inner();
        while let Some(message) = messages.message().await? {
            let Some(state) = report::state_of(&message) else {
                continue;
            };
            left = state.admitted_connections;
            if left == 0 {
                break;
            }
        }
        Ok::<_, Status>(())
    };
    match tokio::time::timeout(patience, empty).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Failed::NotEmpty(left)),
    }
}

/// Waits until a workspace lives on a shard, or nobody of it is there any more.
async fn wait_until_there(
    mut client: Client,
    workspace: &str,
    shard: u32,
    patience: Duration,
) -> Result<(), Failed> {
    let request = proto::WatchStateRequest { workspace_id: workspace.to_owned(), interval_ms: 100 };
    let there = async {
        let mut messages = client.watch_state(request).await?.into_inner();
        while let Some(message) = messages.message().await? {
            let mut scopes = report::scopes_of(&message).iter().peekable();
            let is_empty = scopes.peek().is_none() && report::is_snapshot(&message);
            if is_empty || scopes.any(|scope| scope.shard_ids.contains(&shard)) {
                break;
            }
        }
        Ok::<_, Status>(())
    };
    match tokio::time::timeout(patience, there).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Failed::NotMoved),
    }
}

/// How answers are printed.
#[derive(Clone, Copy, Debug)]
struct Show {
    json: bool,
}

impl Show {
    /// Prints each at once as JSON, or keeps it for a table.
    fn each<M: prost::Name>(self, messages: Vec<M>, kept: &mut Vec<M>) {
        match self.json {
            true => messages.iter().for_each(|one| self.answer(one, |_| String::new())),
            false => kept.extend(messages),
        }
    }

    /// Prints what was kept.
    fn table(self, text: impl FnOnce() -> String) {
        if !self.json {
            screen::say(io::stdout(), format_args!("{}", text()));
        }
    }

    fn answer<M: prost::Name>(self, answer: &M, text: impl FnOnce(&M) -> String) {
        let text = if self.json { format!("{}\n", relay_grpc::json(answer)) } else { text(answer) };
        screen::say(io::stdout(), format_args!("{text}"));
    }
}

/// What the relay said, and what to do about it.
fn refusal(status: &Status) -> String {
    let said = table::plain(status.message());
    match status.code() {
        Code::Unauthenticated => {
            format!("{said}; give --token-file, or set RELAY_CONTROL_API_TOKEN")
        }
        Code::Unimplemented => format!(
            "the relay does not know this call: it is of another version than this program ({})",
            crate::version::line()
        ),
        Code::DeadlineExceeded | Code::Cancelled => {
            "the relay did not answer in time; --timeout waits longer".to_owned()
        }
        _ => said,
    }
}

/// Bytes of one answer. Protects memory from whoever answers in the relay's place.
const ANSWER_BYTES_MAX: usize = 16 << 20;
