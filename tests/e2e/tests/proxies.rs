//! Real proxies in front of the program, set up as the documentation says.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use relay_e2e::{Platform, Relay, connect_from, free_port, refused_upgrade};

const DOCUMENT: &str = include_str!("../../../docs/proxies.md");

/// Where the client of these tests is. The proxies are at 127.0.0.1.
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 77);

/// The example in that language of the documentation, with its ports exchanged for ours.
fn example(language: &str, port: u16, relay: &str) -> String {
    let start = DOCUMENT.find(&format!("```{language}\n")).expect("it has such an example");
    let (_, rest) = DOCUMENT[start..].split_once('\n').expect("a line");
    let (example, _) = rest.split_once("```").expect("an end");
    assert!(example.contains("8080") && example.contains("127.0.0.1:7781"), "{example}");
    example.replace("8080", &port.to_string()).replace("127.0.0.1:7781", relay)
}

/// A proxy as a child process. Killed when dropped.
struct Proxy {
    child: Child,
    port: u16,
}

impl Proxy {
    /// Starts it and waits until it accepts.
    fn start(program: &str, arguments: &[&str], port: u16) -> Result<Self> {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("{program} does not start; see cargo xtask components"))?;
        let mut proxy = Self { child, port };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if proxy.child.try_wait()?.is_some() || Instant::now() > deadline {
                bail!("{program} does not listen");
            }
            std::thread::yield_now();
        }
        Ok(proxy)
    }

    fn haproxy(folder: &Path, relay: &str) -> Result<Self> {
        let port = free_port()?;
        let file = folder.join("haproxy.cfg");
        fs::write(&file, example("haproxy", port, relay))?;
        Self::start("haproxy", &["-db", "-q", "-f", text(&file)], port)
    }

    fn nginx(folder: &Path, relay: &str) -> Result<Self> {
        let port = free_port()?;
        let file = folder.join("nginx.conf");
        let own = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {}/{kind};", folder.display()))
            .join("\n");
        let http = example("nginx", port, relay);
        let main = format!(
            "daemon off;\nmaster_process off;\npid {0}/pid;\nerror_log stderr crit;\nevents {{}}\n\
             http {{\naccess_log off;\n{own}\n{http}}}\n",
            folder.display()
        );
        fs::write(&file, main)?;
        let arguments = ["-e", "stderr", "-p", text(folder), "-c", text(&file)];
        Self::start("nginx", &arguments, port)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

/// Asks for an upgrade through the proxy, pretending to be somebody else; returns for whom the
/// relay takes the client.
fn address_behind(proxy: &Proxy, relay: &mut Relay) -> Result<String> {
    let stream = connect_from(CLIENT, proxy.port)?;
    assert_eq!(refused_upgrade(stream, "X-Forwarded-For: 6.6.6.6\r\n")?, 401);
    let line = relay.wait_for("admission_denied")?;
    let entry: serde_json::Value = serde_json::from_str(&line)?;
    Ok(entry["details"]["ip"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn haproxy_names_the_client_in_its_header() -> Result<()> {
    let platform = Platform::start()?;
    let folder = tempfile::tempdir()?;
    let mut relay = Relay::serve(&[
        ("SERVER_URL", &platform.url()),
        ("RELAY_TRUSTED_PROXIES", "127.0.0.1"),
        ("RELAY_PROXY_PROTOCOL", "required"),
    ])?;
    let proxy = Proxy::haproxy(folder.path(), &format!("127.0.0.1:{}", relay.port()))?;
    assert_eq!(address_behind(&proxy, &mut relay)?, CLIENT.to_string());
    Ok(())
}

#[test]
fn haproxy_names_the_client_over_a_unix_socket() -> Result<()> {
    let platform = Platform::start()?;
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("relay.sock");
    let mut relay = Relay::serve_where_told(&[
        ("SERVER_URL", &platform.url()),
        ("RELAY_LISTEN_UNIX", text(&socket)),
        // HAProxy gives its rights away once it has read its configuration.
        ("RELAY_LISTEN_UNIX_MODE", "0666"),
        ("RELAY_PROXY_PROTOCOL", "required"),
    ])?;
    let proxy = Proxy::haproxy(folder.path(), text(&socket))?;
    assert_eq!(address_behind(&proxy, &mut relay)?, CLIENT.to_string());
    Ok(())
}

#[test]
fn nginx_names_the_client_in_x_forwarded_for() -> Result<()> {
    let platform = Platform::start()?;
    let folder = tempfile::tempdir()?;
    let mut relay =
        Relay::serve(&[("SERVER_URL", &platform.url()), ("RELAY_TRUSTED_PROXIES", "127.0.0.1")])?;
    let proxy = Proxy::nginx(folder.path(), &format!("127.0.0.1:{}", relay.port()))?;
    assert_eq!(address_behind(&proxy, &mut relay)?, CLIENT.to_string());
    Ok(())
}

#[test]
fn nginx_names_the_client_over_a_unix_socket() -> Result<()> {
    let platform = Platform::start()?;
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("relay.sock");
    let mut relay = Relay::serve_where_told(&[
        ("SERVER_URL", &platform.url()),
        ("RELAY_LISTEN_UNIX", text(&socket)),
    ])?;
    let proxy = Proxy::nginx(folder.path(), &format!("unix:{}", text(&socket)))?;
    assert_eq!(address_behind(&proxy, &mut relay)?, CLIENT.to_string());
    Ok(())
}

#[test]
fn a_forged_proxy_header_reaches_nobody() -> Result<()> {
    let platform = Platform::start()?;
    let mut relay = Relay::serve(&[
        ("SERVER_URL", &platform.url()),
        ("RELAY_TRUSTED_PROXIES", "127.0.0.1"),
        ("RELAY_PROXY_PROTOCOL", "required"),
    ])?;
    let header = "PROXY TCP4 6.6.6.6 127.0.0.1 1 2\r\nGET /health HTTP/1.1\r\nHost: h\r\n\r\n";
    let answer = relay_e2e::ask(connect_from(CLIENT, relay.port())?, header)?;
    assert_eq!(answer.status, 400, "not of a proxy that is trusted");
    let named = relay_e2e::ask(
        TcpStream::connect(("127.0.0.1", relay.port()))?,
        &header.replace("h\r\n\r\n", "h\r\nConnection: close\r\n\r\n"),
    )?;
    assert_eq!(named.status, 200);
    let bare = relay_e2e::get(relay.port(), "/health", None);
    assert!(bare.is_err(), "closed without an answer");
    let complaint = relay.wait_for("proxy_header_rejected")?;
    assert!(complaint.contains("no PROXY header"), "{complaint}");
    Ok(())
}
