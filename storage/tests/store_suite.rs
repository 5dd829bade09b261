//! The contract of `Store`, one behavioural suite run over every backend, then what only the
//! embedded store promises: other processes, its file, its failures.

#[path = "store_suite/admin.rs"]
mod admin;
#[path = "store_suite/differential.rs"]
mod differential;
#[path = "store_suite/embedded.rs"]
mod embedded;
#[path = "store_suite/external.rs"]
mod external;
#[path = "store_suite/forms.rs"]
mod forms;
#[path = "store_suite/kit.rs"]
mod kit;
#[path = "store_suite/roster.rs"]
mod roster;
#[path = "external/servers.rs"]
mod servers;

use std::sync::Arc;

use codec::{TenantId, UserId, UserKey};
use forms::*;
use kit::*;
use roster::*;
use storage::store::{SEQ_MAX, StoredUser};
use storage::{Caps, MemoryStore};

/// Every function named here runs once per backend.
macro_rules! suite {
    ($($name:ident)*) => {
        mod memory { $(#[test] fn $name() { super::$name::<super::MemoryStore>(); })* }
        mod sqlite { $(#[test] fn $name() { super::$name::<super::kit::Embedded>(); })* }
        mod postgres_and_redis {
            $(#[test] fn $name() {
                if super::external::is_available() {
                    super::$name::<super::external::External>();
                }
            })*
        }
    };
}

suite! {
    a_row_comes_back_as_it_was_written
    rows_are_read_by_seq_and_not_by_insertion
    users_and_tenants_do_not_see_each_others_rows
    a_read_starts_after_a_seq_and_stops_at_its_limits
    writes_of_a_batch_are_carried_out_in_order
    what_is_not_there_is_deleted_charged_and_buried_without_an_error
    an_append_never_overwrites_a_row
    a_seq_beyond_the_largest_is_refused_and_the_largest_is_not
    failed_rounds_mark_a_row_and_charge_it_if_asked
    a_dead_letter_leaves_the_rows_and_is_kept_with_its_reason
    a_requeued_dead_letter_is_back_in_its_place_without_charges_and_announced_once
    a_dropped_dead_letter_is_gone
    the_largest_seq_outlives_its_row
    a_users_cap_on_rows_refuses_and_evicts_nothing
    a_users_cap_on_bytes_counts_group_messages_too
    the_stores_cap_on_rows_counts_all_users_and_dead_letters
    the_stores_cap_on_bytes_counts_a_group_message_once
    a_refused_append_does_not_undo_the_others_and_binds_no_name
    a_binding_is_committed_with_the_first_message
    a_binding_never_takes_anothers_id_or_name
    users_are_found_by_name_within_their_tenant
    members_are_those_of_the_group_and_nobody_of_an_unknown_one
    old_messages_expire_into_dead_letters_and_others_do_not
    without_an_age_limit_nothing_expires
    everything_is_there_after_a_restart
    a_group_message_serves_each_recipient_until_he_is_done
    a_message_to_the_public_room_is_never_stored
    tenants_are_found_by_both_of_their_names
    a_name_means_a_user_then_a_group_and_each_by_name_before_number
    users_are_found_by_phone_and_bindings_need_no_message
    contacts_are_directed_and_adding_and_removing_may_be_repeated
    contacts_are_bounded
    a_group_gets_the_name_or_number_it_asks_for_or_a_free_one
    a_groups_maker_owns_it_and_unknown_users_are_left_out
    users_without_a_name_are_shown_by_their_number
    joining_is_open_and_leaving_may_be_repeated
    a_group_passes_to_its_oldest_member_and_ends_with_the_last
    groups_are_bounded_and_nothing_is_left_of_one_that_was_refused
    a_user_is_in_a_bounded_number_of_groups
    members_of_a_large_group_are_not_listed
}

fn open<B: Backend>() -> B {
    B::open(NO_CAPS, None)
}

fn a_row_comes_back_as_it_was_written<B: Backend>() {
    let mut b = open::<B>();
    for (seq, body) in [(1, &b""[..]), (2, b"\0\xff"), (3, &[7; 100_000])] {
        let message = direct(user(1), seq, body);
        let write = append_message(user(1), seq, Arc::clone(&message));
        assert_eq!(b.store().write(&[write]), [OK]);
        let row = rows(b.store(), user(1)).pop().unwrap();
        assert_eq!((row.seq, row.charges, row.suspect), (seq, 0, false));
        assert_eq!(row.message, message);
    }
}

fn rows_are_read_by_seq_and_not_by_insertion<B: Backend>() {
    let mut b = open::<B>();
    b.store().write(&[append(user(1), 9, b""), append(user(1), 300, b""), append(user(1), 2, b"")]);
    b.store().write(&[append(user(1), 70_000, b""), append(user(1), 1, b"")]);
    assert_eq!(seqs(b.store(), user(1)), [1, 2, 9, 300, 70_000]);
}

fn users_and_tenants_do_not_see_each_others_rows<B: Backend>() {
    let mut b = open::<B>();
    let (low, high) = (user(0), user(u32::MAX));
    let namesake = UserKey { tenant: TenantId(u32::MAX), id: low.id };
    let all = [low, high, namesake];
    b.store().write(&all.map(|user| append(user, 5, &user.tenant.0.to_le_bytes())));
    for user in all {
        let rows = rows(b.store(), user);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].message, direct(user, 5, &user.tenant.0.to_le_bytes()));
    }
    b.store().write(&[delete(low, 5)]);
    assert_eq!((seqs(b.store(), low), seqs(b.store(), namesake)), (vec![], vec![5]));
}

fn a_read_starts_after_a_seq_and_stops_at_its_limits<B: Backend>() {
    let mut b = open::<B>();
    let writes: Vec<_> = (1..=5).map(|seq| append(user(1), seq, &[0; 10])).collect();
    b.store().write(&writes);
    let mut read = |after, rows, bytes| {
        let (rows, more) = b.store().read(user(1), after, rows, bytes).unwrap();
        (rows.iter().map(|row| row.seq).collect::<Vec<_>>(), more)
    };
    assert_eq!(read(0, 5, 50), (vec![1, 2, 3, 4, 5], false));
    assert_eq!(read(2, 9, 99), (vec![3, 4, 5], false));
    assert_eq!(read(5, 9, 99), (vec![], false));
    assert_eq!(read(0, 2, 99), (vec![1, 2], true));
    assert_eq!(read(0, 9, 49), (vec![1, 2, 3, 4], true));
    assert_eq!(read(0, 9, 20), (vec![1, 2], true));
    assert_eq!(read(0, 9, 19), (vec![1], true));
    assert_eq!(read(0, 9, 0), (vec![1], true), "the first row is never too large");
    assert_eq!(read(0, 0, 99), (vec![], true));
    assert_eq!(read(5, 0, 99), (vec![], false));
    assert_eq!(read(SEQ_MAX, 9, 99), (vec![], false));
    assert_eq!(read(u64::MAX, 9, 99), (vec![], false));
}

fn writes_of_a_batch_are_carried_out_in_order<B: Backend>() {
    let mut b = open::<B>();
    let results = b.store().write(&[
        append(user(1), 1, b"first"),
        delete(user(1), 1),
        append(user(1), 2, b"second"),
        failed(user(1), 2, true),
        delete(user(1), 3),
        append(user(1), 3, b"third"),
    ]);
    assert_eq!(results, [OK; 6]);
    let rows = rows(b.store(), user(1));
    assert_eq!(rows.iter().map(|row| (row.seq, row.charges)).collect::<Vec<_>>(), [(2, 1), (3, 0)]);
}

fn what_is_not_there_is_deleted_charged_and_buried_without_an_error<B: Backend>() {
    let mut b = open::<B>();
    for seq in [1, SEQ_MAX, u64::MAX] {
        let writes = [delete(user(1), seq), failed(user(1), seq, true), dead(user(1), seq)];
        assert_eq!(b.store().write(&writes), [OK; 3]);
    }
    assert_eq!(b.dead_letters(), []);
    assert_eq!(b.store().write(&[]), []);
    assert_eq!(b.store().max_seq(), Ok(0));
}

fn an_append_never_overwrites_a_row<B: Backend>() {
    let mut b = B::open(Caps { user_rows: 1, ..NO_CAPS }, None);
    let first = append(user(1), 1, b"kept");
    let other = append_message(user(1), 1, direct(user(1), 2, b"other"));
    assert_eq!(b.store().write(&[first, other]), [OK, FULL]);
    let again = append(user(1), 1, b"kept");
    assert_eq!(b.store().write(&[again]), [OK], "the same message again, even at the cap");
    assert_eq!(rows(b.store(), user(1))[0].message, direct(user(1), 1, b"kept"));
    b.store().write(&[delete(user(1), 1)]);
    assert_eq!(b.store().write(&[append(user(1), 2, b"")]), [OK], "it was counted once");
}

fn a_seq_beyond_the_largest_is_refused_and_the_largest_is_not<B: Backend>() {
    let mut b = open::<B>();
    let writes = [append(user(1), SEQ_MAX + 1, b""), append(user(1), u64::MAX, b"")];
    assert_eq!(b.store().write(&writes), [FULL; 2]);
    assert_eq!(b.store().write(&[append(user(1), SEQ_MAX, b"")]), [OK]);
    assert_eq!(seqs(b.store(), user(1)), [SEQ_MAX]);
    assert_eq!(b.store().max_seq(), Ok(SEQ_MAX));
}

fn failed_rounds_mark_a_row_and_charge_it_if_asked<B: Backend>() {
    let mut b = open::<B>();
    b.store().write(&[append(user(1), 1, b""), append(user(1), 2, b"")]);
    b.store().write(&[failed(user(1), 1, false)]);
    let marks = |b: &mut B| {
        let rows = rows(b.store(), user(1));
        rows.iter().map(|row| (row.charges, row.suspect)).collect::<Vec<_>>()
    };
    assert_eq!(marks(&mut b), [(0, true), (0, false)]);
    b.store().write(&[failed(user(1), 1, true), failed(user(1), 1, true)]);
    assert_eq!(marks(&mut b), [(2, true), (0, false)]);
    let many: Vec<_> = (0..300).map(|_| failed(user(1), 2, true)).collect();
    b.store().write(&many);
    assert_eq!(marks(&mut b), [(2, true), (255, true)], "the count stops at its end");
}

fn a_dead_letter_leaves_the_rows_and_is_kept_with_its_reason<B: Backend>() {
    let mut b = open::<B>();
    b.store().write(&[append(user(1), 1, b"poison"), append(user(1), 2, b"fine")]);
    assert_eq!(b.store().write(&[dead(user(1), 1), dead(user(1), 1)]), [OK; 2]);
    assert_eq!(seqs(b.store(), user(1)), [2]);
    let letter = (user(1), 1, "poison".to_owned(), direct(user(1), 1, b"poison"));
    assert_eq!(b.dead_letters(), [letter]);
    b.store().write(&[delete(user(1), 1)]);
    assert_eq!(b.dead_letters().len(), 1, "a late acknowledgement finds no row");
}

fn a_requeued_dead_letter_is_back_in_its_place_without_charges_and_announced_once<B: Backend>() {
    let mut b = B::open(Caps { user_rows: 2, ..NO_CAPS }, None);
    b.store().write(&[append(user(1), 1, b"x"), append(user(1), 3, b"")]);
    b.store().write(&[failed(user(1), 1, true), dead(user(1), 1), append(user(1), 4, b"")]);
    assert_eq!(b.store().take_requeued(), Ok(vec![]));
    assert!(b.requeue(user(1), 1), "even above the cap");
    assert!(!b.requeue(user(1), 1), "it is no dead letter any more");
    let back = rows(b.store(), user(1));
    assert_eq!(back.iter().map(|row| row.seq).collect::<Vec<_>>(), [1, 3, 4]);
    assert_eq!((back[0].charges, back[0].suspect), (0, false));
    assert_eq!(back[0].message, direct(user(1), 1, b"x"));
    assert_eq!(b.dead_letters(), []);
    assert_eq!(b.store().take_requeued(), Ok(vec![user(1)]));
    assert_eq!(b.store().take_requeued(), Ok(vec![]));
    let results = b.store().write(&[delete(user(1), 3), append(user(1), 5, b"")]);
    assert_eq!(results, [OK, FULL], "it counts again");
}

fn a_dropped_dead_letter_is_gone<B: Backend>() {
    let mut b = B::open(Caps { store_rows: 1, ..NO_CAPS }, None);
    b.store().write(&[append(user(1), 1, b""), dead(user(1), 1)]);
    assert_eq!(b.store().write(&[append(user(1), 2, b"")]), [FULL]);
    assert!(b.drop_dead(user(1), 1));
    assert!(!b.drop_dead(user(1), 1));
    assert_eq!(b.dead_letters(), []);
    assert_eq!(b.store().write(&[append(user(1), 2, b"")]), [OK], "and counts no more");
}

fn the_largest_seq_outlives_its_row<B: Backend>() {
    let mut b = open::<B>();
    assert_eq!(b.store().max_seq(), Ok(0));
    b.store().write(&[append(user(1), 7, b""), append(user(2), 5, b"")]);
    assert_eq!(b.store().max_seq(), Ok(7));
    b.store().write(&[dead(user(1), 7), append(user(3), 8, b""), delete(user(3), 8)]);
    assert_eq!(b.store().max_seq(), Ok(8));
    let mut b = b.restart();
    assert_eq!(b.store().max_seq(), Ok(8));
}

fn a_users_cap_on_rows_refuses_and_evicts_nothing<B: Backend>() {
    let mut b = B::open(Caps { user_rows: 2, ..NO_CAPS }, None);
    let writes: Vec<_> = (1..=4).map(|seq| append(user(1), seq, b"")).collect();
    assert_eq!(b.store().write(&writes), [OK, OK, FULL, FULL]);
    assert_eq!(b.store().write(&[append(user(2), 3, b"")]), [OK], "another user has his own");
    assert_eq!(b.store().write(&[delete(user(1), 1), append(user(1), 5, b"")]), [OK, OK]);
    assert_eq!(b.store().write(&[dead(user(1), 5), append(user(1), 6, b"")]), [OK, OK]);
    assert_eq!(seqs(b.store(), user(1)), [2, 6]);
    let mut b = b.restart();
    assert_eq!(b.store().write(&[append(user(1), 7, b"")]), [FULL]);
}

fn a_users_cap_on_bytes_counts_group_messages_too<B: Backend>() {
    let mut b = B::open(Caps { user_bytes: 10, ..NO_CAPS }, None);
    let shared = to_group(1, group(1), &[0; 6]);
    let writes = [
        append_message(user(1), 1, Arc::clone(&shared)),
        append_message(user(2), 1, shared),
        append(user(1), 2, &[0; 5]),
        append(user(1), 3, &[0; 4]),
        append(user(1), 4, &[0; 1]),
        append(user(1), 5, b""),
    ];
    assert_eq!(b.store().write(&writes), [OK, OK, FULL, OK, FULL, OK]);
    b.store().write(&[delete(user(1), 1)]);
    assert_eq!(b.store().write(&[append(user(1), 6, &[0; 6])]), [OK]);
}

fn the_stores_cap_on_rows_counts_all_users_and_dead_letters<B: Backend>() {
    let mut b = B::open(Caps { store_rows: 3, ..NO_CAPS }, None);
    let writes: Vec<_> = (1..=4).map(|n| append(user(n), 1, b"")).collect();
    assert_eq!(b.store().write(&writes), [OK, OK, OK, FULL]);
    assert_eq!(b.store().write(&[dead(user(1), 1), append(user(4), 1, b"")]), [OK, FULL]);
    assert_eq!(b.store().write(&[delete(user(2), 1), append(user(4), 1, b"")]), [OK, OK]);
    let mut b = b.restart();
    assert_eq!(b.store().write(&[append(user(5), 1, b"")]), [FULL]);
}

fn the_stores_cap_on_bytes_counts_a_group_message_once<B: Backend>() {
    let mut b = B::open(Caps { store_bytes: 10, ..NO_CAPS }, None);
    let shared = to_group(1, group(1), &[0; 6]);
    let to = |n| append_message(user(n), 1, Arc::clone(&shared));
    let writes = [to(1), to(2), to(3), append(user(4), 1, &[0; 5]), append(user(4), 2, &[0; 4])];
    assert_eq!(b.store().write(&writes), [OK, OK, OK, FULL, OK]);
    assert_eq!(b.store().write(&[to(5)]), [OK], "a full store takes a row without a new body");
    let writes = [dead(user(1), 1), delete(user(2), 1), delete(user(3), 1), delete(user(5), 1)];
    b.store().write(&writes);
    assert_eq!(b.store().write(&[append(user(4), 3, &[0; 1])]), [FULL], "a dead letter holds it");
    assert!(b.drop_dead(user(1), 1));
    assert_eq!(b.store().write(&[append(user(4), 3, &[0; 6])]), [OK]);
}

fn a_refused_append_does_not_undo_the_others_and_binds_no_name<B: Backend>() {
    let mut b = B::open(Caps { user_rows: 1, ..NO_CAPS }, None);
    let writes =
        [append(user(1), 1, b""), bound(user(1), 2, b"refused"), bound(user(2), 3, b"taken")];
    assert_eq!(b.store().write(&writes), [OK, FULL, OK]);
    assert_eq!(b.store().name_of(user(1)), Ok(None));
    assert_eq!(b.store().name_of(user(2)), Ok(Some(Box::from(*b"taken"))));
    assert_eq!(seqs(b.store(), user(1)), [1]);
}

fn a_binding_is_committed_with_the_first_message<B: Backend>() {
    let mut b = open::<B>();
    let name = b"\xff\0name";
    assert_eq!(b.store().write(&[bound(user(1), 1, name)]), [OK]);
    let mut b = b.restart();
    let found = b.store().user_by_name(TenantId(0), name).unwrap();
    let bound = StoredUser { id: UserId(1), name: (*name).into(), password_hash: String::new() };
    assert_eq!(found, Some(bound));
    assert_eq!(b.store().name_of(user(1)), Ok(Some(Box::from(*name))));
}

fn a_binding_never_takes_anothers_id_or_name<B: Backend>() {
    let mut b = open::<B>();
    assert!(b.add_user(user(1), b"alice", "hash"));
    let writes = [bound(user(1), 1, b"mallory"), bound(user(2), 2, b"alice")];
    assert_eq!(b.store().write(&writes), [OK, OK], "the messages are kept all the same");
    let name = Box::from(*b"alice");
    let alice = StoredUser { id: UserId(1), name, password_hash: "hash".to_owned() };
    assert_eq!(b.store().user_by_name(TenantId(0), b"alice"), Ok(Some(alice)));
    assert_eq!(b.store().user_by_name(TenantId(0), b"mallory"), Ok(None));
    assert_eq!(b.store().name_of(user(2)), Ok(None));
}

fn users_are_found_by_name_within_their_tenant<B: Backend>() {
    let mut b = open::<B>();
    let elsewhere = UserKey { tenant: TenantId(1), id: UserId(1) };
    assert!(b.add_user(user(1), b"alice", "one"));
    assert!(b.add_user(elsewhere, b"alice", "two"));
    assert!(!b.add_user(user(2), b"alice", "three"), "the name is taken");
    assert!(!b.add_user(user(1), b"bob", "three"), "the id is taken");
    let hash = |b: &mut B, tenant, name: &[u8]| {
        b.store().user_by_name(TenantId(tenant), name).unwrap().map(|user| user.password_hash)
    };
    assert_eq!(hash(&mut b, 0, b"alice").as_deref(), Some("one"));
    assert_eq!(hash(&mut b, 1, b"alice").as_deref(), Some("two"));
    assert_eq!(hash(&mut b, 2, b"alice"), None);
    assert_eq!(hash(&mut b, 0, b"Alice"), None, "compared exactly");
    assert_eq!(b.store().name_of(user(7)), Ok(None));
    for (tenant, name, id, found) in [
        (0, &b"alice"[..], 1, (Some(UserId(1)), true)),
        (0, b"alice", 7, (Some(UserId(1)), false)),
        (0, b"bob", 1, (None, true)),
        (0, b"bob", 7, (None, false)),
        (2, b"alice", 1, (None, false)),
    ] {
        assert_eq!(b.store().name_and_id(TenantId(tenant), name, UserId(id)), Ok(found));
    }
}

fn members_are_those_of_the_group_and_nobody_of_an_unknown_one<B: Backend>() {
    let mut b = open::<B>();
    b.set_members(group(1), &[UserId(3), UserId(u32::MAX), UserId(3)]);
    b.set_members(group(2), &[]);
    let members = |b: &mut B, id| {
        let mut members = b.store().members(group(id)).unwrap().to_vec();
        members.sort_unstable();
        members
    };
    assert_eq!(members(&mut b, 1), [UserId(3), UserId(u32::MAX)]);
    assert_eq!(members(&mut b, 2), []);
    assert_eq!(members(&mut b, 3), []);
}

fn old_messages_expire_into_dead_letters_and_others_do_not<B: Backend>() {
    let mut b = B::open(NO_CAPS, Some(500));
    let shared = to_group(1, group(1), b"shared");
    b.store().write(&[append(user(1), 1, b"x"), append_message(user(2), 1, shared)]);
    assert_eq!(b.store().expire(1_500), Ok(0), "just at the limit");
    assert_eq!(b.store().expire(1_501), Ok(2));
    assert_eq!(b.store().expire(1_501), Ok(0));
    assert_eq!((seqs(b.store(), user(1)), seqs(b.store(), user(2))), (vec![], vec![]));
    let letters = b.dead_letters();
    assert_eq!(
        letters.iter().map(|l| (l.0, &*l.2)).collect::<Vec<_>>(),
        [(user(1), "expired"), (user(2), "expired")]
    );
    assert_eq!(b.store().expire(0), Ok(0));
}

fn without_an_age_limit_nothing_expires<B: Backend>() {
    let mut b = open::<B>();
    b.store().write(&[append(user(1), 1, b"x")]);
    assert_eq!(b.store().expire(u64::MAX), Ok(0));
    assert_eq!(seqs(b.store(), user(1)), [1]);
}

fn everything_is_there_after_a_restart<B: Backend>() {
    let mut b = open::<B>();
    b.add_user(user(1), b"alice", "hash");
    b.set_members(group(1), &[UserId(1)]);
    let shared = to_group(u128::MAX, group(1), b"shared");
    b.store().write(&[
        append(user(1), 1, b"one"),
        append_message(user(1), 2, Arc::clone(&shared)),
        append(user(1), 3, b"dead"),
        append(user(1), 4, b"deleted"),
        failed(user(1), 1, true),
        dead(user(1), 3),
        delete(user(1), 4),
    ]);
    let mut b = b.restart();
    let rows = rows(b.store(), user(1));
    assert_eq!(rows.iter().map(|r| (r.seq, r.charges)).collect::<Vec<_>>(), [(1, 1), (2, 0)]);
    assert_eq!(rows[1].message, shared);
    assert_eq!(b.dead_letters().len(), 1);
    assert_eq!(&*b.store().members(group(1)).unwrap(), [UserId(1)]);
    assert!(b.store().user_by_name(TenantId(0), b"alice").unwrap().is_some());
    assert_eq!(b.store().changed(), Ok(false), "what is there at the start is no change");
}

fn a_group_message_serves_each_recipient_until_he_is_done<B: Backend>() {
    let mut b = open::<B>();
    let shared = to_group(5, group(1), &[1; 5_000]);
    let writes: Vec<_> =
        (1..=3).map(|n| append_message(user(n), u64::from(n), Arc::clone(&shared))).collect();
    b.store().write(&writes[..2]);
    b.store().write(&writes[2..]);
    b.store().write(&[delete(user(1), 1), dead(user(2), 2)]);
    assert_eq!(rows(b.store(), user(3))[0].message, shared);
    assert_eq!(b.dead_letters()[0].3, shared);
    b.store().write(&[delete(user(3), 3)]);
    assert!(b.requeue(user(2), 2));
    assert_eq!(rows(b.store(), user(2))[0].message, shared);
    b.store().write(&[delete(user(2), 2), append_message(user(1), 9, Arc::clone(&shared))]);
    assert_eq!(rows(b.store(), user(1))[0].message, shared, "gone and back in one batch");
    b.store().write(&[delete(user(1), 9)]);
    assert_eq!(seqs(b.store(), user(1)), [0; 0]);
}
