//! What the service manager is told: ready, reloading, stopping, alive.
//!
//! Owns: the notifications. Never: when they are due (that is [`crate::serve`]'s). Outside systemd
//! every call does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// The gateway accepts connections.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// SIGHUP arrived; [`ready`] ends the reload.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// The gateway drains.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Every shard has ticked since the last call.
pub(crate) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often [`alive`] is due: half of what the unit file allows. `None`: no watchdog.
pub(crate) fn watchdog_period() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|allowed| allowed / 2)
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
