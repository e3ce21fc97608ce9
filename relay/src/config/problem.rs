//! What is wrong with a configuration.

use std::fmt;

use super::{Place, Variable};

/// One mistake: which variable, what is wrong, and what would be right.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Problem {
    /// The variable to change.
    pub variable: &'static str,
    /// What is wrong. Names every other variable involved; never contains a secret.
    pub what: String,
    /// A line that would be accepted.
    pub example: String,
    /// Where the value stands, if that is in the configuration file.
    pub place: Option<Place>,
}

impl Problem {
    /// A mistake in the value of one variable, with the example of the table.
    pub(crate) fn new(variable: &'static Variable, what: impl Into<String>) -> Self {
        Self {
            variable: variable.name,
            what: what.into(),
            example: format!("{}={}", variable.name, variable.example),
            place: None,
        }
    }

    /// A mistake that only values together make, with an example of its own.
    pub(crate) fn rule(variable: &'static str, what: impl Into<String>, example: &str) -> Self {
        Self { variable, what: what.into(), example: example.to_owned(), place: None }
    }

    /// The same, said of a place in the configuration file.
    pub(crate) fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(Place { path, line, field }) if field.is_empty() => write!(f, "{path}:{line}")?,
            Some(Place { path, line, field }) => write!(f, "{path}:{line}: {field}")?,
            None => f.write_str(self.variable)?,
        }
        write!(f, ": {}; example: {}", self.what, self.example)
    }
}

/// Why a configuration is refused: every mistake found, in the order they are judged.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) struct Refused(pub Vec<Problem>);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is not usable:")?;
        for problem in &self.0 {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}
