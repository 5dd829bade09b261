//! The seam to the blocking world: requests go out, replies come back, nothing waits.

use storage::{Reply, Request};

/// One shard's port to the sidecar; simulated in tests.
pub trait Backend {
    /// Queues a request.
    ///
    /// # Errors
    /// Gives the request back if its queue is full.
    fn submit(&mut self, request: Request) -> Result<(), Request>;

    /// The next reply, if any.
    fn poll(&mut self) -> Option<Reply>;

    /// How full the store's queue is, 0 to 1. Over one half, publishers are not read.
    fn load(&self) -> f32;
}

impl Backend for storage::sidecar::Port {
    fn submit(&mut self, request: Request) -> Result<(), Request> {
        Self::submit(self, request)
    }

    fn poll(&mut self) -> Option<Reply> {
        self.try_recv()
    }

    fn load(&self) -> f32 {
        Self::load(self)
    }
}
