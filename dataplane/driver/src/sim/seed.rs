//! The one source of chance.

/// A small generator (SplitMix64): the same seed gives the same sequence on every machine.
#[derive(Clone, Debug)]
pub struct Seed(u64);

impl Seed {
    /// Starts the sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`; zero when `bound` is.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.bits() % bound }
    }

    /// A length from 1 to `most`; zero when `most` is.
    pub fn length(&mut self, most: usize) -> usize {
        if most == 0 { 0 } else { 1 + self.below(most as u64) as usize }
    }

    /// Whether something of this probability, in millionths, happens now.
    pub fn happens(&mut self, millionths: u32) -> bool {
        self.below(1_000_000) < u64::from(millionths)
    }

    /// An independent sequence that follows from this one.
    pub fn fork(&mut self) -> Self {
        Self(self.bits())
    }
}
