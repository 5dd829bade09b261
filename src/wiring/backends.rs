//! What the sidecar works with: the store, the authenticators, the source of groups.
//!
//! Owns: which backend a configuration means. Never: threads, queues.

use std::sync::Arc;
use std::time::Duration;

use codec::TenantId;
use storage::auth::{
    Authenticator, ForwardRole as Forward, HttpConfig, Local, Open, OpenIds, UserCentre,
    UserDirectory,
};
use storage::groups::{RedisConfig, RedisGroups};
use storage::sidecar::{Config as SidecarConfig, Limits};
use storage::{MemoryStore, Store};

use crate::config::keys::{AuthMode, ForwardRole, GroupSource, StoreBackend};
use crate::config::{Config, Tenant};
use crate::embedded;
use crate::exit::Failure;

/// Opened backends.
pub(super) struct Backends {
    pub(super) sidecar: SidecarConfig,
    /// Above every `seq` in the store.
    pub(super) first_seq: u64,
}

/// Opens what the configuration names.
///
/// # Errors
/// The store cannot be opened or read, a URL is wrong.
pub(super) fn open(config: &Config) -> Result<Backends, Failure> {
    let mut store = open_store(config)?;
    let last_seq = store
        .max_seq()
        .map_err(|error| Failure::other("the store cannot be read", error.label()))?;
    let group_sources = match config.keys.groups.source {
        GroupSource::Store => Vec::new(),
        GroupSource::Redis => redis_groups(config)?.into_sources(),
    };
    let sidecar = SidecarConfig {
        store,
        authenticators: authenticators(config)?,
        group_sources,
        limits: limits(config),
    };
    Ok(Backends { sidecar, first_seq: last_seq + 1 })
}

/// The number of every tenant, in the order of `config.tenants`.
///
/// # Errors
/// The store cannot be read or written.
pub(super) fn tenant_ids(config: &Config) -> Result<Vec<TenantId>, Failure> {
    match config.keys.store.backend {
        StoreBackend::Memory => Ok((0..config.tenants.len() as u32).map(TenantId).collect()),
        StoreBackend::Embedded | StoreBackend::External => {
            let mut store = embedded::open(config)?;
            let number = |tenant: &Tenant| embedded::tenant_id(&mut store, tenant);
            config.tenants.iter().map(number).collect()
        }
    }
}

/// A handle on the configured store. Several handles on one embedded store see each other's
/// commits; a memory store is private to its handle.
///
/// # Errors
/// It cannot be opened.
fn open_store(config: &Config) -> Result<Box<dyn Store>, Failure> {
    match config.keys.store.backend {
        StoreBackend::Memory => Ok(Box::new(MemoryStore::new(embedded::caps(config), None))),
        StoreBackend::Embedded | StoreBackend::External => Ok(Box::new(embedded::open(config)?)),
    }
}

/// One per auth thread.
fn authenticators(config: &Config) -> Result<Vec<Box<dyn Authenticator>>, Failure> {
    let threads = usize::from(config.keys.auth.threads);
    let ids = Arc::new(OpenIds::default());
    let centre = match config.keys.auth.mode {
        AuthMode::Http => Some(user_centre(config, threads)?),
        AuthMode::Local | AuthMode::Open => None,
    };
    (0..threads)
        .map(|_| -> Result<Box<dyn Authenticator>, Failure> {
            Ok(match (config.keys.auth.mode, &centre) {
                (AuthMode::Http, Some(centre)) => Box::new(centre.clone()),
                (AuthMode::Open, _) => Box::new(Open::new(directory(config)?, Arc::clone(&ids))),
                _ => Box::new(Local::new(directory(config)?)),
            })
        })
        .collect()
}

/// A reading handle of its own, so that a login never waits behind the store's commits.
fn directory(config: &Config) -> Result<Box<dyn UserDirectory>, Failure> {
    match config.keys.store.backend {
        StoreBackend::Memory => Ok(Box::new(MemoryStore::new(embedded::caps(config), None))),
        StoreBackend::Embedded | StoreBackend::External => Ok(Box::new(embedded::open(config)?)),
    }
}

fn user_centre(config: &Config, connections: usize) -> Result<UserCentre, Failure> {
    let auth = &config.keys.auth;
    let http = HttpConfig {
        url: auth.http_url.clone(),
        forward_role: match auth.http_forward_role {
            ForwardRole::WhenPresent => Forward::WhenPresent,
            ForwardRole::Never => Forward::Never,
            ForwardRole::Always => Forward::Always,
        },
        timeout: Duration::from_millis(auth.http_timeout_ms),
        connections,
    };
    UserCentre::new(&http).map_err(|error| Failure::other("auth.http_url", error))
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
