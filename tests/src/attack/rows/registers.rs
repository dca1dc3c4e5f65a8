//! Control registers, model-specific registers and tables of the processor.

use super::{Batch, Needs, Row, Trace};

const fn msr(name: &'static str) -> Row {
    Row::new(name, Trace::Number("msr"))
}

/// What a locked kernel tries to change.
const fn pinned(name: &'static str) -> Row {
    Row { batch: Batch::Pinned, ..Row::new(name, Trace::Number("pinned")) }
}

pub(super) const ROWS: &[Row] = &[
    msr("apic-base-move"),
    msr("msr-mtrr-base"),
    msr("msr-mtrr-mask"),
    msr("msr-mtrr-fixed"),
    msr("msr-mtrr-default"),
    msr("msr-syscfg"),
    msr("msr-hwcr"),
    msr("msr-iorr-base"),
    msr("msr-iorr-mask"),
    msr("msr-top-mem"),
    msr("msr-tom2"),
    msr("msr-patch-loader"),
    msr("msr-mmio-config"),
    msr("msr-smm-base"),
    msr("msr-smm-addr"),
    msr("msr-smm-mask"),
    msr("msr-vm-cr"),
    msr("msr-vm-hsave"),
    msr("msr-unknown"),
    pinned("lock-cr0-wp"),
    pinned("lock-cr0-wp-last"),
    pinned("lock-cr0-pg"),
    pinned("lock-cr0-pe"),
    pinned("lock-lmsw"),
    pinned("lock-cr4-smep"),
    pinned("lock-cr4-smap"),
    pinned("lock-cr4-umip"),
    Row {
        impossible: Some("64-bit code cannot change CR4.LA57"),
        ..pinned("lock-cr4-la57").only(Needs::LongMode)
    },
    pinned("lock-cr4-la57").only(Needs::ProtectedMode),
    pinned("lock-cr4-pae").only(Needs::AllButPae),
    pinned("lock-efer-nxe"),
    pinned("lock-efer-sce"),
    pinned("lock-efer-lme"),
    pinned("lock-star"),
    pinned("lock-lstar"),
    pinned("lock-cstar"),
    pinned("lock-sfmask"),
    pinned("lock-idtr"),
    msr("msr-debugctl-btf"),
    // SVM's instructions do not exist for a guest.
    Row::new("svm-clgi", Trace::Nothing),
    Row::new("svm-stgi", Trace::Nothing),
    Row::new("svm-invlpga", Trace::Nothing),
    Row { impossible: Some("QEMU has no SKINIT"), ..Row::new("svm-skinit", Trace::Nothing) },
];
