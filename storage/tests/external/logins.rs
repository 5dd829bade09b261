//! A login with number and password, as an HTTP face takes it through its steps.

#![allow(dead_code, reason = "each test program uses a part")]

use std::sync::Arc;

use storage::Accounts;
use storage::accounts::{Account, PhoneLogin, Refusal};
use storage::auth::Verified;

/// Who came in, and how often his password was verified for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entered {
    pub(crate) account: Account,
    pub(crate) checks: u32,
}

pub(crate) fn log_in(
    accounts: &mut dyn Accounts,
    verified: &Arc<Verified>,
    phone: &str,
    password: &str,
) -> Result<Entered, Refusal> {
    let mut login = PhoneLogin::new(Arc::clone(verified), phone.as_bytes(), password.as_bytes());
    for checks in 0..2 {
        if let Some(account) = login.enter(accounts).expect("the store works") {
            return Ok(Entered { account, checks });
        }
        if let Some(refusal) = login.check() {
            return Err(refusal);
        }
    }
    panic!("right, but not let in");
}
