//! How key servers are called: the platform as it is called for anything else, others apart from
//! it.

use std::sync::Arc;

use http::Uri;
use url::{Origin, Url};

use crate::notices::Notices;
use crate::platform_http::PlatformHttp;
use crate::platform_tls::PlatformTlsError;
use crate::settings::PlatformTls;

/// The platform's settings for TLS say nothing of other issuers: its private authority would leave
/// out those whom everybody believes, and what is not checked of the platform has to be checked of
/// whoever says which tokens are good.
#[derive(Clone, Debug)]
pub(crate) struct KeyServers {
    platform: Arc<PlatformHttp>,
    origin: Origin,
    others: Arc<PlatformHttp>,
}

impl KeyServers {
    /// # Errors
    /// [`PlatformTlsError`].
    pub(crate) fn new(
        platform: &Arc<PlatformHttp>,
        url: &Url,
        tls: &PlatformTls,
        notices: Notices,
    ) -> Result<Self, PlatformTlsError> {
        let others = Arc::new(PlatformHttp::of_others(tls, notices)?);
        Ok(Self { platform: Arc::clone(platform), origin: url.origin(), others })
    }

    /// Who calls this URL.
    pub(crate) fn of(&self, url: &Uri) -> &PlatformHttp {
        let is_platform = Url::parse(&url.to_string()).is_ok_and(|url| url.origin() == self.origin);
        if is_platform { &self.platform } else { &self.others }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platform_alone_is_called_by_its_settings() {
        let tls = PlatformTls::default();
        let notices = Notices::channel().0;
        let platform = Arc::new(PlatformHttp::new(tls.clone(), notices.clone()).unwrap());
        let url = Url::parse("https://platform.corp/base").unwrap();
        let servers = KeyServers::new(&platform, &url, &tls, notices).unwrap();
        for (url, is_platform) in [
            ("https://platform.corp/keys", true),
            ("https://platform.corp:443/keys", true),
            ("https://platform.corp:8443/keys", false),
            ("http://platform.corp/keys", false),
            ("https://issuer.example/keys", false),
        ] {
            let called = servers.of(&url.parse().unwrap());
            assert_eq!(std::ptr::eq(called, &*platform), is_platform, "{url}");
        }
    }
}
