//! The certificates of a door for gRPC: files become a configuration, whenever they change.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result};
use relay_contract::{Counter, Level, LogEntry};
use relay_controller::Reporter;
use rustls::crypto::aws_lc_rs;
use rustls::{RootCertStore, ServerConfig};

use crate::config::ControlTls;
use crate::tls::clients::{self, Strangers};
use crate::tls::{Stamp, certificates, private_key};

/// Certificates of a door for gRPC, read again when a file has changed by the time somebody
/// connects.
pub(crate) struct DoorCertificates {
    files: ControlTls,
    names: &'static Names,
    held: Mutex<Held>,
    reporter: OnceLock<Reporter>,
}

/// The variables that name its files, and the events that tell of new ones.
pub(crate) struct Names {
    pub(crate) certificate: &'static str,
    pub(crate) key: &'static str,
    pub(crate) authorities: &'static str,
    pub(crate) reloaded: &'static str,
    pub(crate) reload_failed: &'static str,
}

#[cfg(test)]
impl Names {
    /// Short ones.
    pub(crate) const SAMPLE: Self = Self {
        certificate: "CERT",
        key: "KEY",
        authorities: "CA",
        reloaded: "reloaded",
        reload_failed: "reload_failed",
    };
}

/// What was read, and what the files were then.
struct Held {
    stamp: Vec<Stamp>,
    server: Arc<ServerConfig>,
}

impl DoorCertificates {
    /// Errors: a file that cannot be read, or whose content is not what its variable says.
    pub(crate) fn load(files: ControlTls, names: &'static Names) -> Result<Self> {
        let stamp = stamp(&files);
        let held = Mutex::new(Held { stamp, server: load(&files, names)? });
        Ok(Self { files, names, held, reporter: OnceLock::new() })
    }

    /// Tells of certificates that cannot be used there, from now on.
    pub(crate) fn report_to(&self, reporter: Reporter) {
        // Nobody sets it twice.
        let _ = self.reporter.set(reporter);
    }

    /// Those of the files, or the last ones that could be used.
    pub(crate) fn newest(&self) -> Arc<ServerConfig> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = stamp(&self.files);
        if stamp != held.stamp {
            held.stamp = stamp;
            match load(&self.files, self.names) {
                Ok(server) => {
                    held.server = server;
                    let entry = LogEntry::new(Level::Info, self.names.reloaded);
                    self.report(Counter::TlsReloads, entry);
                }
                Err(error) => {
                    let entry = LogEntry::new(Level::Warn, self.names.reload_failed)
                        .with("reason", format!("{error:#}"));
                    self.report(Counter::TlsReloadFailures, entry);
                }
            }
        }
        Arc::clone(&held.server)
    }

    fn report(&self, counter: Counter, entry: LogEntry) {
        if let Some(reporter) = self.reporter.get() {
            reporter.report(Some(counter), entry);
        }
    }
}

fn stamp(files: &ControlTls) -> Vec<Stamp> {
    let paths = [Some(&files.certificate), Some(&files.key), files.client_authorities.as_ref()];
    paths.into_iter().flatten().map(|path| Stamp::of(path)).collect()
}

/// Reads its files.
///
/// Errors: a file that cannot be read, or whose content is not what its variable says; the message
/// names both and never shows the content.
fn load(files: &ControlTls, names: &Names) -> Result<Arc<ServerConfig>> {
    let named = |name: &'static str, path: &std::path::Path| format!("{name}={}", path.display());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let chain = certificates(&files.certificate)
        .with_context(|| named(names.certificate, &files.certificate))?;
    let key = private_key(&files.key).with_context(|| named(names.key, &files.key))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match &files.client_authorities {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let of_authorities = || named(names.authorities, path);
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path).with_context(of_authorities)? {
                roots.add(certificate).with_context(of_authorities)?;
            }
            let verifier = clients::verifier(roots, Strangers::Refused, provider);
            builder.with_client_cert_verifier(verifier.with_context(of_authorities)?)
        }
    };
    let mut server = builder.with_single_cert(chain, key).with_context(|| {
        let key = named(names.key, &files.key);
        format!("{key} is not the key of {}", files.certificate.display())
    })?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(server))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(files: &ControlTls) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
        fs::write(&files.certificate, made.cert.pem()).expect("written");
        fs::write(&files.key, made.signing_key.serialize_pem()).expect("written");
    }

    #[test]
    fn new_certificates_are_used_and_spoilt_ones_are_not() {
        let folder = tempfile::tempdir().expect("a directory");
        let files = ControlTls {
            certificate: folder.path().join("cert.pem"),
            key: folder.path().join("key.pem"),
            client_authorities: None,
        };
        write(&files);
        let held = DoorCertificates::load(files.clone(), &Names::SAMPLE).expect("usable");
        let (reporter, mut reports) = Reporter::channel();
        assert!(held.reporter.set(reporter).is_ok());
        let first = held.newest();
        assert!(Arc::ptr_eq(&first, &held.newest()), "nothing has changed");
        write(&files);
        let second = held.newest();
        assert!(!Arc::ptr_eq(&first, &second));
        assert_eq!(reports.try_next().and_then(|said| said.counter), Some(Counter::TlsReloads));
        fs::write(&files.key, "spoilt").expect("written");
        assert!(Arc::ptr_eq(&second, &held.newest()), "the last good ones stay");
        let failure = reports.try_next().and_then(|said| said.counter);
        assert_eq!(failure, Some(Counter::TlsReloadFailures));
        assert!(Arc::ptr_eq(&second, &held.newest()));
        assert!(reports.try_next().is_none(), "said once");
    }
}
