//! A source file with its comments and literals told apart from its code.

/// One Rust file, masked. Every view has the same lines and columns as the file.
pub(super) struct Source {
    /// Code alone; comments, and the insides of literals, are blank.
    pub(super) code: Vec<String>,
    /// Comments alone; everything else is blank.
    pub(super) comments: Vec<String>,
    /// Whether the line belongs to an item under `#[cfg(test)]`.
    pub(super) is_test: Vec<bool>,
}

impl Source {
    /// Reads a file's text. Text that is no valid Rust gives some answer and never fails.
    pub(super) fn parse(text: &str) -> Self {
        let (code, comments) = Mask::new(text).run();
        let is_test = test_lines(&code);
        Self {
            code: code.lines().map(str::to_owned).collect(),
            comments: comments.lines().map(str::to_owned).collect(),
            is_test,
        }
    }

    /// Marks every line as test code, for files that are tests as a whole.
    pub(super) fn all_test(mut self) -> Self {
        self.is_test.fill(true);
        self
    }

    /// Every path of the code with its line, `use` trees expanded: `use std::{fs, env as e};` gives
    /// `std::fs` and `std::env`. A path is a run of identifiers joined by `::`.
    pub(super) fn paths(&self) -> Vec<(usize, String)> {
        let mut paths = Vec::new();
        let joined = self.code.join("\n");
        let mut walker = UseTree::new(&joined);
        walker.collect(&mut paths);
        paths
    }

    /// Lines of the code that hold `word` between non-identifier characters.
    pub(super) fn word_lines<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.code
            .iter()
            .enumerate()
            .filter(move |(_, line)| has_word(line, word))
            .map(|(index, _)| index)
    }
}

/// Whether `word` stands in `line` between non-identifier characters.
pub(super) fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_identifier) && !after.is_some_and(is_identifier)
    })
}

fn is_identifier(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Splits text into code and comments of equal shape.
struct Mask<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    code: String,
    comments: String,
    /// The last character of code, to tell `'a` from `'a'` and `r"` from `bar"`.
    last: char,
}

impl<'a> Mask<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            rest: text.chars().peekable(),
            code: String::with_capacity(text.len()),
            comments: String::with_capacity(text.len()),
            last: ' ',
        }
    }

    fn run(mut self) -> (String, String) {
        while let Some(c) = self.rest.next() {
            match c {
                '/' if self.rest.peek() == Some(&'/') => self.line_comment(),
                '/' if self.rest.peek() == Some(&'*') => self.block_comment(),
                '"' => self.string(),
                'r' if !is_identifier(self.last) || self.last == 'b' => self.maybe_raw(),
                '\'' => self.quote(),
                _ => self.code(c),
            }
        }
        (self.code, self.comments)
    }

    fn code(&mut self, c: char) {
        self.last = c;
        self.code.push(c);
        self.comments.push(blank(c));
    }

    fn comment(&mut self, c: char) {
        self.code.push(blank(c));
        self.comments.push(c);
    }

    fn hidden(&mut self, c: char) {
        self.code.push(blank(c));
        self.comments.push(blank(c));
    }

    fn line_comment(&mut self) {
        self.comment('/');
        while let Some(c) = self.rest.next_if(|&c| c != '\n') {
            self.comment(c);
        }
    }

    fn block_comment(&mut self) {
        self.comment('/');
        let mut depth = 0_u32;
        let mut previous = '/';
        while let Some(c) = self.rest.next() {
            self.comment(c);
            match (previous, c) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth = depth.saturating_sub(1),
                _ => {
                    previous = c;
                    continue;
                }
            }
            if depth == 0 {
                return;
            }
            // The two characters of a delimiter are used up.
            previous = ' ';
        }
    }

    fn string(&mut self) {
        self.code('"');
        while let Some(c) = self.rest.next() {
            match c {
                '"' => return self.code('"'),
                '\\' => {
                    self.hidden(c);
                    if let Some(escaped) = self.rest.next() {
                        self.hidden(escaped);
                    }
                }
                _ => self.hidden(c),
            }
        }
    }

    fn maybe_raw(&mut self) {
        let mut ahead = self.rest.clone();
        let mut hashes = 0;
        while ahead.next_if_eq(&'#').is_some() {
            hashes += 1;
        }
        if ahead.next() != Some('"') {
            return self.code('r');
        }
        self.code('r');
        for _ in 0..=hashes {
            if let Some(c) = self.rest.next() {
                self.code(c);
            }
        }
        while let Some(c) = self.rest.next() {
            let mut ahead = self.rest.clone();
            if c == '"' && (0..hashes).all(|_| ahead.next() == Some('#')) {
                self.code('"');
                for _ in 0..hashes {
                    if let Some(c) = self.rest.next() {
                        self.code(c);
                    }
                }
                return;
            }
            self.hidden(c);
        }
    }

    /// A character literal, or the quote of a lifetime.
    fn quote(&mut self) {
        let mut ahead = self.rest.clone();
        let first = ahead.next();
        let is_literal = first == Some('\\') || ahead.next() == Some('\'');
        self.code('\'');
        if !is_literal {
            return;
        }
        while let Some(c) = self.rest.next() {
            match c {
                '\'' => return self.code('\''),
                '\\' => {
                    self.hidden(c);
                    if let Some(escaped) = self.rest.next() {
                        self.hidden(escaped);
                    }
                }
                _ => self.hidden(c),
            }
        }
    }
}

fn blank(c: char) -> char {
    if c == '\n' { '\n' } else { ' ' }
}

/// Which lines belong to items under `#[cfg(test)]` or `#[cfg(all(test, …))]`.
fn test_lines(code: &str) -> Vec<bool> {
    let mut is_test = vec![false; code.lines().count()];
    for (at, _) in code.match_indices("#[cfg(") {
        let condition = code[at..].split(']').next().unwrap_or_default();
        if !has_word(condition, "test") || condition.contains("not(test") {
            continue;
        }
        let first = line_of(code, at);
        let last = line_of(code, item_end(code, at + condition.len()));
        is_test[first..=last].fill(true);
    }
    is_test
}

/// The byte at which the item that follows `start` ends: its `;`, or its closing brace.
fn item_end(code: &str, start: usize) -> usize {
    let mut braces = 0_usize;
    let mut brackets = 0_usize;
    for (offset, c) in code[start..].char_indices() {
        match c {
            ';' if braces == 0 && brackets == 0 => return start + offset,
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets = brackets.saturating_sub(1),
            '{' => braces += 1,
            '}' if braces <= 1 => return start + offset,
            '}' => braces -= 1,
            _ => {}
        }
    }
    code.len().saturating_sub(1)
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count()
}

/// Finds paths in masked code and expands the braces of `use`.
struct UseTree<'a> {
    code: &'a str,
    at: usize,
    line: usize,
}

impl<'a> UseTree<'a> {
    fn new(code: &'a str) -> Self {
        Self { code, at: 0, line: 0 }
    }

    fn collect(&mut self, paths: &mut Vec<(usize, String)>) {
        while let Some(token) = self.token() {
            if token.chars().all(is_identifier) {
                self.path(token.to_owned(), paths);
            }
        }
    }

    /// Continues the path `prefix` for as long as `::` follows, into braces too.
    fn path(&mut self, mut prefix: String, paths: &mut Vec<(usize, String)>) {
        loop {
            let line = self.line;
            let (at, here) = (self.at, self.line);
            if self.token() != Some("::") {
                (self.at, self.line) = (at, here);
                paths.push((line, prefix));
                return;
            }
            match self.token() {
                Some("{") => return self.braces(&prefix, paths),
                Some(segment) if segment == "*" || segment.chars().all(is_identifier) => {
                    prefix = format!("{prefix}::{segment}");
                }
                // A turbofish, or the end.
                _ => {
                    paths.push((line, prefix));
                    return;
                }
            }
        }
    }

    fn braces(&mut self, prefix: &str, paths: &mut Vec<(usize, String)>) {
        while let Some(token) = self.token() {
            match token {
                "}" => return,
                "{" => self.braces(prefix, paths),
                "self" => paths.push((self.line, prefix.to_owned())),
                "as" => {
                    self.token();
                }
                "*" => paths.push((self.line, format!("{prefix}::*"))),
                segment if segment.chars().all(is_identifier) => {
                    self.path(format!("{prefix}::{segment}"), paths);
                }
                _ => {}
            }
        }
    }

    /// The next identifier, `::`, or single character.
    fn token(&mut self) -> Option<&'a str> {
        let rest = &self.code[self.at..];
        let start = rest.find(|c: char| !c.is_whitespace())?;
        self.line += rest[..start].matches('\n').count();
        let rest = &rest[start..];
        let first = rest.chars().next()?;
        let len = if is_identifier(first) {
            rest.find(|c| !is_identifier(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        self.at += start + len;
        Some(&rest[..len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        Source::parse(text).code.join("\n")
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        assert!(!code("let x = \"unsafe\"; // unsafe").contains("unsafe"));
        assert!(!code("/* unsafe /* nested */ unsafe */").contains("unsafe"));
        assert!(!code("let x = r#\"a \" unsafe\"#;").contains("unsafe"));
        assert!(!code("let x = br##\"unsafe\"#unsafe\"##;").contains("unsafe"));
        assert!(!code("let x = \"\\\" unsafe\";").contains("unsafe"));
    }

    #[test]
    fn code_behind_literals_stays_code() {
        assert!(code("let q = '\"'; unsafe {}").contains("unsafe"));
        assert!(code("let q = '\\''; unsafe {}").contains("unsafe"));
        assert!(code("fn f<'a>(x: &'a str) { unsafe {} }").contains("unsafe"));
        assert!(code("/* a */ unsafe {} // b").contains("unsafe"));
        assert!(code("let bar = 1; r(bar); unsafe {}").contains("unsafe"));
    }

    #[test]
    fn views_keep_lines_and_columns() {
        let source = Source::parse("let a = \"x\ny\"; // hi\nlet b;");
        assert_eq!(source.code[0], "let a = \" ");
        assert_eq!(source.code[1], " \";      ");
        assert_eq!(source.code[2], "let b;");
        assert_eq!(source.comments[1], "    // hi");
    }

    #[test]
    fn items_under_cfg_test_are_test_code() {
        let source = Source::parse(
            "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nfn c() {}\n\
             #[cfg(all(test, unix))]\nuse x;\nfn d() {}\n#[cfg(not(test))]\nfn e() {}",
        );
        let tests: Vec<_> = (0..11).filter(|&line| source.is_test[line]).collect();
        assert_eq!(tests, [1, 2, 3, 4, 6, 7]);
    }

    #[test]
    fn use_trees_are_expanded() {
        let source =
            Source::parse("use std::{\n  env as e,\n  time::{self, Instant},\n  io::*,\n};");
        let paths = source.paths();
        for path in
            [(1, "std::env"), (2, "std::time"), (2, "std::time::Instant"), (3, "std::io::*")]
        {
            assert!(paths.contains(&(path.0, path.1.to_owned())), "{path:?} in {paths:?}");
        }
    }

    #[test]
    fn inline_paths_are_found() {
        let source = Source::parse("fn f() -> X {\n  std::fs::read(\"a\")\n}");
        assert!(source.paths().contains(&(1, "std::fs::read".to_owned())));
    }
}
