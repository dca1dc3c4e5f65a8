//! Modules that must not be approved, releases that must not be done, and what comes after.

use super::{Batch, KERNEL_FETCH, Needs, Row, Trace, WRITE};

pub(super) const EPERM: i64 = -1;
const ENOENT: i64 = -2;
pub(super) const EFAULT: i64 = -14;
const EBUSY: i64 = -16;
pub(super) const EINVAL: i64 = -22;

/// Said where bytes differ; what follows is told by the guest, which knows the field.
const FIELD: &str = ": expected ";
const WINDOW: &str = "outside the window for modules";
const SIZE: &str = "not the size that the list says";
const NO_DATA: &str = "frames that are no data, or come twice: 0x1";
const UNMAPPED: &str = "no memory is mapped at: 0x";
const UNKNOWN: &str = "not on the approval list";
const BUSY: &str = "approved already, or in the way";

/// The base is the kernel's choice, and what follows from it lies in approved bytes.
const PLANTED: Option<&str> =
    Some("control flow inside approved code: an address that a module holds is jumped into");

pub(super) const fn row(name: &'static str, trace: Trace) -> Row {
    Row { batch: Batch::Modules, ..Row::new(name, trace) }
}

/// A call that fails, with this in the log, and then the module is run.
pub(super) const fn refused(name: &'static str, errno: i64, log: &'static str) -> Row {
    row(name, Trace::Call { errno, log, then: "kernel-fetch" })
}

/// A call that fails without a line of its own: the descriptor is none, or nothing is to be released.
pub(super) const fn failed(name: &'static str, errno: i64) -> Row {
    refused(name, errno, "")
}

/// A release that fails, and then what was to be released is written.
const fn kept(name: &'static str, errno: i64) -> Row {
    row(name, Trace::Call { errno, log: "", then: "write" })
}

pub(super) const ROWS: &[Row] = &[
    refused("module-flip-text", EPERM, "alpha/core: section .text: approved SHA-256"),
    refused("module-flip-text-page", EPERM, "alpha/core: section .text: approved SHA-256"),
    refused("module-flip-unlikely", EPERM, "alpha/core: section .text.unlikely: approved SHA-256"),
    refused("module-flip-exit", EPERM, "alpha/core: section .exit.text: approved SHA-256"),
    refused("module-flip-init", EPERM, "alpha/init: section .init.text: approved SHA-256"),
    refused("module-flip-init-more", EPERM, "alpha/init: section .init.text.more: approved"),
    refused("module-aim-64", EPERM, FIELD).only(Needs::LongMode),
    refused("module-aim-pc32", EPERM, FIELD),
    refused("module-aim-plt32", EPERM, FIELD),
    refused("module-aim-32s", EPERM, FIELD).only(Needs::LongMode),
    refused("module-aim-32", EPERM, FIELD),
    refused("module-aim-page-border", EPERM, FIELD),
    refused("module-aim-init", EPERM, FIELD),
    refused("module-aim-init-to-core", EPERM, FIELD),
    refused("module-aim-init-to-data", EPERM, FIELD),
    refused("module-aim-other-module", EPERM, FIELD),
    failed("module-base-unaligned", EINVAL),
    refused("module-base-zero", EINVAL, WINDOW),
    refused("module-base-outside", EINVAL, WINDOW),
    refused("module-base-end", EINVAL, WINDOW),
    refused("module-base-non-canonical", EINVAL, WINDOW),
    refused("module-base-unmapped", EFAULT, UNMAPPED),
    refused("module-base-other", EPERM, FIELD),
    refused("module-init-base-wrong", EPERM, FIELD),
    refused("module-init-base-zero", ENOENT, "it needs alpha, which is not approved now"),
    refused("module-init-base-outside", EINVAL, WINDOW),
    refused("module-core-base-wrong", ENOENT, "no core approved at its base"),
    refused("module-init-first", ENOENT, "no core approved at its base"),
    refused("module-name-other", EPERM, "beta/core: "),
    refused("module-name-unknown", EPERM, UNKNOWN),
    refused("module-name-empty", EPERM, UNKNOWN),
    refused("module-name-no-text", EPERM, UNKNOWN),
    refused("module-name-kernel", EPERM, UNKNOWN),
    refused("module-core-as-init", EPERM, "gamma/init: section .init.text: approved SHA-256"),
    refused("module-length-zero", EINVAL, SIZE),
    refused("module-length-shorter", EINVAL, SIZE),
    refused("module-length-longer", EINVAL, SIZE),
    failed("module-length-wrap", EINVAL),
    refused("module-page-text", EFAULT, NO_DATA),
    refused("module-page-hidden", EFAULT, NO_DATA),
    refused("module-page-local-apic", EFAULT, NO_DATA),
    refused("module-page-device", EFAULT, NO_DATA),
    refused("module-page-beyond", EFAULT, NO_DATA).only(Needs::WideEntries),
    refused("module-page-far-beyond", EFAULT, UNMAPPED).only(Needs::WideEntries),
    refused("module-page-unmapped", EFAULT, UNMAPPED),
    refused("module-page-twice", EFAULT, NO_DATA),
    refused("module-page-own-table", EPERM, "alpha/core: "),
    refused("module-page-zero", EPERM, "alpha/core: "),
    refused("module-page-approved", EFAULT, NO_DATA),
    refused("module-dependency-missing", ENOENT, "it needs alpha, which is not approved now"),
    refused("module-dependency-moved", EPERM, FIELD),
    refused("module-approved-twice", EBUSY, BUSY),
    refused("module-overlap", EBUSY, BUSY),
    failed("release-unapproved", ENOENT),
    kept("release-kernel-text", EPERM),
    kept("release-kernel-text-as-init", EPERM),
    kept("release-hidden", ENOENT),
    kept("release-inside", ENOENT),
    kept("release-other-size", EINVAL),
    failed("release-twice", ENOENT),
    failed("release-init-twice", ENOENT),
    row("module-released", KERNEL_FETCH),
    row("module-released-init", KERNEL_FETCH),
    row("module-repointed", KERNEL_FETCH),
    row("module-data", KERNEL_FETCH),
    // What no section fills is INT3 once it is approved.
    row("module-slack", Trace::Nothing),
    row("module-gap", Trace::Nothing),
    refused("list-edited", EPERM, FIELD),
    row("module-init-claimed", KERNEL_FETCH),
    row("module-core-gone", KERNEL_FETCH),
    Row { not_promised: PLANTED, ..row("module-planted", KERNEL_FETCH) },
    row("module-write", WRITE),
    row("module-write-init", WRITE),
    row("module-write-identity", WRITE),
    row("module-write-large", WRITE),
    row("module-write-huge", WRITE).only(Needs::LongMode),
    row("module-write-user", WRITE),
];
