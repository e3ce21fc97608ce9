//! Paths that stay below a root, whoever reads them.

/// Whether a path is `root` or below it, for everybody who may read it on the way: URL parsers drop
/// control characters, trim blanks, take a backslash for a slash and resolve dot segments, encoded
/// dots included; servers may decode an encoded slash before they resolve, decode twice, take
/// parameters (`;`) off a segment, or read what is no UTF-8 as they like.
///
/// Cost: a pass over the path for each reading, and a copy of it.
/// Source: relay specification, section 14; RFC 3986 §3.3 and §5.2.4; WHATWG URL.
pub(crate) fn is_inside(path: &str, root: &str) -> bool {
    let end = path.find(['?', '#']).unwrap_or(path.len());
    let (path, rest) = path.split_at(end);
    let Some(below) = path.strip_prefix(root) else {
        return false;
    };
    if !(below.is_empty() || below.starts_with('/')) || rest.starts_with('#') && below.is_empty() {
        return false;
    }
    let is_plain = |c: char| !c.is_control() && c != '\\';
    if !path.chars().chain(rest.chars()).all(is_plain) {
        return false;
    }
    let once = decode(path.as_bytes(), Layers::One);
    let text = std::str::from_utf8(&once);
    text.is_ok_and(|text| !text.contains(|c: char| c.is_control()))
        && !has_dot_segment(&decode(path.as_bytes(), Layers::All))
}

/// How often percent-encoding is undone.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Layers {
    One,
    /// As often as there is something to undo: `%252e`, `%25252e` and so on are dots too.
    All,
}

/// Undoes percent-encoding; what is none stays. Cost: linear however many layers there are.
fn decode(path: &[u8], layers: Layers) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        at += 1;
        let mut code = at;
        if byte == b'%' && layers == Layers::All {
            // An encoded percent sign before a code makes the next layer's code.
            while path[code..].starts_with(b"25") && octet(&path[code + 2..]).is_some() {
                code += 2;
            }
        }
        match octet(&path[code..]).filter(|_| byte == b'%') {
            Some(octet) => {
                decoded.push(octet);
                at = code + 2;
            }
            None => decoded.push(byte),
        }
    }
    decoded
}

/// The byte that two hexadecimal digits stand for.
fn octet(digits: &[u8]) -> Option<u8> {
    let &[high, low, ..] = digits else {
        return None;
    };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

/// Whether a segment consists of dots, once its parameters and the blanks around it are gone.
fn has_dot_segment(path: &[u8]) -> bool {
    path.split(|byte| matches!(byte, b'/' | b'\\')).any(|segment| {
        let name = segment.split(|&byte| byte == b';').next().unwrap_or_default();
        let name = name.trim_ascii();
        !name.is_empty() && name.iter().all(|&byte| byte == b'.')
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::Url;

    use super::*;

    const ROOT: &str = "/api/runtime/workspaces/ws1/managed-executors/ex1";

    #[test]
    fn the_root_and_what_lies_below_it_are_inside() {
        for tail in [
            "",
            "/",
            "/jobs",
            "/jobs?a=1&b=%20",
            "?a=..%2f..",
            "?a=%0a&b=%252e%252e/..",
            "/a.b/..c",
            "/é",
            "/%C3%A9",
            "/100%25",
            "/100%",
            "/%zz",
            "/a%2fb",
            "/a//b",
            "//",
            "/job;v=1",
            "/j#f",
        ] {
            assert!(is_inside(&format!("{ROOT}{tail}"), ROOT), "{tail}");
        }
    }

    #[test]
    fn a_path_that_leads_elsewhere_for_any_reader_is_not_inside() {
        for tail in [
            "1",
            "#x",
            "/..",
            "/../ex2",
            "/./x",
            "/%2e%2e/ex2",
            "/.%2E/ex2",
            "/%2e./ex2",
            "/..%2fex2",
            "/x%2f%2e%2e%2fex2",
            "/..%5cex2",
            "\\..\\ex2",
            "/..\\ex2",
            "/.\t./ex2",
            "/.\n./ex2",
            "/jobs?a=\r\nx: y",
            "/\u{0}",
            "/%00",
            "/..%00/ex2",
            "/%0d%0aX:%20y",
            "/%7f",
            "/.. ",
            "/..%20/ex2",
            "/%20../ex2",
            "/..;/ex2",
            "/..;a=b/ex2",
            "/..%3b/ex2",
            "/%252e%252e/ex2",
            "/%25252e./ex2",
            "/..%252fex2",
            "/..%255cex2",
            "/%c0%ae%c0%ae/ex2",
            "/%e0%80%ae%e0%80%ae/ex2",
            "/%ff",
            "/.../ex2",
        ] {
            assert!(!is_inside(&format!("{ROOT}{tail}"), ROOT), "{tail:?}");
        }
    }

    #[test]
    fn another_origin_or_executor_is_not_inside() {
        for path in [
            "/api/runtime/workspaces/ws1/managed-executors/ex2",
            "/api/runtime/workspaces/ws1/managed-executors/EX1",
            "/api/runtime/workspaces/ws1/managed-executors/%65x1",
            "//host/api/runtime/workspaces/ws1/managed-executors/ex1",
            "http://host/api/runtime/workspaces/ws1/managed-executors/ex1",
            "https://user:pass@host/api/runtime/workspaces/ws1/managed-executors/ex1",
            "@host/api/runtime/workspaces/ws1/managed-executors/ex1",
            "/api/runtime/workspaces/ws1/../ws1/managed-executors/ex1",
        ] {
            assert!(!is_inside(path, ROOT), "{path}");
        }
    }

    #[test]
    fn an_executor_whose_id_is_a_dot_segment_has_no_paths() {
        for name in ["..", ".", "%2e%2e", "a/../b", "..;x"] {
            let root = format!("/api/runtime/workspaces/ws1/managed-executors/{name}");
            assert!(!is_inside(&root, &root), "{name}");
            assert!(!is_inside(&format!("{root}/x"), &root), "{name}");
        }
    }

    #[test]
    fn a_megabyte_of_layers_is_decoded_in_one_pass() {
        let path = format!("{ROOT}/%{}2e%{}2e/x", "25".repeat(250_000), "25".repeat(250_000));
        assert!(!is_inside(&path, ROOT));
        assert_eq!(decode(b"%25252e%2", Layers::All), b".%2");
        assert_eq!(decode(b"%25252e%2", Layers::One), b"%252e%2");
    }

    /// What a server makes of a path: decoded so many times, parameters gone, slashes merged, dot
    /// segments resolved.
    fn resolved(path: &str, times: usize) -> String {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let mut bytes = path.as_bytes().to_vec();
        for _ in 0..times {
            bytes = decode(&bytes, Layers::One);
        }
        let text = String::from_utf8_lossy(&bytes).replace('\\', "/");
        let mut segments = Vec::new();
        for segment in text.split('/').map(|part| part.split(';').next().unwrap_or_default()) {
            match segment.trim() {
                "" | "." => {}
                ".." => drop(segments.pop()),
                name => segments.push(name.to_owned()),
            }
        }
        format!("/{}", segments.join("/"))
    }

    fn stays(path: &str) -> bool {
        path.strip_prefix(ROOT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Pieces of which paths that lead away are made.
    const PIECES: [&str; 32] = [
        "/", "//", "\\", ".", "..", "...", "%2e", "%2E", "%252e", "%2f", "%252F", "%5c", "%25",
        "%", "2e", "2f", ";", "%3b", "?", "#", "%3f", "%23", " ", "%20", "\t", "\n", "%00", "%c0",
        "%ae", "ex2", "@h", ":",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn whatever_url_parsing_is_done_an_accepted_path_stays_inside(
            pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..12),
        ) {
            let path = format!("{ROOT}/{}", pieces.concat());
            if is_inside(&path, ROOT) {
                for origin in ["http://platform", "https://platform:8443/base/"] {
                    let origin = Url::parse(origin).expect("it is a URL");
                    let url = origin.join(&path).expect("it is a path");
                    prop_assert_eq!(url.origin(), origin.origin());
                    prop_assert!(stays(url.path()), "{} became {}", path, url.path());
                    for times in 0..4 {
                        let resolved = resolved(url.path(), times);
                        prop_assert!(stays(&resolved), "{} became {}", path, resolved);
                    }
                }
                for times in 0..4 {
                    prop_assert!(stays(&resolved(&path, times)), "{}", path);
                }
            }
        }
    }
}
