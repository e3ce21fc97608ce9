//! Which shard a workspace lives on.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use relay_contract::{ShardId, WorkspaceId};

/// Assignments that differ from the default, as one value.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HomeTable {
    /// Which of two tables is newer.
    pub version: u64,
    /// Workspaces that live elsewhere than their hash says.
    pub overrides: HashMap<WorkspaceId, ShardId>,
}

/// Why a table was not taken. The one in force stays.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HomeTableError {
    /// Not newer than the table in force.
    #[error("version {offered} is not newer than {in_force}")]
    Stale {
        /// The version offered.
        offered: u64,
        /// The version in force.
        in_force: u64,
    },
    /// It sends a workspace to a shard that does not exist.
    #[error("shard {0:?} does not exist")]
    NoSuchShard(ShardId),
}

/// Says where a workspace's next connection goes, if it has none yet.
///
/// Rendezvous hashing: with another number of shards only the workspaces of the shards that came or
/// went move. The table moves single ones, a hot one to a quiet shard.
#[derive(Debug)]
pub(crate) struct Homes {
    shard_count: u16,
    table: HomeTable,
}

impl Homes {
    /// # Panics
    /// Without shards: there is no home to name.
    pub(crate) fn new(shard_count: u16) -> Self {
        assert!(shard_count > 0, "a relay has at least one shard");
        Self { shard_count, table: HomeTable::default() }
    }

    pub(crate) fn home_of(&self, workspace_id: &WorkspaceId) -> ShardId {
        if let Some(&shard) = self.table.overrides.get(workspace_id) {
            return shard;
        }
        (0..self.shard_count)
            .max_by_key(|&shard| {
                let mut hasher = DefaultHasher::new();
                (workspace_id, shard).hash(&mut hasher);
                hasher.finish()
            })
            .map(ShardId)
            .expect("there is at least one shard")
    }

    /// Puts a newer table in force.
    pub(crate) fn replace(&mut self, table: HomeTable) -> Result<(), HomeTableError> {
        if table.version <= self.table.version {
            return Err(HomeTableError::Stale {
                offered: table.version,
                in_force: self.table.version,
            });
        }
        let is_missing = |shard: &&ShardId| shard.0 >= self.shard_count;
        if let Some(&shard) = table.overrides.values().find(is_missing) {
            return Err(HomeTableError::NoSuchShard(shard));
        }
        self.table = table;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(n: usize) -> WorkspaceId {
        format!("ws{n}").into()
    }

    #[test]
    fn workspaces_spread_over_all_shards() {
        let homes = Homes::new(4);
        let mut counts = [0; 4];
        for n in 0..4000 {
            counts[usize::from(homes.home_of(&workspace(n)).0)] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }

    #[test]
    fn another_shard_takes_only_its_own_share() {
        let (four, five) = (Homes::new(4), Homes::new(5));
        for n in 0..1000 {
            let (before, after) = (four.home_of(&workspace(n)), five.home_of(&workspace(n)));
            assert!(after == before || after == ShardId(4));
        }
    }

    #[test]
    fn an_override_moves_one_workspace() {
        let mut homes = Homes::new(4);
        let before = homes.home_of(&workspace(1));
        let elsewhere = ShardId((before.0 + 1) % 4);
        let table = HomeTable { version: 1, overrides: [(workspace(1), elsewhere)].into() };
        homes.replace(table).unwrap();
        assert_eq!(homes.home_of(&workspace(1)), elsewhere);
    }

    #[test]
    fn a_stale_or_impossible_table_is_refused() {
        let mut homes = Homes::new(1);
        let table = |version, shard| HomeTable {
            version,
            overrides: [(workspace(1), ShardId(shard))].into(),
        };
        homes.replace(table(2, 0)).unwrap();
        assert!(matches!(homes.replace(table(2, 0)), Err(HomeTableError::Stale { .. })));
        assert_eq!(homes.replace(table(3, 7)), Err(HomeTableError::NoSuchShard(ShardId(7))));
    }
}
