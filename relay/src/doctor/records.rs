//! The files that the relay keeps: what operators did, and what they revoked. Without them it does
//! not start.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use relay_controller::Probe;
use rustix::fs::{Access, access};

use super::finding::Finding;
use super::folder;
use crate::config::{AuditLog, Config};

/// Each file that is configured. Nothing is written, also where a relay keeps them already.
pub(crate) fn check(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Nobody else makes changes that would be written down.
    if config.control_api.listen.is_some()
        && let AuditLog::File(file) = &config.control_api.audit
    {
        findings.push(audit_log(&file.path));
    }
    findings.extend(config.admission.revocations_file.as_deref().map(revocations));
    findings
}

fn audit_log(path: &Path) -> Finding {
    const CHECK: &str = "audit log";
    let shown = path.display();
    match can_be_written(path) {
        Ok(()) => Finding::ok(CHECK, format!("{shown} can be written")),
        Err(error) => Finding::fail(
            CHECK,
            format!("RELAY_AUDIT_LOG={shown} cannot be opened: {error}"),
            "a file in a directory this user may write to (LogsDirectory=relay in the unit makes \
             /var/log/relay), or RELAY_AUDIT_LOG=stdout",
        ),
    }
}

fn revocations(path: &Path) -> Finding {
    const CHECK: &str = "revocations";
    let shown = path.display();
    // A new file takes the old one's place each time.
    if let Err(error) = folder::can_be_written(path) {
        return Finding::fail(
            CHECK,
            format!(
                "RELAY_REVOCATIONS_FILE={shown}: nothing can be made in its directory: {error}"
            ),
            "a directory this user may write to (StateDirectory=relay in the unit makes \
             /var/lib/relay)",
        );
    }
    match Probe::revocations(path) {
        Ok(count) => Finding::ok(CHECK, format!("{shown} can be written; {count} are kept there")),
        Err(error) => Finding::fail(
            CHECK,
            format!("RELAY_REVOCATIONS_FILE={error}"),
            "a file that this user can read and this release wrote; without it, tokens that \
             somebody has revoked are accepted again",
        ),
    }
}

/// Whether a file could be opened to write, or made.
fn can_be_written(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(facts) if facts.is_dir() => Err(ErrorKind::IsADirectory.into()),
        Ok(_) => Ok(access(path, Access::WRITE_OK)?),
        Err(error) if error.kind() == ErrorKind::NotFound => folder::can_be_written(path),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;
    use crate::config::{FlagValue, Machine};

    fn of(settings: &[(&str, &Path)]) -> Vec<Finding> {
        let settings = settings.iter();
        let given = settings.map(|(name, path)| FlagValue::set(name, path.to_str().expect("text")));
        let given: Vec<_> = given.chain([FlagValue::set("HOST", "127.0.0.1")]).collect();
        check(&Config::parse(&given, &Machine).expect("usable").config)
    }

    #[test]
    fn an_audit_log_that_cannot_be_opened_is_a_failure_where_there_are_calls_to_write_down() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("audit.log");
        let missing = dir.path().join("none/audit.log");
        let api = ("RELAY_CONTROL_API_LISTEN", Path::new("unix:/run/relay/control.sock"));
        for (path, verdict) in
            [(path.as_path(), Verdict::Ok), (&missing, Verdict::Fail), (dir.path(), Verdict::Fail)]
        {
            let findings = of(&[api, ("RELAY_AUDIT_LOG", path)]);
            assert_eq!((findings[0].check, findings[0].verdict), ("audit log", verdict));
        }
        assert!(!path.exists(), "nothing is changed");
        assert_eq!(of(&[("RELAY_AUDIT_LOG", &missing)]), []);
    }

    #[test]
    fn revocations_that_cannot_be_kept_or_read_are_a_failure() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("revocations");
        let finding = |path: &Path| of(&[("RELAY_REVOCATIONS_FILE", path)]).swap_remove(0);
        assert_eq!(finding(&path).verdict, Verdict::Ok);
        assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 0, "nothing is changed");
        let homeless = finding(&dir.path().join("none/revocations"));
        assert_eq!(homeless.verdict, Verdict::Fail, "{homeless:?}");
        assert!(homeless.remedy.is_some_and(|remedy| remedy.contains("StateDirectory")));
        fs::write(&path, "spoilt").expect("written");
        let spoilt = finding(&path);
        assert_eq!(spoilt.verdict, Verdict::Fail, "{spoilt:?}");
        assert!(spoilt.found.contains("line 1"), "{spoilt:?}");
    }
}
