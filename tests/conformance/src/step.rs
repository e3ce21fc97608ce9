//! The steps of a scenario and their arguments.

use serde::Deserialize;
use serde_json::Value;

use crate::members::Members;
use crate::scenario::Rule;

/// One step: what to do, and what must be observed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Step {
    #[serde(flatten)]
    pub(crate) action: Action,
    pub(crate) expect: Option<Value>,
    /// The relay meant; the scenario's first when absent.
    pub(crate) relay: Option<String>,
    pub(crate) timeout_ms: Option<u64>,
}

impl Step {
    pub(crate) fn timeout_ms(&self, default_ms: u64) -> u64 {
        self.timeout_ms.unwrap_or(default_ms)
    }
}

/// What a step does. The names are those of the scenario files.
#[derive(Debug, Deserialize)]
#[serde(tag = "do")]
pub(crate) enum Action {
    #[serde(rename = "ws.open")]
    WsOpen(WsOpen),
    #[serde(rename = "ws.opened")]
    WsOpened(OfConnection),
    #[serde(rename = "ws.send")]
    WsSend(WsSend),
    #[serde(rename = "ws.recv")]
    WsRecv(WsRecv),
    #[serde(rename = "ws.quiet")]
    WsQuiet(WsQuiet),
    #[serde(rename = "ws.close")]
    WsClose(WsClose),
    #[serde(rename = "ws.closed")]
    WsClosed(WsClosed),
    #[serde(rename = "ws.abort")]
    WsAbort(WsAbort),
    #[serde(rename = "ws.pause")]
    WsPause(OfConnection),
    #[serde(rename = "ws.resume")]
    WsResume(WsResume),
    #[serde(rename = "ws.ping")]
    WsPing(WsPing),
    #[serde(rename = "ws.pings")]
    WsPings(WsPings),
    #[serde(rename = "tcp.open")]
    TcpOpen(TcpOpen),
    #[serde(rename = "tcp.send")]
    TcpSend(TcpSend),
    #[serde(rename = "tcp.recv")]
    TcpRecv(TcpRecv),
    #[serde(rename = "tcp.close")]
    TcpClose(OfConnection),
    #[serde(rename = "http")]
    Http(Http),
    #[serde(rename = "metrics")]
    Metrics(NoArguments),
    #[serde(rename = "platform.set")]
    PlatformSet(PlatformSet),
    #[serde(rename = "platform.requests")]
    PlatformRequests(PlatformRequests),
    #[serde(rename = "platform.bodyContains")]
    PlatformBodyContains(PlatformBodyContains),
    #[serde(rename = "bus.inject")]
    BusInject(BusInject),
    #[serde(rename = "bus.replay")]
    BusReplay(NoArguments),
    #[serde(rename = "redis")]
    Redis(Redis),
    #[serde(rename = "redis.push")]
    RedisPush(RedisPush),
    #[serde(rename = "redis.restart")]
    RedisRestart(RedisRestart),
    #[serde(rename = "relay.run")]
    RelayRun(RelayRun),
    #[serde(rename = "relay.start")]
    RelayStart(NoArguments),
    #[serde(rename = "relay.signal")]
    RelaySignal(RelaySignal),
    #[serde(rename = "relay.exited")]
    RelayExited(NoArguments),
    #[serde(rename = "relay.alive")]
    RelayAlive(RelayAlive),
    #[serde(rename = "relay.stdout")]
    RelayStdout(RelayStdout),
    #[serde(rename = "sleep")]
    Sleep(Sleep),
}

macro_rules! arguments {
    ($($(#[$doc:meta])* $name:ident { $($fields:tt)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub(crate) struct $name { $($fields)* }
    )*};
}

arguments! {
    /// A step that says everything with its name.
    NoArguments {}

    /// A step that only names a connection.
    OfConnection {
        pub(crate) conn: String,
    }

    WsOpen {
        pub(crate) conn: String,
        pub(crate) target: String,
        pub(crate) token: Option<String>,
        #[serde(default)]
        pub(crate) auth: Auth,
        #[serde(default)]
        pub(crate) protocols: Vec<String>,
        /// Replaces, removes (`None`) or adds headers.
        #[serde(default)]
        pub(crate) headers: Vec<(String, Option<String>)>,
        pub(crate) method: Option<String>,
        #[serde(default)]
        pub(crate) early: Vec<String>,
        #[serde(default)]
        pub(crate) nowait: bool,
        #[serde(default = "yes")]
        pub(crate) auto_pong: bool,
        #[serde(default = "yes")]
        pub(crate) echo_close: bool,
    }

    WsSend {
        pub(crate) conn: String,
        pub(crate) text: Option<String>,
        pub(crate) times: Option<u64>,
        pub(crate) hex: Option<String>,
        #[serde(default)]
        pub(crate) frames: Vec<FrameSpec>,
    }

    /// One frame with every bit as written.
    FrameSpec {
        #[serde(default = "yes")]
        pub(crate) fin: bool,
        #[serde(default)]
        pub(crate) rsv1: bool,
        #[serde(default)]
        pub(crate) rsv2: bool,
        #[serde(default)]
        pub(crate) rsv3: bool,
        #[serde(default = "text_opcode")]
        pub(crate) opcode: u8,
        #[serde(default = "yes")]
        pub(crate) masked: bool,
        pub(crate) text: Option<String>,
        pub(crate) hex: Option<String>,
        pub(crate) declared_length: Option<u64>,
    }

    WsRecv {
        pub(crate) conn: String,
        pub(crate) count: usize,
        #[serde(default)]
        pub(crate) summary: bool,
    }

    WsQuiet {
        pub(crate) conns: Vec<String>,
        pub(crate) ms: Option<u64>,
    }

    WsClose {
        pub(crate) conn: String,
        pub(crate) code: Option<u16>,
        pub(crate) reason: Option<String>,
    }

    WsClosed {
        pub(crate) conn: String,
        #[serde(default)]
        pub(crate) discard: bool,
    }

    WsAbort {
        pub(crate) conn: String,
        pub(crate) how: Abort,
    }

    WsResume {
        pub(crate) conn: String,
        #[serde(default)]
        pub(crate) discard: bool,
    }

    WsPing {
        pub(crate) conn: String,
        pub(crate) payload: String,
    }

    WsPings {
        pub(crate) conn: String,
        pub(crate) min: u64,
    }

    TcpOpen {
        pub(crate) conn: String,
        #[serde(default)]
        pub(crate) plain: bool,
    }

    TcpSend {
        pub(crate) conn: String,
        pub(crate) text: Option<String>,
        pub(crate) hex: Option<String>,
    }

    TcpRecv {
        pub(crate) conn: String,
        pub(crate) until: Option<Until>,
        pub(crate) ms: Option<u64>,
        pub(crate) observe: Option<Observe>,
    }

    Http {
        pub(crate) target: String,
        pub(crate) method: Option<String>,
        #[serde(default)]
        pub(crate) headers: Members<String>,
        pub(crate) body: Option<String>,
        pub(crate) parse: Option<Parse>,
        pub(crate) contains: Option<String>,
    }

    PlatformSet {
        pub(crate) responses: Vec<Rule>,
    }

    PlatformRequests {
        pub(crate) path: String,
        pub(crate) count: usize,
        pub(crate) headers: Option<Vec<String>>,
        pub(crate) ms: Option<u64>,
    }

    PlatformBodyContains {
        pub(crate) path: String,
        pub(crate) index: i64,
        pub(crate) text: String,
    }

    BusInject {
        pub(crate) deliver_to: Option<String>,
        pub(crate) frame: Members<Value>,
        pub(crate) issued_at_offset_ms: Option<i64>,
        pub(crate) sign_key: Option<String>,
        #[serde(default, rename = "override")]
        pub(crate) overrides: Members<Value>,
    }

    Redis {
        pub(crate) args: Vec<String>,
        #[serde(default)]
        pub(crate) wait_non_empty: bool,
        pub(crate) range: Option<(f64, f64)>,
    }

    RedisPush {
        pub(crate) key: String,
        pub(crate) raw: Option<String>,
        pub(crate) frame: Option<Members<Value>>,
        pub(crate) issued_at_offset_ms: Option<i64>,
        pub(crate) sign_key: Option<String>,
        #[serde(default, rename = "override")]
        pub(crate) overrides: Members<Value>,
        pub(crate) times: Option<u64>,
    }

    RedisRestart {
        #[serde(default)]
        pub(crate) down_ms: u64,
    }

    RelayRun {
        #[serde(default)]
        pub(crate) contains: Vec<String>,
    }

    RelaySignal {
        pub(crate) signal: String,
    }

    RelayAlive {
        pub(crate) ms: Option<u64>,
    }

    RelayStdout {
        pub(crate) events: Vec<String>,
    }

    Sleep {
        pub(crate) ms: u64,
    }
}

/// Where an upgrade request carries its token.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Auth {
    #[default]
    Header,
    Protocol,
    Query,
    None,
}

/// How a connection is given up.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Abort {
    Fin,
    Rst,
}

/// What ends a `tcp.recv` before its time.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Until {
    Close,
}

/// What of the received bytes is observed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Observe {
    Status,
}

/// How an HTTP body is read.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Parse {
    Json,
    Logs,
}

fn yes() -> bool {
    true
}

fn text_opcode() -> u8 {
    1
}
