//! Proxies that pass WebSocket through to a relay: the tax of a hop.
//!
//! Both have one worker and no more configuration than that takes, but for buffers that hold a
//! whole frame of 64 KiB, which their defaults do not.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::process::Command;

use anyhow::{Context, Result};

use crate::subject::{Processors, Subject, free_address, free_listener};

/// nginx in front of `relay`.
pub(super) fn nginx(relay: Subject, processors: Processors) -> Result<Subject> {
    let files = tempfile::tempdir()?;
    let address = free_address()?;
    let path = files.path().join("nginx.conf");
    fs::write(&path, nginx_configuration(address, relay.address))?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(files.path()).arg("-c").arg(path).args(["-e", "/dev/stdout"]);
    // Said once its sockets are open.
    let sign = Some("getrlimit(RLIMIT_NOFILE)");
    Subject::proxy(command, address, processors, sign, relay, files).context(MISSING)
}

/// HAProxy in front of `relay`.
pub(super) fn haproxy(relay: Subject, processors: Processors) -> Result<Subject> {
    let files = tempfile::tempdir()?;
    let listener = free_listener()?;
    let address = listener.local_addr()?;
    // A descriptor that HAProxy inherits: connections wait in it until HAProxy accepts them.
    let inherited = rustix::io::dup(&listener)?;
    let path = files.path().join("haproxy.cfg");
    fs::write(&path, haproxy_configuration(inherited.as_raw_fd(), relay.address))?;
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(path);
    Subject::proxy(command, address, processors, None, relay, files).context(MISSING)
}

fn nginx_configuration(listen: SocketAddr, relay: SocketAddr) -> String {
    format!(
        "daemon off;
master_process off;
worker_processes 1;
error_log /dev/stdout notice;
pid nginx.pid;
events {{
    use epoll;
    worker_connections 16384;
}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        listen {listen} backlog=4096;
        location / {{
            proxy_pass http://{relay};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_set_header Host $host;
            proxy_buffering off;
            proxy_buffer_size {PROXY_BUFFER_BYTES};
            proxy_buffers 4 {PROXY_BUFFER_BYTES};
            proxy_busy_buffers_size {PROXY_BUFFER_BYTES};
            proxy_read_timeout 1d;
            proxy_send_timeout 1d;
        }}
    }}
}}
"
    )
}

fn haproxy_configuration(descriptor: i32, relay: SocketAddr) -> String {
    format!(
        "global
    nbthread 1
    maxconn 8000
    tune.bufsize {PROXY_BUFFER_BYTES}
defaults
    mode http
    timeout connect 10s
    timeout client 1d
    timeout server 1d
    timeout tunnel 1d
frontend front
    bind fd@{descriptor}
    default_backend relay
backend relay
    server relay {relay}
"
    )
}

/// A frame of 64 KiB and more.
const PROXY_BUFFER_BYTES: usize = 131_072;
const MISSING: &str = "install it, or leave it out";
