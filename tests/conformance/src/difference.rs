//! Comparison of an observation with what was expected.

use std::fmt;

use serde_json::{Number, Value};

/// The first place where an observation differs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Difference {
    /// `$`, then members and indices down to the place.
    pub(crate) path: String,
    /// `None`: nothing was expected there.
    pub(crate) expected: Option<Value>,
    /// `None`: nothing was there.
    pub(crate) got: Option<Value>,
}

impl Difference {
    /// Deep equality; the order of members does not matter, nor how a number is written.
    pub(crate) fn first(expected: &Value, got: &Value) -> Option<Self> {
        first_below("$", expected, got)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "at {}", self.path)?;
        writeln!(formatter, "  expected {}", shown(self.expected.as_ref()))?;
        write!(formatter, "  got      {}", shown(self.got.as_ref()))
    }
}

fn first_below(path: &str, expected: &Value, got: &Value) -> Option<Difference> {
    match (expected, got) {
        (Value::Object(expected), Value::Object(got)) => {
            let in_expected = expected.iter().find_map(|(name, value)| {
                let path = format!("{path}.{name}");
                match got.get(name) {
                    Some(got) => first_below(&path, value, got),
                    None => Some(difference(&path, Some(value), None)),
                }
            });
            in_expected.or_else(|| {
                let (name, value) = got.iter().find(|(name, _)| !expected.contains_key(*name))?;
                Some(difference(&format!("{path}.{name}"), None, Some(value)))
            })
        }
        (Value::Array(expected), Value::Array(got)) => {
            (0..expected.len().max(got.len())).find_map(|index| {
                let path = format!("{path}[{index}]");
                match (expected.get(index), got.get(index)) {
                    (Some(expected), Some(got)) => first_below(&path, expected, got),
                    (expected, got) => Some(difference(&path, expected, got)),
                }
            })
        }
        (Value::Number(a), Value::Number(b)) if equal_numbers(a, b) => None,
        (expected, got) if expected == got => None,
        (expected, got) => Some(difference(path, Some(expected), Some(got))),
    }
}

fn difference(path: &str, expected: Option<&Value>, got: Option<&Value>) -> Difference {
    Difference { path: path.to_owned(), expected: expected.cloned(), got: got.cloned() }
}

fn equal_numbers(a: &Number, b: &Number) -> bool {
    a == b || (a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64()
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".to_owned(), Value::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn assert_differs(
        expected: &Value,
        got: &Value,
        path: &str,
        parts: (Option<Value>, Option<Value>),
    ) {
        let found = Difference::first(expected, got).expect("they differ");
        assert_eq!((found.path.as_str(), (found.expected, found.got)), (path, parts));
    }

    #[test]
    fn equal_values_have_no_difference_whatever_the_order_or_number_form() {
        let expected = json!({"a": [1, {"b": null}], "c": 2.0, "d": u64::MAX});
        let got = json!({"d": u64::MAX, "c": 2, "a": [1.0, {"b": null}]});
        assert_eq!(Difference::first(&expected, &got), None);
    }

    #[test]
    fn the_path_leads_to_the_first_difference() {
        let expected = json!({"a": [{"b": "x"}, 2], "z": 1});
        let got = json!({"a": [{"b": "y"}, 3], "z": 2});
        assert_differs(&expected, &got, "$.a[0].b", (Some(json!("x")), Some(json!("y"))));
    }

    #[test]
    fn missing_and_additional_parts_are_differences() {
        assert_differs(&json!({"a": 1}), &json!({}), "$.a", (Some(json!(1)), None));
        assert_differs(&json!({}), &json!({"a": null}), "$.a", (None, Some(json!(null))));
        assert_differs(&json!([1]), &json!([1, 2]), "$[1]", (None, Some(json!(2))));
        assert_differs(&json!([1]), &json!([]), "$[0]", (Some(json!(1)), None));
    }

    #[test]
    fn different_kinds_differ() {
        assert_differs(&json!("1"), &json!(1), "$", (Some(json!("1")), Some(json!(1))));
        assert_differs(&json!(null), &json!(false), "$", (Some(json!(null)), Some(json!(false))));
    }
}
