//! Which shard a workspace lives on.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use relay_contract::{ShardId, WorkspaceId};
use relay_link::Block;

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

/// Says where a workspace's next connection on a data plane goes, if it has none there yet.
///
/// Rendezvous hashing: with another number of shards only the workspaces of the shards that came or
/// went move. The table moves single ones, a hot one to a quiet shard of the same data plane.
#[derive(Debug)]
pub(crate) struct Homes {
    /// The data planes there are, by their first shard.
    planes: BTreeMap<ShardId, Block>,
    table: HomeTable,
    /// Workspaces that were moved, by the first shard of their data plane; they say more than the
    /// table.
    moved: HashMap<(ShardId, WorkspaceId), ShardId>,
}

impl Homes {
    pub(crate) fn new() -> Self {
        Self { planes: BTreeMap::new(), table: HomeTable::default(), moved: HashMap::new() }
    }

    /// A data plane came.
    pub(crate) fn attach(&mut self, block: Block) {
        self.planes.insert(block.first, block);
    }

    /// It is gone. What the table says of its shards says nothing from now on.
    pub(crate) fn detach(&mut self, block: Block) {
        self.planes.remove(&block.first);
        self.moved.retain(|(plane, _), _| *plane != block.first);
    }

    /// The data plane a shard belongs to.
    pub(crate) fn plane_of(&self, shard: ShardId) -> Option<Block> {
        let (_, &block) = self.planes.range(..=shard).next_back()?;
        block.contains(shard).then_some(block)
    }

    pub(crate) fn home_of(&self, workspace_id: &WorkspaceId, plane: Block) -> ShardId {
        if let Some(shard) = self.exception_of(workspace_id, plane) {
            return shard;
        }
        if let Some(&shard) = self.table.overrides.get(workspace_id)
            && plane.contains(shard)
        {
            return shard;
        }
        (0..plane.count)
            .max_by_key(|&shard| {
                let mut hasher = DefaultHasher::new();
                (workspace_id, shard).hash(&mut hasher);
                hasher.finish()
            })
            .map_or(plane.first, |shard| ShardId(plane.first.0 + shard))
    }

    /// Where a workspace lives on a data plane, if it was moved there.
    pub(crate) fn exception_of(&self, workspace_id: &WorkspaceId, plane: Block) -> Option<ShardId> {
        self.moved.get(&(plane.first, workspace_id.clone())).copied()
    }

    /// The next version of the table: a workspace was moved there.
    pub(crate) fn relocate(&mut self, workspace_id: &WorkspaceId, plane: Block, to: ShardId) {
        self.table.version += 1;
        self.moved.insert((plane.first, workspace_id.clone()), to);
    }

    /// How many workspaces were moved and are not forgotten.
    pub(crate) fn moved_count(&self) -> usize {
        self.moved.len()
    }

    /// Forgets where workspaces were moved, of those that have nobody connected.
    pub(crate) fn forget_moved(&mut self, has_somebody: impl Fn(&WorkspaceId, ShardId) -> bool) {
        self.moved.retain(|(plane, workspace_id), _| has_somebody(workspace_id, *plane));
    }

    /// Puts a newer table in force.
    pub(crate) fn replace(&mut self, table: HomeTable) -> Result<(), HomeTableError> {
        if table.version <= self.table.version {
            return Err(HomeTableError::Stale {
                offered: table.version,
                in_force: self.table.version,
            });
        }
        let is_missing = |shard: &&ShardId| self.plane_of(**shard).is_none();
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

    fn plane(first: u16, count: u16) -> Block {
        Block { first: ShardId(first), count }
    }

    fn homes(count: u16) -> Homes {
        let mut homes = Homes::new();
        homes.attach(plane(0, count));
        homes
    }

    fn workspace(n: usize) -> WorkspaceId {
        format!("ws{n}").into()
    }

    #[test]
    fn workspaces_spread_over_all_shards() {
        let homes = homes(4);
        let mut counts = [0; 4];
        for n in 0..4000 {
            counts[usize::from(homes.home_of(&workspace(n), plane(0, 4)).0)] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }

    #[test]
    fn another_shard_takes_only_its_own_share() {
        let (four, five) = (homes(4), homes(5));
        for n in 0..1000 {
            let (before, after) = (
                four.home_of(&workspace(n), plane(0, 4)),
                five.home_of(&workspace(n), plane(0, 5)),
            );
            assert!(after == before || after == ShardId(4));
        }
    }

    #[test]
    fn an_override_moves_one_workspace() {
        let mut homes = homes(4);
        let before = homes.home_of(&workspace(1), plane(0, 4));
        let elsewhere = ShardId((before.0 + 1) % 4);
        let table = HomeTable { version: 1, overrides: [(workspace(1), elsewhere)].into() };
        homes.replace(table).unwrap();
        assert_eq!(homes.home_of(&workspace(1), plane(0, 4)), elsewhere);
    }

    #[test]
    fn a_stale_or_impossible_table_is_refused() {
        let mut homes = homes(1);
        let table = |version, shard| HomeTable {
            version,
            overrides: [(workspace(1), ShardId(shard))].into(),
        };
        homes.replace(table(2, 0)).unwrap();
        assert!(matches!(homes.replace(table(2, 0)), Err(HomeTableError::Stale { .. })));
        assert_eq!(homes.replace(table(3, 7)), Err(HomeTableError::NoSuchShard(ShardId(7))));
    }

    #[test]
    fn a_workspace_has_the_same_place_on_each_data_plane() {
        let mut homes = homes(4);
        homes.attach(plane(4, 4));
        for n in 0..100 {
            let first = homes.home_of(&workspace(n), plane(0, 4));
            let second = homes.home_of(&workspace(n), plane(4, 4));
            assert_eq!(second.0, first.0 + 4);
        }
        assert_eq!(homes.plane_of(ShardId(5)), Some(plane(4, 4)));
        homes.detach(plane(4, 4));
        assert_eq!(homes.plane_of(ShardId(5)), None);
        assert_eq!(homes.plane_of(ShardId(3)), Some(plane(0, 4)));
    }

    /// Rust does not promise that its hasher stays as it is. Should this fail with a newer
    /// compiler, workspaces without connections would change homes with an upgrade: keep the hash
    /// then, by other means.
    #[test]
    fn a_workspace_without_connections_keeps_its_home_from_release_to_release() {
        let homes = homes(4);
        let found = (0..12).map(|n| homes.home_of(&workspace(n), plane(0, 4)).0);
        assert_eq!(found.collect::<Vec<_>>(), [3, 2, 2, 1, 3, 3, 0, 3, 3, 2, 2, 0]);
    }
}
