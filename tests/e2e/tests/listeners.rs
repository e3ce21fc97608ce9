//! Where the program listens, and for whom it takes its peers.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};

use anyhow::Result;
use relay_e2e::{
    Platform, Relay, ask, connect_from, free_port, get, get_over, refused_upgrade, replace_file,
    run_handed,
};

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n";

/// The client's address in the log of the upgrade refused last.
fn logged_address(relay: &mut Relay) -> Result<String> {
    let line = relay.wait_for("admission_denied")?;
    let entry: serde_json::Value = serde_json::from_str(&line)?;
    Ok(entry["details"]["ip"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_unix_socket_is_served_beside_tcp_and_goes_with_the_program() -> Result<()> {
    let platform = Platform::start()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("relay.sock");
    let socket = path.to_str().expect("a text");
    let relay = Relay::serve(&[("SERVER_URL", &platform.url()), ("RELAY_LISTEN_UNIX", socket)])?;
    assert_eq!(ask(UnixStream::connect(&path)?, HEALTH)?.status, 200);
    assert_eq!(get(relay.port(), "/health", None)?.status, 200);
    assert!(relay.stop()?.success());
    assert!(!path.exists());
    Ok(())
}

#[test]
fn a_unix_socket_alone_is_served_and_its_peers_are_believed() -> Result<()> {
    let platform = Platform::start()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("relay.sock");
    // What a killed relay leaves behind is in nobody's way.
    drop(UnixListener::bind(&path)?);
    let socket = path.to_str().expect("a text");
    let url = platform.url();
    let variables = [
        ("SERVER_URL", url.as_str()),
        ("RELAY_LISTEN_UNIX", socket),
        ("RELAY_UPGRADE_RATE_PER_MINUTE", "1"),
    ];
    let mut relay = Relay::serve_where_told(&variables)?;
    let status = |forwarded: &str| -> Result<u16> {
        let header = format!("X-Forwarded-For: {forwarded}\r\n");
        refused_upgrade(UnixStream::connect(&path)?, &header)
    };
    assert_eq!(status("6.6.6.6, 203.0.113.9")?, 401);
    assert_eq!(logged_address(&mut relay)?, "203.0.113.9");
    assert_eq!(status("7.7.7.7, 203.0.113.9")?, 429, "whatever it pretends");
    assert_eq!(status("203.0.113.10")?, 401);
    Ok(())
}

#[test]
fn operators_have_a_door_of_their_own_where_one_is_named() -> Result<()> {
    const TOKEN: &str = "a-token-that-lies-in-a-file";
    let platform = Platform::start()?;
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let token_file = path("token");
    replace_file(folder.path(), "token", &format!("{TOKEN}\n"))?;
    let free = free_port()?;
    for door in [format!("unix:{}", path("admin.sock")), format!("127.0.0.1:{free}")] {
        let variables = [
            ("SERVER_URL", &*platform.url()),
            ("RELAY_ADMIN_LISTEN", &door),
            ("RELAY_ADMIN_TOKEN_PREVIOUS_FILE", &token_file),
        ];
        let relay = Relay::serve(&variables)?;
        let status = |target: &str, token: &str| -> Result<u16> {
            let token = Some(token);
            Ok(match door.strip_prefix("unix:") {
                Some(path) => get_over(UnixStream::connect(path)?, target, token)?,
                None => get_over(TcpStream::connect(&door)?, target, token)?,
            }
            .status)
        };
        assert_eq!(status("/metrics", Relay::ADMIN_TOKEN)?, 200);
        assert_eq!(status("/metrics", TOKEN)?, 200, "the token before it");
        assert_eq!(status("/metrics", "another-token")?, 401);
        assert_eq!(status("/health", "")?, 200);
        assert_eq!(get(relay.port(), "/metrics", Some(TOKEN))?.status, 404, "not for peers");
        assert_eq!(get(relay.port(), "/health", None)?.status, 200);
    }
    Ok(())
}

#[test]
fn a_second_relay_does_not_take_the_unix_socket() -> Result<()> {
    let platform = Platform::start()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("relay.sock");
    let socket = path.to_str().expect("a text");
    let variables = [("SERVER_URL", &*platform.url()), ("RELAY_LISTEN_UNIX", socket)];
    let _first = Relay::serve_where_told(&variables)?;
    let second = relay_e2e::run(&["serve"], &variables)?;
    assert_eq!(second.status.code(), Some(1));
    let message = String::from_utf8(second.stderr)?;
    assert!(message.contains("RELAY_LISTEN_UNIX"), "{message}");
    assert_eq!(ask(UnixStream::connect(&path)?, HEALTH)?.status, 200);
    Ok(())
}

#[test]
fn sockets_of_a_service_manager_are_served() -> Result<()> {
    let platform = Platform::start()?;
    let url = platform.url();
    let tcp = TcpListener::bind("127.0.0.1:0")?;
    let port = tcp.local_addr()?.port();
    // The manager keeps its own descriptor, so nobody is refused while the relay starts.
    let early = TcpStream::connect(("127.0.0.1", port))?;
    // What is said of HOST does not hold, but a platform on loopback is meant for loopback alone.
    let variables = [("SERVER_URL", url.as_str()), ("HOST", "127.0.0.1")];
    let relay = Relay::serve_handed(tcp.try_clone()?.into(), &variables)?;
    assert_eq!(ask(early, HEALTH)?.status, 200);
    assert!(relay.stop()?.success());

    let folder = tempfile::tempdir()?;
    let path = folder.path().join("managed.sock");
    let unix = UnixListener::bind(&path)?;
    let relay = Relay::serve_handed(unix.into(), &variables)?;
    assert_eq!(ask(UnixStream::connect(&path)?, HEALTH)?.status, 200);
    assert!(relay.stop()?.success());
    assert!(path.exists(), "whoever made it removes it");
    Ok(())
}

#[test]
fn a_socket_that_others_reach_is_not_served_to_a_platform_on_loopback() -> Result<()> {
    let platform = Platform::start()?;
    let url = platform.url();
    let handed = "that was handed over is reachable by others";
    for (host, words) in [(None, "is reachable by others"), (Some(("HOST", "127.0.0.1")), handed)] {
        let variables: Vec<_> = [("SERVER_URL", url.as_str())].into_iter().chain(host).collect();
        let everywhere = TcpListener::bind("0.0.0.0:0")?;
        let refused = run_handed(everywhere.into(), &variables)?;
        assert_eq!(refused.status.code(), Some(1), "{host:?}");
        let message = String::from_utf8(refused.stderr)?;
        assert!(message.contains(words), "{message}");
    }
    Ok(())
}

#[test]
fn sockets_meant_for_another_process_are_not_taken() -> Result<()> {
    let platform = Platform::start()?;
    let variables = [("SERVER_URL", &*platform.url()), ("LISTEN_PID", "1"), ("LISTEN_FDS", "1")];
    let relay = Relay::serve(&variables)?;
    assert_eq!(get(relay.port(), "/health", None)?.status, 200);
    Ok(())
}

#[test]
fn dual_stack_serves_both_families_and_unmaps_ipv4() -> Result<()> {
    let platform = Platform::start()?;
    let port = free_port()?;
    let variables = [
        ("SERVER_URL", &*platform.url()),
        ("HOST", "[::]"),
        ("PORT", &port.to_string()),
        // A local platform is meant for loopback alone, so this one has another name.
        ("RELAY_PUBLIC_WS_BASE_URL", "wss://relay.corp/ws"),
    ];
    let refused = relay_e2e::run(&["serve"], &variables)?;
    assert_eq!(refused.status.code(), Some(1), "others would reach a relay with a local platform");
    let url = platform.url().replace("127.0.0.1", "127.0.0.2");
    let variables = [("SERVER_URL", url.as_str()), variables[1], variables[2], variables[3]];
    let mut relay = Relay::serve_where_told(&variables)?;
    let stranger = Ipv4Addr::new(127, 0, 0, 77);
    refused_upgrade(connect_from(stranger, port)?, "X-Forwarded-For: 6.6.6.6\r\n")?;
    assert_eq!(logged_address(&mut relay)?, "127.0.0.77");
    refused_upgrade(TcpStream::connect((Ipv6Addr::LOCALHOST, port))?, "")?;
    assert_eq!(logged_address(&mut relay)?, "::1");
    Ok(())
}
