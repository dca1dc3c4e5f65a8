//! Ways into user memory at a privilege that is not its own, and modes in which the guest's page
//! tables and descriptors say nothing.

use super::entry::user_payload;
use super::{Attack, Plan};
use crate::cpu;
use crate::memory::{self, HEAP, RW, copy};
use crate::tables::{self, SPARE_CS};
use crate::trap::symbol;

/// A row: the kernel goes to user memory by a function of its own.
macro_rules! leave {
    ($name:literal, $function:ident) => {
        Attack { name: $name, plan: |_| leave(symbol!($function)) }
    };
}

fn leave(function: u64) -> Plan {
    let page = user_payload();
    memory::remap_image(page, page, RW);
    Plan::call(page, function, page)
}

/// The payload as 32-bit code, in ordinary memory.
fn payload_32() -> u64 {
    copy(symbol!(payload_32), HEAP, symbol!(payload_32_end) - symbol!(payload_32));
    HEAP
}

/// The rows.
pub const ROWS: &[Attack] = &[
    leave!("ret2user-cpl1", iret_at_cpl1),
    leave!("ret2user-cpl2", iret_at_cpl2),
    leave!("ret2user-far", far_at_cpl0),
    Attack {
        name: "exec-smep-off",
        plan: |_| {
            cpu::write_cr4(cpu::cr4() | cpu::CR4_SMEP);
            cpu::write_cr4(cpu::cr4() & !cpu::CR4_SMEP);
            Plan::jump(user_payload())
        },
    },
    #[cfg(target_arch = "x86_64")]
    Attack {
        name: "ret2user-compatibility",
        plan: |_| Plan::call(payload_32(), symbol!(far_to_spare), HEAP),
    },
    #[cfg(target_arch = "x86_64")]
    Attack {
        name: "exec-paging-off",
        // Out of long mode: events there go through a table of their own.
        plan: |_| {
            for vector in 0..256 {
                let (gate, target) = (symbol!(scratch_tables), symbol!(back_to_long_mode));
                tables::short_gate(gate + vector * 8, target, SPARE_CS, tables::CLOSED);
            }
            Plan::call(payload_32(), symbol!(jump_unpaged), HEAP)
        },
    },
    #[cfg(target_arch = "x86")]
    Attack {
        name: "ret2user-segment-base",
        // EIP stays in approved text; the segment's base leads elsewhere.
        plan: |_| Plan::call(segment_to_payload(), symbol!(far_to_spare), symbol!(gate_entry)),
    },
    #[cfg(target_arch = "x86")]
    Attack {
        name: "gate-segment-base",
        plan: |_| {
            tables::gate(tables::idt_gate(0x82), symbol!(gate_entry), SPARE_CS, tables::OPEN);
            Plan::user(segment_to_payload(), symbol!(u_int82))
        },
    },
];

/// Puts the payload where an honest address leads once the spare code segment has another base.
#[cfg(target_arch = "x86")]
fn segment_to_payload() -> u64 {
    let honest = symbol!(gate_entry);
    let base = symbol!(user_payload).wrapping_sub(honest & !0xFFF) & 0xFFFF_FFFF;
    let descriptor = tables::CODE_32 | (base & 0xFF_FFFF) << 16 | base >> 24 << 56;
    memory::poke(symbol!(gdt) + SPARE_CS, descriptor);
    super::place_payload(symbol!(user_payload) + (honest & 0xFFF))
}

/// Rows after which the guest is past helping.
#[cfg(target_arch = "x86")]
pub const FATAL: &[Attack] = &[Attack {
    name: "exec-real-mode",
    plan: |_| Plan::call(payload_32(), symbol!(jump_real), HEAP),
}];
