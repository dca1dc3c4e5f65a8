//! Why a unit was not approved, for the log.

use core::fmt;

use crate::approval::{Hex, Mismatch};
use crate::hypercall::Error;

/// Why a unit was not approved.
#[derive(Debug)]
pub struct Refused<'a> {
    /// What the guest is told.
    pub error: Error,
    pub(super) reason: Reason<'a>,
}

#[derive(Debug)]
pub(super) enum Reason<'a> {
    Value(&'static str, u64),
    Missing(&'a str),
    Hash(Mismatch<'a>),
    Field { section: &'a str, offset: u32, width: usize, expected: [u8; 8], found: [u8; 8] },
}

impl fmt::Display for Refused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Reason::Value(what, value) => write!(f, "{what}: {value:#x}"),
            Reason::Missing(module) => write!(f, "it needs {module}, which is not approved now"),
            Reason::Hash(mismatch) => mismatch.fmt(f),
            Reason::Field { section, offset, width, expected, found } => {
                let [expected, found] =
                    [expected, found].map(|b| Hex(b.get(..*width).unwrap_or(b)));
                write!(f, "{section}+{offset:#x}: expected {expected}, found {found}")
            }
        }
    }
}

/// A refusal for a wrong value.
pub(super) fn refused<'a>(error: Error, what: &'static str, value: u64) -> Refused<'a> {
    Refused { error, reason: Reason::Value(what, value) }
}
