//! Which shard a user or a group lives on: a pure function of the key and the number of shards.

use codec::{GroupKey, UserKey};

use crate::io::ShardIndex;

/// The shard that owns all terminals, deliveries and timers of `user`.
pub fn home_of_user(user: UserKey, shards: ShardIndex) -> ShardIndex {
    spread(user.tenant.0, user.id.0, shards)
}

/// The shard that owns the member list and the order of a group.
pub fn home_of_group(group: GroupKey, shards: ShardIndex) -> ShardIndex {
    // Another salt than users, so that group 7 and user 7 do not load the same shard.
    spread(group.tenant.0 ^ 0x5bd1_e995, group.id.0, shards)
}

fn spread(tenant: u32, id: u32, shards: ShardIndex) -> ShardIndex {
    let key = (u64::from(tenant) << 32) | u64::from(id);
    let mixed = key.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xc4ce_b9fe_1a85_ec53) >> 32;
    ((mixed * u64::from(shards)) >> 32) as ShardIndex
}

#[cfg(test)]
mod tests {
    use codec::{TenantId, UserId};

    use super::*;

    #[test]
    fn users_spread_evenly_and_stay_in_range() {
        for shards in [1_u16, 2, 7, 56] {
            let mut count = vec![0_u32; usize::from(shards)];
            for id in 0..56_000 {
                let user = UserKey { tenant: TenantId(0), id: UserId(id) };
                count[usize::from(home_of_user(user, shards))] += 1;
            }
            let fair = 56_000 / u32::from(shards);
            assert!(count.iter().all(|&n| n > fair * 8 / 10 && n < fair * 12 / 10), "{count:?}");
        }
    }
}
