//! How the process ends: exit codes, and the text that goes with a failure.
//!
//! Owns: the codes documented in `main.rs`. Never: decisions.

use std::fmt;
use std::process::ExitCode;

use crate::config::ConfigErrors;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The configuration is wrong: exit code 78.
    Config(String),
    /// Anything else: exit code 1.
    Other(String),
}

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self::Other(text.into())
    }

    /// `what` failed because of `error`.
    pub(crate) fn other(what: &str, error: impl fmt::Display) -> Self {
        Self::Other(format!("{what}: {error}"))
    }

    pub(crate) fn code(&self) -> ExitCode {
        match self {
            Self::Config(_) => ExitCode::from(EX_CONFIG),
            Self::Other(_) => ExitCode::FAILURE,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Each line starts with its own file, as editors want it.
            Self::Config(text) => f.write_str(text),
            Self::Other(text) => write!(f, "ringpost: {text}"),
        }
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::Config(errors.to_string())
    }
}

/// `EX_CONFIG` of sysexits.h: systemd and scripts can tell it from a crash.
const EX_CONFIG: u8 = 78;
