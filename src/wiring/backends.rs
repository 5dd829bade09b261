//! What the sidecar works with: the store, the authenticators, the source of groups.
//!
//! Owns: which backend a configuration means. Never: threads, queues.

use std::time::Duration;

use storage::auth::Authenticator;
use storage::groups::{RedisConfig, RedisGroups};
use storage::sidecar::{Config as SidecarConfig, Limits};
use storage::store::SEQ_IMPORTED_MAX;

use crate::authority::Authority;
use crate::config::keys::{AuthMode, GroupSource};
use crate::config::{Config, Realm};
use crate::exit::Failure;
use crate::stores::Stores;

/// Opened backends.
pub(super) struct Backends {
    pub(super) sidecar: SidecarConfig,
    /// Above every `seq` in the store, and those that it may give.
    pub(super) first_seq: u64,
}

/// Opens what the configuration names.
///
/// # Errors
/// The store cannot be opened or read, a URL is wrong.
pub(super) fn open(
    config: &Config,
    stores: &Stores<'_>,
    authority: &Authority,
) -> Result<Backends, Failure> {
    let mut store = stores.store()?;
    let last_seq = store
        .max_seq()
        .map_err(|error| Failure::other("the store cannot be read", error.label()))?;
    let group_sources = match config.keys.groups.source {
        GroupSource::Store => Vec::new(),
        GroupSource::Redis => redis_groups(config)?.into_sources(),
    };
    let open = config.realms.iter().any(|realm| realm.mode == AuthMode::Open);
    let sidecar = SidecarConfig {
        store,
        open_ids: open.then(|| authority.open_ids()),
        authenticators: authenticators(config, stores, authority)?,
        group_sources,
        limits: limits(config),
    };
    Ok(Backends { sidecar, first_seq: last_seq.max(SEQ_IMPORTED_MAX) + 1 })
}

/// Per auth thread, one for each realm.
fn authenticators(
    config: &Config,
    stores: &Stores<'_>,
    authority: &Authority,
) -> Result<Vec<Vec<Box<dyn Authenticator>>>, Failure> {
    let threads = usize::from(config.keys.auth.threads);
    let realm = |realm: &Realm| authority.judge(stores, *realm);
    (0..threads).map(|_| config.realms.iter().map(realm).collect()).collect()
}

fn redis_groups(config: &Config) -> Result<RedisGroups, Failure> {
    let groups = &config.keys.groups;
    RedisGroups::new(RedisConfig {
        url: groups.redis.clone(),
        pool_size: usize::from(groups.pool_size),
        pool_max: usize::from(groups.pool_max),
        ..RedisConfig::default()
    })
    .map_err(|error| Failure::other("groups.redis", error))
}

fn limits(config: &Config) -> Limits {
    let (store, auth) = (&config.keys.store, &config.keys.auth);
    Limits {
        store_queue_len_max: store.queue as usize,
        auth_queue_len_max: auth.queue as usize,
        logins_len_max: auth.cache_max as usize,
        login_ttl: Duration::from_millis(auth.cache_ms),
        ..Limits::default()
    }
}
