//! The relay's own certificate.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config;

/// What every accepted connection speaks, or nothing when TLS is off.
///
/// Errors: a file that cannot be read, or whose content is not what its name says; the message
/// names the file and never shows its content.
pub(crate) fn server(tls: &config::Tls) -> Result<Option<Arc<ServerConfig>>> {
    if !tls.enabled {
        return Ok(None);
    }
    let chain = chain(&tls.certificate)
        .with_context(|| format!("RELAY_TLS_CERT_PATH={}", tls.certificate.display()))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key)
        .with_context(|| format!("RELAY_TLS_KEY_PATH={}", tls.key.display()))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("certificate and key of RELAY_TLS do not fit")?;
    // Upgrades to WebSocket exist in HTTP/1.1 alone.
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(Arc::new(server)))
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let chain = CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>()?;
    ensure!(!chain.is_empty(), "no certificate in the file");
    Ok(chain)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn tls(dir: &Path) -> config::Tls {
        config::Tls {
            enabled: true,
            ends_in_front: false,
            host: "localhost".to_owned(),
            certificate: dir.join("tls.crt"),
            key: dir.join("tls.key"),
        }
    }

    fn write_pair(tls: &config::Tls) {
        let names = vec!["localhost".to_owned()];
        let pair = rcgen::generate_simple_self_signed(names).expect("a certificate");
        fs::write(&tls.certificate, pair.cert.pem()).expect("written");
        fs::write(&tls.key, pair.signing_key.serialize_pem()).expect("written");
    }

    #[test]
    fn certificate_and_key_make_a_server() {
        let dir = tempfile::tempdir().expect("a directory");
        let tls = tls(dir.path());
        write_pair(&tls);
        assert!(server(&tls).expect("usable").is_some());
    }

    #[test]
    fn a_file_without_a_key_is_named_and_not_shown() {
        let dir = tempfile::tempdir().expect("a directory");
        let tls = tls(dir.path());
        write_pair(&tls);
        fs::write(&tls.key, "hunter2").expect("written");
        let error = format!("{:#}", server(&tls).expect_err("no key"));
        assert!(error.contains("tls.key") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn tls_that_is_off_reads_no_file() {
        let off = config::Tls { enabled: false, ..tls(Path::new("/none")) };
        assert!(server(&off).expect("nothing to do").is_none());
    }
}
