//! Which protocol two planes speak.

/// The versions one side knows: its own, and the one before it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Versions {
    own: u32,
}

/// The two sides have no version in common.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "the other side speaks version {theirs} of the protocol between the planes, this one {own} and \
     {before}; run programs that are at most one such version apart",
    before = own.saturating_sub(1)
)]
pub struct Apart {
    /// This side's.
    pub own: u32,
    /// The other side's.
    pub theirs: u32,
}

impl Versions {
    /// Those of this program.
    pub const CURRENT: Self = Self::of(1);

    /// Those of a program whose own version is this one.
    pub const fn of(own: u32) -> Self {
        Self { own }
    }

    /// This side's own.
    pub(crate) const fn own(self) -> u32 {
        self.own
    }

    /// What is spoken with another side that names this version as its own, or as the lower of
    /// both.
    ///
    /// # Errors
    /// [`Apart`]: it is too old. One that is too new says so itself.
    pub fn agree(self, theirs: u32) -> Result<u32, Apart> {
        let spoken = self.own.min(theirs);
        if spoken.saturating_add(1) < self.own {
            return Err(Apart { own: self.own, theirs });
        }
        Ok(spoken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_version_apart_is_near_enough_and_two_are_not() {
        let (two, three, four) = (Versions::of(2), Versions::of(3), Versions::of(4));
        assert_eq!(three.agree(3), Ok(3));
        assert_eq!(three.agree(2), Ok(2));
        assert_eq!(two.agree(3), Ok(2));
        assert_eq!(four.agree(2), Err(Apart { own: 4, theirs: 2 }));
        // The newer of the two refuses.
        assert_eq!(two.agree(4), Ok(2));
    }
}
