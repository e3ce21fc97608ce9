//! The other plane, where it is another process: what both show each other, and whether it is
//! there.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::certificate;
use super::finding::{Finding, Verdict};
use super::names;
use crate::config::{Control, ControlListen, ControlUrl, Role};
use crate::link_credentials::{LINK, access, listening_tls};

/// The files by which this plane and the other know each other, where they speak TLS.
pub(crate) fn certificates(control: &Control, now: Duration) -> Vec<Finding> {
    match control.role {
        Role::All => Vec::new(),
        Role::DataPlane => of_caller(control, now),
        Role::ControlPlane => match (&control.listen, listening_tls(control)) {
            // A data plane that is refused admits nobody.
            (Some(ControlListen::Tcp(_)), Some(files)) => {
                certificate::door(CERTIFICATE, &files, &LINK, now, Verdict::Fail)
            }
            _ => Vec::new(),
        },
    }
}

fn of_caller(control: &Control, now: Duration) -> Vec<Finding> {
    if !matches!(&control.url, Some(ControlUrl::Url(url)) if url.scheme() == "https") {
        return Vec::new();
    }
    let authorities = control.authorities.as_deref();
    let authorities = authorities
        .map(|path| certificate::trusted("link authorities", LINK.authorities, path, now));
    let mut findings = Vec::from_iter(authorities);
    if let (Some(shown), Some(key)) = (&control.certificate, &control.key) {
        findings.extend(certificate::caller(CERTIFICATE, &LINK, shown, key, now));
    }
    // The checks above read DER too; the link does not.
    if findings.iter().all(|finding| finding.verdict != Verdict::Fail) {
        findings.extend(access(control).err().map(|error| {
            let remedy = "PEM files that this user can read";
            Finding::fail(CERTIFICATE, format!("{error:#}"), remedy)
        }));
    }
    findings
}

/// Whether a data plane reaches its control plane. Nothing to say in other roles.
pub(crate) async fn check(control: &Control) -> Option<Finding> {
    let url = control.url.as_ref().filter(|_| control.role == Role::DataPlane)?;
    let (shown, reached) = match url {
        ControlUrl::Url(url) => (url.to_string(), names::reach(CHECK, URL, url, PATIENCE).await),
        ControlUrl::Unix(path) => (path.display().to_string(), reach_file(path)),
    };
    Some(match reached {
        Ok(()) => Finding::ok(CHECK, format!("{shown} takes a connection")),
        Err(finding) => finding,
    })
}

/// A connection to a socket of this host is there at once, or not at all.
fn reach_file(path: &Path) -> Result<(), Finding> {
    UnixStream::connect(path).map(drop).map_err(|error| {
        Finding::fail(
            CHECK,
            format!("{} takes no connection: {error}", path.display()),
            format!("start the control plane as the same user, or mend {URL}"),
        )
    })
}

const CHECK: &str = "control plane";
const CERTIFICATE: &str = "link certificate";
const URL: &str = "RELAY_CONTROL_URL";

/// An operator waits for this; a data plane tries for as long as it takes.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::config::{Config, FlagValue, Machine};

    fn control(settings: &[(&str, &str)]) -> Control {
        let given = settings.iter().map(|(name, value)| FlagValue::set(name, value));
        let given: Vec<_> = given.chain([FlagValue::set("HOST", "127.0.0.1")]).collect();
        Config::parse(&given, &Machine).expect("usable").config.control
    }

    #[tokio::test]
    async fn a_data_plane_needs_its_control_plane_and_nobody_else_does() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("planes.sock");
        let url = format!("unix:{}", path.display());
        let moving = control(&[("RELAY_ROLE", "dataplane"), (URL, &url)]);
        let gone = check(&moving).await.expect("it is asked");
        assert_eq!((gone.check, gone.verdict), ("control plane", Verdict::Fail));
        let _listener = UnixListener::bind(&path).expect("bound");
        assert_eq!(check(&moving).await.expect("it is asked").verdict, Verdict::Ok);
        let unknown = [("RELAY_ROLE", "dataplane"), (URL, "http://localhost:1")];
        let unknown = check(&control(&unknown)).await.expect("it is asked");
        assert_eq!(unknown.verdict, Verdict::Fail);
        assert!(unknown.remedy.is_some_and(|remedy| remedy.contains(URL)));
        assert_eq!(check(&control(&[(URL, &url)])).await, None);
    }

    #[test]
    fn files_of_the_link_are_those_of_the_role() {
        let dir = tempfile::tempdir().expect("a directory");
        let [certificate, key] = ["link.crt", "link.key"].map(|name| dir.path().join(name));
        let made = rcgen::generate_simple_self_signed(["relay.corp".to_owned()]).expect("made");
        std::fs::write(&certificate, made.cert.pem()).expect("written");
        std::fs::write(&key, "spoilt").expect("written");
        let [certificate, key] = [&certificate, &key].map(|path| path.to_str().expect("text"));
        let files =
            [(LINK.certificate, certificate), (LINK.key, key), (LINK.authorities, certificate)];
        let with = |role: [(&'static str, &'static str); 2]| {
            let settings: Vec<_> = role.into_iter().chain(files).collect();
            certificates(&control(&settings), NOW)
        };
        let moving = with([("RELAY_ROLE", "dataplane"), (URL, "https://control.corp:7782")]);
        let checks: Vec<_> = moving.iter().map(|finding| finding.check).collect();
        assert_eq!(checks, ["link authorities", CERTIFICATE, CERTIFICATE]);
        assert!(moving[2].found.starts_with(LINK.key), "{moving:?}");
        std::fs::write(key, made.signing_key.serialize_pem()).expect("written");
        std::fs::write(certificate, made.cert.der()).expect("written");
        let binary = with([("RELAY_ROLE", "dataplane"), (URL, "https://control.corp:7782")]);
        let last = binary.last().expect("it is said");
        assert_eq!((last.check, last.verdict), (CERTIFICATE, Verdict::Fail), "{binary:?}");
        assert!(last.found.contains("PEM"), "{binary:?}");
        std::fs::write(key, "spoilt").expect("written");
        let plain = [("RELAY_ROLE", "dataplane"), (URL, "http://127.0.0.1:7782")];
        assert_eq!(with(plain), []);
        let deciding = [("RELAY_ROLE", "controlplane"), ("RELAY_CONTROL_LISTEN", "127.0.0.1:7782")];
        let deciding = with(deciding);
        assert_eq!((deciding.len(), deciding[0].verdict), (1, Verdict::Fail), "{deciding:?}");
        assert!(deciding[0].found.contains(LINK.key), "{deciding:?}");
    }

    /// 2030-01-01.
    const NOW: Duration = Duration::from_secs(1_893_456_000);
}
