//! `/metrics` as numbers.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::door::Door;

/// The unlabelled series of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Exposition(BTreeMap<String, i64>);

impl Exposition {
    /// Asks a relay.
    ///
    /// Errors: it does not answer, or not with 200.
    pub fn scrape(door: &Door, admin_token: &str) -> Result<Self> {
        Ok(Self::parse(&door.get("/metrics", Some(admin_token))?))
    }

    fn parse(text: &str) -> Self {
        let series = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            let value: f64 = value.parse().ok()?;
            (!name.contains('{')).then(|| (name.to_owned(), value as i64))
        });
        Self(series.collect())
    }

    /// A series, zero when it is absent.
    pub fn of(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Counters that grew since an earlier scrape, and by how much.
    pub fn since(&self, earlier: &Self) -> BTreeMap<String, i64> {
        let grown = self.0.iter().filter(|(name, _)| name.ends_with("_total"));
        grown
            .map(|(name, value)| (name.clone(), value - earlier.of(name)))
            .filter(|(_, growth)| *growth > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_the_difference_of_two_scrapes() {
        let before = Exposition::parse("# HELP a_total x\na_total 1\nb_total 4\nb{x=\"y\"} 3\n");
        let after = Exposition::parse("a_total 3\nb_total 4\nc_total 1\nd 9\n");
        let grown: Vec<_> = after.since(&before).into_iter().collect();
        assert_eq!(grown, [("a_total".to_owned(), 2), ("c_total".to_owned(), 1)]);
        assert_eq!(after.of("d"), 9);
    }
}
