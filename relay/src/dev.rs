//! `relay dev`: a sandbox to develop against.

use std::io;

use anyhow::Result;
use relay_platform::TokenClaims;

use crate::cli::DevArguments;
use crate::sandbox::{Plan, Sandbox};

/// Runs until a signal ends it. Text to paste goes to stdout, the journal to stderr.
pub(crate) fn run(arguments: &DevArguments) -> Result<()> {
    let plan = Plan {
        port: arguments.port,
        key: arguments.key.as_deref(),
        settings: arguments.settings(),
    };
    let sandbox = Sandbox::start(plan, io::stderr())?;
    print!("{}", instructions(&sandbox, arguments)?);
    sandbox.wait()
}

fn instructions(sandbox: &Sandbox, arguments: &DevArguments) -> Result<String> {
    let (workspace, target) = (&arguments.workspace, &arguments.target);
    let daemon = sandbox.token(TokenClaims::daemon(workspace, target))?;
    let client = sandbox.token(TokenClaims::client(workspace, target, "dev-client"))?;
    let more = match &arguments.key {
        Some(key) => format!(
            "relay token --key {} --role client --workspace {workspace} --target {target}",
            key.display()
        ),
        None => "start with --key FILE, then: relay token --key FILE …".to_owned(),
    };
    let query = format!("workspaceId={workspace}&runtimeTargetId={target}");
    Ok(format!(
        "\
relay     http://{address} ({driver})
platform  http://{platform} (validates tokens, publishes keys)

# paste into another terminal
export RELAY_WS={url}
export DAEMON_TOKEN={daemon}
export CLIENT_TOKEN={client}
export RELAY_ADMIN_TOKEN={admin}

# is it there, and what does it hold?
curl http://{address}/health
curl -H \"Authorization: Bearer $RELAY_ADMIN_TOKEN\" http://{address}/state

# a daemon, and a client that talks to it
websocat -H \"Authorization: Bearer $DAEMON_TOKEN\" \"$RELAY_WS?role=workspace-daemon&{query}\"
websocat -H \"Authorization: Bearer $CLIENT_TOKEN\" \"$RELAY_WS?role=client&{query}\"

# another token (these are good for 12 hours)
{more}

Ctrl-C stops both. The journal follows on stderr.
",
        address = sandbox.address(),
        driver = sandbox.driver(),
        platform = sandbox.platform_address(),
        url = sandbox.url(),
        daemon = daemon.expose(),
        client = client.expose(),
        admin = sandbox.admin_token().expose(),
    ))
}
