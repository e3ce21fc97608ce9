use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::thread;

use super::super::finding::Verdict;
use super::*;
use crate::config::{FlagValue, Machine};

fn of(settings: &[(&str, &str)]) -> Vec<Finding> {
    let given = settings.iter().map(|(name, value)| FlagValue::set(name, value));
    check(&Config::parse(&given.collect::<Vec<_>>(), &Machine).expect("usable").config)
}

fn of_port(host: &str, port: u16) -> Finding {
    let port = port.to_string();
    of(&[("HOST", host), ("RELAY_LISTEN_PORT", &port), ("RELAY_MODE", "dev")]).swap_remove(0)
}

/// The parser bounds no path of `RELAY_LISTEN_UNIX`.
fn of_socket(path: &Path) -> Finding {
    let path = path.to_str().expect("text");
    let mut findings = of(&[("RELAY_LISTEN_UNIX", path)]);
    assert_eq!(findings.len(), 1, "{findings:?}");
    findings.swap_remove(0)
}

/// A port where the first to ask is sent away.
fn somebody_else() -> (SocketAddr, thread::JoinHandle<()>) {
    let other = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = other.local_addr().expect("an address");
    (address, thread::spawn(move || drop(other.accept())))
}

/// A port where the first to ask hears that it is a relay's.
fn relay() -> (SocketAddr, thread::JoinHandle<()>) {
    let relay = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = relay.local_addr().expect("an address");
    let answers = thread::spawn(move || {
        let (mut socket, _) = relay.accept().expect("asked");
        let body = r#"{"ok":true,"service":"relay","uptimeMs":1}"#;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        socket.write_all(format!("{head}{body}").as_bytes()).expect("answered");
        // Reading to the end keeps the answer from being overtaken by a reset.
        socket.shutdown(std::net::Shutdown::Write).expect("ended");
        let _ = socket.read_to_end(&mut Vec::new());
    });
    (address, answers)
}

#[test]
fn a_socket_file_needs_a_directory_and_nobody_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("relay.sock");
    assert_eq!(of_socket(&path).verdict, Verdict::Ok);
    let missing = of_socket(&dir.path().join("none/relay.sock"));
    assert_eq!(missing.verdict, Verdict::Fail);
    assert!(missing.remedy.expect("a remedy").contains("RuntimeDirectory"));
    let other = UnixListener::bind(&path).expect("bound");
    let answers = thread::spawn(move || drop(other.accept()));
    assert_eq!(of_socket(&path).verdict, Verdict::Fail);
    answers.join().expect("asked once");
}

#[test]
fn what_the_relay_would_not_replace_is_a_failure() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("relay.sock");
    drop(UnixListener::bind(&path).expect("bound"));
    let left_behind = of_socket(&path);
    assert_eq!(left_behind.verdict, Verdict::Ok, "{left_behind:?}");
    assert!(path.exists(), "nothing is changed");
    let file = dir.path().join("file");
    fs::write(&file, "precious").expect("written");
    let file = of_socket(&file);
    assert_eq!(file.verdict, Verdict::Fail);
    assert!(file.found.contains("is no socket"), "{file:?}");
    let long = of_socket(&dir.path().join("s".repeat(120)));
    assert_eq!(long.verdict, Verdict::Fail);
    assert!(long.found.contains("107 bytes"), "{long:?}");
}

#[test]
fn the_operators_own_door_is_checked_like_the_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let unix = dir.path().join("relay.sock");
    let unix = ("RELAY_LISTEN_UNIX", unix.to_str().expect("text"));
    let (address, answers) = somebody_else();
    let finding = of(&[unix, ("RELAY_ADMIN_LISTEN", &address.to_string())]).swap_remove(1);
    assert_eq!((finding.check, finding.verdict), ("admin port", Verdict::Fail));
    assert!(finding.remedy.expect("a remedy").contains("RELAY_ADMIN_LISTEN"));
    answers.join().expect("asked once");
    let missing = "unix:/nonexistent/admin.sock";
    let finding = of(&[unix, ("RELAY_ADMIN_LISTEN", missing)]).swap_remove(1);
    assert_eq!((finding.check, finding.verdict), ("admin socket", Verdict::Fail));
    let finding = of(&[unix, ("RELAY_CONTROL_API_LISTEN", missing)]).swap_remove(1);
    assert_eq!((finding.check, finding.verdict), ("control API socket", Verdict::Fail));
    assert!(finding.remedy.expect("a remedy").contains("RELAY_CONTROL_API_LISTEN"));
}

#[test]
fn a_place_that_tells_strangers_nothing_is_the_running_relays_if_one_runs() {
    let api = TcpListener::bind("127.0.0.1:0").expect("bound");
    let api = api.local_addr().map(|address| (api, address.to_string())).expect("an address");
    let listen = ("RELAY_CONTROL_API_LISTEN", api.1.as_str());
    let alone = of(&[("HOST", "127.0.0.1"), ("RELAY_LISTEN_PORT", "0"), listen]).swap_remove(1);
    assert_eq!((alone.check, alone.verdict), ("control API port", Verdict::Warn), "{alone:?}");
    let (address, answers) = relay();
    let port = address.port().to_string();
    let beside = of(&[("HOST", "127.0.0.1"), ("RELAY_LISTEN_PORT", &port), listen]);
    assert!(beside.iter().all(|finding| finding.verdict == Verdict::Ok), "{beside:?}");
    answers.join().expect("asked once");
}

#[test]
fn each_role_listens_at_its_own_places() {
    let missing = "unix:/nonexistent/planes.sock";
    let deciding = of(&[
        ("RELAY_ROLE", "controlplane"),
        ("RELAY_CONTROL_LISTEN", missing),
        ("RELAY_CONTROL_API_LISTEN", missing),
    ]);
    let checks: Vec<_> = deciding.iter().map(|finding| finding.check).collect();
    assert_eq!(checks, ["control API socket", "control socket"]);
    assert!(deciding[1].remedy.as_ref().is_some_and(|text| text.contains("RELAY_CONTROL_LISTEN")));
    let moving = of(&[
        ("RELAY_ROLE", "dataplane"),
        ("RELAY_CONTROL_URL", missing),
        ("RELAY_CONTROL_API_LISTEN", missing),
        ("HOST", "127.0.0.1"),
        ("RELAY_LISTEN_PORT", "0"),
    ]);
    let checks: Vec<_> = moving.iter().map(|finding| finding.check).collect();
    assert_eq!(checks, ["port"]);
}

#[test]
fn a_free_port_is_fine_and_stays_free() {
    let finding = of_port("127.0.0.1", 0);
    assert_eq!(finding.verdict, Verdict::Ok, "{finding:?}");
}

#[test]
fn a_port_somebody_else_holds_is_a_failure() {
    let (address, answers) = somebody_else();
    let finding = of_port("127.0.0.1", address.port());
    assert_eq!(finding.verdict, Verdict::Fail);
    assert!(finding.remedy.expect("a remedy").contains("RELAY_LISTEN_PORT"));
    answers.join().expect("asked once");
}

#[test]
fn a_relay_that_holds_the_port_is_fine() {
    let (address, answers) = relay();
    let finding = of_port("127.0.0.1", address.port());
    assert_eq!(finding.verdict, Verdict::Ok, "{finding:?}");
    answers.join().expect("asked once");
}

#[test]
fn an_address_of_another_machine_is_a_failure() {
    let finding = of_port("192.0.2.1", 7781);
    assert_eq!(finding.verdict, Verdict::Fail);
    assert!(finding.found.contains("no address of this machine"), "{finding:?}");
}
