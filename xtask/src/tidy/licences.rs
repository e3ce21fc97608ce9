//! Whether a licence expression can be met with permitted licences alone.

/// Judges an SPDX expression: `OR`, `AND`, `WITH`, parentheses, and `/` for `OR` as older manifests
/// write it. What is no expression is not permitted.
pub(super) fn is_permitted(expression: &str, permitted: &[String]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { tokens: &tokens, permitted };
    parser.any() == Some(true) && parser.tokens.is_empty()
}

struct Parser<'a> {
    tokens: &'a [&'a str],
    permitted: &'a [String],
}

impl Parser<'_> {
    fn any(&mut self) -> Option<bool> {
        let mut result = self.all()?;
        while self.take("OR") {
            result |= self.all()?;
        }
        Some(result)
    }

    fn all(&mut self) -> Option<bool> {
        let mut result = self.one()?;
        while self.take("AND") {
            result &= self.one()?;
        }
        Some(result)
    }

    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let inner = self.any()?;
            return self.take(")").then_some(inner);
        }
        let mut name = self.next()?.to_owned();
        if self.take("WITH") {
            name = format!("{name} WITH {}", self.next()?);
        }
        Some(self.permitted.contains(&name))
    }

    fn take(&mut self, token: &str) -> bool {
        let is_next = self.tokens.first() == Some(&token);
        if is_next {
            self.tokens = &self.tokens[1..];
        }
        is_next
    }

    fn next(&mut self) -> Option<&str> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permitted(expression: &str) -> bool {
        let names = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"];
        is_permitted(expression, &names.map(str::to_owned))
    }

    #[test]
    fn one_permitted_choice_is_enough_and_every_part_must_be_permitted() {
        assert!(permitted("MIT"));
        assert!(permitted("GPL-3.0 OR MIT"));
        assert!(permitted("GPL-3.0/MIT"));
        assert!(permitted("ISC AND (GPL-3.0 OR MIT)"));
        assert!(permitted("Apache-2.0 WITH LLVM-exception"));
        assert!(!permitted("ISC AND GPL-3.0"));
        assert!(!permitted("Apache-2.0"));
    }

    #[test]
    fn what_is_no_expression_is_not_permitted() {
        for text in ["", "(MIT", "MIT)", "MIT OR", "MIT ISC"] {
            assert!(!permitted(text), "{text:?}");
        }
    }
}
