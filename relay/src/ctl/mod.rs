//! `relay ctl`: the control API of a running relay, for people and scripts.

mod address;
mod arguments;
mod json;
mod report;
mod table;

use std::io;
use std::process::ExitCode;

use relay_grpc::control::v1 as proto;
use relay_grpc::control::v1::control_client::ControlClient;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Status};

pub(crate) use arguments::CtlArguments;

use crate::screen;
use address::{Address, Bearer, Unreachable};
use arguments::Call;

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
    /// The relay refused.
    #[error("{}", refusal(.0))]
    Refused(Box<Status>),
    /// It is not ready, which was the question.
    #[error("not ready: {0}")]
    NotReady(String),
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

impl Failed {
    /// What scripts go by; `relay ctl --help` explains each.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Arguments(_) => 2,
            Self::Unreachable(_) => 3,
            Self::Refused(status) => match status.code() {
                Code::Unavailable | Code::DeadlineExceeded => 3,
                Code::Unauthenticated | Code::PermissionDenied => 4,
                _ => 1,
            },
            Self::NotReady(_) => 5,
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
    }
    Ok(())
}

/// How answers are printed.
#[derive(Clone, Copy, Debug)]
struct Show {
    json: bool,
}

impl Show {
    fn answer<M: prost::Name>(self, answer: &M, text: impl FnOnce(&M) -> String) {
        let text = if self.json { json::line(answer) } else { text(answer) };
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
