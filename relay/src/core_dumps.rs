//! Keeps what the process knows out of files.

use std::io;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

/// From here on nobody but root may attach to the process, read its memory or its environment, and
/// no crash leaves a core. It is the first thing the program does: secrets are read next.
///
/// Source: PR_SET_DUMPABLE(2const), core(5).
pub(crate) fn forbid() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // A process may be made dumpable again by accident; the hard limit cannot be raised again.
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: hard_limit() })?;
    Ok(())
}

/// Takes the hard limit away too, once it is known that nobody wants cores.
pub(crate) fn forbid_for_good() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(())
}

/// Lets a crash leave a core as large as the hard limit says, and debuggers attach. For people who
/// look for a fault and know that a core has every key in it.
pub(crate) fn allow() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    let maximum = hard_limit();
    setrlimit(Resource::Core, Rlimit { current: maximum, maximum })?;
    Ok(())
}

fn hard_limit() -> Option<u64> {
    getrlimit(Resource::Core).maximum
}

#[cfg(test)]
mod tests {
    use rustix::process::dumpable_behavior;

    use super::*;

    #[test]
    fn a_forbidden_dump_is_forbidden_to_the_kernel_and_allowed_again_on_request() {
        forbid().expect("forbidden");
        assert_eq!(dumpable_behavior().expect("known"), DumpableBehavior::NotDumpable);
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
        allow().expect("allowed");
        assert_eq!(dumpable_behavior().expect("known"), DumpableBehavior::Dumpable);
        assert_eq!(getrlimit(Resource::Core).current, hard_limit());
    }
}
