//! How a publish or a delivery ended, in one word.

use codec::Failure;
use storage::StoreError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A terminal has acknowledged it, or there is nobody it is for.
    Safe,
    /// It is safe because it is committed; of a group message, for some member at least.
    Stored,
    /// It is not taken over; the sender still has it.
    Refused(Failure),
}

impl Outcome {
    /// Neither delivered nor stored, for a reason that may pass.
    pub(crate) const FAILED: Self = Self::Refused(Failure::Busy);

    pub(crate) fn is_safe(self) -> bool {
        matches!(self, Self::Safe | Self::Stored)
    }
}

impl From<Result<(), StoreError>> for Outcome {
    fn from(result: Result<(), StoreError>) -> Self {
        match result {
            Ok(()) => Self::Stored,
            Err(StoreError::Full) => Self::Refused(Failure::TooMany),
            Err(StoreError::Unavailable) => Self::FAILED,
        }
    }
}
