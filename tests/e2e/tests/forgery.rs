//! A flood of forged tokens costs the platform nothing, and whoever has a good one nothing either.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use relay_e2e::{KeyServer, Relay, upgrade_from};
use relay_platform::{Issuer, SigningKey, TokenClaims};

/// Upgrades of one flood.
const FLOOD: usize = 4000;
/// Who make them at the same time.
const THREADS: usize = 8;

/// A platform that publishes its key, accepts every token it is asked about, and counts.
struct Platform {
    issuer: Issuer,
    server: KeyServer,
}

impl Platform {
    fn start() -> Result<Self> {
        let issuer = Issuer::new(SigningKey::generate()?);
        let server = KeyServer::start(&[&issuer])?;
        Ok(Self { issuer, server })
    }

    fn token(&self, client: &str) -> Result<String> {
        let claims = TokenClaims::client("ws1", "rt1", client);
        let token = self.issuer.issue(claims, SystemTime::now(), Duration::from_secs(600))?;
        Ok(token.expose().to_owned())
    }

    fn relay(&self, more: &[(&str, &str)]) -> Result<Relay> {
        let key_set = self.server.key_set_url();
        let mut variables = vec![
            ("SERVER_URL", self.server.url()),
            ("RELAY_JWKS_URL", key_set.as_str()),
            ("RELAY_UPGRADE_RATE_PER_MINUTE", "1000000"),
        ];
        variables.extend_from_slice(more);
        Relay::serve(&variables)
    }
}

/// The status of one upgrade.
fn upgrade(port: u16, source: usize, token: &str) -> Result<u16> {
    upgrade_from([127, 0, 1, u8::try_from(source)? + 1].into(), port, token)
}

/// Upgrades with these tokens, each as often as it takes; how often each status came.
fn flood(port: u16, tokens: &[String]) -> Result<BTreeMap<u16, usize>> {
    let flooders = (0..THREADS).map(|thread| {
        let tokens = tokens.to_vec();
        thread::spawn(move || -> Result<BTreeMap<u16, usize>> {
            let mut statuses = BTreeMap::new();
            for number in 0..FLOOD / THREADS {
                let token = &tokens[number % tokens.len()];
                *statuses.entry(upgrade(port, thread, token)?).or_default() += 1;
            }
            Ok(statuses)
        })
    });
    let mut statuses = BTreeMap::new();
    for flooder in flooders.collect::<Vec<_>>() {
        let counted = flooder.join().map_err(|_| anyhow::anyhow!("a flooder panicked"))??;
        for (status, count) in counted {
            *statuses.entry(status).or_default() += count;
        }
    }
    Ok(statuses)
}

/// Waits until the relay has the keys: it admits by them then.
fn admitted(platform: &Platform, port: u16) -> Result<()> {
    ensure!(upgrade(port, THREADS, &platform.token("good")?)? == 101, "a good token is refused");
    Ok(())
}

#[test]
fn the_platform_sees_nothing_of_forged_signatures() -> Result<()> {
    let platform = Platform::start()?;
    let relay = platform.relay(&[])?;
    admitted(&platform, relay.port())?;
    let before = platform.server.validations();
    let forged = (0..16).map(|number| {
        let mut token = platform.token(&format!("forger-{number}"))?;
        token.replace_range(token.len() - 8.., "AAAAAAAA");
        Ok(token)
    });
    let statuses = flood(relay.port(), &forged.collect::<Result<Vec<_>>>()?)?;
    assert_eq!(statuses, BTreeMap::from([(401, FLOOD)]));
    assert_eq!(platform.server.validations(), before);
    assert_eq!(platform.server.fetches(), 1);
    admitted(&platform, relay.port())
}

#[test]
fn the_platform_sees_nothing_of_invented_keys_where_the_sets_are_complete() -> Result<()> {
    let platform = Platform::start()?;
    for more in [("RELAY_ADMISSION", "jwks"), ("RELAY_JWKS_UNKNOWN_KEY", "refuse")] {
        let relay = platform.relay(&[more])?;
        admitted(&platform, relay.port())?;
        let before = platform.server.validations();
        let fetches = platform.server.fetches();
        let strangers = (0..64).map(|number| {
            let issuer = Issuer::new(SigningKey::generate()?);
            let claims = TokenClaims::client("ws1", "rt1", &format!("stranger-{number}"));
            let token = issuer.issue(claims, SystemTime::now(), Duration::from_secs(600))?;
            Ok(token.expose().to_owned())
        });
        let statuses = flood(relay.port(), &strangers.collect::<Result<Vec<_>>>()?)?;
        assert_eq!(statuses, BTreeMap::from([(401, FLOOD)]));
        assert_eq!(platform.server.validations(), before, "{more:?}");
        let later = platform.server.fetches() - fetches;
        assert!(later <= 2, "{later} fetches");
        admitted(&platform, relay.port())?;
    }
    Ok(())
}
