//! What the tests of a shard, and of its core alone, have in common.

use codec::{ProtocolId, Settings, TenantId};
use shards::ShardConfig;
use shards::config::{AckPolicy, Listener};

/// One shard, one listener, and time for everything.
pub(crate) fn config(protocol: ProtocolId) -> ShardConfig {
    let mut protocols = Settings::default();
    protocols.binary.retry_interval_ms = 60_000;
    ShardConfig {
        shards: 1,
        listeners: vec![Listener {
            protocol,
            tls: false,
            ws_paths: None,
            tenant: TenantId(0),
            ack: AckPolicy::Safe,
            realm: 0,
            binds_names: false,
            allow: Vec::new(),
        }],
        protocols,
        persist_after_ms: 60_000,
        heartbeat_interval_ms: 600_000,
        heartbeat_max_missed: 3,
        login_deadline_ms: 60_000,
        group_cache_ms: 1_000,
        logins_pending_max: 64,
        logins_per_second: 0,
        handshakes_per_turn: 8,
    }
}
