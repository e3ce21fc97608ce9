//! Answers to plain requests, and refusals of upgrades.

use std::borrow::Cow;

use relay_contract::Refusal;

use super::date::HttpDate;

/// An answer with a body of known length.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type` of the body.
    pub content_type: &'a str,
    /// The body.
    pub body: &'a [u8],
    /// Headers beside those written always. Names and values must be free of line ends.
    pub headers: &'a [(&'a str, &'a str)],
    /// Whether the connection stays open.
    pub keep_alive: bool,
    /// Whether the request was `HEAD`: the length is told, the body is not sent.
    pub head_only: bool,
}

impl Response<'_> {
    /// Appends the answer to `out`.
    pub fn write(&self, date: HttpDate, out: &mut Vec<u8>) {
        let mut line = |parts: &[&str]| {
            for part in parts {
                out.extend_from_slice(part.as_bytes());
            }
            out.extend_from_slice(b"\r\n");
        };
        line(&["HTTP/1.1 ", &self.status.to_string(), " ", reason(self.status)]);
        line(&["Content-Type: ", self.content_type]);
        for (name, value) in self.headers {
            line(&[name, ": ", value]);
        }
        line(&["Date: ", date.as_str()]);
        line(&["Connection: ", if self.keep_alive { "keep-alive" } else { "close" }]);
        line(&["Content-Length: ", &self.body.len().to_string()]);
        line(&[]);
        if !self.head_only {
            out.extend_from_slice(self.body);
        }
    }
}

/// The whole answer to a refused upgrade, after which the socket is closed. Empty for
/// [`Refusal::Drop`].
///
/// Source: relay specification, sections 3 and 0b.
pub fn refusal_bytes(refusal: Refusal) -> Cow<'static, [u8]> {
    let fixed: &[u8] = match refusal {
        Refusal::Drop => b"",
        Refusal::BadRequest => b"HTTP/1.1 400 Bad Request\r\n\r\n",
        Refusal::Unauthorized => b"HTTP/1.1 401 Unauthorized\r\n\r\n",
        Refusal::Forbidden => b"HTTP/1.1 403 Forbidden\r\n\r\n",
        Refusal::TooManyRequests => b"HTTP/1.1 429 Too Many Requests\r\n\r\n",
        Refusal::Full => b"HTTP/1.1 503 Service Unavailable\r\n\r\n",
        Refusal::Unavailable { retry_after_secs } => {
            let text = format!(
                "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {retry_after_secs}\r\n\r\n"
            );
            return Cow::Owned(text.into_bytes());
        }
    };
    Cow::Borrowed(fixed)
}

/// The words that go with a status. Source: RFC 9110 §15.
pub(super) const fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_found() -> Response<'static> {
        Response {
            status: 404,
            content_type: "application/json",
            body: br#"{"ok":false}"#,
            headers: &[],
            keep_alive: true,
            head_only: false,
        }
    }

    fn text(response: Response<'_>) -> String {
        let mut out = Vec::new();
        response.write(HttpDate::from_unix_secs(784_111_777), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_answer_tells_type_date_connection_and_length() {
        assert_eq!(
            text(not_found()),
            "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nConnection: keep-alive\r\n\
             Content-Length: 12\r\n\r\n{\"ok\":false}"
        );
    }

    #[test]
    fn a_head_request_gets_the_length_without_the_body() {
        let headers = [("Retry-After", "1")];
        let response =
            Response { keep_alive: false, head_only: true, headers: &headers, ..not_found() };
        let text = text(response);
        assert!(text.contains("\r\nRetry-After: 1\r\n"));
        assert!(text.ends_with("Connection: close\r\nContent-Length: 12\r\n\r\n"));
    }

    #[test]
    fn refusals_are_a_status_line_and_nothing_else() {
        for (refusal, expected) in [
            (Refusal::Drop, ""),
            (Refusal::BadRequest, "HTTP/1.1 400 Bad Request\r\n\r\n"),
            (Refusal::Unauthorized, "HTTP/1.1 401 Unauthorized\r\n\r\n"),
            (Refusal::Forbidden, "HTTP/1.1 403 Forbidden\r\n\r\n"),
            (Refusal::TooManyRequests, "HTTP/1.1 429 Too Many Requests\r\n\r\n"),
            (Refusal::Full, "HTTP/1.1 503 Service Unavailable\r\n\r\n"),
        ] {
            assert_eq!(&*refusal_bytes(refusal), expected.as_bytes());
        }
    }

    #[test]
    fn only_could_not_ask_says_when_to_come_back() {
        let refusal = Refusal::Unavailable { retry_after_secs: 5 };
        let expected = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\n\r\n";
        assert_eq!(&*refusal_bytes(refusal), expected);
    }
}
