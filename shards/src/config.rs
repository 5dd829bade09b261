//! What the operator decides about a shard. Plain values, checked by the configuration layer.

use std::net::IpAddr;

use codec::{ProtocolId, Settings, TenantId};

/// When a sender's acknowledgement is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckPolicy {
    /// When the message is safe for every recipient.
    Safe,
    /// When the gateway has the message in memory: lossy.
    Received,
}

/// Where a protocol is spoken.
#[derive(Clone, Debug)]
pub struct Listener {
    pub protocol: ProtocolId,
    pub tls: bool,
    /// `Some`: WebSocket, on these paths. `None`: the protocol's own frames on a byte stream.
    pub ws_paths: Option<Vec<String>>,
    pub tenant: TenantId,
    pub ack: AckPolicy,
    /// Which of the sidecar's authenticators judges logins.
    pub realm: u16,
    /// Open authentication: names are bound to ids by the first message stored for them.
    pub binds_names: bool,
    /// Peers that may connect; empty: everyone.
    pub allow: Vec<AddressRange>,
}

/// An address prefix in CIDR form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    pub address: IpAddr,
    /// Leading bits that count; at most 32 (IPv4) or 128 (IPv6).
    pub bits: u8,
}

impl AddressRange {
    pub fn contains(&self, peer: IpAddr) -> bool {
        match (self.address, peer.to_canonical()) {
            (IpAddr::V4(range), IpAddr::V4(peer)) => {
                let shift = 32 - u32::from(self.bits.min(32));
                (u64::from(range.to_bits()) >> shift) == (u64::from(peer.to_bits()) >> shift)
            }
            (IpAddr::V6(range), IpAddr::V6(peer)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits.min(128)));
                let mask = mask.unwrap_or(0);
                range.to_bits() & mask == peer.to_bits() & mask
            }
            _ => false,
        }
    }
}

/// One configuration for all shards.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    pub shards: u16,
    pub listeners: Vec<Listener>,
    pub protocols: Settings,
    pub persist_after_ms: u64,
    pub heartbeat_interval_ms: u64,
    pub heartbeat_max_missed: u8,
    pub login_deadline_ms: u64,
    /// How long a group's members are trusted before they are read again.
    pub group_cache_ms: u64,
    /// Logins of one shard that may wait for the authenticator.
    pub logins_pending_max: u32,
    /// Connections one shard admits per second; more wait in the kernel's backlog. 0: no bound.
    pub logins_per_second: u32,
    /// TLS handshake steps one turn may spend time on.
    pub handshakes_per_turn: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_contain_their_prefix_and_nothing_else() {
        let range = AddressRange { address: [10, 1, 0, 0].into(), bits: 16 };
        assert!(range.contains([10, 1, 255, 1].into()));
        assert!(!range.contains([10, 2, 0, 1].into()));
        assert!(
            AddressRange { address: [0, 0, 0, 0].into(), bits: 0 }.contains([9, 9, 9, 9].into())
        );
        let six = AddressRange { address: "fd00::".parse().expect("an address"), bits: 8 };
        assert!(six.contains("fd12::1".parse().expect("an address")));
        assert!(!six.contains("fe80::1".parse().expect("an address")));
        assert!(range.contains("::ffff:10.1.2.3".parse().expect("a mapped address")));
    }
}
