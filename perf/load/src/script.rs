//! What a pair says: sizes, their order, how much at a time.

use std::rc::Rc;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::pair::Shape;

/// Messages of one size, and how often they come beside others.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Portion {
    pub(crate) bytes: usize,
    pub(crate) weight: usize,
}

/// What the pairs of one load say.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// Bytes of a message, by kind.
    pub(crate) sizes: Vec<usize>,
    /// The kinds in their order, over and over.
    order: Vec<u8>,
    /// Frames in flight per pair.
    pub(crate) depth: usize,
    /// Whether daemons send every frame back.
    pub(crate) echo: bool,
    /// Whether messages are truly encrypted, under a key that the two ends agree on.
    pub(crate) is_sealed: bool,
}

impl Script {
    /// Messages of one size.
    pub(crate) fn of(shape: Shape) -> Self {
        Self {
            sizes: vec![shape.payload_bytes],
            order: vec![0; shape.depth],
            depth: shape.depth,
            echo: shape.echo,
            is_sealed: false,
        }
    }

    /// Messages of several sizes, each as often as its weight says, in an order that looks random
    /// and is the same every time.
    ///
    /// Errors: no portions or too many, a weight of zero, a cycle too long to lay out.
    pub(crate) fn mixed(
        portions: &[Portion],
        depth: usize,
        echo: bool,
        is_sealed: bool,
    ) -> Result<Self> {
        ensure!((1..=KINDS_MAX).contains(&portions.len()), "a mix has 1 to {KINDS_MAX} sizes");
        ensure!(portions.iter().all(|portion| portion.weight > 0), "a weight is at least 1");
        let divisor =
            portions.iter().fold(0, |divisor, portion| greatest_common(divisor, portion.weight));
        let mut cycle = Vec::new();
        for (kind, portion) in portions.iter().enumerate() {
            let count = portion.weight / divisor;
            ensure!(cycle.len() + count <= CYCLE_MAX, "weights add up to more than {CYCLE_MAX}");
            cycle.extend(std::iter::repeat_n(kind as u8, count));
        }
        shuffle(&mut cycle);
        let rounds = depth.div_ceil(cycle.len());
        Ok(Self {
            sizes: portions.iter().map(|portion| portion.bytes).collect(),
            order: cycle.repeat(rounds),
            depth,
            echo,
            is_sealed,
        })
    }

    /// The order in which the pair of this index sends: the same as all, begun elsewhere.
    pub(crate) fn pattern(&self, index: usize) -> Rc<[u8]> {
        let mut order = self.order.clone();
        order.rotate_left(index % self.order.len());
        order.into()
    }
}

fn greatest_common(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common(b, a % b) }
}

/// Puts values into an order that is the same every time.
fn shuffle(values: &mut [u8]) {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for last in (1..values.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        values.swap(last, (state % (last as u64 + 1)) as usize);
    }
}

/// Sizes of one mix.
const KINDS_MAX: usize = 16;
/// Messages after which a mix repeats. Each pair has as many of them in memory.
const CYCLE_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    const MIX: [Portion; 3] = [
        Portion { bytes: 256, weight: 70 },
        Portion { bytes: 4096, weight: 25 },
        Portion { bytes: 65_536, weight: 5 },
    ];

    #[test]
    fn a_mix_holds_its_weights_in_every_cycle() {
        let script = Script::mixed(&MIX, 4, false, false).expect("a mix");
        let count = |kind: u8| script.order.iter().filter(|each| **each == kind).count();
        assert_eq!((count(0), count(1), count(2)), (14, 5, 1));
        assert_eq!(script.order, Script::mixed(&MIX, 4, false, false).expect("again").order);
    }

    #[test]
    fn there_is_room_for_every_frame_in_flight() {
        let script = Script::mixed(&MIX, 64, false, false).expect("a mix");
        assert_eq!(script.order.len(), 80);
        assert_eq!(script.pattern(7).len(), 80);
        assert_eq!(script.pattern(7)[0], script.order[7]);
    }

    #[test]
    fn a_mix_that_cannot_be_is_refused() {
        let zero = Portion { bytes: 256, weight: 0 };
        let long = [Portion { bytes: 256, weight: 256 }, Portion { bytes: 4096, weight: 1 }];
        assert!(Script::mixed(&[], 1, false, false).is_err());
        assert!(Script::mixed(&[zero], 1, false, false).is_err());
        assert!(Script::mixed(&long, 1, false, false).is_err());
    }
}
