//! SecVisor's own failure: what is said of it before the machine stops. No guest runs any more.
#![allow(unsafe_code, reason = "exception entry points; looks at what others hold")]

use core::arch::{asm, global_asm};
use core::ops::Range;
use core::panic::PanicInfo;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

use spin::Mutex;
use x86_64::registers::control::{Cr2, Cr3};

use crate::host::console;
use crate::svm::cpu;
use crate::vcpu::{Noted, Vcpu};

// One entry per vector, 16 bytes each, all with an error code, the processor's or 0.
global_asm!(
    r#"
    .section .text.exception_entries, "ax"
    .global exception_entries
    .balign 16
exception_entries:
    .set vector, 0
    .rept 32
    .balign 16
    .if !((0x60227D00 >> vector) & 1)   // 8, 10 to 14, 17, 21, 29, 30 have one
    pushq $0
    .endif
    pushq $vector
    jmp 2f
    .set vector, vector + 1
    .endr
2:  pushq %rax
    pushq %rbx
    pushq %rcx
    pushq %rdx
    pushq %rsi
    pushq %rdi
    pushq %rbp
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    cld
    movq %rsp, %rdi
    andq $-16, %rsp
    call {report}
"#,
    report = sym report,
    options(att_syntax)
);

unsafe extern "C" {
    static exception_entries: u8;
    static launch_start: u8;
    static text_end: u8;
    static stack_guard: u8;
    static early_stack_end: u8;
}

/// Address of the entry for an exception that SecVisor itself must not raise.
pub fn entry(vector: u64) -> u64 {
    &raw const exception_entries as u64 + vector * 16
}

/// SecVisor's registers at an exception, as the entry and the processor push them.
#[repr(C)]
#[derive(Debug)]
#[allow(dead_code, reason = "only shown")]
struct Trap {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rbp: u64,
    rdi: u64,
    rsi: u64,
    rdx: u64,
    rcx: u64,
    rbx: u64,
    rax: u64,
    vector: u64,
    error_code: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// The processor whose guest is looked at.
pub static VCPU: AtomicPtr<Vcpu> = AtomicPtr::new(null_mut());

/// SecVisor's symbol table (ELF64), then its names.
pub struct Symbols {
    /// Both.
    pub bytes: [u8; 32 << 10],
    /// Where table and names end.
    pub ends: [usize; 2],
}

/// What is known of SecVisor's functions.
pub static SYMBOLS: Mutex<Symbols> = Mutex::new(Symbols { bytes: [0; 32 << 10], ends: [0; 2] });

const SYMBOL_BYTES: usize = 24;
const FUNCTION: u8 = 2;
/// The stack and the guard page below it.
fn stack() -> Range<u64> {
    &raw const stack_guard as u64..&raw const early_stack_end as u64
}

impl Symbols {
    /// The function at an address and the bytes from its start; an empty name where none is known.
    fn find(&self, address: u64) -> (&str, u64) {
        let [table, names] = self.ends;
        let symbols = self.bytes.get(..table).unwrap_or_default().chunks_exact(SYMBOL_BYTES);
        let word = |symbol: &[u8], at: usize| {
            symbol.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |it| u64::from_le_bytes(*it))
        };
        let functions = symbols.filter(|symbol| symbol[4] & 0xF == FUNCTION);
        let starts = functions.map(|symbol| (word(symbol, 8), word(symbol, 0) as u32 as usize));
        let (start, name) = starts.filter(|it| it.0 <= address).max().unwrap_or((address, names));
        let name = self.bytes.get(table..names).and_then(|names| names.get(name..));
        let name = name.and_then(|name| name.split(|&byte| byte == 0).next()).unwrap_or_default();
        (core::str::from_utf8(name).unwrap_or_default(), address - start)
    }
}

/// How far the end has come: not at all, a panic has told its reason, the report has begun.
static STAGE: AtomicU8 = AtomicU8::new(0);
const TOLD: u8 = 1;
const REPORTED: u8 = 2;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    // SAFETY: this processor never returns to the code that held the lock.
    unsafe { console::force_unlock() };
    let place = info.location().map_or(("?", 0), |it| (it.file(), it.line()));
    log::error!("secvisor: panic: {} at {}:{}", info.message(), place.0, place.1);
    STAGE.fetch_max(TOLD, Ordering::Relaxed);
    // SAFETY: the exception leads to the report, which ends this processor.
    unsafe { asm!("ud2", options(noreturn, nostack)) }
}

/// Says what is known, once, and stops.
extern "C" fn report(trap: &Trap) -> ! {
    // A parked processor, on a small stack of its own, must not disturb the one that runs the guest.
    let parked = !stack().contains(&trap.rsp);
    let stage = if parked { REPORTED } else { STAGE.swap(REPORTED, Ordering::Relaxed) };
    if stage == REPORTED {
        cpu::stop();
    }
    if stage != TOLD {
        // SAFETY: this processor never returns to the code that held the lock.
        unsafe { console::force_unlock() };
        log::error!("secvisor: panic: exception {} in SecVisor", trap.vector);
    }
    let (cr2, cr3) = (Cr2::read_raw(), Cr3::read_raw().0.start_address().as_u64());
    log::error!("secvisor: {trap:x?} cr2 {cr2:x} cr3 {cr3:x}");
    // SAFETY: null or the vCPU, which lives for ever; whoever changed it has stopped.
    if let Some(vcpu) = unsafe { VCPU.load(Ordering::Relaxed).as_ref() } {
        let save = &vcpu.vmcb.save;
        log::error!(
            "secvisor: guest rip {:x} rsp {:x} rax {:x} rflags {:x} cpl {} cr0 {:x} cr3 {:x} cr4 {:x} \
             efer {:x} {:x?} {:?}",
            save.rip,
            save.rsp,
            save.rax,
            save.rflags,
            save.cpl,
            save.cr0,
            save.cr3,
            save.cr4,
            save.efer,
            vcpu.registers,
            vcpu.view(),
        );
        for at in 0..vcpu.recent.len() {
            let Noted { exit, info, rip } = vcpu.recent[(vcpu.noted + at) % vcpu.recent.len()];
            log::error!("secvisor: exit {exit:#x} info {:#x} {:#x} rip {rip:#x}", info[0], info[1]);
        }
    }
    trace(trap);
    log::error!("secvisor: stopped; the ring of violations is in memory");
    cpu::stop()
}

/// Names what the stack holds of addresses in code: the way here, and between, what is left of older
/// calls.
fn trace(trap: &Trap) {
    let code = &raw const launch_start as u64..&raw const text_end as u64;
    let Some(symbols) = SYMBOLS.try_lock() else { return };
    let words = (trap.rsp & !7..stack().end).step_by(8);
    // SAFETY: between the stack pointer and the end of the stack.
    let words = words.map(|at| unsafe { (at as *const u64).read_volatile() });
    let here = core::iter::once(trap.rip).chain(words).filter(|word| code.contains(word));
    for (index, address) in here.enumerate() {
        let (name, offset) = symbols.find(address);
        // The start of a function is a pointer to it, no return address.
        if index == 0 || offset != 0 {
            log::error!("secvisor: at {address:#x} {name}+{offset:#x}");
        }
    }
}
