//! Keeps a flood of one event out of the log.

use std::collections::BTreeMap;
use std::time::Duration;

use relay_contract::{Level, Tick};

/// Lets so many lines of each event through per window and counts the rest. What one peer causes
/// must not hide what the others do, nor fill a disk.
///
/// Cost: one look-up per line. Memory: events have names of the source code, so there are few.
#[derive(Debug, Default)]
pub(crate) struct Damper {
    windows: BTreeMap<&'static str, Window>,
    /// Windows that kept something back which was not told yet.
    untold: usize,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    ends: Tick,
    passed: u32,
    suppressed: u32,
}

/// What a window kept back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Suppressed {
    pub(crate) event: &'static str,
    pub(crate) count: u32,
}

impl Damper {
    /// Whether a line of this event may be written now.
    pub(crate) fn passes(&mut self, now: Tick, level: Level, event: &'static str) -> bool {
        let fresh = Window { ends: now.after(WINDOW), passed: 0, suppressed: 0 };
        let window = self.windows.entry(event).or_insert(fresh);
        // Of a window with something to tell, `close` is asked first.
        if window.ends <= now && window.suppressed == 0 {
            *window = fresh;
        }
        if window.passed < lines_max(level) {
            window.passed += 1;
            return true;
        }
        self.untold += usize::from(window.suppressed == 0);
        window.suppressed = window.suppressed.saturating_add(1);
        false
    }

    /// Ends one window that is over, or any if `now` is none, and tells what it kept back.
    pub(crate) fn close(&mut self, now: Option<Tick>) -> Option<Suppressed> {
        let is_over = |window: &Window| now.is_none_or(|now| window.ends <= now);
        let mut windows = self.windows.iter();
        let (&event, window) =
            windows.find(|(_, window)| window.suppressed > 0 && is_over(window))?;
        let count = window.suppressed;
        self.windows.remove(event);
        self.untold -= 1;
        Some(Suppressed { event, count })
    }

    /// Whether something was kept back that was not told yet.
    pub(crate) fn has_suppressed(&self) -> bool {
        self.untold > 0
    }
}

/// What peers may cause without being admitted is bounded closely; what needs an admission is
/// bounded by the limits on admissions already.
fn lines_max(level: Level) -> u32 {
    match level {
        Level::Info => INFO_LINES_MAX,
        Level::Debug | Level::Warn | Level::Error => LINES_MAX,
    }
}

/// How long lines of one event are counted together.
const WINDOW: Duration = Duration::from_secs(1);

/// Lines of one event in a window. Protects stdout, and whoever pays for keeping it. Reached:
/// counted by `relay_log_entries_suppressed_total` and told by one line when the window is over.
const LINES_MAX: u32 = 100;

/// The same for what belongs to normal life, such as a thousand reconnecting clients.
const INFO_LINES_MAX: u32 = 2000;

#[cfg(test)]
mod tests {
    use super::*;

    const START: Tick = Tick(0);

    fn passed(damper: &mut Damper, now: Tick, event: &'static str, lines: u32) -> u32 {
        let mut passed = 0;
        for _ in 0..lines {
            passed += u32::from(damper.passes(now, Level::Warn, event));
        }
        passed
    }

    #[test]
    fn a_flood_of_one_event_leaves_others_alone() {
        let mut damper = Damper::default();
        assert_eq!(passed(&mut damper, START, "flood", 5000), LINES_MAX);
        assert_eq!(passed(&mut damper, START, "other", 1), 1);
        assert!(damper.has_suppressed());
    }

    #[test]
    fn a_window_tells_once_what_it_kept_back_and_the_next_begins() {
        let mut damper = Damper::default();
        passed(&mut damper, START, "flood", LINES_MAX + 7);
        assert_eq!(damper.close(Some(START)), None, "not over");
        let over = START.after(WINDOW);
        let told = Suppressed { event: "flood", count: 7 };
        assert_eq!(damper.close(Some(over)), Some(told));
        assert_eq!(damper.close(Some(over)), None);
        assert!(!damper.has_suppressed());
        assert_eq!(passed(&mut damper, over, "flood", 1), 1);
    }

    #[test]
    fn a_quiet_window_ends_by_itself() {
        let mut damper = Damper::default();
        assert_eq!(passed(&mut damper, START, "x", LINES_MAX), LINES_MAX);
        assert_eq!(passed(&mut damper, START.after(WINDOW), "x", LINES_MAX), LINES_MAX);
    }

    #[test]
    fn at_the_end_everything_is_told() {
        let mut damper = Damper::default();
        passed(&mut damper, START, "a", LINES_MAX + 1);
        passed(&mut damper, START, "b", LINES_MAX + 2);
        assert_eq!(damper.close(None).map(|told| told.count), Some(1));
        assert_eq!(damper.close(None).map(|told| told.count), Some(2));
        assert_eq!(damper.close(None), None);
    }

    #[test]
    fn normal_life_has_more_room_than_refusals() {
        let mut damper = Damper::default();
        let passed = (0..INFO_LINES_MAX).filter(|_| damper.passes(START, Level::Info, "x")).count();
        assert_eq!(passed, INFO_LINES_MAX as usize);
        assert!(!damper.passes(START, Level::Info, "x"));
    }
}
