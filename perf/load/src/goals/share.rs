//! What the relay means to be per frame, against whom.

use serde::Serialize;

/// The most that the relay's processor time per frame may be, over a contender's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Share(f64);

/// A contender by its name, bytes of a message, frames in flight, and the most: any size or depth
/// where none is named.
type Row = (&'static str, Option<u64>, Option<u64>, f64);

/// In the order in which they are shown.
const SHARES: &[Row] = &[
    ("passthrough", Some(256), Some(1), 1.1),
    ("passthrough", Some(256), Some(16), 1.4),
    ("passthrough", Some(4096), Some(16), 1.45),
    ("passthrough", Some(65_536), Some(8), 1.2),
    ("axum", Some(256), Some(1), 0.85),
    ("axum", Some(256), Some(16), 0.65),
    ("axum", Some(4096), Some(16), 0.5),
    ("axum", Some(65_536), None, 0.6),
    ("node", Some(256), Some(16), 1.0 / 12.0),
    ("node", Some(4096), Some(16), 1.0 / 12.0),
    ("node", Some(65_536), None, 1.0 / 8.0),
    ("monoio", None, None, 1.0),
    ("glommio", None, None, 1.0),
];

impl Share {
    /// The goal at a point, where there is one.
    pub(crate) fn of(contender: &str, payload_bytes: u64, depth: u64) -> Option<Self> {
        let is_met = |wanted: Option<u64>, value: u64| wanted.is_none_or(|wanted| wanted == value);
        let mut rows = SHARES.iter().filter(|row| row.0 == contender);
        let row = rows.find(|row| is_met(row.1, payload_bytes) && is_met(row.2, depth))?;
        Some(Self(row.3))
    }

    /// Whether a ratio holds it.
    pub(crate) fn is_held(self, ratio: f64) -> bool {
        ratio <= self.0
    }

    /// The goal, and whether a ratio holds it.
    pub(crate) fn verdict(self, ratio: f64) -> String {
        let word = if self.is_held(ratio) { "held" } else { "missed" };
        format!("{} {word}", self.bound())
    }

    /// As text.
    pub(crate) fn bound(self) -> String {
        format!("≤ {:.3}", self.0)
    }

    /// Those that were not looked at: each as text.
    pub(super) fn missing(seen: &[(String, u64, u64)]) -> Vec<String> {
        let is_seen = |row: &&Row| {
            seen.iter().any(|(contender, payload, depth)| {
                *contender == row.0
                    && row.1.is_none_or(|wanted| wanted == *payload)
                    && row.2.is_none_or(|wanted| wanted == *depth)
            })
        };
        let any = |value: Option<u64>| value.map_or_else(|| "any".to_owned(), |it| it.to_string());
        let missing = SHARES.iter().filter(|row| !is_seen(row));
        missing.map(|row| format!("÷ {}, {} B, depth {}", row.0, any(row.1), any(row.2))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_held_up_to_its_bound() {
        let goal = Share::of("axum", 256, 16).expect("a goal");
        assert_eq!(goal.verdict(0.65), "≤ 0.650 held");
        assert_eq!(goal.verdict(0.651), "≤ 0.650 missed");
        assert_eq!(Share::of("splice", 256, 16), None);
        assert_eq!(Share::of("axum", 1000, 3), None);
        assert_eq!(Share::of("monoio", 1000, 3), Some(Share(1.0)));
    }

    #[test]
    fn a_goal_that_nobody_looked_at_is_missing() {
        let seen = [("axum".to_owned(), 65_536, 8), ("monoio".to_owned(), 256, 1)];
        let missing = Share::missing(&seen);
        assert_eq!(missing.len(), SHARES.len() - 2);
        assert!(missing.contains(&"÷ glommio, any B, depth any".to_owned()), "{missing:?}");
    }
}
