//! The command line.

use std::fmt;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::FlagValue;
use crate::ctl::CtlArguments;

/// Where clients and daemons of a private network meet.
///
/// Relay accepts WebSocket connections from both sides, asks your platform whether a token is good,
/// and passes end-to-end encrypted frames between them. It cannot read what they say to each other
/// and stores no frame.
#[derive(Debug, Parser)]
#[command(
    name = "relay",
    disable_version_flag = true,
    args_conflicts_with_subcommands = true,
    after_help = EXAMPLES
)]
pub(crate) struct Cli {
    /// Print version and commit, and exit
    #[arg(short = 'v', long, exclusive = true)]
    pub(crate) version: bool,

    #[command(flatten)]
    pub(crate) settings: Settings,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

const EXAMPLES: &str = "\
Without a command, relay does what `relay serve` does.

Examples:
  relay demo --once                         watch two ends talk through a relay
  relay dev                                 a relay and tokens to develop against
  relay config check                        is this environment usable, and what does it mean?
  relay doctor                              would it work here, and what is to be changed?
  relay top                                 what does the relay that runs here do?
  relay plan --p99-us 500                   how much more does it hold?
  relay ctl state                           how is it doing, and who is there?
  HOST=0.0.0.0 RELAY_LISTEN_PORT=7781 \\
  RELAY_VALIDATE_URL=https://api.corp/api/runtime/internal/relay/validate \\
  RELAY_INTERNAL_KEY_FILE=/run/secrets/relay-key \\
    relay serve                             serve others, behind something that ends TLS

Every setting is an environment variable, and a field of the file that --config names;
`relay config variables` lists them all.";

/// What the program is asked to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve clients and daemons until a signal ends it
    Serve(Settings),
    /// Run a relay and a small platform on loopback, and print tokens and commands to paste
    Dev(DevArguments),
    /// Let two ends talk through a relay, and show what each of the three can read
    Demo(DemoArguments),
    /// Sign a token for development with a key file
    Token(TokenArguments),
    /// Examine configuration, machine and platform, and say what to change.
    ///
    /// Prints one line per check: ok, warn or fail, what was found, and behind an arrow what to
    /// change. It runs with the environment and the flags that `relay serve` would get, as the
    /// same user, on the same machine or in the same container, under the same limits; a relay
    /// that serves there already is not disturbed. Nothing is changed, and no secret is printed.
    /// The platform is asked about a token that nobody issued, once with the internal key and once
    /// without.
    ///
    /// Exits with 0 unless a check failed: a relay with warnings runs.
    Doctor(DoctorArguments),
    /// Show what a running relay does: shards, rates, latencies, refusals, hottest workspaces
    Top(TopArguments),
    /// Say how much more a running relay holds at a latency objective, and what ends first.
    ///
    /// Reads the metrics of a relay twice and fits what turns and frames cost, or reads them
    /// from files that were saved: one counts from the start of the relay, two are an interval.
    /// docs/capacity.md in the source explains the model and how well it was met.
    Plan(PlanArguments),
    /// Ask a running relay, and change what it does, by its control API.
    ///
    /// Prints tables, or JSON with --json. Needs RELAY_CONTROL_API_LISTEN at the relay.
    Ctl(Box<CtlArguments>),
    /// Examine the configuration
    Config {
        /// What to do with it
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

/// What `relay doctor` examines, and how it says so.
#[derive(Args, Debug)]
#[command(after_help = DOCTOR_EXAMPLES)]
pub(crate) struct DoctorArguments {
    /// Print one JSON object instead of lines
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

const DOCTOR_EXAMPLES: &str = "\
Examples:
  relay doctor                              before the first start
  docker run --rm --security-opt seccomp=deploy/seccomp.json --memory 1g \\
    --ulimit memlock=67108864 --ulimit nofile=1048576 --env-file relay.env \\
    relay doctor                            every flag that the relay itself runs with
  relay doctor --set RELAY_SHARDS=8         what if?
  relay doctor --json | jq '.findings[] | select(.verdict != \"ok\")'

Under systemd, ExecStartPre=-/usr/local/bin/relay doctor in a drop-in of the unit gives it the
unit's user, limits, filters and secrets; deploy/README.md in the source has the details.";

/// Where a relay answers its operator.
#[derive(Args, Debug)]
pub(crate) struct DoorArguments {
    /// Where the relay shows metrics: http://host:port or unix:/path
    #[arg(long, default_value = "http://127.0.0.1:7781")]
    pub(crate) url: String,
    /// File with the admin token [default: RELAY_ADMIN_TOKEN, or the file RELAY_ADMIN_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// What `relay top` shows, and how often.
#[derive(Args, Debug)]
pub(crate) struct TopArguments {
    #[command(flatten)]
    pub(crate) door: DoorArguments,
    /// Seconds from one picture to the next
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    pub(crate) interval: f64,
    /// One picture, then exit
    #[arg(long)]
    pub(crate) once: bool,
}

/// What `relay plan` goes by.
#[derive(Args, Debug)]
pub(crate) struct PlanArguments {
    #[command(flatten)]
    pub(crate) door: DoorArguments,
    /// Seconds to watch the relay for
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Saved answers of /metrics instead of a running relay: one, or an earlier and a later one; or
    /// a result of relay-load
    #[arg(long, value_name = "FILE", num_args = 1..=2, conflicts_with_all = ["url", "token_file"])]
    pub(crate) from: Vec<PathBuf>,
    /// Which load of that result, where it has several: a part of its name
    #[arg(long, requires = "from")]
    pub(crate) case: Option<String>,
    /// The objective: 99th percentile of hop latency, microseconds
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 1000.0, value_parser = micros)]
    pub(crate) p99_us: f64,
    /// Processors that its shards may use together, where its metrics do not tell: a recorded
    /// result of an older version, or a data plane in a process of its own
    #[arg(long, value_name = "COUNT", value_parser = processors)]
    pub(crate) processors: Option<f64>,
    /// Print one JSON object instead of lines
    #[arg(long)]
    pub(crate) json: bool,
}

/// A time a person waits for.
fn seconds(text: &str) -> Result<f64, String> {
    positive(text, 0.1, 86_400.0)
}

/// Processors, also a part of one.
fn processors(text: &str) -> Result<f64, String> {
    positive(text, 0.01, 4096.0)
}

/// A latency.
fn micros(text: &str) -> Result<f64, String> {
    positive(text, 1.0, 1e9)
}

fn positive(text: &str, least: f64, most: f64) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    match (least..=most).contains(&value) {
        true => Ok(value),
        false => Err(format!("expected {least} to {most}")),
    }
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every effective value with its source, or every mistake
    Check(Box<Settings>),
    /// Print a configuration file with every field, to start from
    File,
    /// Print all variables as a Markdown table
    Variables,
}

/// Settings on the command line. They win over the environment, which wins over the file.
#[derive(Args, Clone, Default)]
pub(crate) struct Settings {
    /// Configuration file, TOML (RELAY_CONFIG)
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
    /// Address to bind (HOST)
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,
    /// Port to bind (RELAY_LISTEN_PORT)
    #[arg(long, value_name = "PORT")]
    listen_port: Option<String>,
    /// dev, staging or prod (RELAY_MODE)
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,
    /// Where tokens are validated (RELAY_VALIDATE_URL)
    #[arg(long, value_name = "URL")]
    validate_url: Option<String>,
    /// Where signing keys are fetched (RELAY_JWKS_URL)
    #[arg(long, value_name = "URL")]
    jwks_url: Option<String>,
    /// auto, uring or epoll (RELAY_DRIVER)
    #[arg(long, value_name = "DRIVER")]
    driver: Option<String>,
    /// Data-plane threads (RELAY_SHARDS)
    #[arg(long, value_name = "COUNT")]
    shards: Option<String>,
    /// all, dataplane or controlplane (RELAY_ROLE)
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
    /// Any variable; for secrets prefer the environment or `<NAME>_FILE`
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
}

impl Settings {
    /// The settings as the parser of the configuration takes them.
    pub(crate) fn values(&self) -> Vec<FlagValue> {
        let named = [
            ("--config", "RELAY_CONFIG", &self.config),
            ("--host", "HOST", &self.host),
            ("--listen-port", "RELAY_LISTEN_PORT", &self.listen_port),
            ("--mode", "RELAY_MODE", &self.mode),
            ("--validate-url", "RELAY_VALIDATE_URL", &self.validate_url),
            ("--jwks-url", "RELAY_JWKS_URL", &self.jwks_url),
            ("--driver", "RELAY_DRIVER", &self.driver),
            ("--shards", "RELAY_SHARDS", &self.shards),
            ("--role", "RELAY_ROLE", &self.role),
        ];
        let set = self.set.iter().map(|(name, value)| FlagValue::set(name, value));
        let named = named.into_iter().filter_map(|(flag, name, value)| {
            Some(FlagValue { flag: flag.to_owned(), name: name.to_owned(), value: value.clone()? })
        });
        // The last one wins: a flag of its own beats `--set`.
        set.chain(named).collect()
    }
}

impl fmt::Debug for Settings {
    /// Shows which are given and how long they are: `--set` takes keys too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.values()).finish()
    }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').ok_or("expected NAME=VALUE, for example RELAY_SHARDS=4")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A relay to develop against.
#[derive(Args, Debug)]
pub(crate) struct DevArguments {
    /// Port of the relay; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 7781)]
    pub(crate) port: u16,
    /// Signing key of the platform, so that `relay token` can sign more; made on first use
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// The workspace of the printed tokens
    #[arg(long, value_name = "ID", default_value = "dev")]
    pub(crate) workspace: String,
    /// The target of the printed tokens
    #[arg(long, value_name = "ID", default_value = "dev-machine")]
    pub(crate) target: String,
    #[command(flatten)]
    engine: EngineArguments,
}

/// A relay to look at.
#[derive(Args, Debug)]
pub(crate) struct DemoArguments {
    /// One round, then exit: 0 only if every message arrived intact
    #[arg(long)]
    pub(crate) once: bool,
    /// Messages of one round
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) messages: u64,
    /// Port of the relay; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(crate) port: u16,
    #[command(flatten)]
    engine: EngineArguments,
}

/// What moves the bytes of a sandbox.
#[derive(Args, Debug)]
struct EngineArguments {
    /// auto, uring or epoll (RELAY_DRIVER)
    #[arg(long, value_name = "DRIVER")]
    driver: Option<String>,
    /// Data-plane threads (RELAY_SHARDS)
    #[arg(long, value_name = "COUNT")]
    shards: Option<String>,
}

impl DevArguments {
    /// Settings beyond the sandbox's own.
    pub(crate) fn settings(&self) -> Vec<FlagValue> {
        self.engine.values()
    }
}

impl DemoArguments {
    /// Settings beyond the sandbox's own.
    pub(crate) fn settings(&self) -> Vec<FlagValue> {
        self.engine.values()
    }
}

impl EngineArguments {
    fn values(&self) -> Vec<FlagValue> {
        let settings = Settings {
            driver: self.driver.clone(),
            shards: self.shards.clone(),
            ..Settings::default()
        };
        settings.values()
    }
}

/// Whose token to sign.
#[derive(Args, Debug)]
pub(crate) struct TokenArguments {
    /// P-256 private key in PEM; made on first use, readable by the owner alone
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// What the bearer is
    #[arg(long, value_enum)]
    pub(crate) role: RoleArgument,
    /// The workspace it is for
    #[arg(long, value_name = "ID")]
    pub(crate) workspace: String,
    /// The target a daemon serves or a client talks to
    #[arg(long, value_name = "ID", required_if_eq_any([("role", "daemon"), ("role", "client")]))]
    pub(crate) target: Option<String>,
    /// Names one client across its connections
    #[arg(long, value_name = "ID")]
    pub(crate) client_id: Option<String>,
    /// The executor a worker may call for
    #[arg(long, value_name = "ID", required_if_eq("role", "worker"))]
    pub(crate) executor: Option<String>,
    /// How long the token is good for
    #[arg(long, value_name = "HOURS", default_value_t = 12)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=8760))]
    pub(crate) hours: u32,
}

/// What the bearer of a token is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum RoleArgument {
    /// Serves a target
    Daemon,
    /// Talks to a target
    Client,
    /// Calls the platform through the relay
    Worker,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_takes_the_settings_of_serve() {
        let cli = Cli::try_parse_from(["relay", "--driver", "epoll"]).expect("valid");
        assert!(cli.command.is_none());
        assert_eq!(cli.settings.values()[0].name, "RELAY_DRIVER");
    }

    #[test]
    fn a_flag_of_its_own_beats_set() {
        let arguments = ["relay", "--shards", "2", "--set", "RELAY_SHARDS=3"];
        let cli = Cli::try_parse_from(arguments).expect("valid");
        let values = cli.settings.values();
        assert_eq!(values.last().map(|given| given.value.as_str()), Some("2"));
    }

    #[test]
    fn debug_shows_no_value() {
        let set = ["relay", "--host", "hush-host", "--set", "RELAY_INTERNAL_KEY=hush"];
        for command in [&set[..], &["relay", "serve", "--set", "RELAY_INTERNAL_KEY=hush"]] {
            let cli = Cli::try_parse_from(command).expect("valid");
            let shown = format!("{cli:?}");
            assert!(!shown.contains("hush"), "{shown}");
            assert!(shown.contains("RELAY_INTERNAL_KEY"), "{shown}");
        }
    }

    #[test]
    fn saved_metrics_stand_in_for_a_relay() {
        let arguments = ["relay", "plan", "--from", "a", "b", "--p99-us", "500"];
        let Some(Command::Plan(plan)) = Cli::try_parse_from(arguments).expect("valid").command
        else {
            panic!("it is a plan");
        };
        assert_eq!((plan.from.len(), plan.p99_us), (2, 500.0));
        for wrong in ["-1", "0", "x", "NaN", "inf"] {
            assert!(Cli::try_parse_from(["relay", "plan", "--p99-us", wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn both_version_flags_are_known() {
        for flag in ["-v", "--version"] {
            assert!(Cli::try_parse_from(["relay", flag]).expect("valid").version);
        }
    }

    #[test]
    fn a_setting_without_a_value_is_explained() {
        let error = Cli::try_parse_from(["relay", "--set", "RELAY_SHARDS"]).expect_err("no value");
        assert!(error.to_string().contains("NAME=VALUE"));
    }
}
