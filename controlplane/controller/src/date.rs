//! Moments as people read them.

use std::fmt;

use serde::{Serialize, Serializer};
use time::OffsetDateTime;

/// A moment; shown as JavaScript's `toISOString` does: `2026-01-31T10:00:00.000Z`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Date {
    /// Milliseconds since 1970.
    pub(crate) unix_ms: i64,
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = i128::from(self.unix_ms) * 1_000_000;
        // Out of the calendar's range is out of any log's.
        let date =
            OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            date.year(),
            u8::from(date.month()),
            date.day(),
            date.hour(),
            date.minute(),
            date.second(),
            date.millisecond()
        )
    }
}

impl Serialize for Date {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_reads_as_javascript_writes_it() {
        let shown = |unix_ms| Date { unix_ms }.to_string();
        assert_eq!(shown(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(shown(1_709_210_096_007), "2024-02-29T12:34:56.007Z");
    }
}
