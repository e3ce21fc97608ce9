use super::super::parse_head;
use super::*;

fn judge(target: &str, headers: &str, query_token_allowed: bool) -> Preflight {
    judge_by(target, headers, &UpgradeRules { query_token_allowed, ..UpgradeRules::default() })
}

fn judge_by(target: &str, headers: &str, rules: &UpgradeRules) -> Preflight {
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    // Test headers are written in Latin-1.
    let bytes: Vec<u8> = request.chars().map(|c| u8::try_from(c).unwrap()).collect();
    let head = parse_head(&bytes, 16 << 10).unwrap().unwrap();
    preflight(&head, rules)
}

const TARGET: &str = "/ws?role=client&workspaceId=ws1&runtimeTargetId=rt1";
const BEARER: &str = "Authorization: Bearer 1234567890\r\n";

fn token(headers: &str) -> Option<String> {
    match judge(TARGET, headers, false) {
        Preflight::Ask { token, .. } => Some(token.expose().to_owned()),
        Preflight::MissingToken => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_good_upgrade_asks_with_query_and_token() {
    let Preflight::Ask { request, token } = judge(TARGET, BEARER, false) else {
        panic!("the upgrade is good");
    };
    assert_eq!(request.role, Role::Client);
    assert_eq!(request.workspace_id.as_str(), "ws1");
    assert_eq!(request.target_id.unwrap().as_str(), "rt1");
    assert_eq!(token.expose(), "1234567890");
}

#[test]
fn a_page_of_a_foreign_origin_is_told_apart_before_query_and_token() {
    let allowed_origins = AllowedOrigins::parse("https://app.corp,https://*.eu.corp").unwrap();
    let rules = UpgradeRules { allowed_origins, ..UpgradeRules::default() };
    for headers in ["", "Origin: https://app.corp\r\n", "origin: HTTPS://A.EU.CORP:443\r\n"] {
        let headers = format!("{headers}{BEARER}");
        assert!(matches!(judge_by(TARGET, &headers, &rules), Preflight::Ask { .. }), "{headers}");
    }
    let twice = "Origin: https://app.corp\r\nOrigin: https://app.corp\r\n";
    for (headers, shown) in [
        ("Origin: https://Evil.example:443\r\n", Some("https://evil.example")),
        ("Origin: null\r\n", Some("null")),
        ("Origin: \r\n", None),
        ("Origin: \u{e9}\r\n", None),
        (twice, None),
    ] {
        for target in [TARGET, "/ws?role=nonsense"] {
            let Preflight::ForeignOrigin { origin } = judge_by(target, headers, &rules) else {
                panic!("{headers}");
            };
            assert_eq!(origin.as_deref(), shown);
        }
        assert!(matches!(judge_by("/other", headers, &rules), Preflight::OtherPath));
        assert!(matches!(judge(TARGET, headers, false), Preflight::MissingToken), "no list");
    }
}

#[test]
fn url_and_path_are_judged_before_the_query() {
    assert!(matches!(judge("//?role=x", "", false), Preflight::UnparsableUrl));
    for target in ["/ws/", "/WS", "/%77s", "//ws", "/", "/wss?role=client"] {
        assert!(matches!(judge(target, "", false), Preflight::OtherPath), "{target}");
    }
    assert!(matches!(judge("/x/../ws", "", false), Preflight::InvalidQuery));
}

#[test]
fn the_query_fits_its_schema_or_is_refused_before_the_token() {
    let long = "a".repeat(129);
    for query in [
        "",
        "workspaceId=w",
        "role=client",
        "role=Client&workspaceId=w",
        "role=admin&workspaceId=w",
        "role=client&workspaceId=",
        "role=client&workspaceId=w%0A",
        "role=client&workspaceId=a+b",
        "role=client&workspaceId=%C3%A9",
        "role=client&workspaceId=w&runtimeTargetId=",
        "role=client&workspaceId=w&runtimeTargetId=a/b",
        "role=x&role=client&workspaceId=w",
        &format!("role=client&workspaceId={long}"),
    ] {
        let preflight = judge(&format!("/ws?{query}"), "", false);
        assert!(matches!(preflight, Preflight::InvalidQuery), "{query}");
    }
}

#[test]
fn unusual_but_fitting_queries_pass() {
    let long = "a".repeat(128);
    for (query, workspace) in [
        ("role=worker&workspaceId=A.b_c%3Ad-9", "A.b_c:d-9"),
        ("foo=1&role=workspace-daemon&workspaceId=w&bar", "w"),
        ("role=client&workspaceId=w&workspaceId=!", "w"),
        ("r%6fle=client&workspaceId=w", "w"),
        (&*format!("role=client&workspaceId={long}"), &*long),
    ] {
        match judge(&format!("/ws?{query}"), BEARER, false) {
            Preflight::Ask { request, .. } => assert_eq!(request.workspace_id.as_str(), workspace),
            other => panic!("{query}: {other:?}"),
        }
    }
}

#[test]
fn a_header_token_is_bearer_trimmed_and_of_valid_length() {
    let longest = "x".repeat(4096);
    for (value, expected) in [
        ("Bearer 1234567890", Some("1234567890")),
        ("bEARER \t\u{a0} 12345 67890 ", Some("12345 67890")),
        (&format!("Bearer {longest}"), Some(&*longest)),
        ("Bearer \u{e9}23456789\u{e9}", Some("\u{e9}23456789\u{e9}")),
        ("Bearer 123456789", None),
        (&format!("Bearer {longest}x"), None),
        ("Bearer1234567890", None),
        ("Basic 1234567890", None),
        ("Bearer", None),
        ("", None),
        ("Bear\u{e9}r 1234567890", None),
    ] {
        let found = token(&format!("Authorization: {value}\r\n"));
        assert_eq!(found.as_deref(), expected, "{value}");
    }
}

#[test]
fn an_unusable_source_falls_through_to_the_next() {
    let protocols = "Sec-WebSocket-Protocol: auth.x, AUTH.abcdefghij, b\r\n\
        Sec-WebSocket-Protocol: auth.second-token, auth.third-token\r\n";
    assert_eq!(token(protocols).as_deref(), Some("second-token"));
    let both = format!("{BEARER}{protocols}");
    assert_eq!(token(&both).as_deref(), Some("1234567890"));
    let short = format!("Authorization: Bearer short\r\n{protocols}");
    assert_eq!(token(&short).as_deref(), Some("second-token"));
    assert_eq!(token("Sec-WebSocket-Protocol: auth.x\r\n"), None);
}

#[test]
fn a_query_token_counts_only_where_it_is_allowed() {
    let target = format!("{TARGET}&token=+query%2Dtoken+");
    assert!(matches!(judge(&target, "", false), Preflight::MissingToken));
    match judge(&target, "", true) {
        Preflight::Ask { token, .. } => assert_eq!(token.expose(), "query-token"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(judge(&format!("{TARGET}&token=short"), "", true), Preflight::MissingToken));
}
