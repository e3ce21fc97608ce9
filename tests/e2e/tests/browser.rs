//! A real browser, whose pages may connect or not.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use relay_contract::Secret;
use relay_e2e::{Platform, Relay, get};
use relay_platform::TokenClaims;

/// How long a browser may take to start and load a page.
const PATIENCE: Duration = Duration::from_secs(60);

/// A web server with one page, which opens a WebSocket and reports what became of it. Its thread
/// ends with the test's process.
struct Site {
    port: u16,
    reports: Receiver<String>,
}

impl Site {
    fn new(listener: TcpListener, relay: &Relay, token: &Secret) -> Result<Self> {
        let url = format!("{}?role=client&workspaceId=ws1&runtimeTargetId=rt1", relay.url());
        let page = format!(
            "<!doctype html><script>\n\
             const socket = new WebSocket('{url}', ['auth.{}']);\n\
             const report = what => fetch('/report?' + what);\n\
             socket.onopen = () => report('open');\n\
             socket.onerror = () => report('refused');\n\
             </script>",
            token.expose()
        );
        let port = listener.local_addr()?.port();
        let (sender, reports) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (page, sender) = (page.clone(), sender.clone());
                // Browsers open connections on suspicion and let them lie.
                thread::spawn(move || serve(stream, &page, &sender));
            }
        });
        Ok(Self { port, reports })
    }

    /// Its origin under that name of this host.
    fn origin(&self, host: &str) -> String {
        format!("http://{host}:{}", self.port)
    }

    /// Waits until the page reports.
    fn report(&self) -> Result<String> {
        self.reports.recv_timeout(PATIENCE).context("the browser did not report")
    }
}

/// Answers one request with the page, whatever it asks for.
fn serve(mut stream: TcpStream, page: &str, reports: &Sender<String>) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    if let Some(rest) = request.strip_prefix("GET /report?") {
        reports.send(rest.split(' ').next().unwrap_or_default().to_owned())?;
    }
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n";
    write!(stream, "{head}Content-Length: {}\r\n\r\n{page}", page.len())?;
    Ok(())
}

/// Chromium with one page open. Killed when dropped.
struct Browser {
    child: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    fn open(url: &str) -> Result<Self> {
        let profile = tempfile::tempdir()?;
        let child = Command::new("chromium")
            // Its sandbox needs rights that containers seldom have; the page is ours.
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--no-first-run", "--disable-background-networking"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("chromium does not start; see cargo xtask components")?;
        Ok(Self { child, _profile: profile })
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn a_browser_connects_from_allowed_origins_alone() -> Result<()> {
    let platform = Platform::start()?;
    let token = platform.token(TokenClaims::client("ws1", "rt1", "browser"))?;
    for (host, expected) in [("127.0.0.1", "open"), ("localhost", "refused")] {
        // The page names the relay and the relay the page's port.
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let allowed = format!("http://127.0.0.1:{}", listener.local_addr()?.port());
        let variables = [("SERVER_URL", &*platform.url()), ("RELAY_ALLOWED_ORIGINS", &allowed)];
        let mut relay = Relay::serve(&variables)?;
        let site = Site::new(listener, &relay, &token)?;
        let _browser = Browser::open(&site.origin(host))?;
        assert_eq!(site.report()?, expected, "{host}");
        let forbidden = expected == "refused";
        if forbidden {
            let line = relay.wait_for("origin_rejected")?;
            assert!(line.contains(&site.origin(host)), "{line}");
        }
        let metrics = get(relay.port(), "/metrics", Some(Relay::ADMIN_TOKEN))?.body;
        let count = format!("relay_upgrade_forbidden_origin_total {}", u8::from(forbidden));
        assert!(metrics.contains(&count), "{metrics}");
    }
    Ok(())
}
