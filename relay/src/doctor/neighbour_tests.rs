use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::PrivatePkcs8KeyDer;

use super::*;

const PLAIN: Manner<'_> = Manner { tls: false, proxies: None };
const TLS: Manner<'_> = Manner { tls: true, proxies: None };

/// Reads a head and answers it as a relay does; returns the head.
fn answer(socket: &mut (impl Read + Write)) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let body = r#"{"ok":true,"service":"relay","uptimeMs":1}"#;
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    socket.write_all(answer.as_bytes())?;
    socket.flush()?;
    Ok(String::from_utf8(head).expect("text"))
}

/// Gives the first connection to `serve`, then listens no more.
fn serving<T: Send + 'static>(
    serve: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    let thread = thread::spawn(move || {
        let (socket, _) = listener.accept().expect("asked");
        drop(listener);
        serve(socket)
    });
    (address, thread)
}

/// TLS of a relay; whether it asks for certificates.
fn tls(asks: bool) -> Arc<ServerConfig> {
    let made = rcgen::generate_simple_self_signed(["relay.corp".to_owned()]).expect("made");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions");
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("an authority");
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match asks {
        true => builder.with_client_cert_verifier(verifier.build().expect("a verifier")),
        false => builder.with_no_client_auth(),
    };
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let server = builder.with_single_cert(vec![made.cert.der().clone()], key.into());
    Arc::new(server.expect("certificate and key"))
}

fn answer_over_tls(server: Arc<ServerConfig>, socket: TcpStream) -> io::Result<String> {
    let session = ServerConnection::new(server).expect("a session");
    answer(&mut StreamOwned::new(session, socket))
}

#[test]
fn a_relay_is_known_by_its_answer_with_tls_and_without() {
    let (address, thread) = serving(|mut socket| answer(&mut socket));
    assert_eq!(at_address(address, PLAIN), Holder::Relay);
    let head = thread.join().expect("asked").expect("answered");
    assert!(head.starts_with("GET /health "), "{head}");
    let server = tls(false);
    let (address, thread) = serving(move |socket| answer_over_tls(server, socket));
    assert_eq!(at_address(address, TLS), Holder::Relay);
    thread.join().expect("asked").expect("answered");
}

#[test]
fn a_relay_that_asks_for_certificates_is_not_taken_for_somebody_else() {
    let server = tls(true);
    let (address, thread) = serving(move |socket| answer_over_tls(server, socket));
    assert_eq!(at_address(address, TLS), Holder::AsksCertificate);
    assert!(thread.join().expect("asked").is_err(), "nobody came with one");
}

#[test]
fn who_is_a_proxy_says_so_first_and_nobody_else() {
    let loopback = TrustedProxies::parse("127.0.0.0/8").expect("a network");
    let elsewhere = TrustedProxies::parse("10.0.0.0/8").expect("a network");
    for (proxies, is_proxy) in [(&loopback, true), (&elsewhere, false)] {
        let (address, thread) = serving(|mut socket| answer(&mut socket));
        let manner = Manner { tls: false, proxies: Some(proxies) };
        assert_eq!(at_address(address, manner), Holder::Relay);
        let head = thread.join().expect("asked").expect("answered");
        assert_eq!(head.starts_with("PROXY UNKNOWN\r\nGET "), is_proxy, "{head}");
    }
    // The header stands before TLS.
    let server = tls(false);
    let (address, thread) = serving(move |mut socket| {
        let mut header = [0; PROXY_HEADER.len()];
        socket.read_exact(&mut header).expect("a header");
        answer_over_tls(server, socket).expect("answered");
        header
    });
    assert_eq!(at_address(address, Manner { proxies: Some(&loopback), ..TLS }), Holder::Relay);
    assert_eq!(thread.join().expect("asked"), PROXY_HEADER);
    // Whoever may open a file counts as one.
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    let thread = thread::spawn(move || answer(&mut theirs));
    assert_eq!(at_file(ours, Manner { tls: true, proxies: Some(&elsewhere) }), Holder::Relay);
    let head = thread.join().expect("asked").expect("answered");
    assert!(head.starts_with("PROXY UNKNOWN\r\n"), "{head}");
}

#[test]
fn the_relay_that_runs_may_have_had_another_configuration() {
    // It speaks no TLS, and is about to.
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    let thread = thread::spawn(move || {
        let (mut hello, _) = listener.accept().expect("asked");
        let _ = hello.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        drop(hello);
        let (mut socket, _) = listener.accept().expect("asked again");
        answer(&mut socket)
    });
    assert_eq!(at_address(address, TLS), Holder::Relay);
    thread.join().expect("asked").expect("answered");
}
