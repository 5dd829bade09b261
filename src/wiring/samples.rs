//! The engine's figures as the control plane shows them.

use codec::CloseReason;
use codec::error::Malformed;
use storage::metrics::{COMMIT_BOUNDS_US, Snapshot as Sidecar};

use crate::gateway::{Figure, Sample};

/// One shard's.
pub(super) fn of_shard(shard: &shards::Snapshot) -> Vec<Sample> {
    let mut samples: Vec<Sample> =
        shard.counters.plain().map(|(name, help, n)| Sample::counter(name, help, n)).collect();
    for (reason, &count) in CloseReason::ALL.iter().zip(&shard.counters.closed) {
        let closed = Sample::counter("closed", "Connections ended, by reason.", count);
        samples.push(closed.labelled("reason", reason.label()));
    }
    for (reason, &count) in Malformed::ALL.iter().zip(&shard.counters.malformed) {
        let malformed = Sample::counter("malformed", "Malformed packets, by reason.", count);
        samples.push(malformed.labelled("reason", reason.label()));
    }
    samples.extend(shard.engine.iter().map(|(name, help, n)| Sample::counter(name, help, *n)));
    let gauges = &shard.gauges;
    samples.extend([
        Sample::gauge("connections", "Connections, logged in or not.", shard.connections),
        Sample::gauge("connection_slots", "Size of the connection table.", shard.slots),
        Sample::gauge("sessions", "Terminals logged in.", gauges.sessions),
        Sample::gauge("users", "Users in memory.", gauges.users),
        Sample::gauge("deliveries_in_memory", "Deliveries in memory.", gauges.deliveries),
        Sample::gauge("publishes_outstanding", "Publishes not safe yet.", gauges.publishes),
        Sample::gauge("dedup_ids", "Message ids remembered.", gauges.dedup_ids),
        Sample::gauge("timers", "Timers armed.", shard.timers),
        Sample::gauge("mesh_waiting", "Messages waiting for a mesh ring.", shard.mesh_waiting),
        Sample::gauge("store_waiting", "Store requests waiting for a queue.", shard.store_waiting),
        Sample::gauge("logins_pending", "Logins at the authenticator.", shard.logins_pending),
        Sample::gauge("publishers_not_read", "Publishers held back.", shard.publishers_held),
        Sample::gauge("accepting", "1 while connections are accepted.", shard.accepting.into()),
    ]);
    samples
}

/// The sidecar's.
pub(super) fn of_sidecar(sidecar: &Sidecar) -> Vec<Sample> {
    let (store, auth, groups) = (&sidecar.store, &sidecar.auth, &sidecar.groups);
    let verdict = |name, count| {
        Sample::counter("auth_verdicts", "Logins by verdict.", count).labelled("verdict", name)
    };
    vec![
        Sample::counter("store_batches", "Transactions committed.", store.batches),
        Sample::counter("store_rows", "Rows appended.", store.rows),
        Sample::counter("store_updates", "Deletes and other writes.", store.updates),
        Sample::counter("store_reads", "Reads of users' rows.", store.reads),
        Sample::counter("store_full", "Appends refused at a cap.", store.full),
        Sample::counter("store_unavailable", "Appends that failed.", store.unavailable),
        Sample::gauge("store_retained", "Writes kept until the store is back.", store.retained),
        Sample::gauge("store_queue", "Store requests waiting.", store.queue_len),
        Sample {
            name: "store_commit_seconds",
            help: "Time of one transaction.",
            label: None,
            figure: Figure::Times {
                bounds_us: &COMMIT_BOUNDS_US,
                counts: store.commit.buckets.to_vec(),
                sum_us: store.commit.sum_us,
            },
        },
        verdict("passed", auth.passed),
        verdict("denied", auth.denied),
        verdict("unavailable", auth.unavailable),
        Sample::counter("auth_cache_hits", "Logins answered from the cache.", auth.cache_hits),
        Sample::gauge("auth_cache", "Logins remembered.", auth.cache_len),
        Sample::gauge("auth_queue", "Logins waiting.", auth.queue_len),
        Sample::gauge("group_queue", "Member lists waiting to be read.", groups.queue_len),
        Sample::counter("group_lookups", "Member lists read from Redis.", groups.lookups),
        Sample::counter("group_unavailable", "Member lists not to be had.", groups.unavailable),
        Sample::counter("group_members_skipped", "Members without an id.", groups.members_skipped),
    ]
}
