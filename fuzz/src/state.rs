//! State that another process wrote down.

use std::sync::Arc;

use relay_contract::{ConnectionId, Limits, ShardId, Tick};
use relay_switchboard::{Effects, Input, Switchboard};

/// Written-down state, damaged or not: refused, or taken up as something that can be written down
/// again, goes on and stops.
pub fn restored(data: &[u8]) {
    let limits = Arc::new(Limits::default());
    let Ok(mut board) = Switchboard::restore(data, limits.clone(), Arc::default()) else {
        return;
    };
    let written = board.write_down();
    let again = Switchboard::restore(&written, limits, Arc::default())
        .expect("what was just written can be read");
    assert_eq!(again.write_down(), written);
    let report = board.report(true);
    assert_eq!(report.scopes.len() as u64, report.scope_count);
    let mut effects = Effects::new();
    let connection = ConnectionId { shard: ShardId(0), slot: 0, generation: 0 };
    for input in [
        Input::Elapsed,
        Input::SmallFrame { from: connection },
        Input::Pong { from: connection },
        Input::Progress { from: connection },
        Input::Sent { to: connection, bytes: 10 },
        Input::Closed { connection },
        Input::Stop,
    ] {
        board.handle(NOW, input, &mut effects);
    }
}

/// After every deadline the seeds have.
const NOW: Tick = Tick(1_000_000_000_000);
