//! The relay on the gateway's own engine: one ring, direct descriptors.
#![forbid(unsafe_code)]

use shards::io::uring::UringIo;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    runtimes::gateway::run::<UringIo>()
}
