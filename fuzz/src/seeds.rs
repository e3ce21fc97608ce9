//! Inputs worth starting from, one list per target. Where a target cuts its input, two bytes in
//! front say where.

mod planes;
mod states;

pub use planes::plane_message;
pub use states::restored;

/// Request heads and bodies.
pub fn request() -> Vec<Vec<u8>> {
    [
        "GET /ws?role=client&workspaceId=ws1&runtimeTargetId=rt1 HTTP/1.1\r\nHost: x\r\n\
         Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer 1234567890\r\n\
         Sec-WebSocket-Protocol: viewport.v1, auth.1234567890\r\n\r\n",
        "POST /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         5;x=y\r\nabcde\r\n0\r\nT: v\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcdef",
        "GET // HTTP/1.1\r\nHost: a b[\r\n\r\n",
        "GET http://[::1]:80/ws?token=%zz+ HTTP/1.0\r\n\r\n",
    ]
    .map(|text| with_cut(text.as_bytes()))
    .into()
}

/// Byte streams after the upgrade.
pub fn frames() -> Vec<Vec<u8>> {
    let text = envelope().swap_remove(0).split_off(2);
    let (left, right) = text.split_at(40);
    [
        frame(0x81, &text),
        [frame(0x01, left), frame(0x89, b"ping"), frame(0x80, right)].concat(),
        [frame(0x82, b"\xff\xc3"), frame(0x8a, b""), frame(0x88, b"\x03\xe8bye")].concat(),
        frame(0x81, &b"A".repeat(300)),
        frame(0x81, &"é€😀".repeat(40).into_bytes()),
        frame(0x88, b"\x03\xed"),
    ]
    .map(|stream| with_cut(&stream))
    .into()
}

/// Scripts of a peer that seals records: suite, then operations with their bytes.
pub fn records() -> Vec<Vec<u8>> {
    let suites = 0..6u8;
    let scripts = suites.map(|suite| {
        let close_notify = [21, 2, 1, 0];
        let padded = [0, 5, b'p', 23, 0, 0, 0];
        let data = [&[23, 3][..], b"abc", &[23, 0], &[23, 1, 7]].concat();
        let refused: &[u8] = match suite {
            0 => &[22, 4, 1, 0, 0, 40],
            1 => &[255, 5, 23, 3, 3, 0x41, 1],
            2 => &[21, 2, 2, 40],
            3 => &[22, 2, 24, 0],
            4 => &[20, 1, 1],
            _ => &[255, 5, 21, 3, 1, 0, 2],
        };
        [&[suite][..], &data, &[24, 1, 1], &padded, &data, refused, &close_notify].concat()
    });
    scripts.map(|script| with_cut(&script)).collect()
}

/// Texts of frames.
pub fn envelope() -> Vec<Vec<u8>> {
    let texts = include_str!("../seeds/envelope.txt").lines();
    texts.map(|text| with_cut(text.as_bytes())).collect()
}

/// Lists of proxies and forwarded addresses.
pub fn proxies() -> Vec<Vec<u8>> {
    ["10.0.0.0/8,::1, 2001:db8::/32,::ffff:1.2.3.0/120", "1.2.3.4:80,[::1]:443", "x/33"]
        .map(|text| with_cut(text.as_bytes()))
        .into()
}

/// Lists of origins, and the origin of a page.
pub fn origin() -> Vec<Vec<u8>> {
    [
        "https://app.corp,https://*.eu.corp:8443\nhttps://a.eu.corp:8443",
        "null, http://[::1]:80\nHTTP://[::1]",
        "\nnull",
        "capacitor://localhost\nCapacitor://LOCALHOST:1",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// PROXY headers of both versions.
pub fn proxy_header() -> Vec<Vec<u8>> {
    let binary = |command: u8, family: u8, body: &[u8]| {
        let len = (body.len() as u16).to_be_bytes();
        [b"\r\n\r\n\0\r\nQUIT\n", [command, family].as_slice(), &len, body].concat()
    };
    vec![
        b"PROXY TCP4 203.0.113.9 10.0.0.1 56324 443\r\nGET / HTTP/1.1\r\n".to_vec(),
        b"PROXY TCP6 2001:db8::7 ::1 0 65535\r\n".to_vec(),
        b"PROXY UNKNOWN whatever\r\n".to_vec(),
        binary(0x21, 0x11, &[203, 0, 113, 9, 10, 0, 0, 1, 0xdc, 4, 1, 0xbb]),
        binary(0x21, 0x21, &[0x20; 43]),
        binary(0x21, 0x31, &[b'/'; 216]),
        binary(0x20, 0, b""),
    ]
}

/// Key sets. The first is the one that [`signed_tokens`] are signed with.
pub fn keys() -> Vec<Vec<u8>> {
    include_str!("../seeds/keys.txt").lines().map(Into::into).collect()
}

/// Tokens, signed and not, and the JSON they are made of.
pub fn token() -> Vec<Vec<u8>> {
    let parts = [
        (r#"{"alg":"ES256","kid":"e"}"#, r#"{"iss":"i","aud":"a","exp":2000}"#),
        (r#"{"alg":"RS256"}"#, r#"{"iss":"i","aud":["a"],"nbf":1}"#),
        (r#"{"alg":"Ed25519","kid":"d","crit":["b64"],"b64":false}"#, "{}"),
        (r#"["ES256","e",null]"#, r#"{"role":"client"}"#),
        (r#"{"alg":"none"}"#, r#"{"role":"client"}"#),
        (r#"{"alg":"HS256","kid":"r"}"#, r#"{"role":"client"}"#),
    ];
    let parts = parts.map(|(header, payload)| {
        with_number(header.len() as u16, [header, payload].concat().as_bytes())
    });
    let signed = signed_tokens().into_iter().map(|token| with_cut(token.as_bytes()));
    signed.chain(parts).collect()
}

/// What the first key set of [`keys`] verifies at second 1000. The private keys are not kept.
pub fn signed_tokens() -> Vec<&'static str> {
    include_str!("../seeds/token.txt").lines().collect()
}

/// The platform's answers, their status in front.
pub fn answer() -> Vec<Vec<u8>> {
    let answers = include_str!("../seeds/answer.txt").lines();
    let answers = answers.map(|line| {
        let (status, body) = line.split_once(' ').expect("a status and a body");
        with_number(status.parse().expect("a status is a number"), body.as_bytes())
    });
    answers.collect()
}

/// Texts of the end-to-end wire.
pub fn endpoint_frame() -> Vec<Vec<u8>> {
    include_str!("../seeds/endpoint_frame.txt").lines().map(Into::into).collect()
}

/// Payloads of tokens.
pub fn claims() -> Vec<Vec<u8>> {
    [
        r#"{"role":"client","exp":2000,"workspaceId":"w","sub":"c","scope":"session-events",
            "sessionChannels":["agent-session:s"],"e2eeProfile":"noise-ik","jti":"j"}"#,
        r#"{"role":"workspace-daemon","exp":1.5e3,"workspaceId":"w","runtimeTargetId":"t",
            "daemonIssueGeneration":7,"machineId":"","nbf":1,"iat":0}"#,
        r#"{"role":"worker","exp":9007199254740993,"managedExecutorId":"\ud83d\ude00","x":null}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// Messages of workers, and the tails of paths with a header.
pub fn worker() -> Vec<Vec<u8>> {
    [
        r#"{"type":"viewport.worker_transport.request/v1","requestId":"r","method":"GET",
            "path":"/api/runtime/workspaces/ws1/managed-executors/ex1/jobs?a=1#f",
            "headers":{"accept":"x"}}"#,
        "/jobs/1?a=%2e%2e\nx-viewport-run-lease",
        "/a/..%2fex2\nhost",
        "\\..\\ex2",
        "/%2E%2e/%5c..?#",
        "@evil.test/x",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// Query and headers of upgrades, a line each.
pub fn upgrade() -> Vec<Vec<u8>> {
    [
        "role=client&workspaceId=ws1&runtimeTargetId=rt1\nBearer 1234567890\nviewport.v1, \
         auth.1234567890\n13\ndGhlIHNhbXBsZSBub25jZQ==",
        "role=worker&workspaceId=%77s+1&workspaceId=b&token=1234567890\n\nauth.1234567890,a\n0xd\n\
         dGhlIHNhbXBsZSBub25jZQ==",
        "workspaceId=a:b&role=workspace-daemon#x\nbearer\t\u{a0}1234567890\na,,b\n8\nx",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// Bodies behind a byte that chooses how they are delimited.
pub fn body() -> Vec<Vec<u8>> {
    [
        "\x02".to_owned() + "5;x=y\r\nabcde\r\nA\r\n0123456789\r\n0\r\nT: v\r\n\r\nGET /",
        "\x03ffffffffffffffff\r\n".to_owned(),
        "\x020\r\n\r\n".to_owned(),
        "\x05abcdefgh".to_owned(),
        "\x04GET /".to_owned(),
    ]
    .map(String::into_bytes)
    .into()
}

fn with_cut(input: &[u8]) -> Vec<u8> {
    with_number(input.len() as u16 / 2, input)
}

fn with_number(number: u16, input: &[u8]) -> Vec<u8> {
    [&number.to_le_bytes(), input].concat()
}

/// A masked frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match u8::try_from(payload.len()) {
        Ok(len @ 0..=125) => bytes.push(0x80 | len),
        _ => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&KEY);
    bytes.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}
