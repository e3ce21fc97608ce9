//! Many at once.

use std::time::Instant;

use anyhow::{Result, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::attack::{Attack, Effort, Needs, Scene};
use crate::frame;
use crate::message;
use crate::pass::Pass;
use crate::peer::{Answer, End, Peer};

/// The classes of this file.
pub const CLASSES: &[Attack] = &[
    Attack {
        name: "connect-flood",
        what: "Connections that are closed as soon as they are there.",
        reference: "Accepted and forgotten, one by one.",
        needs: Needs::Nothing,
        counters: &[],
        play: connects,
    },
    Attack {
        name: "idle-connects",
        what: "Thousands of connections of one address that say nothing.",
        reference: "Held, any number of them.",
        needs: Needs::Nothing,
        counters: &[],
        play: idle,
    },
    Attack {
        name: "upgrade-burst",
        what: "1,024 upgrades of one address at once, each with a good token.",
        reference: "Judged before and counted after the validation: limits were exceeded.",
        needs: Needs::Tokens,
        counters: &[
            "relay_upgrade_rate_limited_total",
            "relay_upgrade_rejected_ip_connections_total",
        ],
        play: burst_of_one,
    },
    Attack {
        name: "upgrade-crowd",
        what: "1,024 upgrades of as many addresses at once: none is lost.",
        reference: "As many validate calls at once.",
        needs: Needs::Tokens,
        counters: &["relay_admission_ok_total"],
        play: burst_of_many,
    },
    Attack {
        name: "reconnect-storm",
        what: "Clients that connect, say something, vanish and come back, without a pause.",
        reference: "A scope for each, kept for two minutes.",
        needs: Needs::Tokens,
        counters: &["relay_ws_connections_closed_total"],
        play: storm,
    },
];

fn connects(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    scene.crowd(2, |_| {
        let mut effort = Effort::default();
        loop {
            drop(scene.connect()?);
            effort.count("connected");
            if Instant::now() >= until {
                return Ok(effort);
            }
        }
    })
}

fn idle(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    allow_descriptors(IDLE_CONNECTS as u64 + 512)?;
    let source = scene.source();
    let before = turned_away(scene)?;
    let mut effort = Effort::default();
    let mut held = Vec::with_capacity(IDLE_CONNECTS);
    for _ in 0..IDLE_CONNECTS {
        held.push(scene.connect_from(source)?);
    }
    effort.add("connected", held.len() as u64);
    // Somebody else still gets in.
    let answer = scene.say(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")?.answer();
    ensure!(answer == Answer::Status(200), "beside a crowd of idle sockets: {answer:?}");
    scene.rest(until);
    for peer in &mut held {
        peer.set_patience(std::time::Duration::from_millis(1))?;
        if peer.end() != End::Silence {
            effort.count("refused");
        }
    }
    if let (Some(before), Some(after)) = (before, turned_away(scene)?) {
        // Those that were held until their deadline are gone by now as well.
        let (refused, counted) = (i64::try_from(effort.of("refused"))?, after - before);
        let is_right = (1..=refused).contains(&counted);
        ensure!(is_right, "{refused} of {IDLE_CONNECTS} are gone, {counted} were counted");
    }
    Ok(effort)
}

/// Strangers that the relay had no place for, where it may be asked: for their sockets, or with TLS
/// for their handshakes or what these take.
fn turned_away(scene: &Scene<'_>) -> Result<Option<i64>> {
    let exposition = scene.subject().exposition()?;
    Ok(exposition.map(|exposition| PLACES.iter().map(|name| exposition.of(name)).sum()))
}

fn burst_of_one(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let mut effort = Effort::default();
    loop {
        let source = scene.source();
        let pass = scene.mint()?.client(&scene.workspace(), "attacker")?;
        let peers = (0..BURST).map(|_| Ok((scene.connect_from(source)?, &pass)));
        let outcome = burst(peers.collect::<Result<_>>()?)?;
        ensure!(
            outcome.of("101") <= PER_ADDRESS_MAX,
            "{} connections of one address where {PER_ADDRESS_MAX} are allowed",
            outcome.of("101")
        );
        let undecided = outcome.of("401") + outcome.of("503");
        ensure!(
            outcome.of("101") + undecided >= PER_ADDRESS_MAX,
            "{} of {PER_ADDRESS_MAX} places were given, {undecided} upgrades not decided",
            outcome.of("101")
        );
        effort.merge(&outcome);
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

fn burst_of_many(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let mut effort = Effort::default();
    loop {
        let workspaces: Vec<Pass> = (0..BURST)
            .map(|_| scene.mint()?.client(&scene.workspace(), "attacker"))
            .collect::<Result<_>>()?;
        let peers = workspaces.iter().map(|pass| Ok((scene.connect()?, pass)));
        let outcome = burst(peers.collect::<Result<_>>()?)?;
        ensure!(outcome.of("429") == 0, "a limit of one address met many: {outcome:?}");
        // Somebody else's relay may have no room, or a platform that cannot keep up.
        let are_in = outcome.of("101") == BURST as u64;
        ensure!(are_in || !scene.subject().is_own(), "not all of {BURST} got in: {outcome:?}");
        effort.merge(&outcome);
        if Instant::now() >= until {
            return Ok(effort);
        }
    }
}

/// Sends every upgrade, then reads every answer. Each gets one: that is what "none is lost" means.
fn burst(mut peers: Vec<(Peer, &Pass)>) -> Result<Effort> {
    // All handshakes are under way before the first goes on.
    for (peer, _) in &mut peers {
        peer.greet();
    }
    for (peer, pass) in &mut peers {
        peer.send(pass.upgrade().as_bytes());
    }
    let mut effort = Effort::default();
    for (peer, _) in &mut peers {
        match peer.answer() {
            Answer::Status(status @ (101 | 401 | 429 | 503)) => effort.count(status.to_string()),
            other => bail!("an upgrade of a burst got {other:?}"),
        }
    }
    Ok(effort)
}

fn storm(scene: &Scene<'_>, until: Instant) -> Result<Effort> {
    let hello = frame::text(&message::encrypted("s", 1, "AAAA"));
    scene.crowd(4, |thread| {
        let mut effort = Effort::default();
        // A few workspaces each, so that scopes come, stay and go.
        let passes: Vec<Pass> = (0..8)
            .map(|_| scene.mint()?.client(&scene.workspace(), &format!("attacker-{thread}")))
            .collect::<Result<_>>()?;
        for pass in passes.iter().cycle() {
            let mut peer = scene.open(pass)?;
            peer.send(&hello);
            effort.count("101");
            if effort.of("101") % 2 == 0 {
                peer.reset();
            }
            if Instant::now() >= until {
                break;
            }
        }
        Ok(effort)
    })
}

/// Lets this process open so many sockets.
fn allow_descriptors(count: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < count) {
        let raised = Rlimit { current: Some(count), ..limit };
        setrlimit(Resource::Nofile, raised)?;
    }
    Ok(())
}

/// What the relay counts where a stranger has no place.
const PLACES: [&str; 4] = [
    "relay_guests_refused_total",
    "relay_tls_handshakes_refused_total",
    "relay_budget_strangers_closed_total",
    "relay_budget_refused_total",
];

/// Upgrades of a burst.
const BURST: usize = 1024;
/// More than a shard holds of one address.
const IDLE_CONNECTS: usize = 3000;
/// The default of `RELAY_MAX_CONNECTIONS_PER_IP`.
const PER_ADDRESS_MAX: u64 = 50;
