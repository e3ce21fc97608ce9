use proptest::prelude::*;

use super::ProxyHeaderError::{Absent, Long, MalformedLine, Short, UndefinedField};
use super::*;

fn source(bytes: &[u8]) -> Option<String> {
    let header = parse_proxy_header(bytes).expect("well-formed").expect("whole");
    assert_eq!(header.len, bytes.len());
    header.source.map(|address| address.to_string())
}

fn error(bytes: &[u8]) -> ProxyHeaderError {
    parse_proxy_header(bytes).expect_err("not a header")
}

fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).expect("short").to_be_bytes();
    [SIGNATURE, &[command, family], &len, body].concat()
}

const INET: &[u8] = &[203, 0, 113, 9, 10, 0, 0, 1, 0xdc, 0x04, 0x01, 0xbb];

/// Two IPv6 addresses and ports; the source is the one given.
fn inet6(source: &str) -> Vec<u8> {
    let source: Ipv6Addr = source.parse().expect("an address");
    [source.octets().as_slice(), &Ipv6Addr::LOCALHOST.octets(), &[0xdc, 4, 1, 0xbb]].concat()
}

#[test]
fn a_line_names_the_source() {
    assert_eq!(source(b"PROXY TCP4 203.0.113.9 10.0.0.1 56324 443\r\n").unwrap(), "203.0.113.9");
    assert_eq!(source(b"PROXY TCP6 2001:db8::7 ::1 0 65535\r\n").unwrap(), "2001:db8::7");
    assert_eq!(source(b"PROXY TCP6 ::ffff:1.2.3.4 ::1 1 2\r\n").unwrap(), "1.2.3.4");
}

#[test]
fn an_unknown_line_names_nobody_whatever_follows() {
    let longest = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 91], b"\r\n"].concat();
    assert_eq!(longest.len(), 107);
    for line in [
        b"PROXY UNKNOWN\r\n".as_slice(),
        b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n",
        b"PROXY UNKNOWN ~~~\r\n",
        &longest,
    ] {
        assert_eq!(source(line), None);
    }
}

#[test]
fn malformed_lines_are_refused() {
    for line in [
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
        "PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n",
        "PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4 ::1 1 2\r\n",
        "PROXY TCP4 1.2.3.4\t5.6.7.8 1 2\r\n",
        "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY \r\n",
        "PROXY \n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 \u{661}\r\n",
    ] {
        assert_eq!(error(line.as_bytes()), MalformedLine, "{line:?}");
    }
}

#[test]
fn a_line_without_end_is_refused_at_its_longest() {
    let line = [b"PROXY ".as_slice(), &[b'x'; 101]].concat();
    assert_eq!(parse_proxy_header(&line[..106]), Ok(None));
    assert_eq!(error(&line), Long);
    assert_eq!(error(&[&line, b"\r\n".as_slice()].concat()), Long);
}

#[test]
fn a_binary_header_names_the_source() {
    assert_eq!(source(&binary(0x21, 0x11, INET)).unwrap(), "203.0.113.9");
    assert_eq!(source(&binary(0x21, 0x12, INET)).unwrap(), "203.0.113.9");
    assert_eq!(source(&binary(0x21, 0x21, &inet6("2001:db8::7"))).unwrap(), "2001:db8::7");
    assert_eq!(source(&binary(0x21, 0x21, &inet6("::ffff:1.2.3.4"))).unwrap(), "1.2.3.4");
}

#[test]
fn a_proxy_may_name_nobody() {
    for header in [
        binary(0x20, 0x00, b""),
        binary(0x20, 0x11, INET),
        // The family of a connection the proxy made for itself means nothing.
        binary(0x20, 0xff, b"x"),
        binary(0x21, 0x00, b""),
        binary(0x21, 0x00, b"ignored"),
        binary(0x21, 0x31, &[b'/'; 216]),
        binary(0x21, 0x32, &[0; 216]),
    ] {
        assert_eq!(source(&header), None);
    }
}

#[test]
fn values_after_the_addresses_are_skipped() {
    let values = [INET, &[0x04, 0x00, 0x02, 0, 0, 0xea, 0xff]].concat();
    assert_eq!(source(&binary(0x21, 0x11, &values)).unwrap(), "203.0.113.9");
    let most = [INET, &vec![0; PROXY_HEADER_BYTES_MAX - 16 - INET.len()]].concat();
    assert_eq!(source(&binary(0x21, 0x11, &most)).unwrap(), "203.0.113.9");
    assert_eq!(error(&binary(0x21, 0x11, &[most.as_slice(), b"."].concat())), Long);
    assert_eq!(error(&binary(0x20, 0x00, &[0; u16::MAX as usize])), Long);
}

#[test]
fn what_version_2_does_not_define_is_refused() {
    for (command, family) in
        [(0x22, 0x11), (0x2f, 0x11), (0x11, 0x11), (0x31, 0x11), (0x00, 0x00), (0x21, 0x01)]
    {
        assert_eq!(error(&binary(command, family, INET)), UndefinedField);
    }
    for family in [0x10, 0x13, 0x41, 0xff] {
        assert_eq!(error(&binary(0x21, family, &[0; 216])), UndefinedField);
    }
}

#[test]
fn addresses_that_do_not_fit_are_refused() {
    assert_eq!(error(&binary(0x21, 0x11, &INET[..11])), Short);
    assert_eq!(error(&binary(0x21, 0x21, &inet6("::1")[..35])), Short);
    assert_eq!(error(&binary(0x21, 0x31, &[0; 215])), Short);
}

#[test]
fn other_protocols_are_told_at_their_first_odd_byte() {
    for other in [
        b"GET / HTTP/1.1\r\n".as_slice(),
        b"\x16\x03\x01\x02\x00",
        b"POST /",
        b"PROXY\tTCP4",
        b"proxy TCP4",
        b"\r\n\r\n\0\r\nQUIT\r",
        b"\r\n\r\nGET",
        b" PROXY TCP4",
        b"\0",
    ] {
        let odd = (0..=other.len()).find(|&len| parse_proxy_header(&other[..len]) == Err(Absent));
        assert_eq!(error(other), Absent);
        let odd = odd.expect("it is refused as a whole");
        assert!((0..odd).all(|len| parse_proxy_header(&other[..len]) == Ok(None)));
    }
    assert_eq!(parse_proxy_header(b""), Ok(None));
}

proptest! {
    /// However the bytes are cut, the first answer that is not "more" is the answer to all of them.
    #[test]
    fn every_split_gives_the_same_answer(
        start in prop::sample::select(vec![
            b"".to_vec(),
            b"PROXY ".to_vec(),
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(),
            b"PROXY UNKNOWN ".to_vec(),
            SIGNATURE.to_vec(),
            binary(0x21, 0x11, INET),
            binary(0x21, 0x21, &[7; 40]),
            binary(0x20, 0x00, b"")[..14].to_vec(),
        ]),
        rest in prop::collection::vec(any::<u8>(), 0..130),
    ) {
        let bytes = [start, rest].concat();
        let answer = parse_proxy_header(&bytes);
        let first = (0..=bytes.len())
            .map(|len| parse_proxy_header(&bytes[..len]))
            .find(|answer| *answer != Ok(None));
        prop_assert_eq!(first.unwrap_or(Ok(None)), answer);
        if let Ok(Some(header)) = answer {
            prop_assert!(header.len <= bytes.len() && header.len <= PROXY_HEADER_BYTES_MAX);
        }
    }
}
