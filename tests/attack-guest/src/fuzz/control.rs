//! `fuzz-control-registers`: control and debug registers, descriptor-table registers and what else
//! only a kernel does, with random values, before and after the lock.
//!
//! Each is performed, faults as on any processor, or is refused with a record; once the kernel is
//! locked nothing that is pinned changes. Values that QEMU takes and no processor does are left out,
//! see [`processor_takes`].

use super::{Fuzz, GENERAL_PROTECTION, SCRATCH, is_done};
use crate::arch::REGISTERS;
use crate::cpu;
use crate::lock::{self, CR0_AM, CR0_CD, CR0_MP, CR0_NE, CR0_NW, CR0_PE, CR0_PG, CR0_TS};
use crate::memory::{PAGE, peek, poke, root};
use crate::tables::{self, LDT};
use crate::trap::{self, DEBUG, END, Frame, PAGE_FAULT, UNDEFINED, symbol};

const STUB: u64 = 16;
const CR0_EM: u64 = 1 << 2;
const CR4_OSXSAVE: u64 = 1 << 18;
/// What a locked kernel may change, as README says it.
const FREE_CR0: u64 = CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_AM | CR0_NW | CR0_CD;
const FREE_CR4: u64 = 0x7DF;
/// Pointers for LGDT and LIDT: a random one, and the IDT's own.
const POINTER: u64 = SCRATCH;
const IDT_POINTER: u64 = SCRATCH + 64;

pub fn round(fuzz: &mut Fuzz<'_>) {
    let (cr0, cr4) = (cpu::cr0(), cpu::cr4());
    let outcome = match fuzz.random.below(16) {
        0..4 => in_between(fuzz, 0, cr0, symbol!(f_cr0_between)),
        4..8 => in_between(fuzz, 4, cr4, symbol!(f_cr4_between)),
        8 => written(fuzz, 0, cr0, FREE_CR0),
        9 => written(fuzz, 4, cr4, FREE_CR4),
        10 => machine_status(fuzz),
        11 => tables_loaded(fuzz),
        12 => debug_register(fuzz),
        13 => extended_control(fuzz),
        _ => other(fuzz),
    };
    restore(cr0, cr4);
    if (cpu::cr0(), cpu::cr4(), cpu::idt_base()) != (cr0, cr4, symbol!(idt)) {
        fuzz.fail(format_args!("CR0 {cr0:#x} and CR4 {cr4:#x} cannot be put back"));
    }
    fuzz.count(outcome);
}

fn restore(cr0: u64, cr4: u64) {
    if cpu::cr0() != cr0 {
        cpu::write_cr0(cr0);
    }
    if cpu::cr4() != cr4 {
        cpu::write_cr4(cr4);
    }
}

/// CR4's bits that the processor has: writing others is #GP, but under QEMU's SVM an exit that nobody
/// can go on from. Not PAE, PSE and LA57, which change the format of the page tables in use.
fn present() -> u64 {
    let (first, seventh) = (cpu::cpuid(1), cpu::cpuid(7));
    let bit = |word: u32, at: u32, bit: u32| u64::from(word >> at & 1) << bit;
    let long = if size_of::<usize>() == 8 { bit(first.ecx, 17, 17) } else { 0 };
    0x7CF
        | long
        | bit(first.ecx, 26, 18)
        | bit(seventh.ebx, 0, 16)
        | bit(seventh.ebx, 7, 20)
        | bit(seventh.ebx, 20, 21)
        | bit(seventh.ecx, 2, 11)
        | bit(seventh.ecx, 3, 22)
}

/// Whether a processor takes a value of CR0 or CR4: paging without protection is no mode, and
/// write-through needs caching off. QEMU takes both, and its SVM does not.
fn processor_takes(number: u64, old: u64, new: u64) -> bool {
    match number {
        0 => (new & CR0_PG == 0 || new & CR0_PE != 0) && new & (CR0_NW | CR0_CD) != CR0_NW,
        _ => (old ^ new) & !present() == 0,
    }
}

/// The bits that an emulator may not simply drop: QEMU drops CR0's upper half, which is #GP elsewhere.
fn kept_bits(number: u64) -> u64 {
    if number == 0 { 0xFFFF_FFFF } else { u64::MAX }
}

/// CR0 or CR4 with other bits.
fn changed(fuzz: &mut Fuzz<'_>, old: u64) -> u64 {
    let random = &mut fuzz.random;
    match random.below(4) {
        0 => random.value(),
        1 => old ^ random.number(),
        2 => old ^ random.number() & random.number() & random.number(),
        _ => old ^ 1 << random.below(64),
    }
}

/// Writes any value and undoes it before anything else runs.
fn in_between(fuzz: &mut Fuzz<'_>, number: u64, old: u64, function: u64) -> &'static str {
    let mut new = changed(fuzz, old) & usize::MAX as u64;
    if number == 4 && !fuzz.locked {
        new = old ^ (old ^ new) & present();
    }
    if !fuzz.locked && !processor_takes(number, old, new) {
        return "left-out";
    }
    poke(POINTER, 0);
    let frame = super::kernel_frame(function);
    let end = trap::run_user(&Frame { ax: new, cx: old, di: POINTER, ..frame });
    let passed = peek(POINTER) != 0;
    let risen = fuzz.risen();
    let free = if number == 0 { FREE_CR0 } else { FREE_CR4 };
    let pinned = fuzz.locked && (old ^ new) & !free & kept_bits(number) != 0;
    let refused = end.vector == GENERAL_PROTECTION && !passed;
    match (end.vector, pinned) {
        (END, false) if passed && risen == 0 => "performed",
        (GENERAL_PROTECTION, false) if refused && risen == 0 => "protection",
        (GENERAL_PROTECTION, _) if fuzz.locked && refused && risen == 1 => "refused",
        _ => fuzz.unexpected(format_args!("{new:#x} to CR{number}, {risen} records"), &end),
    }
}

/// Writes what may be written, by any general-purpose register, and leaves it for a while.
fn written(fuzz: &mut Fuzz<'_>, number: u64, old: u64, free: u64) -> &'static str {
    let new = old ^ fuzz.random.number() & free;
    let gpr = fuzz.random.below(REGISTERS);
    if !processor_takes(number, old, new) {
        return "left-out";
    }
    let end = trap::call(lock::writer(number, gpr), new).unwrap_or_default();
    let now = if number == 0 { cpu::cr0() } else { cpu::cr4() };
    if end.vector != 0 || now != new {
        fuzz.unexpected(format_args!("{new:#x} to CR{number} gave {now:#x}"), &end);
    }
    fuzz.expect_risen(0, "a harmless write", &end);
    "performed"
}

/// LMSW, which can set PE, MP, EM and TS; a locked kernel has none.
fn machine_status(fuzz: &mut Fuzz<'_>) -> &'static str {
    let memory = fuzz.random.one_in(2);
    let mut frame = fuzz.kernel(if memory { symbol!(f_lmsw_memory) } else { symbol!(f_lmsw) });
    poke(POINTER, fuzz.random.number());
    frame.bx = POINTER;
    let end = trap::run_user(&frame);
    let risen = fuzz.risen();
    match end.vector {
        _ if is_done(&end) && risen == 0 => "performed",
        GENERAL_PROTECTION if fuzz.locked && risen == 1 => "refused",
        _ => fuzz.unexpected(format_args!("LMSW"), &end),
    }
}

/// LGDT and LIDT of any pointer, undone at once.
fn tables_loaded(fuzz: &mut Fuzz<'_>) -> &'static str {
    let interrupts = fuzz.random.one_in(2);
    let mut frame = fuzz.kernel(if interrupts { symbol!(f_lidt) } else { symbol!(f_lgdt) });
    let limit = 0xFFF >> if size_of::<usize>() == 8 { 0 } else { 1 };
    poke(IDT_POINTER, limit | symbol!(idt) << 16);
    poke(IDT_POINTER + 8, symbol!(idt) >> 48);
    if !fuzz.random.one_in(4) {
        frame.ax = POINTER;
        let base = if fuzz.random.one_in(2) { fuzz.random.value() } else { SCRATCH + PAGE };
        poke(POINTER, fuzz.random.number() & 0xFFFF | base << 16);
        poke(POINTER + 8, base >> 48);
    }
    frame.bx = if interrupts { IDT_POINTER } else { symbol!(gdt_pointer) };
    let end = trap::run_user(&frame);
    let risen = fuzz.risen();
    match end.vector {
        _ if is_done(&end) && risen == 0 && !(interrupts && fuzz.locked) => "performed",
        // A base or an address that is not canonical; memory that is not the guest's.
        GENERAL_PROTECTION if risen == 0 => "protection",
        GENERAL_PROTECTION if risen == 1 => "refused",
        PAGE_FAULT | 12 if risen == 0 => "fault",
        _ => fuzz.unexpected(format_args!("LGDT or LIDT of {:#x}", frame.ax), &end),
    }
}

/// Debug registers; breakpoints lie where no code does.
fn debug_register(fuzz: &mut Fuzz<'_>) -> &'static str {
    let number = fuzz.random.below(8);
    let mut frame = fuzz.kernel(symbol!(f_to_debug) + number * STUB);
    frame.ax = if number < 4 { SCRATCH + fuzz.random.below(PAGE) } else { fuzz.random.value() };
    let end = trap::run_user(&frame);
    // With DR7.GD the first access traps.
    extern "C" fn reset(_: u64) {
        cpu::write_dr7(0x400);
        cpu::write_dr6(0xFFFF_0FF0);
    }
    for _ in 0..2 {
        trap::attempt(reset, 0);
    }
    fuzz.expect_risen(0, "a debug register", &end);
    match end.vector {
        _ if is_done(&end) => "performed",
        GENERAL_PROTECTION => "protection",
        DEBUG => "debug",
        UNDEFINED => "undefined",
        _ => fuzz.unexpected(format_args!("DR{number}"), &end),
    }
}

/// XSETBV; where it is pinned off, it does not exist.
fn extended_control(fuzz: &mut Fuzz<'_>) -> &'static str {
    let enabled = !fuzz.locked && cpu::cpuid(1).ecx >> 26 & 1 != 0;
    if enabled {
        cpu::write_cr4(cpu::cr4() | CR4_OSXSAVE);
    }
    let mut frame = fuzz.kernel(symbol!(f_xsetbv));
    if fuzz.random.one_in(2) {
        (frame.cx, frame.dx, frame.ax) = (0, 0, fuzz.random.below(0x400));
    }
    let end = trap::run_user(&frame);
    if enabled {
        let back = Frame { ax: 1, cx: 0, dx: 0, ..frame };
        if !is_done(&trap::run_user(&back)) {
            fuzz.fail(format_args!("XCR0 cannot be put back"));
        }
    }
    fuzz.expect_risen(0, "XSETBV", &end);
    match end.vector {
        UNDEFINED if !enabled => "undefined",
        GENERAL_PROTECTION if enabled => "protection",
        _ if is_done(&end) && enabled => "performed",
        _ => fuzz.unexpected(format_args!("XSETBV"), &end),
    }
}

/// Other control registers, by structured values; then whatever is a kernel's or SecVisor's alone.
fn other(fuzz: &mut Fuzz<'_>) -> &'static str {
    let others = (symbol!(f_others_end) - symbol!(f_others)) / STUB;
    let chosen = fuzz.random.below(others + 8);
    let mut frame = fuzz.kernel(symbol!(f_others) + chosen % others * STUB);
    if chosen >= others {
        let number = fuzz.random.pick(&[1, 2, 3, 5, 6, 7, 8]);
        frame.ip = symbol!(f_to_control) + number * STUB;
        if number == 3 {
            // Write-through and no caching of the tables.
            frame.ax = root() | fuzz.random.number() & 0x18;
        }
    }
    // SYSRET goes there: not to what would run for long.
    frame.cx = fuzz.random.value();
    let end = trap::run_user(&frame);
    cpu::write_cr3(root());
    cpu::lldt(LDT);
    tables::set_entry_stack(symbol!(trap_stack_top));
    trap::run_user(&Frame { ax: 0, ..super::kernel_frame(symbol!(f_to_task_priority)) });
    let risen = fuzz.risen();
    match end.vector {
        _ if is_done(&end) && risen == 0 => "performed",
        UNDEFINED if risen == 0 => "undefined",
        GENERAL_PROTECTION if risen == 0 => "protection",
        DEBUG | 7 | 10..=12 | PAGE_FAULT | trap::SYSCALL if risen == 0 => "fault",
        // An operand in memory that is not the guest's.
        GENERAL_PROTECTION if risen == 1 => "refused",
        _ => fuzz.unexpected(format_args!("kernel instruction {chosen}"), &end),
    }
}
