//! Questions with one right answer: what is hidden, what is refused. One `check:` line each.

use core::arch::asm;

use crate::cpu;
use crate::devices::HPET;
use crate::memory::{self, HEAP, PAGE, RW, WINDOW, peek, poke};
use crate::modules::{Descriptor, checks as loaded};
use crate::say;
use crate::tables;
use crate::trap::{self, UNDEFINED, symbol};

const APPROVE_CODE: u64 = 0x5EC0_0001;

/// Runs all checks.
pub fn run() {
    for (name, check) in [
        ("cpuid-svm", cpuid_svm as fn() -> (u64, u64)),
        ("cpuid-sep", cpuid_sep),
        ("efer-svme", efer_svme),
        ("efer-absent-bits", efer_absent),
        ("kernel-gs-base", kernel_gs_base),
        ("invd-keeps-memory", invd),
        ("hpet-takes-quads", hpet_quads),
        ("low-memory-readable", low_memory),
        ("svm-instructions-undefined", svm_instructions),
        ("hypercall-ring3-undefined", hypercall_ring3),
        ("hypercall-unknown-numbers", unknown_hypercalls),
        ("hypercall-hostile-arguments", hostile_hypercalls),
        ("init-text-release", init_text),
        ("modules-small-pages", loaded::small_pages),
        ("modules-large-page", loaded::large_page),
        ("modules-huge-page", loaded::huge_page),
        ("modules-together", loaded::together),
        ("modules-cycles", loaded::cycles),
    ] {
        let (held, asked) = check();
        say!("check: {name} {held}/{asked}");
        tables::reset();
    }
}

fn cpuid_svm() -> (u64, u64) {
    (u64::from(cpu::cpuid(0x8000_0001).ecx >> 2 & 1), 1)
}

fn cpuid_sep() -> (u64, u64) {
    (u64::from(cpu::cpuid(1).edx >> 11 & 1), 1)
}

/// Whether EFER.SVME can be set.
fn efer_svme() -> (u64, u64) {
    trap::attempt(set_svme, 0);
    (u64::from(cpu::rdmsr(cpu::EFER) & cpu::EFER_SVME != 0), 1)
}

extern "C" fn set_svme(_: u64) {
    cpu::wrmsr(cpu::EFER, cpu::rdmsr(cpu::EFER) | cpu::EFER_SVME);
}

/// Setting a bit of EFER that the processor lacks does nothing; SecVisor refuses it with #GP.
fn efer_absent() -> (u64, u64) {
    let present = cpu::cpuid(0x8000_0001).ecx >> 17 & 1 != 0;
    let end = trap::attempt(set_tce, 0);
    let set = cpu::rdmsr(cpu::EFER) & cpu::EFER_TCE != 0;
    let refused = !cpu::under_secvisor() || end.is_some_and(|end| end.vector == 13);
    (u64::from(set == present && (present || refused)), 1)
}

extern "C" fn set_tce(_: u64) {
    cpu::wrmsr(cpu::EFER, cpu::rdmsr(cpu::EFER) | cpu::EFER_TCE);
}

/// What no guarantee rests on can be written: kernels change this at every entry.
fn kernel_gs_base() -> (u64, u64) {
    const KERNEL_GS_BASE: u32 = 0xC000_0102;
    extern "C" fn write(value: u64) {
        cpu::wrmsr(KERNEL_GS_BASE, value);
    }
    let old = cpu::rdmsr(KERNEL_GS_BASE);
    let end = trap::attempt(write, HEAP);
    let held = end.is_none() && cpu::rdmsr(KERNEL_GS_BASE) == HEAP;
    write(old);
    (u64::from(held), 1)
}

/// INVD must not lose what the caches hold.
fn invd() -> (u64, u64) {
    for at in 0..512 {
        poke(HEAP + at * 8, at ^ 0x5A5A);
    }
    trap::attempt(do_invd, 0);
    let kept = (0..512).filter(|at| peek(HEAP + at * 8) == at ^ 0x5A5A).count();
    (kept as u64, 512)
}

/// Drivers write the HPET's registers of 64 bits in one piece.
fn hpet_quads() -> (u64, u64) {
    extern "C" fn store(value: u64) {
        poke(HPET + 0x10, 0);
        poke(HPET + 0xF0, value);
    }
    let value = 0x0012_3456_789A_BCDE;
    let end = trap::attempt(store, value);
    (u64::from(end.is_none() && peek(HPET + 0xF0) == value), 1)
}

/// Kernels search the first MiB for tables that firmware left there.
fn low_memory() -> (u64, u64) {
    extern "C" fn look(page: u64) {
        peek(page * PAGE);
    }
    let readable = (1..256).filter(|&page| trap::attempt(look, page).is_none()).count();
    (readable as u64, 255)
}

extern "C" fn do_invd(_: u64) {
    // SAFETY: this is what is being tried.
    unsafe { asm!("invd") }
}

/// Defines the kernel functions that each run one instruction on the heap's address.
macro_rules! svm {
    ($($name:ident $text:literal)*) => {
        [$({
            extern "C" fn $name(_: u64) {
                // SAFETY: this is what is being tried.
                unsafe { asm!($text, in("eax") HEAP as u32, in("ecx") 0) }
            }
            $name as extern "C" fn(u64)
        }),*]
    };
}

fn svm_instructions() -> (u64, u64) {
    let all = svm! {
        vmrun ".byte 0x0f, 0x01, 0xd8"
        vmload ".byte 0x0f, 0x01, 0xda"
        vmsave ".byte 0x0f, 0x01, 0xdb"
        stgi ".byte 0x0f, 0x01, 0xdc"
        clgi ".byte 0x0f, 0x01, 0xdd"
        skinit ".byte 0x0f, 0x01, 0xde"
        invlpga ".byte 0x0f, 0x01, 0xdf"
    };
    let undefined = |function: &&extern "C" fn(u64)| {
        trap::attempt(**function, 0).is_some_and(|frame| frame.vector == UNDEFINED)
    };
    (all.iter().filter(undefined).count() as u64, all.len() as u64)
}

/// VMMCALL at CPL 3.
fn hypercall_ring3() -> (u64, u64) {
    (u64::from(trap::run_user_at(symbol!(u_vmmcall)).vector == UNDEFINED), 1)
}

/// A small generator of numbers nobody chose.
fn scramble(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Result of a hypercall; `None` if it trapped.
fn hypercall(arguments: [u64; 4]) -> Option<i64> {
    extern "C" fn call(arguments: u64) {
        let [number, rbx, rcx, rdx] = [0, 8, 16, 24].map(|at| peek(arguments + at));
        poke(arguments, cpu::vmmcall(number, rbx, rcx, rdx) as u64);
    }
    let copy = symbol!(scratch_tables);
    for (at, word) in arguments.into_iter().enumerate() {
        poke(copy + at as u64 * 8, word);
    }
    trap::attempt(call, copy).is_none().then(|| peek(copy) as i64)
}

/// Numbers that are no hypercall: all must say -ENOSYS.
fn unknown_hypercalls() -> (u64, u64) {
    let mut state = 0x1234_5678_9ABC_DEF1;
    let chosen = [0, 1, 2, 0x5EC0_0000, 0x5EC0_0003, u64::MAX, 0x5EC0_0001 << 32];
    let random = core::iter::repeat_with(|| scramble(&mut state) | 1 << 62).take(200);
    let mut count = (0, 0);
    for number in chosen.into_iter().chain(random) {
        let arguments = [number, number, number, number];
        count.0 += u64::from(hypercall(arguments) == Some(-38));
        count.1 += 1;
    }
    count
}

/// Arguments of `approve_code` that do not hold: each must be refused with an errno.
fn hostile_hypercalls() -> (u64, u64) {
    let unit = HEAP + 0x800;
    memory::map(0, HEAP, RW);
    let near_the_end = WINDOW + PAGE - 64; // the next page is not mapped
    let mut count = (0, 0);
    let mut judge = |rbx, rcx, rdx| {
        let refused = hypercall([APPROVE_CODE, rbx, rcx, rdx]);
        count.0 += u64::from(refused.is_some_and(|result| (-4095..0).contains(&result)));
        count.1 += 1;
    };
    // A whole and honest descriptor of what is no approved unit: header, core, init, name.
    let describe = |kind: u64, core: (u64, u64), init: (u64, u64)| {
        memory::clear(unit, 128);
        let words = [1 | kind << 32, core.0, core.1, init.0, init.1];
        for (at, word) in words.into_iter().enumerate() {
            poke(unit + at as u64 * 8, word);
        }
        poke(unit + 64, u64::from_le_bytes(*b"kernel\0\0"));
    };
    let text = symbol!(text_start);
    let ranges = [
        (text, PAGE),
        (HEAP, PAGE),
        (0xFEE0_0000, PAGE),
        (symbol!(user_payload), PAGE),
        (1 << 46, PAGE),
        (1 << 63, PAGE),
        (u64::MAX - PAGE + 1, PAGE),
        (HEAP, !0xFFF),
        (HEAP + 1, PAGE),
        (HEAP, 0),
    ];
    for range in ranges {
        for (kind, core, init) in [(0, (0, 0), range), (1, range, (0, 0)), (2, (0, 0), range)] {
            for operation in [1, 2] {
                describe(kind, core, init);
                judge(operation, unit, 128);
            }
        }
    }
    describe(0, (0, 0), (HEAP, PAGE));
    for rbx in [0, 3, u64::MAX] {
        judge(rbx, unit, 128);
    }
    for rdx in [0, 127, 129, 1 << 32 | 128, u64::MAX] {
        judge(1, unit, rdx);
    }
    for rcx in [1 << 46, 1 << 63, u64::MAX - 3, near_the_end, 0xFEE0_0000, 0xFFFF_FF80] {
        judge(1, rcx, 128);
    }
    let mut state = 0x0DDB_A11C_0FFE_E123;
    for _ in 0..500 {
        for at in 0..16 {
            poke(unit + at * 8, scramble(&mut state));
        }
        poke(unit, 1 | (scramble(&mut state) & 3) << 32);
        judge(1 + (scramble(&mut state) & 1), unit, 128);
    }
    count
}

/// The kernel's init text: released with its own size, once, and code no more.
fn init_text() -> (u64, u64) {
    let (start, end) = (symbol!(init_text_start), symbol!(init_text_end));
    let unit = HEAP + 0x800;
    let release = |size: u64| {
        let mut descriptor = Descriptor::new(0, "kernel");
        descriptor.init = [start, size];
        descriptor.store(unit);
        hypercall([APPROVE_CODE, 2, unit, 128])
    };
    let before = trap::call(symbol!(init_code), 0);
    let held = [
        release(end - start + PAGE) == Some(-22) && before.is_none(),
        release(end - start) == Some(0),
        release(end - start) == Some(-2),
        trap::call(symbol!(init_code), 0).is_some_and(|end| end.vector == 13),
    ];
    (held.iter().filter(|held| **held).count() as u64, held.len() as u64)
}
