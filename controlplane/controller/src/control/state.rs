//! Shards, as the control API shows them.

use relay_contract::ShardReport;
use relay_grpc::control::v1 as proto;

pub(super) fn shard(report: &ShardReport) -> proto::Shard {
    let load = &report.load;
    proto::Shard {
        shard_id: report.shard.0.into(),
        connections: report.connection_count,
        scopes: report.scope_count,
        memory_bytes_max: report.memory_bytes_max,
        memory_used_bytes: report.memory_used_bytes,
        sockets: load.residents,
        sockets_max: load.residents_max,
        cpu_ns: u64::try_from(load.cpu.as_nanos()).unwrap_or(u64::MAX),
        received_bytes: load.received_bytes,
        sent_bytes: load.sent_bytes,
    }
}
