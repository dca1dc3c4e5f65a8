//! Timer, interrupt controllers and the ways to end a run.

use crate::console;
use crate::cpu::{inb, inl, outb, outl};
use crate::memory::{peek32, poke32};

/// Exit code for a complete run, and for one that broke off; QEMU's status is 2n + 1.
pub const DONE: u8 = 0x10;
pub const FAILED: u8 = 0x11;

/// The local APIC's registers.
pub const LAPIC: u64 = 0xFEE0_0000;
const SPURIOUS: u64 = LAPIC + 0xF0;
const LINT0: u64 = LAPIC + 0x350;
const EXTERNAL: u32 = 0x700;

/// The I/O APIC: index, and data at 0x10. The timer is on pin 2.
pub const IO_APIC: u64 = 0xFEC0_0000;
const TIMER_ENTRY: u32 = 0x10 + 2 * 2;
const MASKED: u32 = 0x1_0000;
const AS_NMI: u32 = 0x400;

/// The HPET of QEMU's machines.
pub const HPET: u64 = 0xFED0_0000;

/// Ports of PCI configuration's address and data, and Q35's LPC bridge: device times 8 plus function.
pub const PCI_ADDRESS: u16 = 0xCF8;
pub const PCI_DATA: u16 = 0xCFC;
pub const LPC_BRIDGE: u32 = 0x1F << 3;

/// The address of a configuration register of a function of PCI's bus 0.
pub const fn pci_address(function: u32, register: u32) -> u32 {
    0x8000_0000 | function << 8 | register
}

/// Writes a configuration register of a function of PCI's bus 0.
pub fn pci_write(function: u32, register: u32, value: u32) {
    outl(PCI_ADDRESS, pci_address(function, register));
    outl(PCI_DATA, value);
}

/// Reads one.
pub fn pci_read(function: u32, register: u32) -> u32 {
    outl(PCI_ADDRESS, pci_address(function, register));
    inl(PCI_DATA)
}

/// Sets the I/O APIC's entry for the timer: to the processor with APIC ID 0.
pub fn route_timer(entry: u32) {
    for (register, value) in [(TIMER_ENTRY + 1, 0), (TIMER_ENTRY, entry)] {
        poke32(IO_APIC, register);
        poke32(IO_APIC + 0x10, value);
    }
}

/// About a millisecond of the PIT's clock.
const MILLISECOND: u16 = 1193;

/// Opens the windows of the display's memory that `bits` say: 4 for A_0000h, 12 for B_8000h.
pub fn open_display(bits: u8) {
    outb(0x3CE, 6);
    outb(0x3CF, 2 | bits);
}

/// Masks everything and forgets what was pending.
pub fn reset() {
    open_display(12);
    outb(0x43, 0x30); // channel 0: mode 0, its output low until a count is written
    for (port, value) in [
        (0x20, 0x11),
        (0x21, 0x20),
        (0x21, 4),
        (0x21, 1),
        (0x21, 0xFF), // master at 0x20
        (0xA0, 0x11),
        (0xA1, 0x28),
        (0xA1, 2),
        (0xA1, 1),
        (0xA1, 0xFF), // slave at 0x28
    ] {
        outb(port, value);
    }
    poke32(IO_APIC, TIMER_ENTRY);
    if peek32(IO_APIC + 0x10) & MASKED == 0 {
        route_timer(MASKED);
    }
    if peek32(LINT0) != EXTERNAL {
        poke32(SPURIOUS, 0x1FF);
        poke32(LINT0, EXTERNAL);
    }
}

/// One interrupt on IRQ 0, a millisecond from now.
pub fn arm_timer() {
    arm_timer_with(MILLISECOND);
}

pub fn arm_timer_with(count: u16) {
    outb(0x21, 0xFE);
    outb(0x43, 0x30);
    outb(0x40, count as u8);
    outb(0x40, (count >> 8) as u8);
}

/// One NMI, a millisecond from now: the I/O APIC makes one of the timer's interrupt.
pub fn arm_nmi() {
    arm_nmi_after(1);
}

/// One NMI, after up to 50 milliseconds.
pub fn arm_nmi_after(milliseconds: u16) {
    route_timer(AS_NMI);
    arm_timer_with(MILLISECOND * milliseconds);
    outb(0x21, 0xFF);
}

/// Whether the 8259 has IRQ 0 waiting.
pub fn timer_is_pending() -> bool {
    outb(0x20, 0x0A);
    inb(0x20) & 1 != 0
}

pub fn end_of_interrupt() {
    outb(0x20, 0x20);
}

/// Ends the run, on QEMU and on Bochs.
pub fn exit(code: u8) -> ! {
    console::drain();
    outb(0xF4, code);
    for byte in *b"Shutdown" {
        outb(0x8900, byte);
    }
    loop {
        core::hint::spin_loop();
    }
}
