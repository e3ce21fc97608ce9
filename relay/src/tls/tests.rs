use std::fs;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};

use super::*;

/// `tls.crt` and `tls.key` of a directory.
pub(super) fn files(dir: &Path) -> config::Tls {
    config::Tls {
        enabled: true,
        ends_in_front: false,
        host: "localhost".to_owned(),
        certificate: dir.join("tls.crt"),
        key: dir.join("tls.key"),
        client_auth: ClientAuth::None,
        client_authorities: None,
    }
}

/// Replaces both files by a new pair.
pub(super) fn write_pair(dir: &Path) {
    let (certificate, key) = pair();
    fs::write(dir.join("tls.crt"), certificate).expect("written");
    fs::write(dir.join("tls.key"), key).expect("written");
}

fn pair() -> (String, String) {
    let names = vec!["localhost".to_owned()];
    let pair = rcgen::generate_simple_self_signed(names).expect("a certificate");
    (pair.cert.pem(), pair.signing_key.serialize_pem())
}

fn load(files: &config::Tls) -> Result<Loaded> {
    Loader::new(files).expect("randomness").load()
}

fn refusal(files: &config::Tls) -> String {
    format!("{:#}", load(files).expect_err("it cannot be used"))
}

#[test]
fn certificate_and_key_make_a_server() {
    let dir = tempfile::tempdir().expect("a directory");
    write_pair(dir.path());
    let loaded = load(&files(dir.path())).expect("usable");
    assert_eq!(loaded.server.alpn_protocols, [b"http/1.1"]);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn a_file_without_a_key_is_named_and_not_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    write_pair(dir.path());
    for content in
        ["hunter2", "", "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----"]
    {
        fs::write(dir.path().join("tls.key"), content).expect("written");
        let error = refusal(&files(dir.path()));
        assert!(error.contains("RELAY_TLS_KEY_PATH=") && error.contains("tls.key"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_file_without_a_certificate_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    write_pair(dir.path());
    let (_, key) = pair();
    for content in ["", "hello", &key, "-----BEGIN CERTIFICATE-----\nAAAA\n"] {
        fs::write(dir.path().join("tls.crt"), content).expect("written");
        let error = refusal(&files(dir.path()));
        assert!(error.contains("RELAY_TLS_CERT_PATH=") && error.contains("tls.crt"), "{error}");
    }
}

#[test]
fn a_key_of_another_certificate_is_refused_by_both_names() {
    let dir = tempfile::tempdir().expect("a directory");
    write_pair(dir.path());
    fs::write(dir.path().join("tls.key"), pair().1).expect("written");
    let error = refusal(&files(dir.path()));
    for name in ["RELAY_TLS_KEY_PATH=", "RELAY_TLS_CERT_PATH=", "is not that of"] {
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn one_file_may_hold_key_and_chain_with_anything_between() {
    let dir = tempfile::tempdir().expect("a directory");
    let (certificate, key) = pair();
    let (issuer, _) = pair();
    let text =
        format!("# ours\r\n\r\n{key}\n\nsubject=CN = x\n{certificate}\n \n# theirs\n{issuer}\n");
    for text in [text.clone(), text.replace('\n', "\r\n").replace("\r\r", "\r")] {
        let path = dir.path().join("all.pem");
        fs::write(&path, text).expect("written");
        let both = config::Tls { certificate: path.clone(), key: path, ..files(dir.path()) };
        load(&both).expect("usable");
    }
}

#[test]
fn der_is_as_good_as_pem() {
    let dir = tempfile::tempdir().expect("a directory");
    let names = vec!["localhost".to_owned()];
    let pair = rcgen::generate_simple_self_signed(names).expect("a certificate");
    fs::write(dir.path().join("tls.crt"), pair.cert.der()).expect("written");
    fs::write(dir.path().join("tls.key"), pair.signing_key.serialize_der()).expect("written");
    load(&files(dir.path())).expect("usable");
}

/// Runs openssl in the directory.
fn openssl(dir: &Path, arguments: &str) {
    let output = std::process::Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(dir)
        .output()
        .expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn keys_of_every_usual_form_are_taken() {
    let makes = [
        // PKCS #8, PKCS #1, SEC 1 with its parameters in front, Ed25519.
        "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out tls.key",
        "genrsa -traditional -out tls.key 2048",
        "ecparam -name prime256v1 -genkey -out tls.key",
        "genpkey -algorithm ED25519 -out tls.key",
    ];
    for make in makes {
        let dir = tempfile::tempdir().expect("a directory");
        openssl(dir.path(), make);
        openssl(dir.path(), "req -x509 -key tls.key -subj /CN=localhost -days 30 -out tls.crt");
        load(&files(dir.path())).expect(make);
        let der = match make.contains("ecparam") {
            true => "ec -in tls.key -outform DER -out tls.der",
            false => "pkey -in tls.key -outform DER -out tls.der",
        };
        openssl(dir.path(), der);
        let key = dir.path().join("tls.der");
        load(&config::Tls { key, ..files(dir.path()) }).expect(der);
    }
}

#[test]
fn an_encrypted_key_is_called_so() {
    let dir = tempfile::tempdir().expect("a directory");
    write_pair(dir.path());
    for make in [
        "genpkey -algorithm RSA -aes256 -pass pass:hunter2 -out tls.key",
        "genrsa -traditional -aes128 -passout pass:hunter2 -out tls.key 2048",
    ] {
        openssl(dir.path(), make);
        let error = refusal(&files(dir.path()));
        assert!(error.contains("the key is encrypted"), "{error}");
        assert!(error.contains("RELAY_TLS_KEY_PATH="), "{error}");
    }
}

#[test]
fn a_certificate_near_its_end_is_warned_about() {
    const DAY: u64 = 24 * 60 * 60;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    params.not_before = rcgen::date_time_ymd(2030, 1, 1);
    params.not_after = rcgen::date_time_ymd(2030, 3, 1);
    let certificate = params.self_signed(&key).expect("a certificate");
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("tls.crt"), certificate.pem()).expect("written");
    fs::write(dir.path().join("tls.key"), key.serialize_pem()).expect("written");
    let files = files(dir.path());
    let provider = aws_lc_rs::default_provider();
    let identity = Identity::read(&files.certificate, &files.key, &provider).expect("usable");
    let start = Duration::from_secs(params.not_before.unix_timestamp().unsigned_abs());
    let warning = |days| identity.warnings(start + Duration::from_secs(days * DAY)).pop();
    assert_eq!(warning(30), None);
    assert!(warning(50).is_some_and(|text| text.contains("expires on Mar  1 ")));
    assert!(warning(60).is_some_and(|text| text.contains("expired on Mar  1 ")));
    let before = identity.warnings(start - Duration::from_secs(DAY)).pop();
    assert!(before.is_some_and(|text| text.contains("is not valid before")));
}

#[test]
fn client_certificates_need_authorities_that_can_be_read() {
    let dir = tempfile::tempdir().expect("a directory");
    write_pair(dir.path());
    let authorities = dir.path().join("ca.pem");
    let strict = config::Tls {
        client_auth: ClientAuth::Required,
        client_authorities: Some(authorities.clone()),
        ..files(dir.path())
    };
    let error = refusal(&strict);
    assert!(error.contains("RELAY_TLS_CLIENT_CA_PATH="), "{error}");
    fs::write(&authorities, pair().0).expect("written");
    load(&strict).expect("usable");
    let optional = config::Tls { client_auth: ClientAuth::Optional, ..strict };
    load(&optional).expect("usable");
}

#[test]
fn an_rsa_key_pair_may_sign_too() {
    // Only where the provider can make one; reading them is tested above.
    let Ok(key) = KeyPair::generate_for(&PKCS_RSA_SHA256) else { return };
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let dir = tempfile::tempdir().expect("a directory");
    let certificate = params.self_signed(&key).expect("a certificate");
    fs::write(dir.path().join("tls.crt"), certificate.pem()).expect("written");
    fs::write(dir.path().join("tls.key"), key.serialize_pem()).expect("written");
    load(&files(dir.path())).expect("usable");
}

#[test]
fn whatever_a_client_prefers_the_cheaper_suite_is_taken() {
    let dir = tempfile::tempdir().expect("a directory");
    write_pair(dir.path());
    let server = load(&files(dir.path())).expect("usable").server;
    assert!(server.ignore_client_order);
    let suites = &server.crypto_provider().cipher_suites;
    let first = |name: &str| {
        let mut names = suites.iter().map(|suite| format!("{:?}", suite.suite()));
        names.position(|found| found.contains(name)).expect("it is offered")
    };
    assert!(first("TLS13_AES_128_GCM") < first("TLS13_AES_256_GCM"));
    assert!(first("ECDSA_WITH_AES_128_GCM") < first("ECDSA_WITH_AES_256_GCM"));
    assert!(first("RSA_WITH_AES_128_GCM") < first("RSA_WITH_AES_256_GCM"));
}
