//! Memory that only starting needed.
//!
//! Safe code will not do: it is the process's own code that is unmapped.
#![allow(unsafe_code)]

use std::{fs, io};

use rustix::mm::{Advice, madvise};

/// Takes code out of the process's memory that was needed for starting alone, once that is done.
/// What is still used comes back by itself: a minor fault for each 64 KiB of it, once.
///
/// Most of a program's code runs a single time: arguments, configuration, certificates. It lies
/// between what runs on, and the kernel maps 64 KiB around whatever is touched. The files stay in
/// the page cache, where they cost what they cost; they are no longer counted as memory of this
/// process, which then shows what a relay that runs uses.
///
/// # Errors
/// What the kernel says: everything stays as it is then, or a part of it, and works as before.
/// Source: madvise(2), proc_pid_maps(5).
pub fn unmap_code() -> io::Result<()> {
    for mapping in fs::read_to_string("/proc/self/maps")?.lines().filter_map(Mapping::of_code) {
        let start = std::ptr::with_exposed_provenance_mut(mapping.start);
        // SAFETY: the range is one that the kernel just named, is backed by a file and cannot be
        // written to: what is dropped is read from the file again, the same bytes, when it is next
        // looked at. Nobody unmaps code or puts something else into its place meanwhile, as no
        // library is ever unloaded.
        unsafe { madvise(start, mapping.bytes, Advice::LinuxDontNeed) }?;
    }
    Ok(())
}

/// A piece of the address space.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Mapping {
    start: usize,
    bytes: usize,
}

impl Mapping {
    /// The mapping of a line in the kernel's list, if it is code of a file.
    fn of_code(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        // Private and never written to: what was written to would be lost.
        (words.next()? == "r-xp").then_some(())?;
        let (_offset, _device, _inode, path) =
            (words.next()?, words.next()?, words.next()?, words.next()?);
        path.starts_with('/').then_some(())?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let bytes = usize::from_str_radix(end, 16).ok()?.checked_sub(start)?;
        Some(Self { start, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_that_cannot_be_written_to_is_unmapped() {
        let code = "55a559850000-55a55985d000 r-xp 003dc000 fe:00 4711   /usr/bin/relay";
        assert_eq!(
            Mapping::of_code(code),
            Some(Mapping { start: 0x55a5_5985_0000, bytes: 0xd000 }),
        );
        for other in [
            "55a559480000-55a55985d000 r--p 00000000 fe:00 4711   /usr/bin/relay",
            "55a55a3f9000-55a55a3fa000 rw-p 00f76000 fe:00 4711   /usr/bin/relay",
            "55a55a3f9000-55a55a3fa000 rwxp 00f76000 fe:00 4711   /usr/bin/relay",
            "7ffd693e1000-7ffd693e3000 r-xp 00000000 00:00 0      [vdso]",
            "7f2b32226000-7f2b323a5000 r-xp 00000000 00:00 0 ",
            "",
        ] {
            assert_eq!(Mapping::of_code(other), None, "{other}");
        }
    }
}
