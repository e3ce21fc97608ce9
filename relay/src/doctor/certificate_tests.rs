use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
    PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize,
};
use rustls::RootCertStore;
use tempfile::TempDir;

use super::*;

/// An authority, with the folder its certificates go to.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

fn key_pair() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key")
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, key_pair()).expect("a certificate");
        Self { issuer, dir: tempfile::tempdir().expect("a directory") }
    }

    /// Writes a certificate for `relay.corp` that is good for this time, and its key.
    fn issue(&self, from_day: i32, days: i32) -> Tls {
        self.issue_for(&key_pair(), from_day, days)
    }

    /// The same for a key of any kind.
    fn issue_for(&self, key: &KeyPair, from_day: i32, days: i32) -> Tls {
        let mut params = CertificateParams::new(vec!["relay.corp".to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, "relay.corp");
        params.not_before = rcgen::date_time_ymd(2030, 1, 1) + days_of(from_day);
        params.not_after = params.not_before + days_of(days);
        let certificate = params.signed_by(key, &self.issuer).expect("signed");
        let path = |name| self.dir.path().join(name);
        fs::write(path("tls.crt"), certificate.pem()).expect("written");
        fs::write(path("tls.key"), key.serialize_pem()).expect("written");
        let owner_alone = fs::Permissions::from_mode(0o600);
        fs::set_permissions(path("tls.key"), owner_alone).expect("changed");
        Tls {
            enabled: true,
            ends_in_front: false,
            host: "relay.corp".to_owned(),
            certificate: path("tls.crt"),
            key: path("tls.key"),
            client_auth: ClientAuth::None,
            client_authorities: None,
        }
    }
}

fn days_of(days: i32) -> Duration {
    Duration::from_secs(u64::try_from(days).expect("not negative") * 86_400)
}

/// 2030-01-01.
const NOW: Duration = Duration::from_secs(1_893_456_000);

fn finding(tls: &Tls, check: &str) -> Finding {
    let mut findings = own(tls, NOW).into_iter();
    findings.find(|finding| finding.check == check).expect("that check is made")
}

#[test]
fn a_certificate_that_ends_soon_ended_or_has_not_begun_is_told_apart() {
    let authority = Authority::new();
    for (from_day, days, verdict, words) in [
        (0, 90, Verdict::Ok, "good for 90 days"),
        (0, 10, Verdict::Warn, "expires in 10 days"),
        (2, 90, Verdict::Fail, "not valid before"),
    ] {
        let finding = finding(&authority.issue(from_day, days), "certificate");
        assert_eq!(finding.verdict, verdict, "{finding:?}");
        assert!(finding.found.contains(words), "{finding:?}");
    }
    let tls = authority.issue(0, 1);
    let later = NOW + days_of(2);
    assert!(own(&tls, later)[0].found.contains("expired on"));
}

#[test]
fn a_certificate_for_another_host_names_its_own() {
    let authority = Authority::new();
    let tls = authority.issue(0, 90);
    assert_eq!(finding(&tls, "certificate name").verdict, Verdict::Ok);
    let other = Tls { host: "other.corp".to_owned(), ..tls };
    let finding = finding(&other, "certificate name");
    assert_eq!(finding.verdict, Verdict::Warn);
    assert!(finding.found.contains("relay.corp"), "{finding:?}");
}

/// Authorities among which those of the tests are not.
fn others() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(Authority::new().issuer.der().clone()).expect("an authority");
    roots
}

#[test]
fn a_chain_is_judged_by_order_and_end() {
    let authority = Authority::new();
    let tls = authority.issue(0, 90);
    let leaf = fs::read_to_string(&tls.certificate).expect("written");
    let root = authority.issuer.pem();
    for (content, words) in [
        (leaf.clone(), "intermediates are missing"),
        (format!("{leaf}{root}"), "does not know"),
        // The relay starts all the same.
        (format!("{leaf}{leaf}"), "out of order"),
        (root.clone(), "self-signed"),
    ] {
        fs::write(&tls.certificate, content).expect("written");
        let chain = certificates(&tls.certificate).expect("readable");
        let finding = chain::completeness(&chain, NOW, &others());
        assert_eq!(finding.verdict, Verdict::Warn, "{finding:?}");
        assert!(finding.found.contains(words), "{finding:?}");
    }
}

#[test]
fn without_authorities_no_chain_is_called_incomplete() {
    let authority = Authority::new();
    let chain = certificates(&authority.issue(0, 90).certificate).expect("readable");
    let mut roots = RootCertStore::empty();
    let finding = chain::completeness(&chain, NOW, &roots);
    assert!(finding.found.contains("knows no authorities"), "{finding:?}");
    assert!(finding.remedy.is_some_and(|remedy| remedy.contains("ca-certificates")));
    roots.add(authority.issuer.der().clone()).expect("an authority");
    assert_eq!(chain::completeness(&chain, NOW, &roots).verdict, Verdict::Ok);
}

#[test]
fn of_a_certificate_out_of_its_time_the_chain_is_not_judged() {
    let authority = Authority::new();
    let is_about_chain = |finding: &Finding| finding.check == "certificate chain";
    let tls = authority.issue(0, 10);
    assert!(own(&tls, NOW).iter().any(is_about_chain), "it ends soon, and is good");
    assert!(!own(&tls, NOW + days_of(11)).iter().any(is_about_chain));
}

#[test]
fn what_a_port_for_grpc_shows_is_read_as_the_relay_reads_it() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let tls = authority.issue(0, 90);
    let files = ControlTls {
        certificate: tls.certificate,
        key: tls.key,
        client_authorities: Some(clients.issue(0, 1).certificate),
    };
    let door = |files: &ControlTls, now| door("door", files, &Names::SAMPLE, now, Verdict::Warn);
    let verdicts = |findings: &[Finding]| -> Vec<_> {
        findings.iter().map(|finding| finding.verdict).collect()
    };
    let good = door(&files, NOW);
    assert_eq!(verdicts(&good), [Verdict::Ok, Verdict::Ok, Verdict::Warn], "{good:?}");
    let late = door(&files, NOW + days_of(91));
    assert_eq!(verdicts(&late), [Verdict::Warn, Verdict::Ok, Verdict::Warn], "{late:?}");
    fs::write(&files.key, key_pair().serialize_pem()).expect("written");
    let other = door(&files, NOW);
    assert_eq!(verdicts(&other), [Verdict::Fail], "{other:?}");
    assert!(other[0].found.contains("is not the key of"), "{other:?}");
    let seen = caller("link certificate", &Names::SAMPLE, &files.certificate, &files.key, NOW);
    assert_eq!(verdicts(&seen), [Verdict::Ok, Verdict::Fail], "{seen:?}");
    assert!(seen[1].found.starts_with("KEY="), "{seen:?}");
}

#[test]
fn a_key_must_fit_and_be_nobody_elses() {
    let authority = Authority::new();
    let tls = authority.issue(0, 90);
    assert_eq!(finding(&tls, "certificate key").verdict, Verdict::Ok);
    fs::set_permissions(&tls.key, fs::Permissions::from_mode(0o644)).expect("changed");
    let open = finding(&tls, "certificate key");
    assert_eq!(open.verdict, Verdict::Warn);
    assert!(open.remedy.expect("a remedy").starts_with("chmod o= "));
    fs::write(&tls.key, key_pair().serialize_pem()).expect("written");
    assert!(finding(&tls, "certificate key").found.contains("not the key"));
    fs::write(&tls.key, "hunter2").expect("written");
    let broken = finding(&tls, "certificate key");
    assert_eq!(broken.verdict, Verdict::Fail);
    assert!(!broken.found.contains("hunter2"));
}

#[test]
fn those_who_vouch_for_clients_are_looked_at_even_where_the_certificate_is_not_there() {
    let (authority, other) = (Authority::new(), Authority::new());
    let mut tls = authority.issue(0, 90);
    let later = NOW + days_of(2);
    tls.client_authorities = Some(other.issue(0, 1).certificate);
    let is_about_clients = |finding: &Finding| finding.check == "authorities of clients";
    assert!(!own(&tls, NOW).iter().any(is_about_clients), "nobody is asked for a certificate");
    tls.client_auth = ClientAuth::Optional;
    let clients = |tls: &Tls| own(tls, later).into_iter().next().expect("it comes first");
    let ended = clients(&tls);
    assert_eq!((ended.check, ended.verdict), ("authorities of clients", Verdict::Warn));
    assert!(ended.found.contains("expired on"), "{}", ended.found);
    tls.certificate = tls.certificate.with_file_name("none.crt");
    tls.client_authorities = Some(tls.certificate.with_file_name("none.pem"));
    assert!(clients(&tls).found.starts_with("RELAY_TLS_CLIENT_CA_PATH="));
}

#[test]
fn files_that_are_missing_are_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("none.pem");
    assert!(platform_authorities(&path, NOW).found.contains("none.pem"));
    let certificate = ClientCertificate { certificate: path.clone(), key: path, passphrase: None };
    assert_eq!(client(&certificate, NOW)[0].verdict, Verdict::Fail);
}

#[test]
fn what_a_handshake_costs_is_said_and_large_rsa_keys_are_pointed_out() {
    let authority = Authority::new();
    let found = |key: &KeyPair| finding(&authority.issue_for(key, 0, 90), "certificate signature");
    let small = found(&key_pair());
    assert_eq!(small.verdict, Verdict::Ok);
    assert!(small.found.ends_with(" µs of a shard per handshake"), "{small:?}");
    let rsa = |size| KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, size).expect("a key");
    let usual = found(&rsa(RsaKeySize::_2048));
    assert_eq!(usual.verdict, Verdict::Ok);
    assert!(usual.found.starts_with("RSA of 2048 bits: "), "{usual:?}");
    let large = found(&rsa(RsaKeySize::_3072));
    assert_eq!(large.verdict, Verdict::Warn);
    assert!(large.found.starts_with("RSA of 3072 bits: "), "{large:?}");
    assert!(large.remedy.is_some_and(|remedy| remedy.contains("P-256")));
}
