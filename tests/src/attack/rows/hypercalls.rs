//! Calls to SecVisor that are none.

use super::modules::{EFAULT, EINVAL, failed};
use super::{Needs, Row};

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
];
