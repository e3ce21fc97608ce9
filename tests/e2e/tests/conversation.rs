//! The real ends talk through the real relay.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rand::SeedableRng;
use rand::rngs::StdRng;
use relay_e2e::{Platform, Relay};
use relay_endpoint::{
    Client, ClientConfig, ClientProfile, ClientSettings, ConversationId, Daemon, DaemonConfig,
    DaemonSettings, KeyPair, Limits, PairingSecret, Profile, Received, RelayAddress, Secret,
    TargetId,
};
use relay_platform::TokenClaims;

const PATIENCE: Duration = Duration::from_secs(20);

struct Stage {
    platform: Platform,
    relay: Relay,
}

impl Stage {
    fn set(variables: &[(&str, &str)]) -> Result<Self> {
        let platform = Platform::start()?;
        let url = platform.url();
        let all: Vec<_> =
            [("SERVER_URL", url.as_str())].into_iter().chain(variables.iter().copied()).collect();
        let relay = Relay::serve(&all)?;
        Ok(Self { platform, relay })
    }

    fn address(&self, workspace: &str, token: Secret) -> Result<RelayAddress> {
        let target = Some(TargetId::from("rt1"));
        Ok(RelayAddress::new(&self.relay.url(), workspace, target, token)?)
    }

    /// A daemon that answers every text with the text in upper case.
    fn daemon(&self, workspace: &str, keys: KeyPair, limits: Limits) -> Result<Daemon> {
        let peers = HashMap::from([(PEER.to_owned(), secret())]);
        let token = self.platform.token(TokenClaims::daemon(workspace, "rt1"))?;
        let config = DaemonConfig {
            address: self.address(workspace, token)?,
            settings: DaemonSettings {
                keys,
                required: Profile::NoiseIk,
                peers: Box::new(peers),
                limits,
            },
            observer: Box::new(()),
        };
        let shout = |_: ConversationId, text: String| Some(text.to_uppercase());
        Ok(Daemon::serve(config, shout)?)
    }

    fn client(
        &self,
        workspace: &str,
        id: &str,
        daemon: &KeyPair,
        profile: ClientProfile,
    ) -> Result<Client> {
        let token = self.platform.token(TokenClaims::client(workspace, "rt1", id))?;
        let config = ClientConfig {
            address: self.address(workspace, token)?,
            settings: ClientSettings {
                keys: keys(id.bytes().map(u64::from).sum()),
                daemon: *daemon.public(),
                profile,
                limits: Limits::default(),
            },
            observer: Box::new(()),
        };
        Ok(Client::connect(config, PATIENCE)?)
    }
}

const PEER: &str = "paired-laptop";

fn secret() -> PairingSecret {
    PairingSecret::new([7; 32])
}

fn keys(seed: u64) -> KeyPair {
    KeyPair::generate(&mut StdRng::seed_from_u64(seed))
}

fn answer(client: &Client) -> Result<String> {
    loop {
        match client.recv(PATIENCE)?.context("no answer in time")? {
            Received::Text(text) => return Ok(text),
            // The daemon was not there yet when the client first asked.
            Received::Status { retryable: true, .. } => {}
            other => bail!("received {other:?}"),
        }
    }
}

#[test]
fn texts_of_every_size_arrive_intact_and_in_order() -> Result<()> {
    let stage = Stage::set(&[("RELAY_RUNTIME_RATE_PER_MINUTE", "100000")])?;
    let pair = keys(1);
    let _daemon = stage.daemon("ws1", keys(1), Limits::default())?;
    let client = stage.client("ws1", "cl1", &pair, ClientProfile::NoiseIk)?;
    for len in [1, 120, 4_000, 40_000, 400_000] {
        client.send("a".repeat(len))?;
    }
    for len in [1, 120, 4_000, 40_000, 400_000] {
        assert_eq!(answer(&client)?, "A".repeat(len));
    }
    Ok(())
}

#[test]
fn the_paired_profile_talks_too() -> Result<()> {
    let stage = Stage::set(&[])?;
    let pair = keys(2);
    let _daemon = stage.daemon("ws1", keys(2), Limits::default())?;
    let profile = ClientProfile::NoiseIkpsk2 { peer_id: PEER.into(), secret: secret() };
    let client = stage.client("ws1", "cl1", &pair, profile)?;
    client.send("paired")?;
    assert_eq!(answer(&client)?, "PAIRED");
    Ok(())
}

#[test]
fn keys_rotate_under_traffic_and_nothing_is_lost() -> Result<()> {
    let stage = Stage::set(&[
        ("RELAY_RUNTIME_RATE_PER_MINUTE", "100000"),
        ("RELAY_KEX_INIT_RATE_PER_MINUTE", "1000"),
    ])?;
    let pair = keys(3);
    let limits = Limits { rotate_after: 5, ..Limits::default() };
    let _daemon = stage.daemon("ws1", keys(3), limits)?;
    let client = stage.client("ws1", "cl1", &pair, ClientProfile::NoiseIk)?;
    for number in 0..60 {
        client.send(format!("message {number}"))?;
        assert_eq!(answer(&client)?, format!("MESSAGE {number}"));
    }
    Ok(())
}

#[test]
fn workspaces_on_different_shards_do_not_meet() -> Result<()> {
    let stage = Stage::set(&[("RELAY_SHARDS", "3")])?;
    let mut pairs = Vec::new();
    for index in 0..9 {
        let workspace = format!("workspace-{index}");
        let pair = keys(100 + index);
        let daemon = stage.daemon(&workspace, keys(100 + index), Limits::default())?;
        let client = stage.client(&workspace, "cl1", &pair, ClientProfile::NoiseIk)?;
        pairs.push((daemon, client));
    }
    for (index, (_, client)) in pairs.iter().enumerate() {
        client.send(format!("for {index}"))?;
    }
    for (index, (_, client)) in pairs.iter().enumerate() {
        assert_eq!(answer(client)?, format!("FOR {index}"));
    }
    Ok(())
}
