//! Files that somebody reads while they change.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Result;

/// Replaces a file as a whole: who reads it meanwhile finds the old content or the new. Its owner
/// alone may.
///
/// Errors: what the kernel says; the old content is there still.
pub fn replace_file(dir: &Path, name: &str, content: &str) -> Result<()> {
    let new = dir.join("new");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(content.as_bytes())?;
    Ok(fs::rename(new, dir.join(name))?)
}
