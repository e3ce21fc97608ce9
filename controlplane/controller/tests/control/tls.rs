//! TLS towards the platform.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use relay_contract::Refusal;
use relay_controller::{Admission, ClientCertificate, PlatformTls, Settings, Verify};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use crate::platform::{Behaviour, Platform};
use crate::relay::{Relay, TOKEN, VALIDATE, settings};
use crate::tokens::{JWKS, Signer, checked, publish};

/// An authority of the test's own, its files, and who it vouches for.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, dir }
    }

    fn ca_path(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    fn issue(&self) -> (rcgen::Certificate, KeyPair) {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        self.issue_as(CertificateParams::new(names).unwrap())
    }

    fn issue_as(&self, mut params: CertificateParams) -> (rcgen::Certificate, KeyPair) {
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate, key)
    }

    fn acceptor(&self, demands_certificate: bool) -> TlsAcceptor {
        self.acceptor_with(self.issue(), demands_certificate)
    }

    fn acceptor_with(
        &self,
        (certificate, key): (rcgen::Certificate, KeyPair),
        demands_certificate: bool,
    ) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let builder = match demands_certificate {
            true => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .unwrap(),
            ),
            false => builder.with_no_client_auth(),
        };
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = builder.with_single_cert(vec![certificate.der().clone()], key.into()).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    /// Writes a client certificate and its key.
    fn client(&self) -> ClientCertificate {
        let (certificate, key) = self.issue();
        let paths = ["client.crt", "client.key"].map(|name| self.dir.path().join(name));
        fs::write(&paths[0], certificate.pem()).unwrap();
        fs::write(&paths[1], key.serialize_pem()).unwrap();
        let [cert_path, key_path] = paths;
        ClientCertificate { cert_path, key_path, passphrase: None }
    }
}

async fn platform(authority: &Authority, demands_certificate: bool) -> Platform {
    let platform = Platform::start(Some(authority.acceptor(demands_certificate))).await;
    let body = r#"{"ok":true,"claims":{"workspaceId":"ws1"}}"#;
    platform.on(VALIDATE, Behaviour::Answer(200, body.into()));
    platform
}

fn over_tls(platform: &Platform, host: &str, platform_tls: PlatformTls) -> Settings {
    Settings { platform_tls, ..settings(&format!("https://{host}:{}", platform.port())) }
}

/// Whether an upgrade is admitted over TLS.
async fn admits(platform: &Platform, host: &str, tls: PlatformTls) -> bool {
    let (_relay, mut shard) = Relay::one(over_tls(platform, host, tls));
    shard.client(TOKEN);
    let (_, ruling) = shard.ruling().await;
    ruling.is_ok()
}

fn tls(verify: Verify, ca_path: Option<PathBuf>) -> PlatformTls {
    PlatformTls { verify, ca_path, client: None }
}

#[tokio::test]
async fn a_private_authority_is_believed_only_when_named() {
    let authority = Authority::new();
    let platform = platform(&authority, false).await;
    let ca = Some(authority.ca_path());
    assert!(admits(&platform, "localhost", tls(Verify::Always, ca.clone())).await);
    assert!(admits(&platform, "127.0.0.1", tls(Verify::Auto, ca)).await);
    assert!(!admits(&platform, "localhost", tls(Verify::Always, None)).await);
    let other = Authority::new();
    let tls = tls(Verify::Always, Some(other.ca_path()));
    assert!(!admits(&platform, "localhost", tls).await);
}

#[tokio::test]
async fn auto_checks_addresses_and_not_localhost() {
    let authority = Authority::new();
    let platform = platform(&authority, false).await;
    assert!(admits(&platform, "localhost", tls(Verify::Auto, None)).await);
    assert!(!admits(&platform, "127.0.0.1", tls(Verify::Auto, None)).await);
    assert!(admits(&platform, "127.0.0.1", tls(Verify::Never, None)).await);
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_who_demands_it() {
    let authority = Authority::new();
    let platform = platform(&authority, true).await;
    let without = tls(Verify::Always, Some(authority.ca_path()));
    assert!(!admits(&platform, "localhost", without.clone()).await);
    let with = PlatformTls { client: Some(authority.client()), ..without };
    assert!(admits(&platform, "localhost", with).await);
}

#[tokio::test]
async fn worker_calls_trust_and_show_the_same() {
    let authority = Authority::new();
    let platform = platform(&authority, true).await;
    platform.on("/api/runtime/workspaces/", Behaviour::Answer(200, "ok".into()));
    let tls = PlatformTls {
        client: Some(authority.client()),
        ..tls(Verify::Always, Some(authority.ca_path()))
    };
    let (_relay, mut shard) = Relay::one(over_tls(&platform, "localhost", tls));
    let request = relay_contract::WorkerRequest {
        request_id: "w-1".into(),
        method: "GET".into(),
        path: "/api/runtime/workspaces/ws1/managed-executors/ex1".into(),
        headers: Vec::new(),
        body: None,
    };
    let response = crate::worker::call(&mut shard, request).await;
    assert_eq!((response.status, response.forwarded), (200, true));
}

#[tokio::test]
async fn a_renewed_certificate_is_used_without_a_restart() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let platform = platform(&authority, true).await;
    // Begins with a certificate the platform does not accept.
    let client = stranger.client();
    let tls = PlatformTls {
        client: Some(client.clone()),
        ..tls(Verify::Always, Some(authority.ca_path()))
    };
    let (_relay, mut shard) = Relay::one(over_tls(&platform, "localhost", tls));
    shard.client(TOKEN);
    assert_eq!(shard.refused().await, Refusal::Unauthorized);

    let renewed = authority.client();
    fs::copy(&renewed.cert_path, &client.cert_path).unwrap();
    fs::copy(&renewed.key_path, &client.key_path).unwrap();
    let later = SystemTime::now() + Duration::from_secs(60);
    for path in [&client.cert_path, &client.key_path] {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(later).unwrap();
    }
    shard.client(TOKEN);
    shard.admitted().await;
}

/// Whether a platform with a certificate made from these parameters is believed.
async fn is_believed(params: CertificateParams) -> bool {
    let authority = Authority::new();
    let acceptor = authority.acceptor_with(authority.issue_as(params), false);
    let platform = Platform::start(Some(acceptor)).await;
    let body = r#"{"ok":true,"claims":{"workspaceId":"ws1"}}"#;
    platform.on(VALIDATE, Behaviour::Answer(200, body.into()));
    admits(&platform, "localhost", tls(Verify::Always, Some(authority.ca_path()))).await
}

#[tokio::test]
async fn a_certificate_that_expired_or_is_of_another_host_is_not_believed() {
    let of = |host: &str| CertificateParams::new(vec![host.to_owned()]).unwrap();
    assert!(is_believed(of("localhost")).await);
    assert!(!is_believed(of("elsewhere.example")).await);
    let mut expired = of("localhost");
    expired.not_before = rcgen::date_time_ymd(2020, 1, 1);
    expired.not_after = rcgen::date_time_ymd(2021, 1, 1);
    assert!(!is_believed(expired).await);
    let mut early = of("localhost");
    early.not_before = rcgen::date_time_ymd(3000, 1, 1);
    early.not_after = rcgen::date_time_ymd(3001, 1, 1);
    assert!(!is_believed(early).await);
}

#[tokio::test]
async fn plain_http_where_tls_is_expected_is_no_answer() {
    let authority = Authority::new();
    let platform = Platform::start(None).await;
    let settings = over_tls(&platform, "localhost", tls(Verify::Always, Some(authority.ca_path())));
    let patience = Duration::from_millis(500);
    let (_relay, mut shard) = Relay::one(Settings { admission_timeout: patience, ..settings });
    shard.client(TOKEN);
    assert_eq!(shard.refused().await, Refusal::Unauthorized);
    assert!(platform.requests().is_empty(), "nothing is said in clear");
}

/// Whoever is on the path can end the connection, and so an answer without a length.
#[tokio::test]
async fn an_answer_over_tls_that_somebody_cut_is_no_answer() {
    let authority = Authority::new();
    let platform = platform(&authority, false).await;
    let body = r#"{"ok":true,"claims":{"workspaceId":"ws1"}}"#;
    let answer = format!("HTTP/1.1 200 OK\r\n\r\n{body}");
    // The platform drops the connection without taking leave of TLS.
    platform.on(VALIDATE, Behaviour::RawThenClose(answer.into()));
    let ca = Some(authority.ca_path());
    assert!(!admits(&platform, "localhost", tls(Verify::Always, ca)).await);
}

#[tokio::test]
async fn another_issuer_s_key_server_is_checked_whatever_holds_for_the_platform() {
    let authority = Authority::new();
    let keys = platform(&authority, false).await;
    let signer = Signer::new("k");
    publish(&keys, &[&signer]);
    for (ca_path, admitted) in [(None, false), (Some(authority.ca_path()), true)] {
        let own = Platform::start(None).await;
        let mut settings = checked(&own, Admission::Jwks);
        settings.platform_tls = tls(Verify::Never, ca_path);
        let jwks = settings.jwks.as_mut().unwrap();
        let url = format!("https://127.0.0.1:{}{JWKS}", keys.port());
        jwks.issuers[0].url = url.parse().unwrap();
        let (_relay, mut shard) = Relay::one(settings);
        shard.client(&signer.client(60));
        let (_, ruling) = shard.ruling().await;
        assert_eq!(ruling.is_ok(), admitted);
    }
}
