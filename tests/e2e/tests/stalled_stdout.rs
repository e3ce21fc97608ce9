//! A stdout that is open and that nobody reads.

use anyhow::Result;
use relay_e2e::{Platform, Relay, get};
use relay_platform::TokenClaims;
use tungstenite::client::IntoClientRequest;
use tungstenite::connect;

/// Upgrades that are refused, each with a line in the log: many times what the pipe takes.
const REFUSED: usize = 60;

#[test]
fn a_stdout_nobody_reads_stops_nothing() -> Result<()> {
    let platform = Platform::start()?;
    let relay = Relay::serve_unread(&[("SERVER_URL", &platform.url())])?;
    let upgrade = |token: &str| -> Result<_> {
        let query = "role=workspace-daemon&workspaceId=ws1&runtimeTargetId=rt1";
        let mut request = format!("{}?{query}", relay.url()).into_client_request()?;
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse()?);
        Ok(connect(request)?.0)
    };
    for _ in 0..REFUSED {
        assert!(upgrade("not-a-token-of-this-platform").is_err());
    }
    let token = platform.token(TokenClaims::daemon("ws1", "rt1"))?;
    let daemon = upgrade(token.expose())?;
    let logs = get(relay.port(), "/logs", Some(Relay::ADMIN_TOKEN))?.body;
    assert_eq!(logs.matches("admission_denied").count(), REFUSED);
    drop(daemon);
    assert!(relay.stop()?.success(), "nor does it keep the relay from ending");
    Ok(())
}
