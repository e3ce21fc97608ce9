//! A workspace goes to another shard: asked for here, done by the shards, and known here when done.
//!
//! While it is on its way newcomers are still admitted to its old home, which sends them on. The
//! table of homes changes when the new home says that it has the workspace, and everybody who is
//! admitted after that goes there at once.

use std::time::Duration;

use relay_contract::MoveFailure;
use relay_contract::{AdmissionId, Command, ConnectionId, Level, LogEntry, ShardId, WorkspaceId};

use crate::controller::Controller;

/// Why a workspace cannot be moved now. Nothing is changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MoveError {
    /// There is no such shard.
    #[error("shard {0:?} does not exist")]
    NoSuchShard(ShardId),
    /// The workspace lives there.
    #[error("the workspace lives at shard {0:?} already")]
    AlreadyThere(ShardId),
    /// It is on its way.
    #[error("the workspace is being moved")]
    Underway,
    /// Everybody is told to go.
    #[error("the relay is drained or stops")]
    Leaving,
    /// Too many orders wait for the shard.
    #[error("shard {0:?} takes no orders")]
    Undelivered(ShardId),
}

impl Controller {
    /// Moves a workspace to another shard of the same data plane, with everybody who is connected:
    /// nobody is disconnected, and no frame lost, doubled or overtaken. Returns its home so far.
    /// The move is over when the log says `workspace_moved`, or `workspace_move_failed`, and then
    /// it is as it was.
    ///
    /// # Errors
    /// [`MoveError`].
    pub fn move_workspace(
        &mut self,
        workspace_id: WorkspaceId,
        to: ShardId,
    ) -> Result<ShardId, MoveError> {
        let plane = self.judge.plane_of(to).ok_or(MoveError::NoSuchShard(to))?;
        let from = self.judge.home_of(&workspace_id, plane);
        if self.is_leaving() {
            return Err(MoveError::Leaving);
        }
        // Of a data plane that is gone nobody says how its moves ended.
        self.moving.retain(|(shard, _)| self.judge.plane_of(*shard).is_some());
        let way = (plane.first, workspace_id.clone());
        if self.moving.contains(&way) {
            return Err(MoveError::Underway);
        }
        if from == to {
            return Err(MoveError::AlreadyThere(to));
        }
        let order = Command::Move { workspace_id: workspace_id.clone(), to };
        if self.link.shards.send(from, order).is_err() {
            self.note_undelivered(1);
            return Err(MoveError::Undelivered(from));
        }
        self.moving.insert(way);
        Ok(from)
    }

    fn end_move(&mut self, workspace_id: &WorkspaceId, shard: ShardId) {
        if let Some(plane) = self.judge.plane_of(shard) {
            self.moving.remove(&(plane.first, workspace_id.clone()));
        }
    }

    pub(crate) fn on_moved(
        &mut self,
        workspace_id: WorkspaceId,
        (from, to): (ShardId, ShardId),
        connections: u32,
        paused: Duration,
    ) {
        self.end_move(&workspace_id, to);
        self.judge.relocate(&workspace_id, to);
        let entry = LogEntry::new(Level::Info, "workspace_moved")
            .with("workspaceId", workspace_id.to_string())
            .with("from", i64::from(from.0))
            .with("to", i64::from(to.0))
            .with("connections", i64::from(connections))
            .with("pausedUs", i64::try_from(paused.as_micros()).unwrap_or(i64::MAX));
        self.log(entry.ours());
    }

    pub(crate) fn on_move_failed(
        &mut self,
        workspace_id: WorkspaceId,
        from: ShardId,
        reason: MoveFailure,
    ) {
        self.end_move(&workspace_id, from);
        let entry = LogEntry::new(Level::Warn, "workspace_move_failed")
            .with("workspaceId", workspace_id.to_string())
            .with("from", i64::from(from.0))
            .with("reason", reason.name());
        self.log(entry.ours());
    }

    /// What an admitted connection is called now; `earlier` if that is not known.
    pub(crate) fn current_name(
        &self,
        admission: AdmissionId,
        earlier: ConnectionId,
    ) -> ConnectionId {
        self.judge.name_of(admission).unwrap_or(earlier)
    }
}
