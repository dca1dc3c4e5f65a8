//! `fuzz-user-code`: random bytes run in user mode, with random registers and the timer to end it.
//!
//! The kernel must get control back, each time, at one of its own entries. With `gates` on the
//! command line a compromised kernel has aimed one of its gates at code in user memory, which marks
//! the witness if it runs: it must not, whatever user mode does. (`entry-guard=npf` lets it.)

use super::places::DEVICE_MEMORY;
#[cfg(target_arch = "x86")]
use super::places::LOW_MEMORY;
use super::{Fuzz, GENERAL_PROTECTION, SCRATCH, bytes, each_register, places};
use crate::attacks::place_payload;
use crate::cpu;
use crate::devices;
use crate::memory::{self, PAGE, PRESENT, RW, URW, USER, WINDOW, peek, poke};
use crate::tables::{self, CALL, CALL_GATE, CLOSED, LDT_GATE, OPEN};
use crate::trap::{self, END, Frame, KERNEL_CS, SYSCALL, TIMER, symbol};

/// Frames that user mode may use; they are mapped in the window and, for 32-bit code, in the image.
const CODE: u64 = SCRATCH;
const DATA: u64 = SCRATCH + PAGE;
const STACK: u64 = SCRATCH + 2 * PAGE;
/// What a gate is aimed at: also mapped for user mode, which cannot write it.
const PAYLOAD: u64 = SCRATCH + 3 * PAGE;
const PAYLOAD_AT: u64 = WINDOW + 3 * PAGE;
/// What data and stack are filled with before each round.
const KEPT: u64 = SCRATCH + 4 * PAGE;
/// Bytes of code in a round, at most.
const LENGTH: u64 = 64;
/// QEMU's IRET enters virtual-8086 mode from user mode, in long mode too, and with any IOPL: where
/// flags could come from, that bit of each half is 0.
const NOT_VIRTUAL: u64 = !(1 << 17 | 1 << 49);
/// Words of data that a round changes.
const WORDS: u64 = 32;
/// The timer's count: a fifth of a millisecond.
const PATIENCE: u16 = 240;
/// Gates that a round may aim elsewhere, but for those that are recovered by and the benchmark's.
const GATES: [u64; 22] =
    [0, 1, 3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 16, 17, 18, 19, TIMER, 0x28, 0x80, END, 0x82, 0xFF];

/// Selectors of code that user mode may start in.
#[cfg(target_arch = "x86_64")]
const CODE_SELECTORS: [u64; 4] = [0x33, 0x33, 0x33, 0x23];
#[cfg(target_arch = "x86")]
const CODE_SELECTORS: [u64; 3] = [0x23, 0x33, 0x1F];

pub fn start(fuzz: &mut Fuzz<'_>) {
    place_payload(PAYLOAD);
    fuzz.random.fill(KEPT, PAGE);
    bytes::leave_out(KEPT, PAGE);
}

/// Opens the window's pages to user mode, and nothing else: all that it can break is here.
fn open(fuzz: &Fuzz<'_>) {
    (symbol!(user_start)..symbol!(user_end))
        .step_by(PAGE as usize)
        .for_each(|page| memory::remap_image(page, page, RW));
    let frames = [
        (CODE, URW),
        (DATA, URW),
        (STACK, URW),
        (PAYLOAD, PRESENT | USER),
        (symbol!(victim), URW),
        (fuzz.options.hidden, URW),
        (DEVICE_MEMORY, URW),
    ];
    for (slot, (frame, flags)) in (0..).zip(frames) {
        memory::map(slot, frame, flags);
    }
    for (page, frame) in low_pages().into_iter().zip([CODE, DATA, STACK]) {
        memory::remap_image(page, frame, URW);
    }
    #[cfg(target_arch = "x86")]
    crate::arch::open_low_memory();
}

/// Where code, data and stack lie below 4 GiB.
fn low_pages() -> [u64; 3] {
    let frames = symbol!(user_frames);
    [symbol!(user_payload), frames, frames + PAGE]
}

/// An entry of the kernel's, aimed at the payload.
enum Gate {
    Interrupt(u64),
    Call(u64),
    SystemCall,
}

impl Gate {
    fn choose(fuzz: &mut Fuzz<'_>) -> Self {
        let random = &mut fuzz.random;
        match random.below(8) {
            0 => Self::Call(symbol!(gdt) + CALL_GATE),
            1 => Self::Call(symbol!(ldt) + LDT_GATE),
            2 => Self::SystemCall,
            _ => Self::Interrupt(random.pick(&GATES)),
        }
    }

    /// Aims it there, or back.
    fn aim(&self, at: Option<u64>) {
        match *self {
            Self::Interrupt(vector) => {
                let open = at.is_some() || matches!(vector, 3 | 4 | 0x80..=0x83);
                let target = at.unwrap_or(symbol!(trap_stubs) + vector * 16);
                let kind = if open { OPEN } else { CLOSED };
                tables::gate(tables::idt_gate(vector), target, KERNEL_CS, kind);
            }
            Self::Call(gate) => {
                tables::gate(gate, at.unwrap_or(symbol!(gate_entry)), KERNEL_CS, CALL);
            }
            Self::SystemCall => match at {
                None => crate::arch::set_system_call(),
                Some(at) if cfg!(target_arch = "x86") => {
                    cpu::wrmsr(cpu::STAR, cpu::rdmsr(cpu::STAR) & !0xFFFF_FFFF | at);
                }
                Some(at) => {
                    cpu::wrmsr(cpu::LSTAR, at);
                    cpu::wrmsr(cpu::CSTAR, at);
                }
            },
        }
    }
}

/// User mode at random code.
fn user(fuzz: &mut Fuzz<'_>) -> Frame {
    let length = 4 + fuzz.random.below(LENGTH - 4);
    let at = if fuzz.random.one_in(8) { PAGE } else { fuzz.random.below(PAGE) };
    let at = at.saturating_sub(length);
    let cs = fuzz.random.pick(&CODE_SELECTORS);
    let low = cs != 0x33 || fuzz.random.one_in(4);
    let [code, _, stack] = if low { low_pages() } else { [0, 1, 2].map(|it| WINDOW + it * PAGE) };
    let mut frame = Frame { cs, ..Frame::user(code + at) };
    fuzz.registers(&mut frame);
    each_register(&mut frame, |register| *register &= NOT_VIRTUAL);
    let random = &mut fuzz.random;
    bytes::code(random, CODE + at, length);
    frame.sp = stack + 8 + random.below(PAGE / 8) * 8;
    // Everything but IOPL: interrupts stay on.
    frame.flags = 0x202 | random.number() & 0x24_4CD5;
    if random.one_in(8) {
        frame.flags |= 0x100;
    }
    for at in (0..PAGE).step_by(8) {
        let word = peek(KEPT + at) & NOT_VIRTUAL;
        [DATA, STACK].into_iter().for_each(|page| poke(page + at, word));
    }
    for _ in 0..WORDS {
        // Clear of the borders: user mode may run this as code, too.
        let to = random.pick(&[DATA, STACK]) + 8 + random.below(PAGE / 8 - 2) * 8;
        let word = if random.one_in(2) { random.below(0xA0) } else { random.value() };
        poke(to, word & NOT_VIRTUAL);
        bytes::leave_out(to - 8, 24);
    }
    if fuzz.random.one_in(16) {
        frame.sp = places::address(fuzz);
    }
    #[cfg(target_arch = "x86")]
    if fuzz.random.one_in(8) {
        virtual_8086(fuzz, &mut frame);
    }
    frame
}

/// The same in virtual-8086 mode.
#[cfg(target_arch = "x86")]
fn virtual_8086(fuzz: &mut Fuzz<'_>, frame: &mut Frame) {
    let random = &mut fuzz.random;
    bytes::code(random, LOW_MEMORY, LENGTH);
    frame.flags |= 1 << 17;
    frame.ip = random.below(0x100) << 4;
    frame.cs = (LOW_MEMORY - frame.ip) >> 4;
    frame.ss = random.number() & 0xFFFF;
    frame.sp = random.number() & 0xFFFF;
    frame.segments.iter_mut().for_each(|segment| *segment = random.number() & 0xFFFF);
}

pub fn round(fuzz: &mut Fuzz<'_>) {
    open(fuzz);
    let frame = user(fuzz);
    let hostile = fuzz.options.has("gates") && fuzz.random.one_in(2);
    let gate = if hostile { Some(Gate::choose(fuzz)) } else { None };
    let target = fuzz.random.pick(&[PAYLOAD, PAYLOAD_AT]);
    if let Some(gate) = &gate {
        gate.aim(Some(target));
    }
    devices::reset();
    devices::arm_timer_with(PATIENCE);
    let end = trap::run_user(&frame);
    if let Some(gate) = &gate {
        gate.aim(None);
    }
    fuzz.intact();
    let risen = fuzz.risen();
    let from_user = end.cs & 3 == 3 || end.flags & 1 << 17 != 0;
    let kernel_code = [KERNEL_CS, tables::CPL1_CS, tables::CPL2_CS].contains(&(end.cs & !3));
    let in_text = (symbol!(text_start)..symbol!(text_end)).contains(&end.ip);
    let outcome = match end.vector {
        // SYSCALL and gates that keep the trap flag: the trap comes before the target is fetched.
        1 if !from_user && hostile && end.ip == target && end.flags & 0x100 != 0 => "trapped",
        GENERAL_PROTECTION if !from_user && hostile && end.ip == target && risen != 0 => "stopped",
        END if from_user => "end",
        END if in_text => "gate",
        TIMER if from_user => "timer",
        SYSCALL..=0x101 if from_user => "syscall",
        // A gate that keeps the trap flag; a task that the processor left.
        _ if !from_user && in_text => "kernel-fault",
        // QEMU's MOV to CS in bytes that user mode wrote itself: what CS names then is no kernel code.
        _ if !from_user && !kernel_code && risen == 0 => "moved-to-cs",
        _ if from_user && risen != 0 => "violation",
        GENERAL_PROTECTION if from_user => "protection",
        14 if from_user => "page-fault",
        6 if from_user => "undefined",
        ..0x100 if from_user => "other",
        _ => fuzz.unexpected(format_args!("user code, gate aimed: {hostile}"), &end),
    };
    fuzz.count(outcome);
}
