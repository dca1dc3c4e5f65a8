//! The kernel after `set_kernel_mode`: what it still does, and what that costs.
//!
//! There is no way back, so this comes last. Without SecVisor the same instructions just run.

use core::sync::atomic::{AtomicBool, Ordering};

use crate::arch::{self, REGISTERS};
use crate::cpu;
use crate::memory::{HEAP, PAGE, copy, peek, poke, root};
use crate::say;
use crate::tables;
use crate::trap::{self, symbol};

const SET_KERNEL_MODE: u64 = 0x5EC0_0002;
const BUSY: i64 = -16;
const ROUNDS: u64 = 1000;

pub const CR0_PE: u64 = 1;
pub const CR0_MP: u64 = 1 << 1;
pub const CR0_TS: u64 = 1 << 3;
pub const CR0_NE: u64 = 1 << 5;
pub const CR0_AM: u64 = 1 << 18;
pub const CR0_NW: u64 = 1 << 29;
pub const CR0_CD: u64 = 1 << 30;
pub const CR0_PG: u64 = 1 << 31;
pub const CR4_TSD: u64 = 1 << 2;
pub const CR4_DE: u64 = 1 << 3;
pub const CR4_PSE: u64 = 1 << 4;
pub const CR4_PAE: u64 = 1 << 5;
pub const CR4_PGE: u64 = 1 << 7;
pub const CR4_PCE: u64 = 1 << 8;
pub const CR4_UMIP: u64 = 1 << 11;
pub const CR4_LA57: u64 = 1 << 12;
pub const CR4_SMAP: u64 = 1 << 21;

static LOCKED: AtomicBool = AtomicBool::new(false);

/// Bits of CR4 that a locked kernel keeps set, where the processor has them. SMAP is not one of
/// them: this kernel reaches into user memory at will.
pub fn kept() -> u64 {
    if !LOCKED.load(Ordering::Relaxed) {
        return 0;
    }
    let features = cpu::cpuid(7);
    (u64::from(features.ebx) >> 7 & 1) << 20 | (u64::from(features.ecx) >> 2 & 1) << 11
}

/// Whether IDTR can be loaded no more.
pub fn keeps_idtr() -> bool {
    LOCKED.load(Ordering::Relaxed) && cpu::under_secvisor()
}

/// Locks the kernel, once.
pub fn engage() {
    if !LOCKED.swap(true, Ordering::Relaxed) {
        cpu::write_cr4(cpu::cr4() | kept());
        set_kernel_mode();
    }
}

fn set_kernel_mode() -> i64 {
    match cpu::under_secvisor() {
        true => cpu::vmmcall(SET_KERNEL_MODE, 0, 0, 0),
        false => 0,
    }
}

/// Leaves the pinned registers at an address, as eight words: CR0, CR4, EFER, STAR, LSTAR, CSTAR,
/// SFMASK with the count of what was changed and undone at once, and IDTR's base.
pub fn snapshot(address: u64) {
    let sfmask = cpu::rdmsr(cpu::SFMASK) | peek(symbol!(passed)) << 32;
    let [star, lstar, cstar] = [cpu::STAR, cpu::LSTAR, cpu::CSTAR].map(cpu::rdmsr);
    let efer = cpu::rdmsr(cpu::EFER);
    let words = [cpu::cr0(), cpu::cr4(), efer, star, lstar, cstar, sfmask, cpu::idt_base()];
    for (at, word) in words.into_iter().enumerate() {
        poke(address + at as u64 * 8, word);
    }
}

/// The writer of CR0 or CR4 by a general-purpose register.
pub fn writer(register: u64, gpr: u64) -> u64 {
    let writers = if register == 0 { symbol!(cr0_writers) } else { symbol!(cr4_writers) };
    writers + gpr % REGISTERS * 64
}

/// Everything that must still work, line by line; then the counts.
pub fn run() {
    tables::reset();
    engage();
    // Page tables of two levels may need it.
    let pse = !arch::cr4() & CR4_PSE;
    for (number, old, bits) in [
        (0, cpu::cr0(), [CR0_TS, CR0_MP, CR0_NE, CR0_AM, CR0_CD, CR0_CD | CR0_NW]),
        (4, cpu::cr4(), [CR4_PGE, CR4_TSD, CR4_DE, CR4_PCE, pse, CR4_PGE | CR4_DE]),
    ] {
        for bit in bits {
            toggle(number, old, bit);
        }
    }
    encodings();
    honest("clts", clts, CR0_TS);
    honest("same-values", same_values, 0);
    honest("cr3", write_cr3, 0);
    counts();
    tables::reset();
}

/// Sets a bit and clears it by every general-purpose register. One line tells of all registers for
/// which the same happens.
fn toggle(number: u64, old: u64, bit: u64) {
    for value in [old ^ bit, old] {
        let mut last = None;
        for gpr in 0..REGISTERS {
            // A write that changes nothing would show nothing.
            trap::call(writer(number, 0), value ^ bit);
            let end = trap::call(writer(number, gpr), value).map_or(0x100, |frame| frame.vector);
            let now = if number == 0 { cpu::cr0() } else { cpu::cr4() };
            if last != Some((end, now)) {
                say!("honest: lock-cr{number} gpr={gpr} bit={bit:#x} now={now:#x} end={end:#x}");
            }
            last = Some((end, now));
        }
    }
}

/// Toggles PGE by every encoding, and under the trap flag.
fn encodings() {
    let start = symbol!(cr4_encodings);
    for (index, code) in (start..symbol!(cr4_encodings_end)).step_by(16).enumerate() {
        let end = trap::call(code, cpu::cr4() ^ CR4_PGE).map_or(0x100, |frame| frame.vector);
        say!("honest: lock-encoding {index} cr4={:#x} end={end:#x}", cpu::cr4());
    }
    let end = trap::call(symbol!(cr4_stepped), cpu::cr4() ^ CR4_PGE).unwrap_or_default();
    let behind = end.ip.wrapping_sub(symbol!(cr4_stepped_at));
    let (cr4, dr6, vector) = (cpu::cr4(), cpu::dr6(), end.vector);
    say!("honest: lock-step cr4={cr4:#x} dr6={dr6:#x} end={vector:#x} behind={behind}");
    cpu::write_dr6(0xFFFF_0FF0);
}

fn honest(name: &str, function: extern "C" fn(u64), argument: u64) {
    let end = trap::attempt(function, argument).map_or(0x100, |frame| frame.vector);
    let (cr0, cr4) = (cpu::cr0(), cpu::cr4());
    say!("honest: lock-{name} cr0={cr0:#x} cr4={cr4:#x} end={end:#x}");
}

extern "C" fn clts(bit: u64) {
    cpu::write_cr0(cpu::cr0() | bit);
    cpu::clts();
}

extern "C" fn same_values(_: u64) {
    for msr in [cpu::EFER, cpu::STAR, cpu::LSTAR, cpu::CSTAR, cpu::SFMASK] {
        cpu::wrmsr(msr, cpu::rdmsr(msr));
    }
    cpu::write_cr0(cpu::cr0());
    cpu::write_cr4(cpu::cr4());
}

/// Tables of its own, and back.
extern "C" fn write_cr3(_: u64) {
    let copied = HEAP + 0x72_0000;
    copy(root(), copied, PAGE);
    cpu::write_cr3(copied);
    cpu::write_cr3(root());
}

/// VM exits of so many rounds.
fn exits_of(function: fn()) -> u64 {
    let before = cpu::exits();
    (0..ROUNDS).for_each(|_| function());
    let exits = cpu::exits() - before;
    exits.saturating_sub(if cpu::under_secvisor() { 2 } else { 0 })
}

/// What it costs, counted, and how often one can lock.
fn counts() {
    let free = |exits: u64| u64::from(exits == 0);
    let toggle_ts = exits_of(|| cpu::write_cr0(cpu::cr0() ^ CR0_TS));
    let toggle_mp = exits_of(|| cpu::write_cr0(cpu::cr0() ^ CR0_MP));
    say!("check: lock-exits-ts {}/1", free(toggle_ts));
    say!("check: lock-exits-mp {}/1", free(toggle_mp));
    say!("check: lock-exits-clts {}/1", free(exits_of(cpu::clts)));
    say!("check: lock-exits-cr3 {}/1", free(exits_of(|| cpu::write_cr3(root()))));
    let toggle_pge = exits_of(|| cpu::write_cr4(cpu::cr4() ^ CR4_PGE));
    say!("check: lock-exits-pge {toggle_pge}/{ROUNDS}");
    let told = cpu::under_secvisor() && cpu::cpuid(0x4000_0001).ebx == 1;
    say!("check: lock-told {}/1", u64::from(told));
    say!("check: lock-second-call {}/1", u64::from(set_kernel_mode() == BUSY));
    // Write-through without caching off: what the manual calls #GP.
    let end = trap::call(writer(0, 0), cpu::cr0() & !CR0_CD | CR0_NW);
    let refused = end.is_some_and(|frame| frame.vector == 13) && cpu::cr0() & CR0_NW == 0;
    say!("check: lock-no-write-through {}/1", u64::from(refused));
    cpu::write_cr0(cpu::cr0() & !(CR0_CD | CR0_NW));
}
