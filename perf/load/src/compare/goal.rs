//! What the relay means to be, against whom.

use serde::Serialize;

use super::Point;
use crate::contender::Contender;

/// The most that the relay's processor time per frame may be, over a contender's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub(super) struct Goal(f64);

impl Goal {
    /// The goal at a point, where there is one.
    pub(super) fn of(contender: Contender, point: Point) -> Option<Self> {
        let Point { payload_bytes, depth } = point;
        let most = match (contender, payload_bytes, depth) {
            (Contender::Axum, 256, 1) => 0.85,
            (Contender::Axum, 256, 16) => 0.65,
            (Contender::Axum, 4096, 16) => 0.5,
            (Contender::Axum, 65536, _) => 0.6,
            (Contender::Node, 256 | 4096, 16) => 1.0 / 12.0,
            (Contender::Node, 65536, _) => 1.0 / 8.0,
            (Contender::Monoio | Contender::Glommio, _, _) => 1.0,
            (Contender::Passthrough, 256, 1) => 1.1,
            (Contender::Passthrough, 256, 16) => 1.4,
            (Contender::Passthrough, 4096, 16) => 1.45,
            (Contender::Passthrough, 65536, 8) => 1.2,
            _ => return None,
        };
        Some(Self(most))
    }

    /// The goal, and whether a ratio holds it.
    pub(super) fn verdict(self, ratio: f64) -> String {
        let word = if ratio <= self.0 { "held" } else { "missed" };
        format!("≤ {:.3} {word}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_held_up_to_its_bound() {
        let point = |text: &str| text.parse().expect("a point");
        let goal = Goal::of(Contender::Axum, point("256x16")).expect("a goal");
        assert_eq!(goal.verdict(0.65), "≤ 0.650 held");
        assert_eq!(goal.verdict(0.651), "≤ 0.650 missed");
        assert_eq!(Goal::of(Contender::Splice, point("256x16")), None);
        assert_eq!(Goal::of(Contender::Axum, point("1000x3")), None);
    }
}
