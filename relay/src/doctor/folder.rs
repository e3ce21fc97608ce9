//! Whether this user may make something in a directory.

use std::io;
use std::path::Path;

use rustix::fs::{Access, access};

/// Whether a file of this path could be made, as far as its directory is concerned.
///
/// Errors: why not.
pub(super) fn can_be_written(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    Ok(access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
}
