//! The relay on the engine that the gateway falls back to where io_uring is refused.
#![forbid(unsafe_code)]

use shards::io::epoll::EpollIo;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    runtimes::gateway::run::<EpollIo>()
}
