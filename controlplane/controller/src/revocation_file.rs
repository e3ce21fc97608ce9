//! The file of the revocations in force: what was revoked stays revoked when the process starts
//! anew.
//!
//! Shape: a line of JSON says what the file is, then one for each revocation. It is written whole
//! beside its place, flushed to the disk and renamed, so that whoever reads it finds the old one or
//! the new one. It names tokens and people, and is its user's alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::revocations::{Revocation, Revoked};

/// Where revocations are kept.
#[derive(Clone, Debug)]
pub(crate) struct RevocationFile {
    path: PathBuf,
}

/// Why the revocations that were kept cannot be had. Without them tokens would be accepted that
/// somebody has revoked, so nothing is started: the operator mends the file, or removes it.
#[derive(Debug, thiserror::Error)]
pub enum RevocationFileError {
    /// It cannot be read, or no file can be made beside it.
    #[error("{path}: {error}")]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It is damaged, of another program, or of a later release.
    #[error("{path}, line {line}: not what this program writes there")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Where, from one on.
        line: usize,
    },
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    relay_revocations: u32,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    kind: Kind,
    name: String,
    until_secs: i64,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
enum Kind {
    TokenId,
    Subject,
    Workspace,
    KeyId,
}

impl RevocationFile {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// What was kept; nothing where there is no file yet. Finds out whether one can be written.
    ///
    /// # Errors
    /// [`RevocationFileError`].
    pub(crate) fn load(&self) -> Result<Vec<Revocation>, RevocationFileError> {
        let writable = self.beside().and_then(|(draft, _)| fs::remove_file(draft));
        writable.map_err(|error| self.unusable(error))?;
        self.read()
    }

    /// What was kept; nothing where there is no file yet. Leaves everything as it is, also while a
    /// relay writes there.
    ///
    /// # Errors
    /// [`RevocationFileError`].
    pub(crate) fn read(&self) -> Result<Vec<Revocation>, RevocationFileError> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.unusable(error)),
        };
        let malformed =
            |line| RevocationFileError::Malformed { path: self.path.clone(), line: line + 1 };
        let mut lines = text.lines().enumerate();
        let head = lines.next().and_then(|(_, head)| serde_json::from_str::<Head>(head).ok());
        if head.is_none_or(|head| head.relay_revocations != FORM) {
            return Err(malformed(0));
        }
        let read =
            |(at, line)| serde_json::from_str(line).map(Line::into).map_err(|_| malformed(at));
        lines.map(read).collect()
    }

    /// Puts these in place of what was kept. Blocks until the disk has them.
    ///
    /// # Errors
    /// What the system says; what was kept before is still there.
    pub(crate) fn save(&self, revocations: Vec<Revocation>) -> io::Result<()> {
        let mut text = serde_json::to_vec(&Head { relay_revocations: FORM })?;
        text.push(b'\n');
        for revocation in revocations {
            serde_json::to_writer(&mut text, &Line::from(revocation))?;
            text.push(b'\n');
        }
        let (draft, mut file) = self.beside()?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(draft, &self.path)?;
        File::open(self.folder())?.sync_all()
    }

    /// An empty file in the same folder, that nobody else reads.
    fn beside(&self) -> io::Result<(PathBuf, File)> {
        let mut draft = self.path.clone().into_os_string();
        draft.push(".new");
        let draft = PathBuf::from(draft);
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        Ok((draft, file))
    }

    fn unusable(&self, error: io::Error) -> RevocationFileError {
        RevocationFileError::Unusable { path: self.path.clone(), error }
    }

    fn folder(&self) -> &Path {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.unwrap_or(Path::new("."))
    }
}

impl From<Line> for Revocation {
    fn from(Line { kind, name, until_secs }: Line) -> Self {
        let revoked = match kind {
            Kind::TokenId => Revoked::TokenId(name.into()),
            Kind::Subject => Revoked::Subject(name.into()),
            Kind::Workspace => Revoked::Workspace(name.into()),
            Kind::KeyId => Revoked::KeyId(name.into()),
        };
        Self { revoked, until_secs }
    }
}

impl From<Revocation> for Line {
    fn from(Revocation { revoked, until_secs }: Revocation) -> Self {
        let (kind, name) = match revoked {
            Revoked::TokenId(name) => (Kind::TokenId, name.into()),
            Revoked::Subject(name) => (Kind::Subject, name.into()),
            Revoked::Workspace(id) => (Kind::Workspace, id.into()),
            Revoked::KeyId(name) => (Kind::KeyId, name.into()),
        };
        Self { kind, name, until_secs }
    }
}

/// The form of the file. A later one is refused: what it says would be lost.
const FORM: u32 = 1;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn revocations() -> Vec<Revocation> {
        let all = [
            Revoked::TokenId("t1\n\"".into()),
            Revoked::Subject("s1".into()),
            Revoked::Workspace("ws1".into()),
            Revoked::KeyId("k1".into()),
        ];
        (100..).zip(all).map(|(until_secs, revoked)| Revocation { revoked, until_secs }).collect()
    }

    fn file() -> (tempfile::TempDir, RevocationFile) {
        let dir = tempfile::tempdir().unwrap();
        let file = RevocationFile::at(dir.path().join("revocations"));
        (dir, file)
    }

    #[test]
    fn what_was_saved_is_found_again_and_only_that() {
        let (dir, file) = file();
        assert_eq!(file.load().unwrap(), []);
        file.save(revocations()).unwrap();
        assert_eq!(file.load().unwrap(), revocations());
        file.save(revocations().split_off(3)).unwrap();
        assert_eq!(file.load().unwrap(), revocations().split_off(3));
        let mode = fs::metadata(&file.path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn a_write_that_fails_leaves_what_was_there() {
        let (dir, file) = file();
        file.save(revocations()).unwrap();
        // Nothing can be written where a folder is.
        fs::create_dir(dir.path().join("revocations.new")).unwrap();
        assert!(file.save(Vec::new()).is_err());
        assert!(matches!(file.load(), Err(RevocationFileError::Unusable { .. })));
        fs::remove_dir(dir.path().join("revocations.new")).unwrap();
        assert_eq!(file.load().unwrap(), revocations());
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_the_line() {
        let (_dir, file) = file();
        for (text, expected) in [
            ("", 1),
            ("{}\n", 1),
            ("{\"relayRevocations\":2}\n", 1),
            ("{\"relayRevocations\":1}\n\n", 2),
            ("{\"relayRevocations\":1}\n{\"kind\":\"keyId\",\"name\":\"t\",\"untilSecs\":1}\nx", 3),
            ("{\"relayRevocations\":1}\n{\"kind\":\"issuer\",\"name\":\"t\",\"untilSecs\":1}", 2),
        ] {
            fs::write(&file.path, text).unwrap();
            match file.load() {
                Err(RevocationFileError::Malformed { line, .. }) => assert_eq!(line, expected),
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }
}
