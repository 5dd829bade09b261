//! What the sidecar works with: the store, the authenticators, the source of groups.
//!
//! Owns: which backend a configuration means. Never: threads, queues.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use codec::TenantId;
use storage::accounts::Accounts;
use storage::auth::{
    Authenticator, ForwardRole as Forward, HttpConfig, Local, NoPassword, Open, OpenIds, Tokens,
    UserCentre, UserDirectory,
};
use storage::groups::{RedisConfig, RedisGroups};
use storage::sidecar::{Config as SidecarConfig, Limits};
use storage::sqlite::simple_im::SimpleIm;
use storage::{MemoryStore, Store};

use crate::config::keys::{AuthMode, ForwardRole, GroupSource, StoreBackend};
use crate::config::{Config, Realm, Tenant};
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
    let ids = Arc::new(OpenIds::default());
    let open = config.realms.iter().any(|realm| realm.mode == AuthMode::Open);
    let sidecar = SidecarConfig {
        store,
        open_ids: open.then(|| Arc::clone(&ids)),
        authenticators: authenticators(config, &ids)?,
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
        StoreBackend::Memory => Ok(Box::new(memory(config))),
        StoreBackend::Embedded | StoreBackend::External => Ok(Box::new(embedded::open(config)?)),
    }
}

/// Per auth thread, one for each realm.
fn authenticators(
    config: &Config,
    ids: &Arc<OpenIds>,
) -> Result<Vec<Vec<Box<dyn Authenticator>>>, Failure> {
    let threads = usize::from(config.keys.auth.threads);
    let centre = match config.realms.iter().any(|realm| realm.mode == AuthMode::Http) {
        true => Some(user_centre(config, threads)?),
        false => None,
    };
    let realm = |realm: &Realm| authenticator(config, *realm, ids, centre.as_ref());
    (0..threads).map(|_| config.realms.iter().map(realm).collect()).collect()
}

fn authenticator(
    config: &Config,
    realm: Realm,
    ids: &Arc<OpenIds>,
    centre: Option<&UserCentre>,
) -> Result<Box<dyn Authenticator>, Failure> {
    let mut judge: Box<dyn Authenticator> = match (realm.mode, centre) {
        (AuthMode::Open, _) => return Ok(Box::new(Open::new(directory(config)?, Arc::clone(ids)))),
        (AuthMode::Http, Some(centre)) => Box::new(centre.sibling(directory(config)?)),
        _ => Box::new(Local::new(directory(config)?)),
    };
    if realm.password_optional {
        judge = Box::new(NoPassword::new(directory(config)?, judge));
    }
    if realm.tokens
        && let Some(accounts) = accounts(config)?
    {
        judge = Box::new(Tokens::new(accounts, directory(config)?, judge, now_ms));
    }
    Ok(judge)
}

/// Users by phone, tokens, and what else an HTTP face needs, in the tenant of `node.tenant`; a
/// handle of its own. `None`: the store keeps none.
///
/// # Errors
/// The store cannot be opened.
pub(crate) fn accounts(config: &Config) -> Result<Option<Box<dyn Accounts>>, Failure> {
    match config.keys.store.backend {
        StoreBackend::Memory => Ok(None),
        StoreBackend::Embedded | StoreBackend::External => {
            let mut store = embedded::open(config)?;
            let tenant = embedded::tenant_id(&mut store, &config.tenants[0])?;
            Ok(Some(Box::new(SimpleIm::new(store, tenant))))
        }
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_millis() as u64
}

/// A store that keeps nothing over a restart, with the tenants of the configuration.
fn memory(config: &Config) -> MemoryStore {
    let store = MemoryStore::new(embedded::caps(config), None);
    config.tenants.iter().enumerate().fold(store, |store, (number, tenant)| {
        let id = TenantId(number as u32);
        store.with_tenant(id, tenant.org.as_bytes(), tenant.appkey.as_bytes())
    })
}

/// A reading handle of its own, so that a login never waits behind the store's commits.
fn directory(config: &Config) -> Result<Box<dyn UserDirectory>, Failure> {
    match config.keys.store.backend {
        StoreBackend::Memory => Ok(Box::new(memory(config))),
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
    UserCentre::new(&http, directory(config)?)
        .map_err(|error| Failure::other("auth.http_url", error))
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
