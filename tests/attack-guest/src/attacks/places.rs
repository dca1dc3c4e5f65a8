//! Code where firmware, boot loader and kernel leave memory: found there, or put there.

use super::execute::run_code;
use super::hardware::{call, mark};
use super::{Attack, GOLDEN, Plan, place_payload};
use crate::boot::Options;
use crate::cpu::under_secvisor;
use crate::devices;
use crate::memory::{HEAP, PAGE, peek, peek8, peek32};
use crate::trap::symbol;

/// First bytes of an approval list.
const LIST: u64 = u64::from_le_bytes(*b"SVAPPROV");
/// First bytes of ACPI's root pointer, and the root table's address in it.
const ROOT_POINTER: u64 = u64::from_le_bytes(*b"RSD PTR ");
const ROOT_TABLE: u64 = 16;
/// Where the BIOS tells the segment of its extended data area.
const EBDA_SEGMENT: u64 = 0x40E;
const VGA_WINDOW: u64 = 0xA_0000;

/// Calls what nobody approved and what returns, then leaves the mark.
extern "C" fn call_and_mark(address: u64) {
    run_code(address, 0);
    mark();
}

/// A RET that the firmware's ROM holds.
fn rom(start: u64) -> Plan {
    let code = (start..start + 0x8000).find(|&at| peek8(at) == 0xC3).unwrap_or(start);
    call(code, call_and_mark, code)
}

/// Where the boot loader left the approval list that SecVisor took its own copy of.
pub fn list(options: &Options) -> u64 {
    if !under_secvisor() {
        return HEAP;
    }
    let pages =
        options.ram().flat_map(|(start, length, _)| (start..start + length).step_by(PAGE as usize));
    let mut above = pages.filter(|&page| page >= 0x10_0000);
    above.find(|&page| peek(page) == LIST).expect("a list that the boot loader left")
}

fn root_table() -> u64 {
    let found = (0xE_0000..0x10_0000).step_by(16).find(|&at| peek(at) == ROOT_POINTER);
    found.map_or(HEAP, |at| peek32(at + ROOT_TABLE).into())
}

/// Code in the window of the display's memory that text mode leaves closed.
fn vga_window() -> u64 {
    devices::open_display(4);
    place_payload(VGA_WINDOW)
}

/// A row: a jump to the payload at an address.
macro_rules! jump_row {
    ($name:literal, $address:expr) => {
        Attack {
            name: $name,
            plan: |options| {
                let address: fn(&Options) -> u64 = $address;
                Plan::jump(place_payload(address(options)))
            },
        }
    };
}

/// The rows.
pub const ROWS: &[Attack] = &[
    Attack { name: "exec-bios-rom", plan: |_| rom(0xF_0000) },
    Attack { name: "exec-option-rom", plan: |_| rom(0xC_0000) },
    jump_row!("exec-acpi-table", |_| root_table()),
    jump_row!("exec-ebda", |_| u64::from(peek32(EBDA_SEGMENT) & 0xFFFF) << 4),
    Attack { name: "exec-vga-window", plan: |_| Plan::jump(vga_window()) },
    jump_row!("exec-boot-information", |options| options.information | 0xE00),
    // Behind the list, in its last page.
    jump_row!("exec-list-loaded", |options| list(options) | 0xFC0),
    jump_row!("exec-page-table", |_| symbol!(pt_window) + PAGE / 2),
    Attack {
        name: "exec-copy-of-text",
        // Byte for byte an approved page, in another frame.
        plan: |_| call(GOLDEN, call_and_mark, GOLDEN),
    },
];
