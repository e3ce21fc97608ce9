//! The control API's socket and certificates, before it is served.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use anyhow::{Context, Result};
use relay_controller::{AuditSink, ControlAccess, ControlApi, ControlSocket};
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::watch;

use crate::config::{self, AdminListen, AuditLog, ControlTls};
use crate::tls::{certificates, private_key};
use crate::unix_socket::{self, SocketFile};
use crate::version;

/// The API, bound; with the file that is to be removed at the end, if it has one, and where its
/// newer certificates go.
pub(crate) struct Bound {
    pub(crate) api: ControlApi,
    pub(crate) file: Option<SocketFile>,
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
    let (socket, file) = match listen {
        AdminListen::Tcp(address) => {
            let tls = config.tls.as_ref().map(load).transpose()?;
            let tls = tls.map(|tls| watch::Sender::new(tls).subscribe());
            let listener = TcpListener::bind(address.as_str()).with_context(named)?;
            (ControlSocket::Tcp { listener, tls }, None)
        }
        AdminListen::Unix(path) => {
            let (socket, file) = unix_socket::bind(path, MODE).with_context(named)?;
            (ControlSocket::Unix(UnixListener::from(socket)), Some(file))
        }
    };
    let access =
        ControlAccess { readers: config.readers.clone(), operators: config.operators.clone() };
    let audit = match &config.audit {
        AuditLog::Off => AuditSink::Off,
        AuditLog::Stdout => AuditSink::Stream(Box::new(io::stdout())),
        AuditLog::File(file) => AuditSink::File(file.clone()),
    };
    let api = ControlApi { socket, access, audit, commit: version::COMMIT };
    Ok(Some(Bound { api, file }))
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
