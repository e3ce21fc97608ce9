//! The command line of `relay ctl`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Which relay, which call.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(crate) struct CtlArguments {
    #[command(flatten)]
    pub(crate) connection: ConnectionArguments,
    #[command(subcommand)]
    pub(crate) call: Call,
}

/// How to reach the relay, and how to show what it answers.
#[derive(Args, Debug)]
pub(crate) struct ConnectionArguments {
    /// Where the relay's control API is: unix:/path, http://host:port on loopback, or
    /// https://host:port
    #[arg(
        long,
        global = true,
        value_name = "ADDRESS",
        env = "RELAY_CONTROL_API",
        default_value = "unix:/run/relay/control.sock"
    )]
    pub(crate) address: String,
    /// File with the token [default: RELAY_CONTROL_API_TOKEN, or the file
    /// RELAY_CONTROL_API_TOKEN_FILE; not needed at a Unix socket]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// PEM file of who vouches for the relay's certificate [default: the system's]
    #[arg(long, global = true, value_name = "FILE", env = "RELAY_CONTROL_API_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// PEM file of the certificate to show, where the relay asks for one
    #[arg(long, global = true, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// PEM file of its private key
    #[arg(long, global = true, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// Print JSON: one object, or one per line where more follow
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// How long an answer may take, in seconds
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,
}

/// One call.
#[derive(Debug, Subcommand)]
pub(crate) enum Call {
    /// What the relay is: version, commit, mode, data planes
    Info,
    /// How it is doing: connections, upgrades that wait, and each shard
    State,
    /// Whether it takes new connections; exits with 5 when it does not
    Ready,
    /// How it is doing from now on, until this program is ended
    Watch(WatchArguments),
    /// Workspaces and targets that have connections
    Scopes {
        /// Those of this workspace alone
        #[arg(long, value_name = "ID")]
        workspace: Option<String>,
    },
    /// Connections, of all or of those that are meant
    Connections(FilterArguments),
    /// Close connections: their peers may come back
    Close(CloseArguments),
    /// Refuse tokens from now on, and end the connections that stand on them
    Revoke(RevokeArguments),
    /// What is revoked
    Revocations,
    /// The keys by which tokens are judged, and how old they are
    Keys,
    /// How latencies, turns and backlogs are distributed since the relay began
    Histograms {
        /// Of this measure alone, such as relay_hop_latency_seconds; may be repeated
        #[arg(long = "name", value_name = "MEASURE")]
        names: Vec<String>,
        /// Of this shard alone; may be repeated
        #[arg(long = "shard", value_name = "ID")]
        shards: Vec<u32>,
        /// Print HdrHistogram's log format, for its tools, instead of a table
        #[arg(long, conflicts_with = "json")]
        hdr: bool,
    },
    /// The limits in force
    Limits {
        /// Those of this workspace
        #[arg(long, value_name = "ID")]
        workspace: Option<String>,
    },
    /// Change limits, until the relay ends or reads its configuration again
    SetLimits(SetLimitsArguments),
    /// Read the configuration again, whole or not at all
    Reload,
    /// Let everybody go: refuse new connections, and tell those that are there to reconnect
    /// elsewhere
    Drain(DrainArguments),
    /// Take a drain back
    Resume,
    /// Move a workspace to another shard, with everybody who is connected
    Move {
        /// The workspace
        workspace: String,
        /// The shard it is to live on
        shard: u32,
        /// Seconds to wait until it is there; exits with 1 when it is not
        #[arg(long, value_name = "SECONDS", default_value_t = 10)]
        wait: u64,
    },
    /// Change the least that is written to the log, until the relay ends
    LogLevel {
        /// The least that is written from now on
        level: Level,
    },
}

/// What to watch.
#[derive(Args, Debug)]
pub(crate) struct WatchArguments {
    /// The scopes of this workspace alone
    #[arg(long, value_name = "ID")]
    pub(crate) workspace: Option<String>,
    /// Milliseconds between two pictures of what changes
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 500)]
    #[arg(value_parser = clap::value_parser!(u32).range(100..=60_000))]
    pub(crate) interval_ms: u32,
}

/// Which connections are meant: those that have all of what is given.
#[derive(Args, Debug)]
pub(crate) struct FilterArguments {
    /// Of this workspace
    #[arg(long, value_name = "ID")]
    pub(crate) workspace: Option<String>,
    /// Of this target
    #[arg(long, value_name = "ID")]
    pub(crate) target: Option<String>,
    /// Of the client with this id
    #[arg(long, value_name = "ID")]
    pub(crate) client: Option<String>,
    /// Whose token has this id (jti)
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    pub(crate) token_id: Option<String>,
    /// Whose token is about this subject (sub)
    #[arg(long, value_name = "NAME")]
    pub(crate) subject: Option<String>,
    /// Whose token was signed with the key of this name (kid)
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    pub(crate) key_id: Option<String>,
    /// From this address; one of IPv6 stands for its network
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip: Option<String>,
}

/// Which connections to close.
#[derive(Args, Debug)]
pub(crate) struct CloseArguments {
    #[command(flatten)]
    pub(crate) filter: FilterArguments,
    /// Every connection there is
    #[arg(long)]
    pub(crate) all: bool,
    /// Only say how many there are
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// What is no longer good.
#[derive(Args, Debug)]
pub(crate) struct RevokeArguments {
    #[command(flatten)]
    pub(crate) what: RevokedArguments,
    /// For how many seconds tokens are refused for it: until the last one it is about has expired
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub(crate) seconds: u64,
}

/// Exactly one of these.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct RevokedArguments {
    /// The token with this id (jti)
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    pub(crate) token_id: Option<String>,
    /// Every token about this subject (sub)
    #[arg(long, value_name = "NAME")]
    pub(crate) subject: Option<String>,
    /// Every token for this workspace
    #[arg(long, value_name = "ID")]
    pub(crate) workspace: Option<String>,
    /// Every token signed with a key of this name (kid)
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    pub(crate) key_id: Option<String>,
}

/// Which limits to change.
#[derive(Args, Debug)]
pub(crate) struct SetLimitsArguments {
    /// Limits by the names that `relay ctl limits` shows, such as runtime_per_minute=480
    #[arg(value_name = "NAME=VALUE", value_parser = limit, required_unless_present = "reset")]
    pub(crate) limits: Vec<(String, u64)>,
    /// Of this workspace alone
    #[arg(long, value_name = "ID")]
    pub(crate) workspace: Option<String>,
    /// Only if the limits are at this version
    #[arg(long, value_name = "VERSION", default_value_t = 0, hide_default_value = true)]
    pub(crate) expected_version: u64,
    /// Forget first what the workspace had of its own
    #[arg(long, requires = "workspace")]
    pub(crate) reset: bool,
}

fn limit(text: &str) -> Result<(String, u64), String> {
    let (name, value) =
        text.split_once('=').ok_or("expected NAME=VALUE, for example runtime_per_minute=480")?;
    let value = value.parse().map_err(|_| format!("{value:?} is no whole number"))?;
    Ok((name.to_owned(), value))
}

/// How to let everybody go.
#[derive(Args, Debug)]
pub(crate) struct DrainArguments {
    /// Milliseconds from the first to the last who is told [default: what fits into the relay's
    /// RELAY_DRAIN_MS]
    #[arg(long, value_name = "MILLISECONDS")]
    pub(crate) window_ms: Option<u64>,
    /// The WebSocket URL of another relay, which clients are told of first
    #[arg(long, value_name = "URL")]
    pub(crate) redirect: Option<String>,
    /// Wait until everybody is gone, at most so many seconds; exits with 1 when somebody is left
    #[arg(long, value_name = "SECONDS")]
    pub(crate) wait: Option<u64>,
}

/// What is written to the log.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Level {
    /// Everything, refused upgrades with their reasons among it
    Debug,
    /// Normal life
    Info,
    /// What was refused or lost
    Warn,
    /// What went wrong in the relay itself
    Error,
}

const HELP: &str = "\
The relay serves the API where RELAY_CONTROL_API_LISTEN says; docs/control-api.md explains every
call, and how to make them without this program.

Names that begin with a hyphen follow an equals sign: --subject=-x. Ids of tokens and keys need not.

Exit codes:
  0  done
  1  the relay refused, or could not do it
  2  the command line is wrong
  3  nobody is there, it did not answer in time, or it does not know the certificate
  4  the token is missing, unknown, or does not permit the call
  5  `ready`: the relay is there and not ready

Examples:
  relay ctl state                           what does the relay on this machine do?
  relay ctl --address https://relay.corp:7790 --token-file operator-token info
  relay ctl state --json | jq .state.admittedConnections
  until relay ctl ready; do sleep 1; done   wait for it
  relay ctl watch --json | jq -c .changes   what comes and goes, for a program
  relay ctl close --ip 192.0.2.7 --dry-run  how many would that be?
  relay ctl revoke --token-id 5f2c          a token was stolen
  relay ctl set-limits --workspace acme runtime_per_minute=960
  relay ctl move acme 3                     a hot workspace to a quiet shard
  relay ctl drain --wait 60 && systemctl stop relay
  relay ctl log-level debug                 why are upgrades refused?";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        ctl: CtlArguments,
    }

    /// Ids are often base64url, of which one in 64 begins with a hyphen.
    #[test]
    fn the_id_of_a_token_or_a_key_may_begin_with_a_hyphen() {
        for option in ["--token-id", "--key-id"] {
            let line = Line::try_parse_from(["relay", "revoke", option, "-nX"]).expect(option);
            let Call::Revoke(RevokeArguments { what, .. }) = line.ctl.call else {
                panic!("{option}");
            };
            assert_eq!(what.token_id.or(what.key_id).as_deref(), Some("-nX"));
            let close = ["relay", "close", option, "-nX", "--dry-run"];
            let line = Line::try_parse_from(close).expect(option);
            let Call::Close(CloseArguments { dry_run, .. }) = line.ctl.call else {
                panic!("{option}");
            };
            assert!(dry_run);
        }
        Line::try_parse_from(["relay", "revoke", "--subject", "-x"]).expect_err("an option");
        Line::try_parse_from(["relay", "revoke", "--subject=-x"]).expect("a name");
    }
}
