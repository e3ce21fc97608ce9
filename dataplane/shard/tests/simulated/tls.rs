//! Certificates that the clients of these tests trust, and what both ends make of them.

use std::sync::{Arc, OnceLock};

use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedCipherSuite,
    SupportedProtocolVersion,
};

/// A self-signed certificate for `localhost`.
pub(crate) struct Identity {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

/// What a test asks of a client.
#[derive(Default)]
pub(crate) struct Wishes {
    pub(crate) suite: Option<SupportedCipherSuite>,
    pub(crate) protocols: Vec<Vec<u8>>,
    pub(crate) shows_certificate: bool,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])
            .expect("a name makes a certificate");
        Self { certificate: made.cert.der().clone(), key: made.signing_key.serialize_der() }
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.clone()).into()
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("it can be a root");
        roots
    }

    /// A server that shows this certificate, as the program configures one.
    pub(crate) fn server(&self) -> ServerConfig {
        self.server_over(aws_lc_rs::DEFAULT_KX_GROUPS)
    }

    /// A server that exchanges keys in these groups alone.
    pub(crate) fn server_over(&self, groups: &[&'static dyn SupportedKxGroup]) -> ServerConfig {
        let provider =
            CryptoProvider { kx_groups: groups.to_vec(), ..aws_lc_rs::default_provider() };
        let mut server = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has both")
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key())
            .expect("the key fits the certificate");
        server.ticketer = aws_lc_rs::Ticketer::new().expect("the system has randomness");
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        server
    }

    /// A server that lets nobody in but whoever shows this certificate itself.
    pub(crate) fn strict_server(&self) -> ServerConfig {
        let verifier = WebPkiClientVerifier::builder(Arc::new(self.roots()));
        ServerConfig::builder()
            .with_client_cert_verifier(verifier.build().expect("there is a root"))
            .with_single_cert(vec![self.certificate.clone()], self.key())
            .expect("the key fits the certificate")
    }

    /// A client that trusts this certificate alone.
    pub(crate) fn client(&self, wishes: Wishes) -> Arc<ClientConfig> {
        let mut provider = aws_lc_rs::default_provider();
        let mut versions: &[&'static SupportedProtocolVersion] = rustls::ALL_VERSIONS;
        let only;
        if let Some(suite) = wishes.suite {
            provider.cipher_suites = vec![suite];
            only = [suite.version()];
            versions = &only;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .expect("the provider has them")
            .with_root_certificates(self.roots());
        let mut client = match wishes.shows_certificate {
            true => builder
                .with_client_auth_cert(vec![self.certificate.clone()], self.key())
                .expect("the key fits the certificate"),
            false => builder.with_no_client_auth(),
        };
        client.alpn_protocols = wishes.protocols;
        Arc::new(client)
    }
}

struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

fn configs() -> &'static Configs {
    static CONFIGS: OnceLock<Configs> = OnceLock::new();
    CONFIGS.get_or_init(|| {
        let identity = Identity::new();
        let client = identity.client(Wishes::default());
        Configs { server: Arc::new(identity.server()), client }
    })
}

/// What a shard needs to end TLS.
pub(crate) fn server_config() -> Arc<ServerConfig> {
    Arc::clone(&configs().server)
}

/// A client session that has not said anything yet.
pub(crate) fn client() -> ClientConnection {
    session(&configs().client)
}

/// A session of that client that has not said anything yet.
pub(crate) fn session(client: &Arc<ClientConfig>) -> ClientConnection {
    let name = "localhost".try_into().expect("a name");
    let mut client =
        ClientConnection::new(Arc::clone(client), name).expect("the configuration is complete");
    client.set_buffer_limit(None);
    client
}
