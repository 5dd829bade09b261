//! The control plane's HTTP server: metrics, health, readiness.
//!
//! Owns: the router, and bounds on connections and their time. Never: shards; it asks the
//! [`Gateway`], one snapshot at a time. Runs on the control thread's runtime.

mod openmetrics;
mod simple_im;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use storage::auth::Verified;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::authority::Authority;
use crate::config::Config;
use crate::config::keys::AuthMode;
use crate::exit::Failure;
use crate::gateway::{Gateway, Sample, Snapshot};
use crate::logging::Throttle;
use crate::stores::Stores;

/// The routes of `admin.bind`.
pub(crate) fn admin_routes(gateway: Arc<dyn Gateway>) -> Router {
    let state = Admin { gateway, turn: Arc::new(Semaphore::new(1)), started: Instant::now() };
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(state)
}

/// The routes of `http.bind`: those of every protocol that is spoken and has some. `gateway` tells
/// users what is changed there.
///
/// # Errors
/// The store cannot be opened.
pub(crate) fn protocol_routes(
    config: &Config,
    stores: &Stores<'_>,
    authority: &Authority,
    gateway: &Arc<dyn Gateway>,
) -> Result<Router, Failure> {
    let Some(settings) = simple_im::Settings::of(config) else { return Ok(Router::new()) };
    let accounts = stores.accounts()?;
    let judge = match config.login_realm().filter(|realm| realm.mode != AuthMode::Local) {
        Some(realm) => Some(authority.judge(stores, realm)?),
        None => None,
    };
    let auth = &config.keys.auth;
    let verified = Verified::new(auth.cache_max as usize, Duration::from_millis(auth.cache_ms));
    let gateway = Arc::clone(gateway);
    Ok(simple_im::routes(simple_im::Face::new(accounts, judge, verified, gateway, settings)))
}

/// Serves `routes` on `address` as a task of the current runtime; gives the bound address.
///
/// # Errors
/// The address cannot be bound.
pub(crate) async fn start(address: SocketAddr, routes: Router) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    tokio::spawn(serve(listener, routes));
    Ok(bound)
}

async fn serve(listener: TcpListener, routes: Router) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut throttle = Throttle::new(Duration::from_secs(10));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let routes = routes.clone();
                tokio::spawn(async move {
                    connection(stream, routes).await;
                    drop(slot);
                });
            }
            Err(error) => {
                if let Some(more) = throttle.pass(Instant::now()) {
                    tracing::warn!(%error, more, "the HTTP server cannot accept");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A peer's errors end its connection and nothing else.
async fn connection(stream: TcpStream, routes: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    let _ = tokio::time::timeout(CONNECTION_TIME, served).await;
}

#[derive(Clone)]
struct Admin {
    gateway: Arc<dyn Gateway>,
    /// Snapshots are taken one after the other: a flood of scrapes costs no more than one scraper.
    turn: Arc<Semaphore>,
    started: Instant,
}

impl Admin {
    async fn snapshot(&self) -> Option<Snapshot> {
        let _turn = self.turn.acquire().await.ok()?;
        let gateway = Arc::clone(&self.gateway);
        tokio::task::spawn_blocking(move || gateway.snapshot()).await.ok()
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let Some(mut snapshot) = admin.snapshot().await else { return unavailable("no snapshot") };
    snapshot.process.extend(process_samples(admin.started));
    ([(header::CONTENT_TYPE, openmetrics::CONTENT_TYPE)], openmetrics::encode(&snapshot))
        .into_response()
}

/// 200 while every shard's loop turns.
async fn healthz(State(admin): State<Admin>) -> Response {
    match admin.snapshot().await.map(|snapshot| snapshot.stuck()) {
        Some(stuck) if stuck.is_empty() => "ok\n".into_response(),
        Some(stuck) => unavailable(&format!("shards that do not answer: {stuck:?}")),
        None => unavailable("no snapshot"),
    }
}

/// 200 while new connections are welcome.
async fn readyz(State(admin): State<Admin>) -> Response {
    match admin.gateway.ready() {
        true => "ready\n".into_response(),
        false => unavailable("starting or draining"),
    }
}

fn unavailable(text: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{text}\n")).into_response()
}

fn process_samples(started: Instant) -> Vec<Sample> {
    let mut samples = vec![
        Sample::gauge("build", "Always 1; the label names the version.", 1)
            .labelled("version", env!("CARGO_PKG_VERSION")),
        Sample::gauge("uptime_seconds", "Time since the start.", started.elapsed().as_secs()),
    ];
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(kib) = status_field(&status, "VmRSS:") {
        samples.push(Sample::gauge("memory_bytes", "Resident memory.", kib * 1024));
    }
    if let Some(threads) = status_field(&status, "Threads:") {
        samples.push(Sample::gauge("threads", "Threads of the process.", threads));
    }
    samples
}

/// The first number after `name` in the text of `/proc/self/status`.
fn status_field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Scrapers and probes are few, logins come in storms: more than may wait for their passwords, so
/// that others find a place meanwhile.
const CONNECTIONS_MAX: usize = 256;
/// For the head of each request, and the wait for the next one.
const HEAD_TIME: Duration = Duration::from_secs(30);
const HEAD_BYTES: usize = 16 * 1024;
const CONNECTION_TIME: Duration = Duration::from_secs(600);
/// After a failed accept (no descriptors, no memory), so that it never spins.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
