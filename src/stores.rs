//! The configured store, as the gateway and the commands open it.
//!
//! Owns: where it is, its bounds from the configuration, and which number a tenant has in it.
//! Never: users or messages; those are the callers'.

use std::path::PathBuf;
use std::time::Duration;

use codec::TenantId;
use storage::accounts::Accounts;
use storage::auth::UserDirectory;
use storage::external::{ExternalConfig, ExternalStore};
use storage::memory::MemoryAccounts;
use storage::sqlite::Options;
use storage::sqlite::simple_im::SimpleIm;
use storage::store::Caps;
use storage::{Admin, MemoryStore, SqliteStore, Store};

use crate::config::keys::{RedisDurability, StoreBackend};
use crate::config::{Config, Tenant};
use crate::exit::Failure;

/// Where the embedded store is.
pub(crate) fn path(config: &Config) -> PathBuf {
    config.data_dir().join(FILE)
}

/// The store of a running gateway. Its handles see each other's changes.
pub(crate) struct Stores<'c> {
    config: &'c Config,
    /// Where the store is memory: what its handles share.
    memory: MemoryStore,
}

impl<'c> Stores<'c> {
    pub(crate) fn of(config: &'c Config) -> Self {
        Self { config, memory: memory(config) }
    }

    /// A handle for the store thread.
    ///
    /// # Errors
    /// It cannot be made or opened.
    pub(crate) fn store(&self) -> Result<Box<dyn Store>, Failure> {
        Ok(match self.config.keys.store.backend {
            StoreBackend::Embedded => Box::new(embedded(self.config)?),
            StoreBackend::External => Box::new(external(self.config)?),
            StoreBackend::Memory => Box::new(self.memory.handle()),
        })
    }

    /// A reading handle of its own, so that a login never waits behind the store's commits.
    ///
    /// # Errors
    /// As [`Self::store`].
    pub(crate) fn directory(&self) -> Result<Box<dyn UserDirectory>, Failure> {
        Ok(match self.config.keys.store.backend {
            StoreBackend::Embedded => Box::new(embedded(self.config)?),
            StoreBackend::External => Box::new(external(self.config)?),
            StoreBackend::Memory => Box::new(self.memory.handle()),
        })
    }

    /// Users by phone, tokens, and what else an HTTP face needs, in the tenant of `node.tenant`; a
    /// handle of its own.
    ///
    /// # Errors
    /// As [`Self::store`].
    pub(crate) fn accounts(&self) -> Result<Box<dyn Accounts>, Failure> {
        let tenant = &self.config.tenants[0];
        Ok(match self.config.keys.store.backend {
            StoreBackend::Embedded => {
                let mut store = embedded(self.config)?;
                let tenant = tenant_id(&mut store, tenant)?;
                Box::new(SimpleIm::new(store, tenant))
            }
            StoreBackend::External => {
                let mut store = external(self.config)?;
                let tenant = tenant_id(&mut store, tenant)?;
                Box::new(store.for_tenant(tenant))
            }
            StoreBackend::Memory => {
                Box::new(MemoryAccounts::new(self.memory.handle(), memory_tenant(0)))
            }
        })
    }

    /// The numbers of all tenants, in the order of `config.tenants`.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub(crate) fn tenant_ids(&self) -> Result<Vec<TenantId>, Failure> {
        let tenants = &self.config.tenants;
        if self.config.keys.store.backend == StoreBackend::Memory {
            return Ok((0..tenants.len()).map(memory_tenant).collect());
        }
        let mut store = open_for_command(self.config)?;
        tenants.iter().map(|tenant| tenant_id(&mut *store, tenant)).collect()
    }
}

/// Opens it for a command.
///
/// # Errors
/// It cannot be made or opened; or what the configuration keeps ends with the process.
pub(crate) fn open_for_command(config: &Config) -> Result<Box<dyn Admin>, Failure> {
    match config.keys.store.backend {
        StoreBackend::Embedded => Ok(Box::new(embedded(config)?)),
        StoreBackend::External => Ok(Box::new(external(config)?)),
        StoreBackend::Memory => {
            let text = "store.backend is memory: there is nothing to work on outside the gateway";
            Err(Failure::Config(text.to_owned()))
        }
    }
}

/// The number of a tenant in the store, given to it the first time it is asked for.
///
/// # Errors
/// The store cannot be read or written.
pub(crate) fn tenant_id(store: &mut dyn Admin, tenant: &Tenant) -> Result<TenantId, Failure> {
    store
        .tenant_id(&tenant.org, &tenant.appkey)
        .map_err(|error| Failure::other(&format!("tenant {tenant}"), error))
}

/// Opens the file, making it if needed. Several processes may have it open at once.
fn embedded(config: &Config) -> Result<SqliteStore, Failure> {
    let options = Options { caps: caps(config), ..Options::default() };
    SqliteStore::open(&path(config), options).map_err(|error| Failure::other("the store", error))
}

/// Connects to the servers, which must be there now; later they may come and go.
fn external(config: &Config) -> Result<ExternalStore, Failure> {
    let store = &config.keys.store;
    let external = ExternalConfig {
        postgres: store.postgres.clone(),
        redis: store.redis.clone(),
        caps: caps(config),
        timeout: Duration::from_millis(store.timeout_ms),
        durability_accepted: store.redis_durability == RedisDurability::Accepted,
        upgrade_hashes: store.upgrade_hashes,
        ..ExternalConfig::default()
    };
    ExternalStore::open(&external).map_err(|error| Failure::other("the store", error))
}

/// A store that keeps nothing over a restart, with the tenants of the configuration.
fn memory(config: &Config) -> MemoryStore {
    let store = MemoryStore::new(caps(config), None);
    config.tenants.iter().enumerate().fold(store, |store, (at, tenant)| {
        store.with_tenant(memory_tenant(at), tenant.org.as_bytes(), tenant.appkey.as_bytes())
    })
}

/// In memory tenants have their places in the configuration as numbers.
fn memory_tenant(at: usize) -> TenantId {
    TenantId(at as u32)
}

/// The store's bounds.
fn caps(config: &Config) -> Caps {
    let store = &config.keys.store;
    Caps {
        user_rows: store.user_max_messages,
        user_bytes: store.user_max_bytes,
        store_rows: store.max_messages,
        store_bytes: store.max_bytes,
    }
}

const FILE: &str = "ringpost.db";
