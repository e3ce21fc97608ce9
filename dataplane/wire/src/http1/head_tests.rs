use proptest::prelude::*;

use super::*;

const LIMIT: usize = 16 << 10;

fn parse(text: &str) -> Result<Option<Head<'_>>, HeadError> {
    parse_head(text.as_bytes(), LIMIT)
}

fn head(text: &str) -> Head<'_> {
    parse(text).unwrap().unwrap()
}

#[test]
fn a_head_tells_method_target_headers_and_where_it_ends() {
    let text = "GET /ws?a=1 HTTP/1.1\r\nHost: x\r\nA: 1\r\na:  2 \r\n\r\nrest";
    let head = head(text);
    assert_eq!((head.method(), head.target(), head.minor_version()), ("GET", &b"/ws?a=1"[..], 1));
    assert_eq!(head.header("A"), Some(&b"1"[..]));
    assert_eq!(head.all("a").collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!(head.joined("A").as_deref(), Some("1, 2"));
    assert_eq!(head.headers().len(), 3);
    assert_eq!(&text[head.len()..], "rest");
    assert_eq!(head.body(), Body::None);
}

#[test]
fn every_prefix_of_a_head_asks_for_more() {
    let text = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\r\n";
    for cut in 0..text.len() {
        assert!(parse(&text[..cut]).unwrap().is_none(), "{cut}");
    }
}

#[test]
fn what_two_servers_could_read_differently_is_refused() {
    for text in [
        "GET / HTTP/1.1\nHost: x\n\n",
        "GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: \r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551616\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        assert_eq!(parse(text).map(|_| ()), Err(HeadError::BadRequest), "{text:?}");
    }
}

#[test]
fn what_the_reference_refuses_is_refused() {
    for text in [
        "GET \\ws HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET  HTTP/1.1\r\nHost: x\r\n\r\n",
        "get / HTTP/1.1\r\nHost: x\r\n\r\n",
        "BREW / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01",
    ] {
        assert_eq!(parse(text).map(|_| ()), Err(HeadError::BadRequest), "{text:?}");
    }
}

#[test]
fn only_old_versions_and_upgrades_may_omit_the_host() {
    assert!(parse("GET / HTTP/1.0\r\n\r\n").unwrap().is_some());
    let upgrade = "GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(head(upgrade).request_target().unwrap().path(), "/");
}

#[test]
fn a_head_above_the_limit_is_too_large() {
    let text = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(17_000));
    assert_eq!(parse(&text).map(|_| ()), Err(HeadError::TooLarge));
    let fits = "GET / HTTP/1.0\r\n\r\n";
    assert!(parse_head(fits.as_bytes(), fits.len()).unwrap().is_some());
    assert_eq!(parse_head(fits.as_bytes(), fits.len() - 1).map(|_| ()), Err(HeadError::TooLarge));
}

#[test]
fn many_headers_fit_and_too_many_do_not() {
    let many = |count| format!("GET / HTTP/1.0\r\n{}\r\n", "a:b\r\n".repeat(count));
    assert_eq!(head(&many(1000)).headers().len(), 1000);
    assert_eq!(parse(&many(2000)).map(|_| ()), Err(HeadError::TooLarge));
}

#[test]
fn errors_have_exact_answers() {
    assert_eq!(
        HeadError::BadRequest.response(),
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(
        HeadError::TooLarge.response(),
        b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n\r\n"
    );
}

#[test]
fn bodies_are_delimited_as_announced() {
    let body =
        |header: &str| head(&format!("POST / HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n")).body();
    assert_eq!(body("content-length: 42"), Body::Length(42));
    assert_eq!(body("TRANSFER-ENCODING: Chunked"), Body::Chunked);
    assert_eq!(body("A: b"), Body::None);
}

#[test]
fn connections_are_kept_as_the_version_says_unless_told_otherwise() {
    for (version, connection, kept) in [
        ("1.1", "", true),
        ("1.1", "Connection: Close\r\n", false),
        ("1.1", "Connection: x, close\r\n", false),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
    ] {
        let text = format!("GET / HTTP/{version}\r\nHost: x\r\n{connection}\r\n");
        assert_eq!(head(&text).keep_alive(), kept, "{version} {connection}");
    }
}

#[test]
fn an_upgrade_needs_both_headers() {
    for (headers, upgrade) in [
        ("Upgrade: websocket\r\nConnection: keep-alive, UPGRADE\r\n", true),
        ("Upgrade: h2c\r\nConnection: x\r\nConnection: upgrade\r\n", true),
        ("Upgrade: websocket\r\n", false),
        ("Connection: upgrade\r\n", false),
        ("Upgrade: websocket\r\nConnection: upgraded\r\n", false),
    ] {
        let text = format!("GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        assert_eq!(head(&text).is_upgrade(), upgrade, "{headers}");
    }
}

#[test]
fn targets_resolve_as_urls_do() {
    for (target, host, expected) in [
        ("/ws?a=1", "x", Some("/ws")),
        ("/x/.././ws", "x", Some("/ws")),
        ("http://other.invalid/ws?a", "x", Some("/ws")),
        ("//ws", "x", Some("/")),
        ("/%77s", "x", Some("/%77s")),
        ("/ws/", "x", Some("/ws/")),
        ("/WS", "x", Some("/WS")),
        ("/ws#f", "x", Some("/ws")),
        ("//", "x", None),
        ("http://[/", "x", None),
        ("/ws", "a b[", None),
        ("/ws", "x:99999", None),
    ] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let resolved = head(&text).request_target();
        assert_eq!(resolved.as_ref().map(RequestTarget::path), expected, "{target} {host}");
    }
}

#[test]
fn debug_output_shows_no_target_or_header() {
    let text = "GET /ws?token=secret HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n\r\n";
    let head = head(text);
    assert!(!format!("{head:?}{:?}", head.request_target()).contains("secret"));
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_without_a_panic(bytes: Vec<u8>, limit in 0_usize..200) {
        if let Ok(Some(head)) = parse_head(&bytes, limit) {
            prop_assert!(head.len() <= limit);
        }
    }

    #[test]
    fn more_bytes_never_change_a_head_that_was_found(
        headers in proptest::collection::vec("[a-zA-Z-]{1,8}: [ -~]{0,12}\r\n", 0..5),
        rest: Vec<u8>,
    ) {
        let lines = headers.concat();
        let text = format!("GET /a HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
        let mut bytes = text.into_bytes();
        let len = bytes.len();
        let alone = parse_head(&bytes, LIMIT).map(|head| head.map(|head| head.len()));
        bytes.extend(rest);
        let followed = parse_head(&bytes, LIMIT).map(|head| head.map(|head| head.len()));
        prop_assert_eq!(alone, followed);
        if let Ok(Some(found)) = alone {
            prop_assert_eq!(found, len);
        }
    }
}
