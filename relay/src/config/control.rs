//! The control API, and what is written about its use.

use std::path::PathBuf;

use relay_contract::Secret;

use super::admin::host_of;
use super::listen::is_loopback;
use super::{AdminListen, Problem, Reader};

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
        let readers =
            tokens("RELAY_CONTROL_API_READER_TOKEN", "RELAY_CONTROL_API_READER_TOKEN_PREVIOUS");
        let operators = tokens(OPERATOR_TOKEN, "RELAY_CONTROL_API_OPERATOR_TOKEN_PREVIOUS");
        let api = Self { listen, readers, operators, tls: ControlTls::read(reader) };
        api.judge(reader);
        api
    }

    /// Refuses what would let strangers in, and warns of what lets neighbours in.
    fn judge(&self, reader: &mut Reader<'_>) {
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
const OPERATOR_TOKEN: &str = "RELAY_CONTROL_API_OPERATOR_TOKEN";
pub(crate) const CERTIFICATE: &str = "RELAY_CONTROL_API_TLS_CERT_PATH";
pub(crate) const KEY: &str = "RELAY_CONTROL_API_TLS_KEY_PATH";
pub(crate) const AUTHORITIES: &str = "RELAY_CONTROL_API_TLS_CLIENT_CA_PATH";

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
