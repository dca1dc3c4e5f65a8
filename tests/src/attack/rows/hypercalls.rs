//! Calls to SecVisor that are none.

use super::modules::{EFAULT, EINVAL, EPERM, failed, refused, row};
use super::{Needs, Row, Trace, WRITE};

/// What is said of a module with a changed bit.
const CHANGED: &str = "alpha/core: section .text: approved SHA-256";

pub(super) const ROWS: &[Row] = &[
    failed("descriptor-version", EINVAL),
    failed("descriptor-kind", EINVAL),
    failed("descriptor-reserved", EINVAL),
    failed("descriptor-operation", EINVAL),
    failed("descriptor-size", EINVAL),
    failed("descriptor-unaligned", EINVAL),
    failed("descriptor-half-unmapped", EFAULT),
    failed("descriptor-local-apic", EFAULT),
    failed("descriptor-hidden", EFAULT),
    failed("descriptor-non-canonical", EFAULT).only(Needs::LongMode),
    failed("descriptor-text", EINVAL),
    failed("descriptor-rom", EFAULT),
    refused("descriptor-own-page", EPERM, CHANGED),
    // It becomes INT3 with all else that no section fills.
    row("descriptor-slack", Trace::Nothing),
    row("call-user", WRITE),
    refused("call-compatible", EPERM, CHANGED).only(Needs::LongMode),
    refused("call-unpaged", EFAULT, "frames that are no data, or come twice: 0x2")
        .only(Needs::ProtectedMode),
    refused("call-real-mode", EFAULT, "frames that are no data, or come twice: 0x2")
        .only(Needs::ProtectedMode),
];
