//! What the sidecar works with: the store, the authenticators, the source of groups.
//!
//! Owns: which backend a configuration means. Never: threads, queues.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use storage::auth::{
    Authenticator, ForwardRole as Forward, HttpConfig, Local, NoPassword, Open, OpenIds, Tokens,
    UserCentre,
};
use storage::groups::{RedisConfig, RedisGroups};
use storage::sidecar::{Config as SidecarConfig, Limits};
use storage::store::SEQ_IMPORTED_MAX;

use crate::config::keys::{AuthMode, ForwardRole, GroupSource};
use crate::config::{Config, Realm};

use crate::exit::Failure;
use crate::stores;

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
pub(super) fn open(config: &Config) -> Result<Backends, Failure> {
    let mut store = stores::open(config)?;
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
    Ok(Backends { sidecar, first_seq: last_seq.max(SEQ_IMPORTED_MAX) + 1 })
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
        (AuthMode::Open, _) => {
            return Ok(Box::new(Open::new(stores::directory(config)?, Arc::clone(ids))));
        }
        (AuthMode::Http, Some(centre)) => Box::new(centre.sibling(stores::directory(config)?)),
        _ => Box::new(Local::new(stores::directory(config)?)),
    };
    if realm.password_optional {
        judge = Box::new(NoPassword::new(stores::directory(config)?, judge));
    }
    if realm.tokens
        && let Some(accounts) = stores::accounts(config)?
    {
        judge = Box::new(Tokens::new(accounts, stores::directory(config)?, judge, now_ms));
    }
    Ok(judge)
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_millis() as u64
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
    UserCentre::new(&http, stores::directory(config)?)
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
