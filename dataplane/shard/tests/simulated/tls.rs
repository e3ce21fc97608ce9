//! One certificate that the clients of these tests trust.

use std::sync::{Arc, OnceLock};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

fn configs() -> &'static Configs {
    static CONFIGS: OnceLock<Configs> = OnceLock::new();
    CONFIGS.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])
            .expect("a name makes a certificate");
        let certificate: CertificateDer<'static> = made.cert.der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let server = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .expect("the key fits the certificate");
        let mut roots = RootCertStore::empty();
        roots.add(certificate).expect("it can be a root");
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Configs { server: Arc::new(server), client: Arc::new(client) }
    })
}

/// What a shard needs to end TLS.
pub(crate) fn server_config() -> Arc<ServerConfig> {
    Arc::clone(&configs().server)
}

/// A client session that has not said anything yet.
pub(crate) fn client() -> ClientConnection {
    let name = "localhost".try_into().expect("a name");
    let mut client = ClientConnection::new(Arc::clone(&configs().client), name)
        .expect("the configuration is complete");
    client.set_buffer_limit(None);
    client
}
