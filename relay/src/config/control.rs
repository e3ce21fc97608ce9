//! The control API, and what is written about its use.

use std::path::PathBuf;

use relay_contract::Secret;
use relay_controller::AuditFile;

use super::admin::host_of;
use super::listen::is_loopback;
use super::memory::Size;
use super::{AdminListen, Problem, Reader, is_strong};

/// The control API.
#[derive(Clone, Debug)]
pub(crate) struct ControlApi {
    /// Where it is served; without it there is none.
    pub listen: Option<AdminListen>,
    /// Who may read: the token in force, and the one before it.
    pub readers: Vec<Secret>,
    /// Who may change things: the token in force, and the one before it.
    pub operators: Vec<Secret>,
    /// TLS of its port.
    pub tls: Option<ControlTls>,
    /// Where changing calls are written down.
    pub audit: AuditLog,
}

/// Where changing calls are written down.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum AuditLog {
    /// Nowhere.
    Off,
    /// Among the lines of the log.
    Stdout,
    /// In a file that is replaced when it is full.
    File(AuditFile),
}

/// TLS of the control API's port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ControlTls {
    /// Certificate chain.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// Who vouches for clients' certificates; with it nobody without one is heard.
    pub client_authorities: Option<PathBuf>,
}

impl ControlApi {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let listen = AdminListen::read(reader, LISTEN);
        let mut tokens = |name, previous| -> Vec<Secret> {
            [reader.secret(name), reader.secret(previous)].into_iter().flatten().collect()
        };
        let readers = tokens(READER_TOKEN, "RELAY_CONTROL_API_READER_TOKEN_PREVIOUS");
        let operators = tokens(OPERATOR_TOKEN, "RELAY_CONTROL_API_OPERATOR_TOKEN_PREVIOUS");
        let tls = ControlTls::read(reader);
        let api = Self { listen, readers, operators, tls, audit: AuditLog::read(reader) };
        api.judge(reader);
        api
    }

    /// Refuses what would let strangers in, and warns of what lets neighbours in.
    fn judge(&self, reader: &mut Reader<'_>) {
        // All are the operator's: how long this takes tells nobody anything.
        let is_operators =
            |token: &Secret| self.operators.iter().any(|other| other.expose() == token.expose());
        if self.readers.iter().any(is_operators) {
            let what = format!(
                "a reader's token is also an operator's: every reader would be one; \
                 {OPERATOR_TOKEN} has to be another"
            );
            reader.problems.push(Problem::rule(
                READER_TOKEN,
                what,
                "RELAY_CONTROL_API_READER_TOKEN=$(openssl rand -base64 32)",
            ));
        }
        let has_tokens = !(self.readers.is_empty() && self.operators.is_empty());
        let checks_certificates =
            self.tls.as_ref().is_some_and(|tls| tls.client_authorities.is_some());
        let Some(AdminListen::Tcp(address)) = &self.listen else {
            return;
        };
        if is_loopback(host_of(address)) {
            if !has_tokens && !checks_certificates {
                reader.warnings.push(format!(
                    "{LISTEN}={address}: every user of this machine is an operator; set \
                     {OPERATOR_TOKEN}, or listen on unix:/PATH"
                ));
            }
            return;
        }
        let tokens = || self.readers.iter().chain(&self.operators);
        if tokens().any(|token| !is_strong(token.expose())) {
            reader.warnings.push(format!(
                "{LISTEN}={address}: a token there is shorter than 24 characters, or a \
                 placeholder; whoever guesses it is a reader or an operator"
            ));
        }
        if self.tls.is_none() {
            reader.problems.push(Problem::rule(
                LISTEN,
                format!("{address} is not loopback, and {CERTIFICATE} and {KEY} are not set"),
                "RELAY_CONTROL_API_TLS_CERT_PATH=/etc/relay/control.pem \
                 RELAY_CONTROL_API_TLS_KEY_PATH=/etc/relay/control.key",
            ));
        }
        if !has_tokens && !checks_certificates {
            reader.problems.push(Problem::rule(
                LISTEN,
                format!(
                    "{address} is not loopback, and neither tokens nor {AUTHORITIES} say who may \
                     come"
                ),
                "RELAY_CONTROL_API_OPERATOR_TOKEN_FILE=/run/secrets/relay-operator",
            ));
        }
    }
}

impl AuditLog {
    fn read(reader: &mut Reader<'_>) -> Self {
        let bytes_max = match reader.size(AUDIT_BYTES) {
            None => AUDIT_BYTES_MAX,
            Some(Size::Bytes(bytes)) if bytes >= AUDIT_BYTES_LEAST => bytes,
            Some(Size::Bytes(_) | Size::Percent(_)) => {
                let what = format!("expected a size of {AUDIT_BYTES_LEAST} bytes at least");
                reader.refuse(AUDIT_BYTES, what);
                AUDIT_BYTES_MAX
            }
        };
        let files_kept = u32::try_from(reader.count("RELAY_AUDIT_LOG_FILES")).unwrap_or(u32::MAX);
        match reader.text(AUDIT).as_deref() {
            None | Some("stdout") => Self::Stdout,
            Some("off") => Self::Off,
            Some(path) if path.starts_with('/') => {
                Self::File(AuditFile { path: path.into(), bytes_max, files_kept })
            }
            Some(other) => {
                let what = format!("{other:?} is neither stdout, off nor an absolute path");
                reader.refuse(AUDIT, what);
                Self::Stdout
            }
        }
    }
}

impl ControlTls {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let certificate = reader.path(CERTIFICATE);
        let key = reader.path(KEY);
        let client_authorities = reader.path(AUTHORITIES);
        match (certificate, key) {
            (Some(certificate), Some(key)) => Some(Self { certificate, key, client_authorities }),
            (None, None) if client_authorities.is_none() => None,
            (Some(_), None) => {
                reader.refuse(KEY, format!("{CERTIFICATE} is set without it"));
                None
            }
            (None, key) => {
                let other = if key.is_some() { KEY } else { AUTHORITIES };
                reader.refuse(CERTIFICATE, format!("{other} is set without it"));
                None
            }
        }
    }
}

const LISTEN: &str = "RELAY_CONTROL_API_LISTEN";
const AUDIT: &str = "RELAY_AUDIT_LOG";
const AUDIT_BYTES: &str = "RELAY_AUDIT_LOG_MAX_BYTES";

/// Bytes of one file, where nothing else is said.
const AUDIT_BYTES_MAX: u64 = 64 << 20;

/// Less would be a file for every few lines.
const AUDIT_BYTES_LEAST: u64 = 64 << 10;

const READER_TOKEN: &str = "RELAY_CONTROL_API_READER_TOKEN";
const OPERATOR_TOKEN: &str = "RELAY_CONTROL_API_OPERATOR_TOKEN";
pub(crate) const CERTIFICATE: &str = "RELAY_CONTROL_API_TLS_CERT_PATH";
pub(crate) const KEY: &str = "RELAY_CONTROL_API_TLS_KEY_PATH";
pub(crate) const AUTHORITIES: &str = "RELAY_CONTROL_API_TLS_CLIENT_CA_PATH";

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
