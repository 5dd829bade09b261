//! The figures of shards and sidecar as samples of `/metrics`.
//!
//! Owns: the names, helps and labels of what the engine and the store count. Never: asks for them.

use shards::metrics::Counters;
use storage::metrics::{COMMIT_BOUNDS_US, Snapshot as StoreSnapshot};

use crate::gateway::{Figure, Sample};

/// One shard's figures.
pub(crate) fn of_shard(snapshot: &shards::Snapshot) -> Vec<Sample> {
    let gauges = &snapshot.gauges;
    let mut samples = vec![
        Sample::gauge("connections", "Connections, logged in or not.", snapshot.connections),
        Sample::gauge("connection_slots", "Size of the connection table.", snapshot.slots),
        Sample::gauge("sessions", "Connections that are logged in.", gauges.sessions),
        Sample::gauge("users", "Users with anything in memory.", gauges.users),
        Sample::gauge("deliveries_in_memory", "Deliveries in memory.", gauges.deliveries),
        Sample::gauge("publishes_outstanding", "Publishes not yet safe.", gauges.publishes),
        Sample::gauge("dedup_ids", "Ids remembered against duplicates.", gauges.dedup_ids),
        Sample::gauge("timers", "Timers armed.", snapshot.timers),
        Sample::gauge(
            "mesh_waiting",
            "Messages waiting for room in a ring to another shard.",
            snapshot.mesh_waiting,
        ),
        Sample::gauge(
            "store_waiting",
            "Store requests waiting for room in the queue.",
            snapshot.store_waiting,
        ),
        Sample::gauge("logins_pending", "Logins waiting for a verdict.", snapshot.logins_pending),
        Sample::gauge(
            "publishers_not_read",
            "Publishers not read at the moment because a queue behind them is full.",
            snapshot.publishers_held,
        ),
        Sample::gauge("accepting", "Whether accepts are armed.", u64::from(snapshot.accepting)),
    ];
    samples.extend(counters(&snapshot.counters));
    let engine = snapshot.engine.iter();
    samples.extend(engine.map(|(name, help, value)| Sample::counter(name, help, *value)));
    samples
}

fn counters(counters: &Counters) -> impl Iterator<Item = Sample> {
    let plain = counters.plain().map(|(name, help, value)| Sample::counter(name, help, value));
    let closed = codec::CloseReason::ALL.iter().zip(counters.closed).map(|(reason, value)| {
        Sample::counter("closed", "Connections ended, by reason.", value)
            .labelled("reason", reason.label())
    });
    let reasons = codec::error::Malformed::ALL.iter();
    let malformed = reasons.zip(counters.malformed).map(|(reason, value)| {
        Sample::counter("malformed", "Malformed packets, by reason.", value)
            .labelled("reason", reason.label())
    });
    plain.chain(closed).chain(malformed)
}

/// The sidecar's figures.
pub(crate) fn of_store(snapshot: &StoreSnapshot) -> Vec<Sample> {
    let StoreSnapshot { store, auth, groups } = snapshot;
    let times = Sample {
        name: "store_commit_seconds",
        help: "Duration of the store's transactions.",
        label: None,
        figure: Figure::Times {
            bounds_us: &COMMIT_BOUNDS_US,
            counts: store.commit.buckets.to_vec(),
            sum_us: store.commit.sum_us,
        },
    };
    let verdict = |name, value| {
        Sample::counter("auth_verdicts", "Logins decided, by verdict.", value)
            .labelled("verdict", name)
    };
    let queue = |name, len| {
        Sample::gauge("sidecar_queue", "Requests waiting, by queue.", len).labelled("queue", name)
    };
    let bound = |name, len| {
        Sample::gauge("sidecar_queue_bound", "The queues' bounds.", len).labelled("queue", name)
    };
    let imported = |fate, count| {
        Sample::counter("store_imports", "Found in lists of others, by what became of it.", count)
            .labelled("result", fate)
    };
    vec![
        times,
        Sample::counter("store_rows", "Rows committed.", store.rows),
        Sample::counter("store_updates", "Deletes and marks carried out.", store.updates),
        Sample::counter("store_reads", "Reads of stored messages.", store.reads),
        Sample::counter("store_full", "Appends refused at a cap.", store.full),
        Sample::counter("store_unavailable", "Appends that failed.", store.unavailable),
        Sample::counter("store_reads_unavailable", "Reads that failed.", store.reads_unavailable),
        Sample::gauge("store_retained", "Writes waiting for the store's return.", store.retained),
        Sample::counter(
            "store_retained_dropped",
            "Waiting writes given up at their bound: a message may come twice.",
            store.retained_dropped,
        ),
        Sample::counter("store_updates_refused", "Marks refused for good.", store.updates_refused),
        Sample::counter("store_changes", "Changes made by another process.", store.changes),
        imported("message", store.imports.messages),
        imported("expired", store.imports.expired),
        imported("other", store.imports.others),
        imported("unreadable", store.imports.unreadable),
        verdict("passed", auth.passed),
        verdict("denied", auth.denied),
        verdict("unavailable", auth.unavailable),
        verdict("refused", auth.refused),
        Sample::counter("auth_cache_hits", "Logins passed from the cache.", auth.cache_hits),
        Sample::gauge("auth_cache_logins", "Logins in the cache.", auth.cache_len),
        Sample::counter("group_lookups", "Member lists asked for.", groups.lookups),
        Sample::counter("group_unavailable", "Member lists not given.", groups.unavailable),
        Sample::counter("group_full", "Groups with too many members.", groups.full),
        Sample::counter("group_members_skipped", "Members without id.", groups.members_skipped),
        queue("store", store.queue_len),
        queue("auth", auth.queue_len),
        queue("groups", groups.queue_len),
        bound("store", store.queue_len_max),
        bound("auth", auth.queue_len_max),
        bound("groups", groups.queue_len_max),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_name_is_valid_and_has_one_help_and_one_kind() {
        let snapshot = shards::Snapshot {
            engine: vec![("ring_overflows", "Completions that did not fit.", 1)],
            ..shards::Snapshot::default()
        };
        let mut samples = of_shard(&snapshot);
        samples.extend(of_store(&StoreSnapshot::default()));
        let mut families = BTreeMap::new();
        for sample in &samples {
            let valid = sample.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            assert!(valid && !sample.name.ends_with("_total"), "{}", sample.name);
            let kind = std::mem::discriminant(&sample.figure);
            let family = families.entry(sample.name).or_insert((sample.help, kind));
            assert_eq!(*family, (sample.help, kind), "{}", sample.name);
        }
        for name in ["closed", "malformed", "logins", "store_commit_seconds", "ring_overflows"] {
            assert!(families.contains_key(name), "{name}");
        }
    }
}
