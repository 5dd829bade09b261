//! Users of our own, with hashed passwords.
//!
//! Owns: argon2id hashes in PHC form, made for the command line and verified at login; hashes that
//! came from other systems, verified only. Never: plain passwords at rest. An unknown user costs
//! the same time as a wrong password.
//!
//! ```text
//!   $argon2id$v=19$m=19456,t=2,p=1$<salt>$<hash>   ours
//!   $simple-im-md5$<salt>$<hex>                    MD5(password, salt) of simple_im
//! ```

use std::sync::OnceLock;

use argon2::password_hash::{PasswordHash, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
use codec::UserKey;
use md5::{Digest as _, Md5};
use subtle::ConstantTimeEq as _;

use super::{Authenticator, UserDirectory};
use crate::request::{AuthRequest, AuthVerdict, Proof, StoreError};

/// Verifies passwords against the hashes in a directory.
pub struct Local {
    directory: Box<dyn UserDirectory>,
}

impl Local {
    pub fn new(directory: Box<dyn UserDirectory>) -> Self {
        // Made now, so that the first unknown user is not slower than the next.
        decoy();
        Self { directory }
    }
}

impl Local {
    fn check(&mut self, request: &AuthRequest) -> Result<AuthVerdict, StoreError> {
        let Some(tenant) = self.directory.tenant(&request.tenant)? else {
            return Ok(AuthVerdict::UnknownTenant);
        };
        let user = match request.proof {
            Proof::Password(_) => self.directory.find(tenant, &request.name)?,
            Proof::Phone(_) => self.directory.find_by_phone(tenant, &request.name)?,
            Proof::Token(_) | Proof::Nothing => return Ok(AuthVerdict::Denied),
        };
        let hash = user.as_ref().map(|user| &*user.password_hash);
        match (verify_password(request.proof.secret(), hash), user) {
            (true, Some(user)) => {
                let name = Some(user.name).filter(|name| *name != request.name).map(Into::into);
                Ok(AuthVerdict::Pass { user: UserKey { tenant, id: user.id }, name })
            }
            _ => Ok(AuthVerdict::Denied),
        }
    }
}

impl Authenticator for Local {
    fn authenticate(&mut self, request: &AuthRequest) -> AuthVerdict {
        self.check(request).unwrap_or(AuthVerdict::Unavailable)
    }
}

/// The PHC string (`$argon2id$v=19$m=19456,t=2,p=1$salt$hash`) to keep for a new password, under a
/// fresh random salt.
///
/// # Panics
/// If the operating system has no randomness.
pub fn hash_password(password: &[u8]) -> String {
    let salt: [u8; SALT_LEN] = random();
    let salt = SaltString::encode_b64(&salt).expect("16 bytes are a valid salt");
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("constants within bounds");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password(password, &salt)
        .expect("valid parameters and a password below 4 GiB")
        .to_string()
}

/// Whether `password` is the one that `hash` was made from. Without a hash (nobody is called so, or
/// an empty one: nothing is right) it costs as much as with one.
pub fn verify_password(password: &[u8], hash: Option<&str>) -> bool {
    let hash = hash.unwrap_or_default();
    let argon2 = Argon2::default();
    let foreign = verify_md5(password, hash);
    match PasswordHash::new(hash) {
        Ok(hash) if foreign.is_none() && affordable(&hash) => {
            argon2.verify_password(password, &hash).is_ok()
        }
        // Foreign, absurd or none at all: at the usual cost.
        _ => {
            let decoy = PasswordHash::new(decoy()).expect("made by hash_password");
            let _ = argon2.verify_password(password, &decoy);
            foreign.unwrap_or(false)
        }
    }
}

/// `None`: it is no such hash.
fn verify_md5(password: &[u8], hash: &str) -> Option<bool> {
    let (salt, hex) = hash.strip_prefix(MD5_FORM)?.rsplit_once('$')?;
    let digest = Md5::new().chain_update(password).chain_update(salt).finalize();
    let found: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(bool::from(found.as_bytes().ct_eq(hex.as_bytes())))
}

/// Hashes come from an operator's database, but one bad row shall not take the memory of the host.
fn affordable(hash: &PasswordHash<'_>) -> bool {
    Params::try_from(hash)
        .is_ok_and(|params| params.m_cost() <= MEMORY_KIB_MAX && params.t_cost() <= PASSES_MAX)
}

/// The hash of a password nobody knows.
pub(super) fn decoy() -> &'static str {
    static DECOY: OnceLock<String> = OnceLock::new();
    DECOY.get_or_init(|| hash_password(&random::<32>()))
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    bytes
}

/// 19 MiB, two passes, one lane: the smallest of the equivalent settings that OWASP's password
/// storage advice lists for argon2id, some 15 ms of one core. Each auth thread holds one at a time.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const SALT_LEN: usize = 16;

/// Before the salt, which is kept as text.
const MD5_FORM: &str = "$simple-im-md5$";

/// 256 MiB and 16 passes: several seconds of a core, more than anybody means.
const MEMORY_KIB_MAX: u32 = 256 * 1024;
const PASSES_MAX: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_a_salted_phc_string_with_the_documented_parameters() {
        let one = hash_password(b"secret");
        let two = hash_password(b"secret");
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
        assert_ne!(one, two, "the salt is fresh");
        let right = |hash: &str| verify_password(b"secret", Some(hash));
        assert!(right(&one) && right(&two));
        assert!(!verify_password(b"Secret", Some(&one)) && !verify_password(b"", Some(&one)));
        assert!(!verify_password(b"secret", None));
    }

    #[test]
    fn a_hash_of_another_form_or_of_absurd_cost_never_verifies() {
        let good = hash_password(b"secret");
        let right = |hash: &str| verify_password(b"secret", Some(hash));
        for hash in ["", "secret", "5ebe2294ecd0e0f08eab7690d2a6ee69", "$argon2id$", "$1$a$b"] {
            assert!(!right(hash), "{hash}");
        }
        assert!(!right(&good.replace("m=19456", "m=4000000000")));
        assert!(!right(&good.replace("t=2", "t=1000000")));
    }

    #[test]
    fn a_hash_of_simple_im_is_the_md5_of_password_and_salt() {
        // printf 888888c2FsdHNhbHRzYWx0 | md5sum
        let hash = "$simple-im-md5$c2FsdHNhbHRzYWx0$e17a95830288e2f1d1973884327d9aa6";
        assert!(verify_password(b"888888", Some(hash)));
        for wrong in [&b"88888"[..], b"", b"888888c2FsdHNhbHRzYWx0"] {
            assert!(!verify_password(wrong, Some(hash)));
        }
        let truncated = &hash[..hash.len() - 1];
        for bad in [truncated, "$simple-im-md5$", "$simple-im-md5$$", "$simple-im-md5$salt"] {
            assert!(!verify_password(b"888888", Some(bad)), "{bad}");
        }
    }
}
