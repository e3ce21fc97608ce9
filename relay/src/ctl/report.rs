//! What answers look like to people.

use std::time::Duration;

use relay_grpc::control::v1 as proto;

use super::arguments::Level;
use super::credentials;
use super::table::{Table, facts, plain};

pub(super) fn info(info: &proto::GetInfoResponse) -> String {
    let mut lines = vec![
        ("relay", info.relay_id.clone()),
        ("version", format!("{} ({})", info.version, info.commit)),
        ("role", words(info.role().as_str_name(), "PROCESS_ROLE_")),
        ("mode", info.mode.clone()),
        ("admission", info.admission.clone()),
        ("up", lasted(Duration::from_millis(info.uptime_ms))),
    ];
    for plane in &info.data_planes {
        let driver = if plane.driver.is_empty() { "-" } else { &plane.driver };
        let shards = spans(&plane.shard_ids);
        let text = format!("{}: shards {shards}, driver {driver}", plane.data_plane_id);
        lines.push(("data plane", text));
    }
    facts(&lines)
}

pub(super) fn state(answer: &proto::GetStateResponse) -> String {
    let state = answer.state.clone().unwrap_or_default();
    let mut text = sums(&state);
    let mut table = Table::new(&[
        "#shard",
        "#connections",
        "#scopes",
        "#sockets",
        "#memory",
        "#of",
        "#received",
        "#sent",
        "#cpu s",
    ]);
    for shard in &answer.shards {
        table.row(&[
            &shard.shard_id.to_string(),
            &shard.connections.to_string(),
            &shard.scopes.to_string(),
            &shard.sockets.to_string(),
            &bytes(shard.memory_used_bytes),
            &bytes(shard.memory_bytes_max),
            &bytes(shard.received_bytes),
            &bytes(shard.sent_bytes),
            &format!("{:.1}", shard.cpu_ns as f64 / 1e9),
        ]);
    }
    text.push('\n');
    text.push_str(&table.text());
    text
}

fn sums(state: &proto::State) -> String {
    let readiness = state.readiness.clone().unwrap_or_default();
    facts(&[
        ("ready", readiness_words(&readiness)),
        ("drain", state.drain.as_ref().map_or_else(|| "none".to_owned(), drain_words)),
        ("connections", state.admitted_connections.to_string()),
        ("scopes", state.scopes.to_string()),
        ("upgrades that wait", state.pending_admissions.to_string()),
        ("worker calls", state.worker_calls.to_string()),
        ("limits version", state.limits_version.to_string()),
        ("log level", words(state.log_level().as_str_name(), "LOG_LEVEL_")),
    ])
}

pub(super) fn scopes(scopes: &[proto::Scope]) -> String {
    let mut table =
        Table::new(&["workspace", "target", "#daemons", "#clients", "#workers", "shards"]);
    for scope in scopes {
        table.row(&[
            &scope.workspace_id,
            scope.target_id.as_deref().unwrap_or("-"),
            &scope.daemons.to_string(),
            &scope.clients.to_string(),
            &scope.workers.to_string(),
            &spans(&scope.shard_ids),
        ]);
    }
    table.text()
}

pub(super) fn connections(connections: &[proto::Connection]) -> String {
    let mut table = Table::new(&[
        "connection",
        "role",
        "workspace",
        "target",
        "address",
        "key",
        "token for",
        "",
    ]);
    for connection in connections {
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let expires = connection.expires_at_unix_ms.map(|at| ahead(at, credentials::now()));
        table.row(&[
            &or_dash(&connection.connection_id),
            &words(connection.role().as_str_name(), "CONNECTION_ROLE_"),
            &connection.workspace_id,
            connection.target_id.as_deref().unwrap_or("-"),
            &connection.address,
            &or_dash(&connection.key_id),
            &expires.unwrap_or_else(|| "-".to_owned()),
            if connection.is_leaving { "leaving" } else { "" },
        ]);
    }
    table.text()
}

pub(super) fn closed(answer: &proto::CloseConnectionsResponse, is_dry_run: bool) -> String {
    match is_dry_run {
        true => format!("{} connections would be closed\n", answer.connections),
        false => format!("done; {} connections are told to go\n", answer.connections),
    }
}

/// How far a date is ahead.
pub(super) fn ahead(unix_ms: i64, now: Duration) -> String {
    let at = Duration::from_millis(u64::try_from(unix_ms).unwrap_or(0));
    at.checked_sub(now).map_or_else(|| "expired".to_owned(), lasted)
}

/// One message of a watch: a line for each thing.
pub(super) fn watched(message: &proto::WatchStateResponse) -> String {
    use proto::watch_state_response::Event;
    let (mark, state, scopes) = match &message.event {
        Some(Event::Snapshot(part)) => ('=', &part.state, &part.scopes),
        Some(Event::Changes(changes)) => ('~', &changes.state, &changes.scopes),
        None => return String::new(),
    };
    let mut text = String::new();
    if let Some(state) = state {
        let ready = readiness_words(&state.readiness.clone().unwrap_or_default());
        text.push_str(&format!(
            "{mark} {} connections, {} scopes, {} upgrades wait, ready: {ready}\n",
            state.admitted_connections, state.scopes, state.pending_admissions
        ));
    }
    for scope in scopes {
        let target = scope.target_id.as_ref().map(|id| format!(" / {id}")).unwrap_or_default();
        let name = plain(&format!("{}{target}", scope.workspace_id));
        let line = match scope.shard_ids.is_empty() {
            true => format!("- {name}\n"),
            false => format!(
                "{mark} {name}: {} daemons, {} clients, {} workers\n",
                scope.daemons, scope.clients, scope.workers
            ),
        };
        text.push_str(&line);
    }
    text
}

/// The sums that a message of a watch brings.
pub(super) fn state_of(message: &proto::WatchStateResponse) -> Option<&proto::State> {
    use proto::watch_state_response::Event;
    match message.event.as_ref()? {
        Event::Snapshot(part) => part.state.as_ref(),
        Event::Changes(changes) => changes.state.as_ref(),
    }
}

/// The scopes that a message of a watch brings.
pub(super) fn scopes_of(message: &proto::WatchStateResponse) -> &[proto::Scope] {
    use proto::watch_state_response::Event;
    match message.event.as_ref() {
        Some(Event::Snapshot(part)) => &part.scopes,
        Some(Event::Changes(changes)) => &changes.scopes,
        None => &[],
    }
}

/// Whether a message says how everything is, rather than what changed.
pub(super) fn is_snapshot(message: &proto::WatchStateResponse) -> bool {
    use proto::watch_state_response::Event;
    matches!(message.event, Some(Event::Snapshot(_)))
}

pub(super) fn moved(answer: &proto::MoveWorkspaceResponse, to: u32) -> String {
    match answer.is_moving {
        true => format!("done; from shard {} to shard {to}\n", answer.from_shard_id),
        false => format!("nothing to do: it lives on shard {to}\n"),
    }
}

pub(super) fn drain(answer: &proto::DrainResponse) -> String {
    let drain = answer.drain.clone().unwrap_or_default();
    format!("done; {}\n", drain_words(&drain))
}

fn drain_words(drain: &proto::DrainState) -> String {
    let window = lasted(Duration::from_millis(drain.window_ms));
    let elsewhere = match drain.redirect_url.is_empty() {
        true => String::new(),
        false => format!(", clients to {}", drain.redirect_url),
    };
    format!("{} connections are told to go within {window}{elsewhere}", drain.connections)
}

pub(super) fn reloaded(answer: &proto::ReloadResponse) -> String {
    let changed = match answer.changed.is_empty() {
        true => "nothing is different".to_owned(),
        false => format!("changed: {}", answer.changed.join(", ")),
    };
    format!("done; version {}; {changed}\n", answer.version)
}

pub(super) fn resumed(answer: &proto::ResumeResponse) -> String {
    match answer.was_draining {
        true => "done; new connections are admitted again\n".to_owned(),
        false => "nothing to do: it was not drained\n".to_owned(),
    }
}

pub(super) fn log_level(level: Level) -> proto::LogLevel {
    match level {
        Level::Debug => proto::LogLevel::Debug,
        Level::Info => proto::LogLevel::Info,
        Level::Warn => proto::LogLevel::Warn,
        Level::Error => proto::LogLevel::Error,
    }
}

pub(super) fn previous_log_level(answer: &proto::SetLogLevelResponse) -> String {
    let previous = words(answer.previous_log_level().as_str_name(), "LOG_LEVEL_");
    format!("done; it was {previous}\n")
}

pub(super) fn readiness(readiness: &proto::Readiness) -> String {
    format!("{}\n", readiness_words(readiness))
}

/// Why not, in words.
pub(super) fn reasons(readiness: &proto::Readiness) -> String {
    let reasons = readiness.reasons().map(|reason| match reason {
        proto::UnreadyReason::Unspecified => "for a reason this program does not know".to_owned(),
        proto::UnreadyReason::Stopping => "it is about to end".to_owned(),
        proto::UnreadyReason::Draining => "it lets its peers leave".to_owned(),
        proto::UnreadyReason::NoKeys => "it has no keys to judge tokens by".to_owned(),
    });
    reasons.collect::<Vec<_>>().join(", ")
}

fn readiness_words(readiness: &proto::Readiness) -> String {
    match readiness.ready {
        true => "yes".to_owned(),
        false => format!("no: {}", reasons(readiness)),
    }
}

/// `PROCESS_ROLE_CONTROL_PLANE` as `control plane`.
fn words(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase().replace('_', " ")
}

/// Numbers in order, those in a row as one span: `0-3, 7`.
fn spans(ids: &[u32]) -> String {
    let mut spans: Vec<(u32, u32)> = Vec::new();
    for &id in ids {
        match spans.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(id) => *last = id,
            _ => spans.push((id, id)),
        }
    }
    let shown = spans.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// Bytes to three digits or so.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 10.0);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A time, in the units in which people think of it.
pub(super) fn lasted(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_a_row_are_one_span() {
        assert_eq!(spans(&[]), "");
        assert_eq!(spans(&[0, 1, 2, 5, 7, 8]), "0-2, 5, 7-8");
        assert_eq!(spans(&[u32::MAX]), u32::MAX.to_string());
    }

    #[test]
    fn times_and_sizes_are_short() {
        for (seconds, shown) in
            [(5, "5 s"), (125, "2 min 5 s"), (7260, "2 h 1 min"), (180_000, "2 d 2 h")]
        {
            assert_eq!(lasted(Duration::from_secs(seconds)), shown);
        }
        for (size, shown) in [(0, "0 B"), (999, "999 B"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB")] {
            assert_eq!(bytes(size), shown);
        }
    }

    #[test]
    fn who_is_not_ready_says_why() {
        let unready =
            proto::Readiness { ready: false, reasons: vec![proto::UnreadyReason::Stopping.into()] };
        assert_eq!(readiness(&unready), "no: it is about to end\n");
        assert_eq!(readiness(&proto::Readiness { ready: true, reasons: vec![] }), "yes\n");
    }
}
