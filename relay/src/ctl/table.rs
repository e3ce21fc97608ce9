//! Tables for people.

use crate::screen;

/// Columns under their titles.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    /// Whether a column's cells stand to the right.
    is_number: Vec<bool>,
}

impl Table {
    /// A table with these titles; a title that begins with `#` is of numbers, which stand to the
    /// right.
    pub(super) fn new(titles: &[&str]) -> Self {
        let is_number = titles.iter().map(|title| title.starts_with('#')).collect();
        let titles = titles.iter().map(|title| title.trim_start_matches('#').to_uppercase());
        Self { rows: vec![titles.collect()], is_number }
    }

    /// Adds a row, a cell for each title. What a peer wrote is masked.
    pub(super) fn row(&mut self, cells: &[&str]) {
        self.rows.push(cells.iter().map(|cell| plain(cell)).collect());
    }

    /// The lines.
    pub(super) fn text(&self) -> String {
        let width_of = |column: usize| {
            self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.is_number.len()).map(width_of).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).zip(&self.is_number);
            let cells = cells.map(|((cell, &width), is_number)| match is_number {
                true => format!("{cell:>width$}"),
                false => format!("{cell:width$}"),
            });
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// Names and values below each other.
pub(super) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let line = |(name, value): &(&str, String)| format!("{name:width$}  {}\n", plain(value));
    facts.iter().map(line).collect()
}

/// Text that cannot steer a terminal.
pub(super) fn plain(text: &str) -> String {
    screen::printable(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["name", "#bytes"]);
        table.row(&["a", "1"]);
        table.row(&["longer", "23456"]);
        assert_eq!(table.text(), "NAME    BYTES\na           1\nlonger  23456\n");
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        let mut table = Table::new(&["name"]);
        table.row(&["a\u{1b}[2J\u{202e}"]);
        assert_eq!(table.text(), "NAME\na?[2J?\n");
        assert_eq!(facts(&[("id", "b\r".to_owned())]), "id  b?\n");
    }
}
