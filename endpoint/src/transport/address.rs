//! Where the relay is, and as whom we come.

use std::fmt;
use std::sync::Arc;

use relay_contract::{Role, Secret, TargetId, WorkspaceId};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use url::Url;

use crate::Fault;

/// Which certificate authorities vouch for the relay.
#[derive(Clone)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// The system's authorities. Errors: the system has none.
    pub fn system() -> Result<Self, AddressError> {
        Self::of(rustls_native_certs::load_native_certs().certs)
    }

    /// The authorities of a PEM file, and no others. Errors: none in it.
    pub fn pem(pem: &[u8]) -> Result<Self, AddressError> {
        let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        Self::of(roots.map_err(|_| AddressError::NoRoots)?)
    }

    fn of(certificates: Vec<CertificateDer<'static>>) -> Result<Self, AddressError> {
        let mut roots = RootCertStore::empty();
        // Systems carry certificates rustls does not take; the others still count.
        if roots.add_parsable_certificates(certificates).0 == 0 {
            return Err(AddressError::NoRoots);
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| AddressError::NoRoots)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        self.0.clone()
    }
}

/// Gives the token of each connection. Tokens expire; ends live longer.
type TokenSource = Arc<dyn Fn() -> Secret + Send + Sync>;

/// Where the relay is, and as whom we come.
#[derive(Clone)]
pub struct RelayAddress {
    url: Url,
    workspace: WorkspaceId,
    target: Option<TargetId>,
    token: TokenSource,
    trust: Option<Trust>,
    redirect_hosts: Vec<String>,
}

impl RelayAddress {
    /// `url`: the relay's WebSocket endpoint, `ws://…/ws` or `wss://…/ws`; its query is replaced.
    ///
    /// Errors: not such a URL, or no system roots for `wss`.
    pub fn new(
        url: &str,
        workspace: impl Into<WorkspaceId>,
        target: Option<TargetId>,
        token: Secret,
    ) -> Result<Self, AddressError> {
        let url = parse(url)?;
        let trust = match url.scheme() {
            "wss" => Some(Trust::system()),
            _ => None,
        };
        Ok(Self {
            url,
            workspace: workspace.into(),
            target,
            token: Arc::new(move || token.clone()),
            // Absent roots matter only if none are given before connecting.
            trust: trust.and_then(Result::ok),
            redirect_hosts: Vec::new(),
        })
    }

    /// Asks for a token before each connection.
    #[must_use]
    pub fn with_token_source(mut self, token: impl Fn() -> Secret + Send + Sync + 'static) -> Self {
        self.token = Arc::new(token);
        self
    }

    /// Trusts these authorities instead of the system's.
    #[must_use]
    pub fn with_trust(mut self, trust: Trust) -> Self {
        self.trust = Some(trust);
        self
    }

    /// Follows redirects to these hosts too. Without any, only to the host we came to: the token
    /// goes along.
    #[must_use]
    pub fn with_redirect_hosts(mut self, hosts: impl IntoIterator<Item = String>) -> Self {
        self.redirect_hosts = hosts.into_iter().collect();
        self
    }

    /// The same errand at the relay a redirect names. `None`: it is not one we would follow.
    pub(super) fn redirected(&self, url: &str) -> Option<Self> {
        let url = parse(url).ok()?;
        let host = url.host_str()?;
        let known = self.url.host_str() == Some(host)
            || self.redirect_hosts.iter().any(|allowed| allowed == host);
        let no_weaker = url.scheme() == "wss" || self.url.scheme() == "ws";
        if !known || !no_weaker {
            return None;
        }
        let trust = match (url.scheme(), &self.trust) {
            ("wss", None) => Some(Trust::system().ok()?),
            (_, trust) => trust.clone(),
        };
        Some(Self { url, trust, ..self.clone() })
    }

    pub(super) fn host(&self) -> &str {
        self.url.host_str().expect("parse() lets no URL without host pass")
    }

    /// As a socket address wants it: IPv6 without brackets.
    pub(super) fn bare_host(&self) -> &str {
        self.host().trim_start_matches('[').trim_end_matches(']')
    }

    pub(super) fn port(&self) -> u16 {
        let known = self.url.port_or_known_default();
        known.expect("parse() lets ws and wss pass, which have one")
    }

    /// `None`: in clear.
    pub(super) fn tls(&self) -> Result<Option<Trust>, AddressError> {
        match (self.url.scheme(), &self.trust) {
            ("wss", Some(trust)) => Ok(Some(trust.clone())),
            ("wss", None) => Err(AddressError::NoRoots),
            _ => Ok(None),
        }
    }

    /// The request's URL for a role.
    pub(super) fn request_url(&self, role: Role) -> Url {
        let mut url = self.url.clone();
        let mut query = url.query_pairs_mut();
        query.clear();
        query.append_pair("role", role.name());
        query.append_pair("workspaceId", self.workspace.as_str());
        if let Some(target) = &self.target {
            query.append_pair("runtimeTargetId", target.as_str());
        }
        drop(query);
        url
    }

    pub(super) fn token(&self) -> Secret {
        (self.token)()
    }
}

/// Names the relay and no secret.
impl fmt::Debug for RelayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayAddress")
            .field("url", &self.url.as_str())
            .field("workspace", &self.workspace)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

fn parse(url: &str) -> Result<Url, AddressError> {
    let url = Url::parse(url).map_err(|_| AddressError::Url)?;
    let plain = url.username().is_empty() && url.password().is_none() && url.host().is_some();
    if plain && matches!(url.scheme(), "ws" | "wss") { Ok(url) } else { Err(AddressError::Url) }
}

/// Why an address is of no use. Says nothing of its content: a token may have slipped in.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AddressError {
    /// Not a `ws` or `wss` URL, or one with a password in it.
    #[error("not a ws:// or wss:// URL without user and password")]
    Url,
    /// Nobody could vouch for the relay.
    #[error("no certificate authorities to trust")]
    NoRoots,
}

impl AddressError {
    /// Configuration.
    pub fn fault(self) -> Fault {
        Fault::Us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> RelayAddress {
        RelayAddress::new(url, "w 1", Some("t".into()), "secret-token".into()).unwrap()
    }

    #[test]
    fn the_request_names_role_workspace_and_target() {
        let url = address("ws://relay.test/ws?x=1").request_url(Role::Client);
        let expected = "ws://relay.test/ws?role=client&workspaceId=w+1&runtimeTargetId=t";
        assert_eq!(url.as_str(), expected);
    }

    #[test]
    fn the_token_is_not_shown() {
        assert!(!format!("{:?}", address("ws://relay.test/ws")).contains("secret"));
    }

    #[test]
    fn a_redirect_is_followed_to_known_hosts_alone_and_never_out_of_tls() {
        let open = address("ws://a.test/ws");
        assert!(open.redirected("ws://a.test:81/ws").is_some());
        assert!(open.redirected("ws://b.test/ws").is_none());
        assert!(open.redirected("ws://user@a.test/ws").is_none());
        assert!(open.redirected("http://a.test/ws").is_none());
        let more = open.with_redirect_hosts(["b.test".to_owned()]);
        assert!(more.redirected("ws://b.test/ws").is_some());
        assert!(address("wss://a.test/ws").redirected("ws://a.test/ws").is_none());
    }

    #[test]
    fn only_websocket_urls_are_addresses() {
        for url in ["", "relay.test", "http://relay.test/ws", "ws://", "ws://u:p@relay.test/ws"] {
            let error = RelayAddress::new(url, "w", None, "t".into()).err();
            assert_eq!(error, Some(AddressError::Url), "{url}");
        }
    }

    #[test]
    fn a_pem_file_without_certificates_is_no_trust() {
        assert_eq!(Trust::pem(b"nothing").err(), Some(AddressError::NoRoots));
    }
}
