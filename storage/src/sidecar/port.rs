//! A shard's end of the sidecar.
//!
//! Owns: routing requests to queues, and the bound on replies outstanding. Never: blocks.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::logins::Login;
use super::threads::Shared;
use super::{Job, Limits, Queues};
use crate::request::{Reply, Request, ShardIndex};

/// Owned by one shard and used on its thread only.
pub struct Port {
    shard: ShardIndex,
    queues: Queues,
    replies: Receiver<Reply>,
    shared: Arc<Shared>,
    outstanding: usize,
    outstanding_max: usize,
}

impl Port {
    pub(super) fn new(
        shard: ShardIndex,
        queues: Queues,
        replies: Receiver<Reply>,
        shared: Arc<Shared>,
        limits: &Limits,
    ) -> Self {
        let outstanding_max = limits.outstanding_len_max;
        Self { shard, queues, replies, shared, outstanding: 0, outstanding_max }
    }

    /// Hands a request to its queue.
    ///
    /// # Errors
    /// The request itself, unchanged: the queue is full, as many replies are outstanding as may
    /// be, or the sidecar has stopped.
    pub fn submit(&mut self, request: Request) -> Result<(), Request> {
        let replied = has_reply(&request);
        if replied && self.outstanding >= self.outstanding_max {
            return Err(request);
        }
        self.route(request)?;
        self.outstanding += usize::from(replied);
        Ok(())
    }

    fn route(&self, request: Request) -> Result<(), Request> {
        let shard = self.shard;
        match (request, &self.queues) {
            (Request::Auth(request), Queues { logins: Some(queue), .. }) => {
                send(queue, shard, Login::new(request))
                    .map_err(|login| Request::Auth(login.request))
            }
            (request @ Request::Auth(_), _) => Err(request),
            (Request::Members { group }, Queues { groups: Some(queue), .. }) => {
                send(queue, shard, group).map_err(|group| Request::Members { group })
            }
            (request, Queues { store, .. }) => send(store, shard, request),
        }
    }

    /// The next reply, if one is there.
    pub fn try_recv(&mut self) -> Option<Reply> {
        if self.shared.outbox.take_change(self.shard) {
            return Some(Reply::StoreChanged);
        }
        let reply = self.replies.try_recv().ok()?;
        // News are nobody's reply.
        if !matches!(reply, Reply::Requeued { .. } | Reply::GroupChanged { .. }) {
            self.outstanding -= 1;
        }
        Some(reply)
    }

    /// How full the store queue is, 0 to 1. From one half on, shards stop reading publishers.
    pub fn load(&self) -> f32 {
        let queue = &self.queues.store;
        queue.len() as f32 / queue.capacity().unwrap_or(usize::MAX).max(1) as f32
    }

    /// Replies that this shard is still owed.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }
}

fn send<T>(queue: &Sender<Job<T>>, shard: ShardIndex, item: T) -> Result<(), T> {
    match queue.try_send(Job::Run(shard, item)) {
        Ok(()) => Ok(()),
        Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => match job {
            Job::Run(_, item) => Err(item),
            Job::Stop => unreachable!("a port sends no Stop"),
        },
    }
}

fn has_reply(request: &Request) -> bool {
    match request {
        Request::Append(_)
        | Request::Read { .. }
        | Request::Members { .. }
        | Request::Resolve { .. }
        | Request::Query { .. }
        | Request::Auth(_) => true,
        Request::Delete { .. } | Request::FailedRound { .. } | Request::DeadLetter { .. } => false,
    }
}
