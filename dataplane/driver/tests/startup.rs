//! A process of its own, whose code nobody else touches meanwhile.

use std::{fs, io};

/// Resident bytes of all code that is mapped from files, in KiB. Source: proc_pid_smaps(5).
fn resident_code_kib() -> io::Result<u64> {
    let mut is_code = false;
    let mut sum = 0;
    for line in fs::read_to_string("/proc/self/smaps")?.lines() {
        if line.contains(" r-xp ") {
            is_code = line.contains(" /");
        } else if line.contains("-p ") || line.contains("--s ") {
            is_code = false;
        } else if let Some(rest) = line.strip_prefix("Rss:").filter(|_| is_code) {
            let kib = rest.trim_end_matches("kB").trim().parse::<u64>();
            sum += kib.map_err(io::Error::other)?;
        }
    }
    Ok(sum)
}

#[test]
fn code_that_ran_once_is_no_memory_of_a_process_that_goes_on() -> io::Result<()> {
    let before = resident_code_kib()?;
    relay_driver::unmap_code()?;
    let after = resident_code_kib()?;
    assert!(before > 0 && after < before, "{before} KiB before, {after} KiB after");
    Ok(())
}
