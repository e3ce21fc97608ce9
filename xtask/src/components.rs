//! Real programs that the checks run against. What is missing is installed by root, and named to
//! others.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// A program that some step needs.
struct Component {
    program: &'static str,
    /// The Debian package that brings it.
    package: &'static str,
    needed_for: &'static str,
}

const COMPONENTS: &[Component] = &[
    Component { program: "git", package: "git", needed_for: "tidy, which asks it for the files" },
    Component {
        program: "cc",
        package: "build-essential",
        needed_for: "the cryptography in C that aws-lc-rs builds",
    },
    Component {
        program: "redis-server",
        package: "redis-server",
        needed_for: "conformance, group redis, and the tests of `relay doctor`",
    },
    Component {
        program: "haproxy",
        package: "haproxy",
        needed_for: "end to end, behind a TCP proxy",
    },
    Component {
        program: "nginx",
        package: "nginx-light",
        needed_for: "end to end, behind an HTTP proxy",
    },
    Component {
        program: "chromium",
        package: "chromium",
        needed_for: "end to end, pages of a real browser",
    },
    Component {
        program: "python3",
        package: "python3-venv",
        needed_for: "end to end, a client of the control API in another language",
    },
    Component {
        program: "openssl",
        package: "openssl",
        needed_for: "end to end, somebody else's TLS",
    },
    Component {
        program: "ip",
        package: "iproute2",
        needed_for: "end to end, a network whose cable is pulled",
    },
    Component {
        program: "valgrind",
        package: "valgrind",
        needed_for: "micro, which counts instructions",
    },
];

/// Makes sure that every component is there.
pub(crate) fn ensure_present() -> Result<()> {
    let missing: Vec<&Component> =
        COMPONENTS.iter().filter(|component| !is_in_path(component.program)).collect();
    if missing.is_empty() {
        println!("all {} components are there", COMPONENTS.len());
        return Ok(());
    }
    for component in &missing {
        println!("{} is missing; needed for {}", component.program, component.needed_for);
    }
    let packages: Vec<&str> = missing.iter().map(|component| component.package).collect();
    if !rustix::process::geteuid().is_root() || !is_in_path("apt-get") {
        bail!("install them first: sudo apt-get install {}", packages.join(" "));
    }
    apt_get(&["update", "--quiet=2"])?;
    let install = ["install", "--yes", "--quiet=2", "--no-install-recommends"];
    apt_get(&[&install, packages.as_slice()].concat())?;
    for component in missing {
        ensure!(
            is_in_path(component.program),
            "{} is still missing after installing {}",
            component.program,
            component.package
        );
    }
    Ok(())
}

/// Whether a program of that name can be started.
pub(crate) fn is_in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    println!("    $ apt-get {}", arguments.join(" "));
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status()
        .context("apt-get does not start")?;
    ensure!(status.success(), "apt-get {} ended with {status}", arguments.join(" "));
    Ok(())
}
