//! The result of a command as a page: everything it wrote down, in tables.

use std::fmt::Write;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use super::page::STYLE;
use super::plot::escape;

/// The page of a result in JSON.
///
/// Errors: it is none.
pub(crate) fn page_of_command(name: &str, json: &str) -> Result<String> {
    let result: Value = serde_json::from_str(json).context("a result in JSON")?;
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{0}</title>\
         <style>{STYLE}</style>\n<h1>{0}</h1>\n",
        escape(name)
    );
    if let Value::Object(members) = &result {
        object(&mut page, members, 2);
    }
    page.push_str("</html>\n");
    Ok(page)
}

/// Plain members in one table, then each other under its name.
fn object(page: &mut String, members: &Map<String, Value>, level: usize) {
    let (nested, plain): (Vec<_>, Vec<_>) =
        members.iter().partition(|(_, value)| value.is_object() || is_table(value));
    if !plain.is_empty() {
        page.push_str("<table>");
        for (name, value) in plain {
            push(page, format_args!("<tr><th>{}<td>{}</tr>", escape(name), cell(value)));
        }
        page.push_str("</table>\n");
    }
    for (name, value) in nested {
        let level = level.min(6);
        push(page, format_args!("<h{level}>{}</h{level}>\n", escape(name)));
        match value {
            Value::Object(members) => object(page, members, level + 1),
            Value::Array(rows) => table(page, rows, level + 1),
            _ => {}
        }
    }
}

/// Objects as rows where all their members are plain; else one after the other.
fn table(page: &mut String, rows: &[Value], level: usize) {
    let objects: Vec<_> = rows.iter().filter_map(Value::as_object).collect();
    let is_flat = |members: &&Map<String, Value>| {
        members.values().all(|value| !value.is_object() && !is_table(value))
    };
    let Some(first) = objects.first().filter(|_| objects.iter().all(is_flat)) else {
        for members in objects {
            object(page, members, level);
        }
        return;
    };
    page.push_str("<div class=\"wide\"><table><tr>");
    for name in first.keys() {
        push(page, format_args!("<th>{}", escape(name)));
    }
    page.push_str("</tr>\n");
    for members in &objects {
        page.push_str("<tr>");
        for name in first.keys() {
            push(page, format_args!("<td>{}", members.get(name).map_or_else(String::new, cell)));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
}

fn is_table(value: &Value) -> bool {
    value.as_array().is_some_and(|rows| rows.first().is_some_and(Value::is_object))
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => escape(text),
        Value::Null => "none".to_owned(),
        Value::Number(number) => match number.as_f64() {
            Some(number) if number.fract() != 0.0 => format!("{number:.3}"),
            _ => number.to_string(),
        },
        other => escape(&other.to_string()),
    }
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a string takes all text");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_was_written_down_is_on_the_page() {
        let json = r#"{"seconds":1.23456,"machine":{"kernel":"<6>"},"refused":null,
            "rounds":[{"back":1,"why":"a"},{"back":2,"why":"b"}],
            "points":[{"shape":{"pairs":64},"windows":[{"frames":7}]}],"ratios":[1,2]}"#;
        let page = page_of_command("storm", json).expect("it is JSON");
        for part in
            ["1.235", "&lt;6&gt;", "none", "<td>2<td>b", "<th>pairs<td>64", "<td>7", "[1,2]"]
        {
            assert!(page.contains(part), "{part}: {page}");
        }
        for outside in ["<script", "src=", "href="] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page_of_command("storm", "no").is_err());
    }

    #[test]
    fn rows_that_miss_a_member_do_not_end_it() {
        let page = page_of_command("x", r#"{"rounds":[{"a":1},{"b":2}]}"#);
        assert!(page.is_ok());
    }
}
