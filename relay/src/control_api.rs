//! The control API's socket and certificates, before it is served.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use anyhow::{Context, Result};
use relay_controller::{AuditSink, ControlApi, ControlSocket, Reporter};

use crate::config::{self, AdminListen, AuditLog, ControlTls};
use crate::door_certificates::{DoorCertificates, Names};
use crate::settings::control_access;
use crate::unix_socket::{self, SocketFile};
use crate::version;

/// The API, bound.
pub(crate) struct Bound {
    pub(crate) api: ControlApi,
    /// To be removed at the end, if it has one.
    pub(crate) file: Option<SocketFile>,
    certificates: Option<Arc<DoorCertificates>>,
}

impl Bound {
    /// Tells of certificates that cannot be used there, from now on.
    pub(crate) fn report_to(&self, reporter: Reporter) {
        if let Some(certificates) = &self.certificates {
            certificates.report_to(reporter);
        }
    }
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
            let read = |files: &ControlTls| DoorCertificates::load(files.clone(), &API);
            let read = config.tls.as_ref().map(read).transpose()?;
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

/// Where its certificates are, and what is said of new ones.
pub(crate) const API: Names = Names {
    certificate: config::CONTROL_CERTIFICATE,
    key: config::CONTROL_KEY,
    authorities: config::CONTROL_AUTHORITIES,
    reloaded: "control_api_tls_reloaded",
    reload_failed: "control_api_tls_reload_failed",
};

/// Who may connect: the relay's user and group.
const MODE: u32 = 0o660;
