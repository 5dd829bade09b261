//! The embedded store's file, as the gateway and the commands open it.
//!
//! Owns: where the file is, its bounds from the configuration, and which number a tenant has in it.
//! Never: users or messages; those are the callers'.

use std::path::PathBuf;

use codec::TenantId;
use storage::SqliteStore;
use storage::sqlite::Options;
use storage::store::Caps;

use crate::config::keys::StoreBackend;
use crate::config::{Config, Tenant};
use crate::exit::Failure;

/// Where it is.
pub(crate) fn path(config: &Config) -> PathBuf {
    config.data_dir().join(FILE)
}

/// Opens the file, making it if needed. Several processes may have it open at once.
///
/// # Errors
/// It cannot be made or opened.
pub(crate) fn open(config: &Config) -> Result<SqliteStore, Failure> {
    let options = Options { caps: caps(config), ..Options::default() };
    SqliteStore::open(&path(config), options).map_err(|error| Failure::other("the store", error))
}

/// Opens it for a command.
///
/// # Errors
/// As [`open`]; or the configuration keeps nothing in a file.
pub(crate) fn open_for_command(config: &Config) -> Result<SqliteStore, Failure> {
    match config.keys.store.backend {
        StoreBackend::Embedded => open(config),
        other => {
            let text = format!("store.backend is {other:?}: there is no file to work on");
            Err(Failure::Config(text))
        }
    }
}

/// The store's bounds.
pub(crate) fn caps(config: &Config) -> Caps {
    let store = &config.keys.store;
    Caps {
        user_rows: store.user_max_messages,
        user_bytes: store.user_max_bytes,
        store_rows: store.max_messages,
        store_bytes: store.max_bytes,
    }
}

/// The number of a tenant in the store, given to it the first time it is asked for.
///
/// # Errors
/// The store cannot be read or written.
pub(crate) fn tenant_id(store: &mut SqliteStore, tenant: &Tenant) -> Result<TenantId, Failure> {
    store
        .tenant(&tenant.org, &tenant.appkey)
        .map_err(|error| Failure::other(&format!("tenant {tenant}"), error))
}

const FILE: &str = "ringpost.db";
