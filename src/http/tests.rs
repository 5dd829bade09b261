//! The admin routes over real connections, with a gateway that can be told to be stuck.

use std::io::{Read as _, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use codec::{Notice, UserKey};

use super::*;
use crate::gateway::ShardSnapshot;

/// Two shards, one of which can be stuck.
#[derive(Default)]
pub(super) struct Fake {
    ready: AtomicBool,
    stuck: AtomicBool,
    /// Who was told what.
    pub(super) told: Mutex<Vec<(Vec<UserKey>, Notice)>>,
}

impl Gateway for Fake {
    fn snapshot(&self) -> Snapshot {
        let samples = vec![Sample::counter("logins", "Logins.", 7)];
        let second = (!self.stuck.load(SeqCst)).then(|| samples.clone());
        Snapshot {
            process: Vec::new(),
            shards: vec![
                ShardSnapshot { shard: 0, samples: Some(samples) },
                ShardSnapshot { shard: 1, samples: second },
            ],
        }
    }

    fn ready(&self) -> bool {
        self.ready.load(SeqCst)
    }

    fn ticked(&self) -> bool {
        true
    }

    fn set_tls(&self, _: Arc<rustls::ServerConfig>) {}

    fn tell(&self, to: &[UserKey], notice: Notice) {
        self.told.lock().expect("no test has failed").push((to.to_vec(), notice));
    }

    fn drain(&self, _: Duration) -> bool {
        true
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The whole answer to one request; empty if the server closes without one.
async fn ask(address: SocketAddr, request: String) -> String {
    let exchange = move || {
        let mut stream = std::net::TcpStream::connect(address).expect("the server listens");
        // The server may close before it has read everything, and then resets.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).expect("the server answers in text")
    };
    tokio::task::spawn_blocking(exchange).await.expect("the client does not panic")
}

async fn get_path(address: SocketAddr, path: &str) -> String {
    ask(address, format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await
}

async fn server(fake: &Arc<Fake>) -> SocketAddr {
    let routes = admin_routes(Arc::clone(fake) as Arc<dyn Gateway>);
    start(([127, 0, 0, 1], 0).into(), routes).await.expect("loopback can be bound")
}

#[test]
fn metrics_are_openmetrics_with_a_line_per_shard() {
    runtime().block_on(async {
        let address = server(&Arc::default()).await;
        let answer = get_path(address, "/metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"));
        assert!(answer.contains("\nringpost_logins_total{shard=\"1\"} 7\n"), "{answer}");
        assert!(answer.contains("\nringpost_memory_bytes "), "{answer}");
        assert!(answer.ends_with("# EOF\n"), "{answer}");
    });
}

#[test]
fn health_names_the_shard_that_is_stuck() {
    runtime().block_on(async {
        let fake = Arc::<Fake>::default();
        let address = server(&fake).await;
        assert!(get_path(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        fake.stuck.store(true, SeqCst);
        let answer = get_path(address, "/healthz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("[1]"), "{answer}");
        let answer = get_path(address, "/metrics").await;
        assert!(answer.contains("ringpost_shard_up{shard=\"1\"} 0\n"), "{answer}");
    });
}

#[test]
fn readiness_follows_the_gateway() {
    runtime().block_on(async {
        let fake = Arc::<Fake>::default();
        let address = server(&fake).await;
        assert!(get_path(address, "/readyz").await.starts_with("HTTP/1.1 503"));
        fake.ready.store(true, SeqCst);
        assert!(get_path(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get_path(address, "/nothing").await.starts_with("HTTP/1.1 404"));
    });
}

#[test]
fn a_head_over_the_bound_is_refused_and_the_next_client_is_served() {
    runtime().block_on(async {
        let fake = Arc::<Fake>::default();
        let address = server(&fake).await;
        let long = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(2 * HEAD_BYTES));
        let answer = ask(address, long).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
        assert!(get_path(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    });
}
