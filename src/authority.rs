//! Who judges logins: the authenticators that the configuration means.
//!
//! Owns: what all of them share, so that the socket's logins and HTTP's agree: the ids that open
//! logins are handed, the user centre's connections. Never: threads, queues.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use storage::auth::{
    Authenticator, ForwardRole as Forward, HttpConfig, Local, NoPassword, Open, OpenIds, Tokens,
    UserCentre,
};

use crate::config::keys::{AuthMode, ForwardRole};
use crate::config::{Config, Realm};
use crate::exit::Failure;
use crate::stores;

/// What authenticators are made of.
pub(crate) struct Authority {
    ids: Arc<OpenIds>,
    /// If any realm asks it.
    centre: Option<UserCentre>,
}

impl Authority {
    /// # Errors
    /// The user centre's URL is wrong, the store cannot be opened.
    pub(crate) fn open(config: &Config) -> Result<Self, Failure> {
        let asked = config.realms.iter().any(|realm| realm.mode == AuthMode::Http);
        let centre = asked.then(|| user_centre(config)).transpose()?;
        Ok(Self { ids: Arc::default(), centre })
    }

    /// The ids that open logins are handed.
    pub(crate) fn open_ids(&self) -> Arc<OpenIds> {
        Arc::clone(&self.ids)
    }

    /// An authenticator of a realm; it judges one login at a time.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub(crate) fn judge(
        &self,
        config: &Config,
        realm: Realm,
    ) -> Result<Box<dyn Authenticator>, Failure> {
        let directory = || stores::directory(config);
        let mut judge: Box<dyn Authenticator> = match (realm.mode, &self.centre) {
            (AuthMode::Open, _) => {
                return Ok(Box::new(Open::new(directory()?, self.open_ids())));
            }
            (AuthMode::Http, Some(centre)) => Box::new(centre.sibling(directory()?)),
            _ => Box::new(Local::new(directory()?)),
        };
        if realm.password_optional {
            judge = Box::new(NoPassword::new(directory()?, judge));
        }
        if realm.tokens
            && let Some(accounts) = stores::accounts(config)?
        {
            judge = Box::new(Tokens::new(accounts, directory()?, judge, now_ms));
        }
        Ok(judge)
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_millis() as u64
}

fn user_centre(config: &Config) -> Result<UserCentre, Failure> {
    let auth = &config.keys.auth;
    let http = HttpConfig {
        url: auth.http_url.clone(),
        forward_role: match auth.http_forward_role {
            ForwardRole::WhenPresent => Forward::WhenPresent,
            ForwardRole::Never => Forward::Never,
            ForwardRole::Always => Forward::Always,
        },
        timeout: Duration::from_millis(auth.http_timeout_ms),
        connections: usize::from(auth.threads),
    };
    UserCentre::new(&http, stores::directory(config)?)
        .map_err(|error| Failure::other("auth.http_url", error))
}
