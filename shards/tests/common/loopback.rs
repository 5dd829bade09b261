//! A real shard on loopback, on the thread of the test, and a store that has nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use codec::{TenantId, UserId, UserKey};
use crossbeam_channel::Receiver;
use shards::io::sys::{self, ListenOptions};
use shards::io::{Engine, Sizes};
use shards::limits::mesh_ring;
use shards::{Backend, Control, Identity, Mesh, Parts, Shard, ShardConfig};
use storage::{AuthVerdict, Reply, Request};

pub(crate) fn start<E: Engine, B: Backend>(
    config: ShardConfig,
    sizes: Sizes,
    backend: B,
    control: Receiver<Control>,
) -> (Shard<E, B>, SocketAddr) {
    let any = "127.0.0.1:0".parse().expect("an address");
    let listener = sys::listen(any, ListenOptions::default()).expect("a loopback listener");
    let address = listener.local_addr().expect("bound").as_socket().expect("an address");
    let shard = Shard::new(Parts {
        config: Arc::new(config),
        identity: Identity { shard: 0, first_seq: 1, boot: 1, hash_key: [1, 2] },
        io: E::open(sizes, vec![listener.into()]).expect("an engine"),
        backend,
        mesh: Mesh::wire(1, mesh_ring(1)).pop().expect("one end"),
        control,
        tls: None,
        unix_base_ms: 0,
        slot_reserve: 1,
    });
    (shard, address)
}

/// Everybody may log in, under the number that is his name, and nothing waits for him. The error:
/// another request.
pub(crate) fn login_reply(request: Request) -> Result<Reply, Request> {
    match request {
        Request::Auth(request) => {
            let name = std::str::from_utf8(&request.name).expect("digits");
            let id = UserId(name.parse().expect("digits"));
            let user = UserKey { tenant: TenantId(0), id };
            let verdict = AuthVerdict::Pass { user, name: None };
            Ok(Reply::Auth { token: request.token, verdict })
        }
        Request::Read { user, .. } => Ok(Reply::Rows { user, result: Ok((Vec::new(), false)) }),
        other => Err(other),
    }
}
