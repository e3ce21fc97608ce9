use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::*;
use crate::config::{FlagValue, Machine};

/// A real Redis, ended when dropped.
struct Redis {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl Redis {
    /// Starts one with these further arguments; `port_flag` is the kind of port it gets.
    fn start(port_flag: &str, dir: TempDir, arguments: &[&str]) -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let port_text = port.to_string();
        let child = Command::new("redis-server")
            .args(["--port", "0", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args([port_flag, &port_text])
            .args(arguments)
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed (cargo xtask components)");
        let mut redis = Self { child, port, _dir: dir };
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let ended = redis.child.try_wait().expect("known");
            assert!(ended.is_none(), "redis-server ended: {ended:?}");
            std::thread::yield_now();
        }
        redis
    }

    fn plain(arguments: &[&str]) -> Self {
        Self::start("--port", tempfile::tempdir().expect("a directory"), arguments)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn examined(url: &str) -> Finding {
    examine(&Secret::from(url), Duration::from_secs(5)).await
}

#[tokio::test]
async fn a_redis_that_lets_us_in_tells_its_version() {
    let redis = Redis::plain(&[]);
    let finding = examined(&format!("redis://127.0.0.1:{}", redis.port)).await;
    assert_eq!(finding.verdict, Verdict::Ok, "{finding:?}");
    assert!(finding.found.contains("Redis "), "{finding:?}");
}

#[tokio::test]
async fn a_missing_or_wrong_password_is_told_and_not_shown() {
    let redis = Redis::plain(&["--requirepass", "open-sesame"]);
    let port = redis.port;
    for user in ["", ":hunter2@", "default:hunter2@"] {
        let finding = examined(&format!("redis://{user}127.0.0.1:{port}")).await;
        assert_eq!(finding.verdict, Verdict::Fail, "{finding:?}");
        assert!(finding.remedy.as_ref().is_some_and(|text| text.contains("password")));
        assert!(!format!("{finding:?}").contains("hunter2"), "{finding:?}");
    }
    let finding = examined(&format!("redis://:open-sesame@127.0.0.1:{port}")).await;
    assert_eq!(finding.verdict, Verdict::Ok, "{finding:?}");
    assert!(!finding.found.contains("sesame"), "{finding:?}");
}

#[tokio::test]
async fn a_redis_that_evicts_is_worth_a_look() {
    let redis = Redis::plain(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let finding = examined(&format!("redis://127.0.0.1:{}", redis.port)).await;
    assert_eq!(finding.verdict, Verdict::Warn, "{finding:?}");
    assert!(finding.remedy.is_some_and(|text| text.contains("noeviction")));
}

#[tokio::test]
async fn tls_is_spoken_and_judged() {
    let dir = tempfile::tempdir().expect("a directory");
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a pair");
    fs::write(dir.path().join("tls.crt"), pair.cert.pem()).expect("written");
    fs::write(dir.path().join("tls.key"), pair.signing_key.serialize_pem()).expect("written");
    let files = ["--tls-cert-file", "tls.crt", "--tls-key-file", "tls.key"];
    let arguments = [files.as_slice(), &["--tls-auth-clients", "no"]].concat();
    let arguments = [arguments.as_slice(), &["--tls-ca-cert-file", "tls.crt"]].concat();
    let redis = Redis::start("--tls-port", dir, &arguments);
    let finding = examined(&format!("rediss://localhost:{}", redis.port)).await;
    assert_eq!(finding.verdict, Verdict::Fail, "{finding:?}");
    assert!(finding.remedy.is_some_and(|text| text.contains("authority")), "{}", finding.found);
}

#[tokio::test]
async fn a_server_that_says_nothing_ends_the_check() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let url = format!("redis://{}", silent.local_addr().expect("an address"));
    let finding = examine(&Secret::new(url), Duration::from_millis(50)).await;
    assert_eq!(finding.verdict, Verdict::Fail, "{finding:?}");
}

#[tokio::test]
async fn what_fails_there_keeps_nobody_out_while_nothing_goes_over_it() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let url = format!("redis://{}", free.local_addr().expect("an address"));
    drop(free);
    const KEY: &str = "0f9e8d7c6b5a49382716051423324150";
    let settings = [
        ("HOST", "127.0.0.1"),
        ("SERVER_URL", "http://127.0.0.1:9"),
        ("RELAY_BACKPLANE_MODE", "redis"),
        ("RELAY_BACKPLANE_URL", &url),
        ("RELAY_INTERNAL_KEY", KEY),
        ("RELAY_BUS_HMAC_KEY", KEY),
    ];
    let given: Vec<_> = settings.map(|(name, value)| FlagValue::set(name, value)).into();
    let config = Config::parse(&given, &Machine).expect("usable").config;
    let finding = check(&config).await.swap_remove(0);
    assert_eq!(finding.verdict, Verdict::Warn, "{finding:?}");
    assert!(finding.found.ends_with("connects to no Redis yet"), "{finding:?}");
    assert!(finding.remedy.is_some());
}

#[test]
fn replicas_and_old_versions_are_told_apart() {
    let facts = |text| Facts::parse(text).judge("redis.corp:6379").verdict;
    assert_eq!(facts("redis_version:7.2.4\r\nrole:master\r\n"), Verdict::Ok);
    assert_eq!(facts("redis_version:7.2.4\r\nrole:slave\r\n"), Verdict::Fail);
    assert_eq!(facts("redis_version:5.0.14\r\nrole:master\r\n"), Verdict::Warn);
    assert_eq!(facts(""), Verdict::Ok);
}
