//! `ringpost serve`: from the configuration to a clean exit.
//!
//! Owns: the order of start and stop, and the control loop (signals, watchdog, HTTP). Never: how
//! shards and the store are built (the wiring's), nor any client.
//!
//! ```text
//!   config -> logs -> certificate -> engine -> HTTP -> READY=1
//!   SIGHUP            reload what can be reloaded, name what cannot
//!   SIGTERM, SIGINT   STOPPING=1 -> drain, at most node.drain_ms -> exit 0
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustls::ServerConfig;

use crate::authority::Authority;
use crate::config::{Certificate, Config};
use crate::exit::Failure;
use crate::gateway::Gateway;
use crate::logging::{self, LevelHandle};
use crate::signals::{Order, Signals};
use crate::{demo, http, systemd, tls_files, wiring};

/// Runs until told to stop. Without a file: the embedded demo.
///
/// # Errors
/// The configuration is wrong, something cannot be opened or bound, or the drain was cut short.
pub(crate) fn run(file: Option<&Path>) -> Result<(), Failure> {
    abort_on_panic();
    let config = Config::load(file)?;
    let level = logging::init(config.keys.node.log_level);
    let tls = tls_context(&config)?;
    let greeting = match file {
        None => {
            demo::prepare(&config)?;
            Some(demo::greeting(&config))
        }
        Some(_) => None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(|error| Failure::other("the control thread cannot start", error))?;
    // Handlers first: a signal during the start is an order, not a kill.
    let signals = runtime
        .block_on(async { Signals::new() })
        .map_err(|error| Failure::other("signals cannot be handled", error))?;
    let authority = Authority::open(&config)?;
    let gateway = wiring::start(&config, &authority, tls)?;
    let control = Control { config, authority, file: file.map(Path::to_owned), level, gateway };
    let result = runtime.block_on(control.run(signals, greeting.as_deref()));
    // A drain that was cut short is not waited for.
    runtime.shutdown_background();
    result
}

/// A broken invariant ends the process: a gateway with a dead shard or store thread helps nobody,
/// and the service manager starts it again.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

fn tls_context(config: &Config) -> Result<Option<Arc<ServerConfig>>, Failure> {
    match config.listeners.iter().any(crate::config::Listener::is_tls) {
        true => tls_files::load(&config.certificate)
            .map(Some)
            .map_err(|error| Failure::other("TLS", error)),
        false => Ok(None),
    }
}

/// Finds out whether certificate files that are named can be used. Makes none.
///
/// # Errors
/// They cannot be read, or do not belong together.
pub(crate) fn check_certificate(config: &Config) -> Result<(), Failure> {
    match &config.certificate {
        files @ Certificate::Files { .. } => {
            tls_files::load(files).map(drop).map_err(|error| Failure::Config(error.to_string()))
        }
        Certificate::SelfSigned { .. } => Ok(()),
    }
}

/// The control loop.
struct Control {
    config: Config,
    authority: Authority,
    file: Option<PathBuf>,
    level: LevelHandle,
    gateway: Arc<dyn Gateway>,
}

impl Control {
    async fn run(mut self, mut signals: Signals, greeting: Option<&str>) -> Result<(), Failure> {
        for (address, routes) in self.doors()? {
            let bound = http::start(address, routes).await;
            let bound = bound.map_err(|error| Failure::other(&format!("bind {address}"), error))?;
            tracing::info!("http on http://{bound}");
        }
        for listener in &self.config.listeners {
            tracing::info!("{} on {}", listener.protocol.name(), listener.url());
        }
        systemd::ready();
        if let Some(greeting) = greeting {
            println!("{greeting}");
        }
        let period = systemd::watchdog_period();
        let mut watchdog = tokio::time::interval(period.unwrap_or(NO_WATCHDOG));
        loop {
            tokio::select! {
                order = signals.next() => match order {
                    Order::Stop => return self.stop(signals).await,
                    Order::Reload => self.reload(),
                },
                _ = watchdog.tick() => {
                    if period.is_some() && self.gateway.ticked() {
                        systemd::alive();
                    }
                }
            }
        }
    }

    /// What is served over HTTP, by address: the protocols' side, and metrics and health.
    fn doors(&self) -> Result<Vec<(SocketAddr, Router)>, Failure> {
        let mut doors = Vec::new();
        let admin = http::admin_routes(Arc::clone(&self.gateway));
        let faces = match self.config.http {
            Some(_) => http::protocol_routes(&self.config, &self.authority)?,
            None => Router::new(),
        };
        match (self.config.http, self.config.admin) {
            (Some(http), Some(address)) if http == address => {
                doors.push((http, faces.merge(admin)))
            }
            (http, address) => {
                doors.extend(http.map(|http| (http, faces)));
                doors.extend(address.map(|address| (address, admin)));
            }
        }
        Ok(doors)
    }

    /// Drains within the bound; a second order to stop ends the process at once.
    async fn stop(self, mut signals: Signals) -> Result<(), Failure> {
        let limit = self.config.drain();
        tracing::info!(limit_ms = self.config.keys.node.drain_ms, "draining");
        systemd::stopping();
        let gateway = Arc::clone(&self.gateway);
        let drained = tokio::task::spawn_blocking(move || gateway.drain(limit));
        tokio::select! {
            () = signals.stop() => Err(Failure::new("told to stop twice: the drain was cut short")),
            drained = drained => match drained {
                Ok(true) => {
                    tracing::info!("drained");
                    Ok(())
                }
                Ok(false) => {
                    tracing::warn!("not everything was drained in time");
                    Ok(())
                }
                Err(error) => Err(Failure::other("drain", error)),
            },
        }
    }

    /// Whatever is wrong with the new files, the old state goes on.
    fn reload(&mut self) {
        systemd::reloading();
        match Config::load(self.file.as_deref()) {
            Ok(newer) => self.apply(newer),
            Err(errors) => tracing::error!("not reloaded: {errors}"),
        }
        systemd::ready();
    }

    fn apply(&mut self, newer: Config) {
        let changes = self.config.changes(&newer);
        for key in changes.restart {
            tracing::warn!("{key} has changed; that needs a restart");
        }
        // Read again even if the names are the same: the files may be new.
        let served = self.config.listeners.iter().any(crate::config::Listener::is_tls);
        if served {
            match tls_files::load(&newer.certificate) {
                Ok(context) => {
                    self.gateway.set_tls(context);
                    self.config.certificate = newer.certificate;
                }
                Err(error) => tracing::error!("the certificate stays as it was: {error}"),
            }
        }
        self.level.set(newer.keys.node.log_level);
        tracing::info!(applied = ?changes.applied, "reloaded");
    }
}

/// One for the snapshot of a scrape, one for the drain, the rest for the protocols' HTTP side,
/// which waits for the store and hashes passwords.
const BLOCKING_THREADS: usize = 4;

/// An interval needs a period even where nobody watches.
const NO_WATCHDOG: Duration = Duration::from_secs(3600);
