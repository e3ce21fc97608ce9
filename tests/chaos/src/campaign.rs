//! One attack after another, and what each did to the relay and to the control pair.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::attack::{Attack, Effort, Scene, Supply};
use crate::control::Control;
use crate::held;
use crate::pass::Mint;
use crate::platform::{Mood, Platform};
use crate::processors;
use crate::report::{Finding, Pace};
use crate::subject::Subject;

/// How a campaign is waged.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// One stretch without attack, and one with.
    pub stretch: Duration,
    /// Pairs of stretches per attack. Their median is what counts.
    pub rounds: u32,
    /// Messages per second of the control pair.
    pub rate: u32,
    /// Resident memory the relay may reach, KiB.
    pub memory_kib_max: u64,
}

/// A relay under attack, with a control pair that talks through it.
pub struct Campaign<'a> {
    plan: Plan,
    subject: Subject,
    mint: Option<&'a Mint>,
    platform: Option<&'a Platform>,
    control: Option<Control>,
    /// A pair without the relay between: what the attack costs in the kernel and the kit itself.
    bare: Control,
    supply: Supply,
}

/// What one round came to.
#[derive(Default)]
struct Round {
    effort: Effort,
    pace: Option<Pace>,
    peak_kib: u64,
    grown: Vec<(String, i64)>,
    faults: Vec<String>,
}

impl<'a> Campaign<'a> {
    /// Opens the control pair, where there are tokens for one.
    pub fn begin(
        plan: Plan,
        subject: Subject,
        mint: Option<&'a Mint>,
        platform: Option<&'a Platform>,
    ) -> Result<Self> {
        let bare = Control::start_bare(plan.rate).context("opening the bare pair")?;
        let supply = Supply::default();
        let mut campaign = Self { plan, subject, mint, platform, control: None, bare, supply };
        campaign.subject.ensure_alive()?;
        campaign.reconnect()?;
        Ok(campaign)
    }

    /// Wages one attack. `None` when what it needs is not there.
    ///
    /// Errors: the relay is gone, so that nothing more can be found out.
    pub fn wage(&mut self, attack: &Attack) -> Result<Option<Finding>> {
        let mut finding = Finding::new(attack);
        let deadline = Instant::now() + EFFORT_MAX;
        // Where an attack did not get far enough in its stretch, it goes on.
        let is_short = |finding: &Finding| {
            let is_well = finding.faults.is_empty() && Instant::now() < deadline;
            is_well && finding.still(attack).next().is_some()
        };
        let mut rounds = 0;
        while rounds < self.plan.rounds || is_short(&finding) {
            rounds += 1;
            let Some(round) = self.round(attack)? else {
                return Ok(None);
            };
            finding.add(round.effort, round.pace, round.peak_kib, round.grown, round.faults);
        }
        if let Err(error) = self.subject.ensure_alive() {
            finding.faults.push(format!("{error:#}"));
            finding.is_fatal = true;
            return Ok(Some(finding));
        }
        finding.judge_counters(attack);
        if finding.peak_kib > self.plan.memory_kib_max {
            finding.faults.push(format!(
                "{} KiB of memory, {} are allowed",
                finding.peak_kib, self.plan.memory_kib_max
            ));
        }
        Ok(Some(finding))
    }

    fn scene(&self) -> Scene<'_> {
        Scene::new(&self.subject, self.mint, self.platform, &self.supply)
    }

    fn round(&mut self, attack: &Attack) -> Result<Option<Round>> {
        if !self.scene().offers(attack.needs) {
            return Ok(None);
        }
        let mut round = Round::default();
        let quiet = self.control.as_ref().map(|control| {
            control.take();
            self.bare.take();
            control.pass(self.plan.stretch);
            (control.take(), self.bare.take())
        });
        let before = self.subject.exposition()?;
        self.subject.forget_peak();
        let effort = self.play(attack)?;
        let loud = self.control.as_ref().map(|control| (control.take(), self.bare.take()));
        if let Some(platform) = self.platform {
            platform.set(Mood::Honest);
        }
        match effort {
            Ok(effort) => round.effort = effort,
            Err(error) => round.faults.push(format!("{error:#}")),
        }
        if let (Some((quiet, quiet_bare)), Some((loud, loud_bare))) = (quiet, loud) {
            if loud.lost + quiet.lost > 0 {
                round.faults.push(format!("{} control messages lost", loud.lost + quiet.lost));
            }
            if let Some(why) = &loud_bare.ended {
                round.faults.push(format!("the bare pair ended: {why}"));
            }
            if let Some(why) = &loud.ended {
                round.faults.push(format!("the control pair ended: {why}"));
                self.control = None;
            }
            round.pace = Some(Pace::of([&quiet, &loud], [&quiet_bare, &loud_bare]));
        }
        if self.subject.ensure_alive().is_ok() {
            self.settle(&mut round)?;
            if let (Some(before), Some(after)) = (before, self.subject.exposition()?) {
                round.grown = after.since(&before).into_iter().collect();
            }
            self.reconnect()?;
        }
        // A process that is gone is found out elsewhere.
        round.peak_kib = self.subject.peak_kib().ok().flatten().unwrap_or(0);
        Ok(Some(round))
    }

    /// Attacks for one stretch, as the least important thread of this machine.
    fn play(&self, attack: &Attack) -> Result<Result<Effort>> {
        let scene = self.scene();
        let until = Instant::now() + self.plan.stretch;
        thread::scope(|scope| {
            let attacker = scope.spawn(|| {
                // The kit's own haste must not look like the relay's slowness.
                processors::go_last();
                (attack.play)(&scene, until)
            });
            attacker.join().ok().context("the attack panicked")
        })
    }

    /// Waits until the relay has let go of every attacker; it is a fault when it does not.
    fn settle(&self, round: &mut Round) -> Result<()> {
        if !self.subject.is_own() {
            return Ok(());
        }
        let own = if self.control.is_some() { CONTROL_CONNECTIONS } else { 0 };
        let deadline = Instant::now() + SETTLING;
        let (mut open, mut held) = (0, 0);
        while Instant::now() < deadline {
            // Strangers are in no gauge. Looked up before the relay is asked, by a stranger too.
            held = held::accepted(self.subject.door().address().port())?;
            let Some(exposition) = self.subject.exposition()? else {
                return Ok(());
            };
            // The gauge leaves workers out and drops when a farewell begins; the difference does
            // neither.
            open = exposition.of("relay_ws_connections_opened_total")
                - exposition.of("relay_ws_connections_closed_total");
            let is_settled = open <= own && exposition.of("relay_connections_total") <= own;
            if is_settled && i64::try_from(held)? <= own {
                return Ok(());
            }
            thread::park_timeout(SETTLING_PULSE);
        }
        round.faults.push(format!("{open} connections are still open, {held} sockets held"));
        Ok(())
    }

    fn reconnect(&mut self) -> Result<()> {
        if let (None, Some(mint)) = (&self.control, self.mint) {
            let control = Control::start(self.subject.door(), mint, self.plan.rate);
            self.control = Some(control.context("opening the control pair")?);
        }
        ensure!(self.mint.is_none() || self.control.is_some(), "there is no control pair");
        Ok(())
    }
}

/// How long an attack may take to be counted.
const EFFORT_MAX: Duration = Duration::from_secs(60);
/// A daemon and a client.
const CONTROL_CONNECTIONS: i64 = 2;
/// How long connections may linger after an attack.
const SETTLING: Duration = Duration::from_secs(15);
const SETTLING_PULSE: Duration = Duration::from_millis(50);
