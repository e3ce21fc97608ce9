//! What the two planes know each other by. It is rotated while they run: files are read at every
//! attempt to connect, tokens are those of the last configuration that was read.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use relay_contract::Secret;
use relay_link::{Access, Credentials, Tls, TlsIdentity, Tokens};

use crate::config::{Control, ControlTls, ControlUrl};
use crate::door_certificates::Names;

/// Where they are, and the tokens of the moment.
#[derive(Clone)]
pub(crate) struct LinkCredentials {
    control: Arc<Mutex<Control>>,
}

impl LinkCredentials {
    pub(crate) fn new(control: &Control) -> Self {
        Self { control: Arc::new(Mutex::new(control.clone())) }
    }

    /// Goes by the tokens of this configuration from now on. Streams that are there stay.
    pub(crate) fn replace_tokens(&self, control: &Control) {
        let mut known = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        known.token = control.token.clone();
        known.previous_token = control.previous_token.clone();
    }

    /// What a data plane shows.
    pub(crate) fn shown(&self) -> Credentials {
        let this = self.clone();
        Credentials(Arc::new(move || access(&this.now()).map_err(|error| format!("{error:#}"))))
    }

    /// What a control plane asks for.
    pub(crate) fn asked(&self) -> Tokens {
        let this = self.clone();
        Tokens(Arc::new(move || {
            let Control { token, previous_token, .. } = this.now();
            token.into_iter().chain(previous_token).collect()
        }))
    }

    fn now(&self) -> Control {
        self.control.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The files of a control plane that speaks TLS.
pub(crate) fn listening_tls(control: &Control) -> Option<ControlTls> {
    let (certificate, key) = (control.certificate.clone()?, control.key.clone()?);
    Some(ControlTls { certificate, key, client_authorities: control.authorities.clone() })
}

/// Where they are, and what is said of new ones.
pub(crate) const LINK: Names = Names {
    certificate: "RELAY_CONTROL_CERT_PATH",
    key: "RELAY_CONTROL_KEY_PATH",
    authorities: "RELAY_CONTROL_CA_PATH",
    reloaded: "control_link_tls_reloaded",
    reload_failed: "control_link_tls_reload_failed",
};

/// What a data plane shows. Errors: names the file that cannot be read, or is no PEM.
pub(crate) fn access(control: &Control) -> Result<Access> {
    let read = |name: &str, path: &Path, label: &str| {
        let content = fs::read(path);
        let content = content.with_context(|| format!("{name}: cannot read {}", path.display()))?;
        let text = String::from_utf8(content).ok().filter(|text| text.contains(label));
        // Whatever else there is, is passed over where it is used, and then nobody is believed.
        text.with_context(|| format!("{name}={}: no PEM with {label} in it", path.display()))
    };
    let is_encrypted =
        matches!(&control.url, Some(ControlUrl::Url(url)) if url.scheme() == "https");
    let tls = match is_encrypted {
        false => None,
        true => {
            let authorities = control.authorities.as_deref();
            let authorities = authorities.map(|path| read(LINK.authorities, path, CERTIFICATE));
            let identity = match (&control.certificate, &control.key) {
                (Some(certificate), Some(key)) => Some(TlsIdentity {
                    certificate: read(LINK.certificate, certificate, CERTIFICATE)?.into_bytes(),
                    key: Secret::new(read(LINK.key, key, PRIVATE_KEY)?),
                }),
                _ => None,
            };
            Some(Tls { authorities: authorities.transpose()?.map(String::into_bytes), identity })
        }
    };
    Ok(Access { token: control.token.clone(), tls })
}

/// What a certificate begins with. Source: RFC 7468 §5.1.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
/// How the beginning of a private key ends, whatever its kind. Source: RFC 7468 §10.
const PRIVATE_KEY: &str = "PRIVATE KEY-----";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, FlagValue, Machine};

    #[test]
    fn what_a_data_plane_shows_is_pem() {
        let dir = tempfile::tempdir().expect("a directory");
        let [certificate, key, authorities] =
            ["link.crt", "link.key", "ca.crt"].map(|name| dir.path().join(name));
        let made = rcgen::generate_simple_self_signed(["relay.corp".to_owned()]).expect("made");
        fs::write(&certificate, made.cert.der()).expect("written");
        fs::write(&key, made.signing_key.serialize_pem()).expect("written");
        fs::write(&authorities, made.cert.pem()).expect("written");
        let [shown, key, authorities] =
            [&certificate, &key, &authorities].map(|path| path.to_str().expect("text"));
        let settings = [
            ("HOST", "127.0.0.1"),
            ("RELAY_ROLE", "dataplane"),
            ("RELAY_CONTROL_URL", "https://control.corp:7782"),
            (LINK.certificate, shown),
            (LINK.key, key),
            (LINK.authorities, authorities),
        ];
        let settings = settings.map(|(name, value)| FlagValue::set(name, value));
        let control = Config::parse(&settings, &Machine).expect("usable").config.control;
        let refused = access(&control).expect_err("DER").to_string();
        assert!(refused.starts_with(LINK.certificate), "{refused}");
        fs::write(&certificate, made.cert.pem()).expect("written");
        assert!(access(&control).is_ok_and(|access| access.tls.is_some()));
    }
}
