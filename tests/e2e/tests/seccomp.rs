//! The seccomp profile in `deploy/`: the relay serves under it, and little else works.
#![cfg(target_arch = "x86_64")]

use std::io::ErrorKind;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use relay_e2e::{Platform, Relay, get, run};
use relay_platform::TokenClaims;
use seccompiler::{TargetArch, apply_filter, compile_from_json};
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, connect};

const PROFILE: &str = include_str!("../../../deploy/seccomp.json");

/// One filter in the form the compiler reads.
fn filter(mismatch: &Value, matched: &Value, rules: &[Value]) -> Value {
    json!({ "all": { "mismatch_action": mismatch, "match_action": matched, "filter": rules } })
}

/// The profile as two filters, of which the stricter wins for each call: what gets an error of its
/// own, and what is allowed at all.
fn filters() -> Result<[Value; 2]> {
    let profile: Value = serde_json::from_str(PROFILE)?;
    let (mut refused, mut known) = (Vec::new(), Vec::new());
    for group in profile["syscalls"].as_array().context("groups")? {
        let is_allowed = group["action"] == "SCMP_ACT_ALLOW";
        ensure!(is_allowed || group["errnoRet"] == 38, "{group} is something new");
        for name in group["names"].as_array().context("names")? {
            let mut rule = json!({ "syscall": name });
            if let Some(condition) = group["args"].get(0) {
                ensure!(group["args"].get(1).is_none(), "{group} has two conditions");
                let (op, value) = match condition["op"].as_str() {
                    Some("SCMP_CMP_EQ") => (json!("eq"), &condition["value"]),
                    Some("SCMP_CMP_MASKED_EQ") => {
                        (json!({ "masked_eq": condition["value"] }), &condition["valueTwo"])
                    }
                    _ => bail!("{condition} is something new"),
                };
                let index = &condition["index"];
                rule["args"] = json!([{ "index": index, "type": "qword", "op": op, "val": value }]);
            }
            if !is_allowed {
                refused.push(json!({ "syscall": name }));
            }
            known.push(rule);
        }
    }
    // To container runtimes the rule without a condition wins, to the compiler the other does.
    for rule in known.iter().filter(|rule| rule["args"].is_null()) {
        let is_same = |other: &&Value| other["syscall"] == rule["syscall"];
        ensure!(known.iter().filter(is_same).count() == 1, "{rule} has a condition elsewhere");
    }
    let error = |number: &Value| json!({ "errno": number });
    let allow = json!("allow");
    Ok([
        filter(&allow, &error(&json!(38)), &refused),
        filter(&error(&profile["defaultErrnoRet"]), &allow, &known),
    ])
}

/// Does something on a thread that lives under the profile, with all it starts.
fn confined<T: Send>(act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let filters = filters()?;
    thread::scope(|scope| {
        let confined = scope.spawn(move || {
            for filter in filters {
                let arch = TargetArch::x86_64;
                let programs = compile_from_json(filter.to_string().as_bytes(), arch)?;
                apply_filter(programs.get("all").context("compiled")?)?;
            }
            act()
        });
        confined.join().map_err(|_| anyhow!("it panicked"))?
    })
}

#[test]
fn a_relay_serves_traffic_under_the_profile() -> Result<()> {
    let platform = Platform::start()?;
    let relay = confined(|| Relay::serve_as_one(&[("SERVER_URL", &platform.url())]))?;
    let open = |role: &str, claims| -> Result<_> {
        let query = format!("role={role}&workspaceId=ws1&runtimeTargetId=rt1");
        let mut request = format!("{}?{query}", relay.url()).into_client_request()?;
        let bearer = format!("Bearer {}", platform.token(claims)?.expose()).parse()?;
        request.headers_mut().insert("authorization", bearer);
        Ok(connect(request)?.0)
    };
    let mut daemon = open("workspace-daemon", TokenClaims::daemon("ws1", "rt1"))?;
    let mut client = open("client", TokenClaims::client("ws1", "rt1", "cl1"))?;
    let frame = json!({
        "type": "e2ee", "version": 2, "profile": "noise-ik", "sessionId": "s", "epoch": 1,
        "seq": 1, "iv": "aXY", "tag": "dGFn", "ciphertext": "x".repeat(100_000),
    })
    .to_string();
    client.send(Message::text(&frame))?;
    assert_eq!(daemon.read()?.to_text()?, frame);
    let status = std::fs::read_to_string(format!("/proc/{}/status", relay.id()))?;
    assert!(status.lines().any(|line| line == "Seccomp:\t2"), "it is confined:\n{status}");
    let node = get(relay.port(), "/node", Some(Relay::ADMIN_TOKEN))?;
    let node: Value = serde_json::from_str(&node.body)?;
    if let Ok(driver) = std::env::var("RELAY_DRIVER") {
        assert_eq!(node["driver"], driver.as_str());
    }
    drop((daemon, client));
    assert!(relay.stop()?.success());
    Ok(())
}

#[test]
fn its_operator_is_heard_and_written_down_under_the_profile() -> Result<()> {
    let platform = Platform::start()?;
    let dir = tempfile::tempdir()?;
    let address = format!("unix:{}", dir.path().join("control.sock").display());
    let [audit, revocations] = ["audit.log", "revocations"].map(|name| dir.path().join(name));
    let relay = confined(|| {
        Relay::serve_as_one(&[
            ("SERVER_URL", &platform.url()),
            ("RELAY_CONTROL_API_LISTEN", &address),
            ("RELAY_AUDIT_LOG", audit.to_str().context("a path in UTF-8")?),
            ("RELAY_REVOCATIONS_FILE", revocations.to_str().context("a path in UTF-8")?),
            // A few hundred lines.
            ("RELAY_AUDIT_LOG_MAX_BYTES", "64KiB"),
        ])
    })?;
    let said = "x".repeat(4000);
    let long = ["ctl", "--address", &address, "drain", "--redirect", &said];
    for _ in 0..20 {
        // Refused by the relay for what it says, which is written down.
        assert_eq!(run(&long, &[])?.status.code(), Some(1));
    }
    assert!(std::fs::read_to_string(&audit)?.contains("\"outcome\":\"failed\""));
    assert!(dir.path().join("audit.log.1").exists(), "it is rotated");
    let revoked = run(&["ctl", "--address", &address, "revoke", "--subject", "somebody"], &[])?;
    assert_eq!(String::from_utf8_lossy(&revoked.stdout), "done; 0 connections end\n");
    assert!(std::fs::read_to_string(&revocations)?.contains("somebody"));
    assert!(relay.stop()?.success());
    Ok(())
}

#[test]
fn what_the_relay_does_not_need_is_refused() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("relay-seccomp-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let inside = dir.join("inside");
    let refused = confined(|| {
        let make = std::fs::create_dir(&inside);
        let chroot = std::os::unix::fs::chroot("/");
        let link = std::os::unix::fs::symlink("/", &inside);
        Ok([make, chroot, link].map(|result| result.map_err(|error| error.kind())))
    });
    std::fs::remove_dir(&dir)?;
    assert_eq!(refused?, [Err(ErrorKind::PermissionDenied); 3]);
    Ok(())
}

/// Makes system calls by their numbers, and prints what the kernel says to each: 0 or an error.
const CALLS: &str = r#"
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for call in CALLS:
    result = libc.syscall(*[ctypes.c_long(number) for number in call])
    print(0 if result >= 0 else ctypes.get_errno())
"#;

#[test]
fn ways_out_of_the_confinement_are_refused_and_four_families_of_sockets_are_not() -> Result<()> {
    const STREAM: i64 = 1;
    const RAW: i64 = 3;
    // Linux 6.18, arch/x86/entry/syscalls/syscall_64.tbl.
    let calls: [(&str, &[i64], &str); 13] = [
        ("unshare(CLONE_NEWUSER)", &[272, 0x1000_0000], "1"),
        ("clone(CLONE_NEWUSER)", &[56, 0x1000_0000, 0, 0, 0, 0], "1"),
        ("clone3", &[435, 0, 0], "38"),
        ("ptrace(PTRACE_ATTACH)", &[101, 16, 0, 0, 0], "1"),
        ("bpf", &[321, 0, 0, 0], "1"),
        ("process_vm_readv", &[310, 1, 0, 0, 0, 0, 0], "1"),
        ("socket(AF_ALG)", &[41, 38, 5, 0], "1"),
        ("socket(AF_VSOCK)", &[41, 40, STREAM, 0], "1"),
        ("socket(AF_PACKET)", &[41, 17, RAW, 0], "1"),
        ("socket(AF_UNIX)", &[41, 1, STREAM, 0], "0"),
        ("socket(AF_INET)", &[41, 2, STREAM, 0], "0"),
        ("socket(AF_INET6)", &[41, 10, STREAM, 0], "0"),
        ("socket(AF_NETLINK)", &[41, 16, RAW, 0], "0"),
    ];
    let numbers: Vec<_> = calls.iter().map(|(_, numbers, _)| numbers).collect();
    let program = CALLS.replace("CALLS", &serde_json::to_string(&numbers)?);
    // What is found by that name may be a shell script, which needs more than the profile allows.
    let python = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    let python = String::from_utf8(python.context("needs Python 3")?.stdout)?;
    let output = confined(|| {
        let mut python = Command::new(python.trim());
        Ok(python.args(["-I", "-S", "-c", &program]).output()?)
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let said: Vec<_> = text.lines().collect();
    ensure!(said.len() == calls.len(), "{output:?}");
    for ((call, _, expected), said) in calls.iter().zip(said) {
        assert_eq!(said, *expected, "{call}");
    }
    Ok(())
}
