//! A listening socket at a file.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::listener::BACKLOG;

/// The file of a listening socket. Removed when dropped, unless another has taken its place.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // One that cannot be removed is replaced at the next start.
            let _removed = fs::remove_file(&self.path);
        }
    }
}

/// Binds and listens. A socket that nobody listens on any more is replaced.
///
/// The file never has more permissions than `mode`, not even for a moment.
///
/// Errors: somebody listens there, the file is no socket, or the kernel refuses.
pub(crate) fn bind(path: &Path, mode: u32) -> Result<(OwnedFd, SocketFile)> {
    clear(path)?;
    let address = SocketAddrUnix::new(path).context("a socket's path has at most 107 bytes")?;
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Linux gives the file the permissions of the unbound socket, less the umask. Source: unix(7).
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(mode))?;
    rustix::net::bind(&socket, &address).context("cannot bind")?;
    let file = SocketFile { path: path.to_owned(), identity: identity(path)? };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).context("cannot set its mode")?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok((socket, file))
}

/// Makes room at the path, if what is there is a socket without a listener.
fn clear(path: &Path) -> Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context("cannot look at it"),
    };
    if !found.file_type().is_socket() {
        bail!("something that is no socket is there already");
    }
    match UnixStream::connect(path) {
        Ok(_) => bail!("somebody listens there already"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).context("cannot replace the socket left behind there")
        }
        Err(error) => Err(error).context("cannot find out whether somebody listens there"),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a directory")
    }

    #[test]
    fn the_file_has_its_mode_and_goes_with_its_owner() {
        let folder = folder();
        let path = folder.path().join("s");
        for mode in [0o600, 0o660, 0o666] {
            let (_socket, file) = bind(&path, mode).expect("bound");
            let found = fs::metadata(&path).expect("it is there");
            assert_eq!(found.permissions().mode() & 0o777, mode);
            UnixStream::connect(&path).expect("somebody listens");
            drop(file);
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_socket_left_behind_is_replaced() {
        let folder = folder();
        let path = folder.path().join("s");
        drop(UnixListener::bind(&path).expect("bound"));
        assert!(path.exists());
        let _bound = bind(&path, 0o600).expect("nobody listens");
        UnixStream::connect(&path).expect("somebody listens");
    }

    #[test]
    fn a_socket_in_use_is_left_alone() {
        let folder = folder();
        let path = folder.path().join("s");
        let _other = UnixListener::bind(&path).expect("bound");
        let error = bind(&path, 0o600).expect_err("in use");
        assert!(format!("{error:#}").contains("somebody listens"), "{error:#}");
        UnixStream::connect(&path).expect("the other still listens");
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let folder = folder();
        let path = folder.path().join("s");
        fs::write(&path, "precious").expect("written");
        assert!(bind(&path, 0o600).is_err());
        assert_eq!(fs::read_to_string(&path).expect("still there"), "precious");
    }

    #[test]
    fn the_successors_file_is_not_removed() {
        let folder = folder();
        let path = folder.path().join("s");
        let (_socket, first) = bind(&path, 0o600).expect("bound");
        fs::rename(&path, folder.path().join("old")).expect("moved");
        let _second = bind(&path, 0o600).expect("bound");
        drop(first);
        assert!(path.exists());
    }

    #[test]
    fn a_path_that_is_too_long_is_refused() {
        let folder = folder();
        let error = bind(&folder.path().join("s".repeat(120)), 0o600).expect_err("too long");
        assert!(format!("{error:#}").contains("107"), "{error:#}");
    }
}
