//! Every class of attack.

pub mod crowd;
pub mod descriptor;
pub mod flood;
pub mod forgery;
pub mod head;
pub mod hoard;
pub mod platform;
pub mod reset;
pub mod silence;
pub mod slow;
pub mod target;
pub mod text;
pub mod tls;
pub mod violation;
pub mod worker;

use crate::attack::{Attack, Effort, Needs};

/// No attack at all: how far two stretches are apart of which none is disturbed.
pub const NOBODY: Attack = Attack {
    name: "nobody",
    what: "Nothing.",
    reference: "The same.",
    needs: Needs::Nothing,
    counters: &[],
    play: |scene, until| {
        scene.rest(until);
        Ok(Effort::default())
    },
};

/// All classes, in the order in which they are run.
pub fn all() -> Vec<&'static Attack> {
    let groups: [&[Attack]; 15] = [
        target::CLASSES,
        head::CLASSES,
        forgery::CLASSES,
        reset::CLASSES,
        violation::CLASSES,
        text::CLASSES,
        slow::CLASSES,
        silence::CLASSES,
        flood::CLASSES,
        worker::CLASSES,
        tls::CLASSES,
        platform::CLASSES,
        hoard::CLASSES,
        crowd::CLASSES,
        descriptor::CLASSES,
    ];
    groups.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_class_has_a_name_of_its_own_and_says_what_it_does() {
        let names: HashSet<_> = all().iter().map(|attack| attack.name).collect();
        assert_eq!(names.len(), all().len());
        for attack in all() {
            assert!(attack.what.ends_with('.') && attack.what.len() > 10, "{}", attack.name);
            // What the reference did may be a status alone.
            assert!(attack.reference.ends_with('.'), "{}", attack.name);
        }
    }
}
