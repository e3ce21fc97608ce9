//! The platform, how it is called, and who judges tokens.

use std::path::PathBuf;
use std::time::Duration;

use relay_contract::Secret;
use url::Url;

use super::reader::is_bare;
use super::{Reader, Source, as_size};

/// How the relay proves itself to the platform in `prod`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ServerAuth {
    /// A client certificate.
    Mtls,
    /// The internal key on a private network.
    SharedSecret,
}

/// Whether the platform's certificate is checked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TlsVerify {
    /// Except for `localhost` and `*.test`.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// A certificate shown to the platform.
#[derive(Clone, Debug)]
pub(crate) struct ClientCertificate {
    /// Certificate chain in PEM; empty when none was named.
    pub certificate: PathBuf,
    /// Private key in PEM; empty when none was named.
    pub key: PathBuf,
    /// Passphrase of the key.
    pub passphrase: Option<Secret>,
}

/// The platform and how it is called.
#[derive(Clone, Debug)]
pub(crate) struct Platform {
    /// The platform's address as the operator wrote it, or the default; for display, so without
    /// user, password and query.
    pub server_url: String,
    /// The same, parsed.
    pub server: Url,
    /// Whether the operator named the platform at all.
    pub is_named: bool,
    /// Where tokens are validated.
    pub validate: Url,
    /// Shared secret of the internal endpoints.
    pub key: Option<Secret>,
    /// The secret before it, until the platform has forgotten it.
    pub previous_key: Option<Secret>,
    /// Deadline of one validation.
    pub admission_timeout: Duration,
    /// Bytes of one validation answer.
    pub admission_response_bytes_max: usize,
    /// Deadline of any other call.
    pub api_timeout: Duration,
    /// Bytes of any other answer.
    pub api_response_bytes_max: usize,
    /// Whether the platform's certificate is checked.
    pub verify: TlsVerify,
    /// Authorities that replace the system's.
    pub authorities: Option<PathBuf>,
    /// The certificate shown to the platform; present when mTLS is on.
    pub client_certificate: Option<ClientCertificate>,
    /// How the relay proves itself in `prod`.
    pub auth: ServerAuth,
}

/// The URLs by which the operator names the platform, read before everything that depends on them.
pub(super) struct Named {
    server: Option<(Url, String)>,
    validate: Option<Url>,
    pub(super) backplane: Option<(Url, String)>,
}

impl Named {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let server = reader.url("SERVER_URL");
        let validate = reader.url("RELAY_VALIDATE_URL").map(|(url, _)| url);
        let backplane = reader.url("RELAY_BACKPLANE_URL");
        let mut named = Self { server, validate, backplane };
        named.unite(reader);
        named
    }

    /// An http URL of the backplane is the platform's: an alias of `SERVER_URL`.
    fn unite(&mut self, reader: &mut Reader<'_>) {
        let Some((backplane, text)) = &self.backplane else {
            return;
        };
        if !matches!(backplane.scheme(), "http" | "https") {
            return;
        }
        match &self.server {
            None => self.server = Some((backplane.clone(), text.clone())),
            Some((server, _)) if server != backplane => reader.refuse(
                "RELAY_BACKPLANE_URL",
                "RELAY_BACKPLANE_URL and SERVER_URL mean the same platform and are set to \
                 different values"
                    .to_owned(),
            ),
            Some(_) => {}
        }
    }

    /// Whether the documented start is at hand: the validate URL alone names the platform.
    pub(super) fn by_validate_url_alone(&self) -> bool {
        self.validate.is_some() && self.server.is_none()
    }

    /// The URL by which the operator named the platform.
    pub(super) fn platform_url(&self) -> Option<&Url> {
        let server = self.server.as_ref().map(|(url, _)| url);
        server.or(self.validate.as_ref())
    }

    /// Whether the backplane's URL is one of Redis.
    pub(super) fn backplane_is_redis(&self) -> bool {
        let scheme = self.backplane.as_ref().map(|(url, _)| url.scheme());
        matches!(scheme, Some("redis" | "rediss"))
    }

    /// The platform's address, and how it is shown: as the operator wrote it, but for what may be
    /// a secret.
    fn server(&self) -> (Url, String) {
        if let Some((url, text)) = &self.server {
            return (url.clone(), displayed(url, text));
        }
        let text = match &self.validate {
            Some(validate) => validate.origin().ascii_serialization(),
            None => SERVER_URL.to_owned(),
        };
        let url = Url::parse(&text).expect("an origin with a host is a URL");
        (url, text)
    }
}

fn displayed(url: &Url, text: &str) -> String {
    if is_bare(url) {
        return text.to_owned();
    }
    let mut bare = url.clone();
    bare.set_query(None);
    drop_user(&mut bare);
    bare.to_string()
}

/// Removes user and password.
fn drop_user(url: &mut Url) {
    // A URL without a host has neither and takes neither; it was refused before.
    let _ = url.set_username("").and_then(|()| url.set_password(None));
}

/// The reference relay's platform.
const SERVER_URL: &str = "https://api.getviewport.com";
const VALIDATE_PATH: &str = "/api/runtime/internal/relay/validate";

impl Platform {
    pub(super) fn read(reader: &mut Reader<'_>, named: &Named) -> Self {
        let (server, server_url) = named.server();
        let source = match named.by_validate_url_alone() {
            true => Source::Inferred("RELAY_VALIDATE_URL"),
            false => Source::Default,
        };
        reader.conclude("SERVER_URL", &server_url, source);
        let validate = named.validate.clone().unwrap_or_else(|| {
            let mut url = server.clone();
            drop_user(&mut url);
            url.set_path(VALIDATE_PATH);
            url.set_query(None);
            url.set_fragment(None);
            url
        });
        let reason = Source::Inferred("SERVER_URL");
        reader.conclude("RELAY_VALIDATE_URL", validate.as_str(), reason);
        let client_certificate = ClientCertificate::read(reader);
        let auth = read_auth(reader, named, client_certificate.is_some());
        Self {
            server_url,
            server,
            is_named: named.platform_url().is_some(),
            validate,
            key: reader.secret("RELAY_INTERNAL_KEY"),
            previous_key: reader.secret("RELAY_INTERNAL_KEY_PREVIOUS"),
            admission_timeout: reader.millis("RELAY_ADMISSION_TIMEOUT_MS"),
            admission_response_bytes_max: as_size(
                reader.count("RELAY_ADMISSION_MAX_RESPONSE_BYTES"),
            ),
            api_timeout: reader.millis("RELAY_INTERNAL_API_TIMEOUT_MS"),
            api_response_bytes_max: as_size(reader.count("RELAY_INTERNAL_API_MAX_RESPONSE_BYTES")),
            verify: match reader.choice("RELAY_SERVER_TLS_VERIFY") {
                Some("1") => TlsVerify::Always,
                Some("0") => TlsVerify::Never,
                _ => TlsVerify::Auto,
            },
            authorities: reader.path("RELAY_SERVER_CA_CERT_PATH"),
            client_certificate,
            auth,
        }
    }
}

impl ClientCertificate {
    /// On when asked for, and by merely naming both files.
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let asked = reader.flag("RELAY_SERVER_MTLS").unwrap_or(false);
        let certificate = reader.path("RELAY_SERVER_CLIENT_CERT_PATH");
        let key = reader.path("RELAY_SERVER_CLIENT_KEY_PATH");
        let passphrase = reader.secret("RELAY_SERVER_CLIENT_KEY_PASSPHRASE");
        let both = certificate.is_some() && key.is_some();
        if both {
            let reason = Source::Inferred("both client certificate paths are set");
            reader.conclude("RELAY_SERVER_MTLS", "1", reason);
        }
        (asked || both).then(|| Self {
            certificate: certificate.unwrap_or_default(),
            key: key.unwrap_or_default(),
            passphrase,
        })
    }
}

fn read_auth(reader: &mut Reader<'_>, named: &Named, has_certificate: bool) -> ServerAuth {
    match reader.choice("RELAY_SERVER_AUTH_MODE") {
        Some("mtls") => ServerAuth::Mtls,
        Some(_) => ServerAuth::SharedSecret,
        None if named.by_validate_url_alone() && !has_certificate => {
            reader.conclude(
                "RELAY_SERVER_AUTH_MODE",
                "private_network_shared_secret",
                Source::Inferred("RELAY_VALIDATE_URL"),
            );
            ServerAuth::SharedSecret
        }
        None => ServerAuth::Mtls,
    }
}
