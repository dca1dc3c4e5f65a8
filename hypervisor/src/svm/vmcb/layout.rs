//! Offsets and sizes as the manual has them, checked when SecVisor is compiled.

use core::mem::{offset_of, size_of};

use super::{Control, Save, Vmcb};

const _: () = {
    assert!(size_of::<Control>() == 0x400 && size_of::<Vmcb>() == 4096);
    assert!(offset_of!(Control, exceptions_and_intercepts) == 0x008);
    assert!(offset_of!(Control, intercepts_high) == 0x010);
    assert!(offset_of!(Control, iopm_base) == 0x040);
    assert!(offset_of!(Control, address_space) == 0x058);
    assert!(offset_of!(Control, interrupt_shadow) == 0x068);
    assert!(offset_of!(Control, exit_interrupt_info) == 0x088);
    assert!(offset_of!(Control, nested_control) == 0x090);
    assert!(offset_of!(Control, event_injection) == 0x0A8);
    assert!(offset_of!(Control, nested_cr3) == 0x0B0);
    assert!(offset_of!(Control, clean) == 0x0C0);
    assert!(offset_of!(Control, next_rip) == 0x0C8);
    assert!(offset_of!(Save, gdtr) == 0x060);
    assert!(offset_of!(Save, tr) == 0x090);
    assert!(offset_of!(Save, cpl) == 0x0CB);
    assert!(offset_of!(Save, efer) == 0x0D0);
    assert!(offset_of!(Save, cr4) == 0x148);
    assert!(offset_of!(Save, rflags) == 0x170);
    assert!(offset_of!(Save, rsp) == 0x1D8);
    assert!(offset_of!(Save, rax) == 0x1F8);
    assert!(offset_of!(Save, cr2) == 0x240);
    assert!(offset_of!(Save, pat) == 0x268);
};
