//! The relay to talk to.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use relay_contract::Secret;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};
use url::{Host, Url};

use super::arguments::ConnectionArguments;

/// Where it is, and what to show there.
#[derive(Debug)]
pub(super) struct Address {
    shown: String,
    endpoint: Endpoint,
    bearer: Bearer,
}

/// Adds the token to every call, if there is one.
#[derive(Clone, Debug)]
pub(super) struct Bearer(Option<MetadataValue<Ascii>>);

/// Nobody answers there.
#[derive(Debug, thiserror::Error)]
#[error("cannot reach {address}: {reason}; {advice}")]
pub(super) struct Unreachable {
    address: String,
    reason: String,
    advice: &'static str,
}

impl Address {
    /// Reads the files that the arguments name.
    ///
    /// Errors: an address of another kind, a file that cannot be read, a token in the clear over a
    /// network.
    pub(super) fn of(arguments: &ConnectionArguments) -> Result<Self> {
        let shown = arguments.address.clone();
        let token = token(arguments.token_file.as_deref())?;
        let endpoint = match shown.strip_prefix("unix:") {
            Some(path) => {
                ensure!(path.starts_with('/'), "--address {shown}: expected unix:/path");
                Endpoint::from_shared(shown.clone())?
            }
            None => over_network(&shown, arguments, token.is_some())?,
        };
        let patience = Duration::from_secs(arguments.timeout);
        let endpoint = endpoint.connect_timeout(patience).timeout(patience);
        Ok(Self { shown, endpoint, bearer: Bearer(token) })
    }

    /// Errors: nobody is there, or TLS fails.
    pub(super) async fn connect(self) -> Result<(Channel, Bearer), Unreachable> {
        match self.endpoint.connect().await {
            Ok(channel) => Ok((channel, self.bearer)),
            Err(error) => Err(Unreachable {
                reason: causes(&error),
                advice: match self.shown.starts_with("unix:") {
                    true => {
                        "does RELAY_CONTROL_API_LISTEN name it there, and may you open it? \
                         --address names another"
                    }
                    false => {
                        "is that the relay's RELAY_CONTROL_API_LISTEN? --address names another"
                    }
                },
                address: self.shown,
            }),
        }
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

fn over_network(text: &str, arguments: &ConnectionArguments, has_token: bool) -> Result<Endpoint> {
    let url = Url::parse(text);
    let url = url.with_context(|| {
        format!("--address {text}: expected unix:/path, http://host:port or https://host:port")
    })?;
    let endpoint = Endpoint::from_shared(text.to_owned())?;
    match url.scheme() {
        "http" if has_token && !is_loopback(&url) => {
            bail!("--address {text}: the token would travel in the clear; use https")
        }
        "http" => Ok(endpoint),
        "https" => {
            let mut tls = ClientTlsConfig::new();
            tls = match &arguments.ca {
                Some(path) => tls.ca_certificate(Certificate::from_pem(read(path)?)),
                None => tls.with_native_roots(),
            };
            if let (Some(certificate), Some(key)) = (&arguments.cert, &arguments.key) {
                tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
            }
            Ok(endpoint.tls_config(tls)?)
        }
        _ => bail!("--address {text}: expected unix:/path, http://host:port or https://host:port"),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn token(file: Option<&Path>) -> Result<Option<MetadataValue<Ascii>>> {
    let named = env::var_os(format!("{TOKEN_VARIABLE}_FILE")).map(PathBuf::from);
    let text = match (file, env::var(TOKEN_VARIABLE), named) {
        (Some(file), _, _) => read(file)?,
        (None, Ok(token), _) => token,
        (None, Err(_), Some(file)) => read(&file)?,
        (None, Err(_), None) => return Ok(None),
    };
    let text = Secret::new(text);
    let line = text.expose().trim();
    ensure!(!line.is_empty(), "the token is empty");
    let mut value: MetadataValue<Ascii> =
        format!("Bearer {line}").parse().ok().context("the token is no line of text")?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// The last cause says it best; those before it only that there was one.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

const TOKEN_VARIABLE: &str = "RELAY_CONTROL_API_TOKEN";

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(address: &str) -> ConnectionArguments {
        ConnectionArguments {
            address: address.to_owned(),
            token_file: None,
            ca: None,
            cert: None,
            key: None,
            json: false,
            timeout: 10,
        }
    }

    #[test]
    fn a_relay_is_at_a_path_or_a_url() {
        for (address, is_one) in [
            ("unix:/run/relay/control.sock", true),
            ("unix:run/relay", false),
            ("http://127.0.0.1:7790", true),
            ("https://relay.corp:7790", true),
            ("ftp://relay.corp", false),
            ("relay.corp:7790", false),
            ("", false),
        ] {
            assert_eq!(Address::of(&arguments(address)).is_ok(), is_one, "{address}");
        }
    }

    #[test]
    fn a_token_does_not_travel_in_the_clear() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), "secret\n").expect("it can be written");
        let with_token = |address| {
            let token_file = Some(file.path().to_owned());
            Address::of(&ConnectionArguments { token_file, ..arguments(address) })
        };
        assert!(with_token("http://10.0.0.1:7790").is_err());
        let address = with_token("http://[::1]:7790").expect("it stays on this machine");
        assert!(!format!("{address:?}").contains("secret"));
    }
}
