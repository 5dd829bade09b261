//! Users of our own, with hashed passwords.
//!
//! Owns: argon2id hashes in PHC form, made for the command line and verified at login. Never:
//! plain passwords at rest. An unknown user costs the same time as a wrong password.

use std::sync::OnceLock;

use argon2::password_hash::{PasswordHash, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};

use super::{Authenticator, UserDirectory};
use crate::request::{AuthRequest, AuthVerdict};

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

impl Authenticator for Local {
    fn authenticate(&mut self, request: &AuthRequest) -> AuthVerdict {
        let Ok(user) = self.directory.find(request.tenant, &request.name) else {
            return AuthVerdict::Unavailable;
        };
        // Users that open authentication made have no password, so none is right.
        let known = user.as_ref().filter(|user| !user.password_hash.is_empty());
        let hash = match known {
            Some(user) => &user.password_hash,
            None => decoy(),
        };
        match (verify(&request.password, hash), known) {
            (true, Some(user)) => AuthVerdict::Pass(user.id),
            _ => AuthVerdict::Denied,
        }
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

fn verify(password: &[u8], hash: &str) -> bool {
    match PasswordHash::new(hash) {
        Ok(hash) if affordable(&hash) => Argon2::default().verify_password(password, &hash).is_ok(),
        // Not ours, or absurd: nothing fits, at the usual cost.
        _ => {
            let hash = PasswordHash::new(decoy()).expect("made by hash_password");
            let _ = Argon2::default().verify_password(password, &hash);
            false
        }
    }
}

/// Hashes come from an operator's database, but one bad row shall not take the memory of the host.
fn affordable(hash: &PasswordHash<'_>) -> bool {
    Params::try_from(hash)
        .is_ok_and(|params| params.m_cost() <= MEMORY_KIB_MAX && params.t_cost() <= PASSES_MAX)
}

/// The hash of a password nobody knows.
fn decoy() -> &'static str {
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
        assert!(verify(b"secret", &one) && verify(b"secret", &two));
        assert!(!verify(b"Secret", &one) && !verify(b"", &one));
    }

    #[test]
    fn a_hash_of_another_form_or_of_absurd_cost_never_verifies() {
        let good = hash_password(b"secret");
        for hash in ["", "secret", "5ebe2294ecd0e0f08eab7690d2a6ee69", "$argon2id$", "$1$a$b"] {
            assert!(!verify(b"secret", hash), "{hash}");
        }
        assert!(!verify(b"secret", &good.replace("m=19456", "m=4000000000")));
        assert!(!verify(b"secret", &good.replace("t=2", "t=1000000")));
    }
}
