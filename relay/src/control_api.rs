//! The control API's socket and certificates, before it is served.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result};
use relay_contract::{Counter, Level, LogEntry};
use relay_controller::{AuditSink, ControlApi, ControlSocket, Reporter};
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::config::{self, AdminListen, AuditLog, ControlTls};
use crate::settings::control_access;
use crate::tls::{Stamp, certificates, private_key};
use crate::unix_socket::{self, SocketFile};
use crate::version;

/// The API, bound.
pub(crate) struct Bound {
    pub(crate) api: ControlApi,
    /// To be removed at the end, if it has one.
    pub(crate) file: Option<SocketFile>,
    certificates: Option<Arc<Certificates>>,
}

impl Bound {
    /// Tells of certificates that cannot be used there, from now on.
    pub(crate) fn report_to(&self, reporter: Reporter) {
        if let Some(certificates) = &self.certificates {
            // Nobody sets it twice.
            let _ = certificates.reporter.set(reporter);
        }
    }
}

/// Its certificates, read again when a file has changed by the time somebody connects.
struct Certificates {
    files: ControlTls,
    held: Mutex<Held>,
    reporter: OnceLock<Reporter>,
}

/// What was read, and what the files were then.
struct Held {
    stamp: Vec<Stamp>,
    server: Arc<ServerConfig>,
}

impl Certificates {
    fn load(files: &ControlTls) -> Result<Self> {
        let stamp = stamp(files);
        let held = Mutex::new(Held { stamp, server: load(files)? });
        Ok(Self { files: files.clone(), held, reporter: OnceLock::new() })
    }

    /// Those of the files, or the last ones that could be used.
    fn newest(&self) -> Arc<ServerConfig> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = stamp(&self.files);
        if stamp != held.stamp {
            held.stamp = stamp;
            match load(&self.files) {
                Ok(server) => {
                    held.server = server;
                    let entry = LogEntry::new(Level::Info, "control_api_tls_reloaded");
                    self.report(Counter::TlsReloads, entry);
                }
                Err(error) => {
                    let entry = LogEntry::new(Level::Warn, "control_api_tls_reload_failed")
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

/// Binds it. Nothing when it is not configured.
///
/// Errors: a certificate that cannot be used; it cannot be bound; somebody answers at the path
/// already.
pub(crate) fn bind(config: &config::ControlApi) -> Result<Option<Bound>> {
    let Some(listen) = &config.listen else {
        return Ok(None);
    };
    let named = || format!("RELAY_CONTROL_API_LISTEN: cannot listen on {listen}");
    let mut certificates = None;
    let (socket, file) = match listen {
        AdminListen::Tcp(address) => {
            let read = config.tls.as_ref().map(Certificates::load).transpose()?;
            certificates = read.map(Arc::new);
            let tls = certificates
                .clone()
                .map(|held| relay_controller::ControlTls::new(move || held.newest()));
            let listener = TcpListener::bind(address.as_str()).with_context(named)?;
            (ControlSocket::Tcp { listener, tls }, None)
        }
        AdminListen::Unix(path) => {
            let (socket, file) = unix_socket::bind(path, MODE).with_context(named)?;
            (ControlSocket::Unix(UnixListener::from(socket)), Some(file))
        }
    };
    let access = control_access(config);
    let audit = match &config.audit {
        AuditLog::Off => AuditSink::Off,
        AuditLog::Stdout => AuditSink::Stream(Box::new(io::stdout())),
        AuditLog::File(file) => AuditSink::File(file.clone()),
    };
    let api = ControlApi { socket, access, audit, commit: version::COMMIT };
    Ok(Some(Bound { api, file, certificates }))
}

/// Who may connect: the relay's user and group.
const MODE: u32 = 0o660;

/// Reads its files.
///
/// Errors: a file that cannot be read, or whose content is not what its variable says; the message
/// names both and never shows the content.
fn load(files: &ControlTls) -> Result<Arc<ServerConfig>> {
    let named = |name: &'static str, path: &std::path::Path| format!("{name}={}", path.display());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let chain = certificates(&files.certificate)
        .with_context(|| named(config::CONTROL_CERTIFICATE, &files.certificate))?;
    let key = private_key(&files.key).with_context(|| named(config::CONTROL_KEY, &files.key))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match &files.client_authorities {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let of_authorities = || named(config::CONTROL_AUTHORITIES, path);
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path).with_context(of_authorities)? {
                roots.add(certificate).with_context(of_authorities)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().with_context(of_authorities)?)
        }
    };
    let mut server = builder.with_single_cert(chain, key).with_context(|| {
        let key = named(config::CONTROL_KEY, &files.key);
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
        let held = Certificates::load(&files).expect("usable");
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
