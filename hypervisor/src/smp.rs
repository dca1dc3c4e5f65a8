//! The other processors: taken from the firmware at launch and kept in SecVisor's own code.
//!
//! Firmware parks them in loops in memory that a guest could overwrite. INIT-SIPI moves every one
//! into the code below, which halts for good. No interrupt can wake it, NMIs are ignored, and INIT
//! becomes #SX where the processor can do that (VM_CR.R_INIT, AMD64 APM vol. 2, 15.17 and 15.30.1);
//! elsewhere only the guarded interrupt command registers keep INIT away.
#![allow(unsafe_code, reason = "processors start in real mode, by code that is copied there")]

use core::arch::{global_asm, naked_asm};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use boot::memory::PhysicalMemory;
use policy::address::PhysicalRange;

use crate::host::device::DeviceRegister;
use crate::host::{interrupts, paging};
use crate::memory::Launch;
use crate::svm::cpu;

/// Stacks for parked processors: as many as the firmware may list, enough for an NMI each.
pub const STACKS_BYTES: u64 = STACK_BYTES * boot::acpi::MAX_PROCESSORS as u64;
const STACK_BYTES: u64 = 1024;

const VM_CR: u32 = 0xC001_0114;
const R_INIT: u64 = 1 << 1;
const DIS_A20M: u64 = 1 << 2;
const APIC_BASE: u32 = 0x1B;
const X2APIC: u64 = 1 << 10;
const X2APIC_ICR: u32 = 0x830;
const ICR_LOW: u64 = 0x300;
/// INIT and start-up to all processors but this one (APM vol. 2, 16.5).
const INIT_ALL: u32 = 0x000C_4500;
const START_ALL: u32 = 0x000C_4600;

static PARKED: AtomicU32 = AtomicU32::new(0);
static ROOT: AtomicU64 = AtomicU64::new(0);

// Runs at the start of a frame below 640 KiB; the three words at its end are filled in.
global_asm!(
    r#"
    .section .rodata.startup, "a"
    .code16
startup_begin:
    cli
    movw %cs, %ax
    movw %ax, %ds
    movzwl %ax, %ebx
    shll $4, %ebx                       // EBX = address of this frame
    leal (startup_gdt - startup_begin)(%ebx), %eax
    movl %eax, (startup_gdt_pointer - startup_begin + 2)
    lgdtl (startup_gdt_pointer - startup_begin)
    movl (startup_root - startup_begin), %eax
    movl %eax, %cr3
    movl $0x20, %eax                    // CR4.PAE
    movl %eax, %cr4
    movl $0xC0000080, %ecx              // EFER.LME, EFER.NXE
    rdmsr
    orl $0x900, %eax
    wrmsr
    movl $0x80010011, %eax              // CR0: PG, WP, ET, PE
    movl %eax, %cr0
    leal (startup64 - startup_begin)(%ebx), %eax
    movl %eax, (startup_far - startup_begin)
    ljmpl *(startup_far - startup_begin)
    .code64
startup64:
    movl $1, %eax
    lock xaddl %eax, startup_ticket(%rip)
    andl ${last}, %eax                  // more processors than listed end the launch anyway
    incl %eax
    imulq ${stack}, %rax, %rax
    addq startup_stacks(%rip), %rax
    movq %rax, %rsp
    xorl %eax, %eax
    movl %eax, %ss
    movl %eax, %ds
    movl %eax, %es
    jmpq *startup_park(%rip)
    .align 8
startup_gdt:
    .quad 0
    .quad 0x00AF9B000000FFFF
startup_gdt_pointer:
    .short 15
    .long 0
    .align 8
startup_far:
    .long 0
    .short 8
    .align 8
startup_ticket:
    .quad 0
startup_root:
    .quad 0
startup_stacks:
    .quad 0
startup_park:
    .quad 0
startup_end:
"#,
    stack = const STACK_BYTES,
    last = const boot::acpi::MAX_PROCESSORS - 1,
    options(att_syntax)
);

unsafe extern "C" {
    static startup_begin: u8;
    static startup_end: u8;
}

/// Takes every other processor. `frame` is where they start, with the first of the page tables
/// `roots` loaded; they stay with the second. `stacks` are [`STACKS_BYTES`] long. There must be `expected` others.
///
/// # Errors
/// How many came, if not all of `expected`.
pub fn park_others(
    memory: &mut Launch,
    frame: PhysicalRange,
    roots: [u64; 2],
    stacks: PhysicalRange,
    expected: u32,
    local_apic: u64,
) -> Result<(), u32> {
    // SAFETY: the code between the two symbols is in SecVisor's image.
    let code = unsafe {
        let (begin, end) = (&raw const startup_begin, &raw const startup_end);
        core::slice::from_raw_parts(begin, end as usize - begin as usize)
    };
    let page = memory.bytes_mut(frame);
    page[..code.len()].copy_from_slice(code);
    ROOT.store(roots[1], Ordering::Release);
    let words = [roots[0], stacks.start(), arrive as *const () as u64];
    for (slot, word) in page[code.len() - 24..code.len()].chunks_exact_mut(8).zip(words) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    send(local_apic, INIT_ALL);
    wait(10_000);
    // Twice, as the start-up protocol asks for; a processor that runs ignores the second.
    for _ in 0..2 {
        send(local_apic, START_ALL | (frame.start() >> 12) as u32);
        wait(1_000);
    }
    let arrived = || PARKED.load(Ordering::Acquire);
    for _ in 0..1_000 {
        if arrived() >= expected {
            break;
        }
        wait(1_000);
    }
    // A processor that the firmware does not list must not come unseen.
    wait(50_000);
    if arrived() == expected { Ok(()) } else { Err(arrived()) }
}

/// Writes the interrupt command register in whichever mode the local APIC is.
fn send(local_apic: u64, command: u32) {
    if cpu::read_msr(APIC_BASE).unwrap_or(0) & X2APIC != 0 {
        // SAFETY: INIT and start-up go to the other processors only; #GP is reported.
        let _ = unsafe { cpu::write_msr(X2APIC_ICR, command.into()) };
    } else {
        // SAFETY: the local APIC's register; the command goes to the other processors only.
        unsafe { DeviceRegister::new(local_apic + ICR_LOW) }.write(command);
    }
}

/// Waits at least so many microseconds: a read of an unused port takes about one on real machines,
/// and on emulators the other processors need turns rather than time.
fn wait(microseconds: u32) {
    for _ in 0..microseconds {
        // SAFETY: port 80h is the diagnostic port; reading it has no effect.
        unsafe { cpu::port_read(0x80, 1) };
    }
}

/// Where the other processors come to from the start-up code.
#[unsafe(naked)]
unsafe extern "C" fn arrive() -> ! {
    naked_asm!("call {prepare}", "jmp {park}", prepare = sym prepare, park = sym park)
}

/// Where they stay, when the launch's code is long gone.
#[unsafe(naked)]
unsafe extern "C" fn park() -> ! {
    // Counted when the last instruction of the launch is behind it.
    naked_asm!("lock inc dword ptr [rip + {parked}]", "2:", "cli", "hlt", "jmp 2b", parked = sym PARKED)
}

extern "C" fn prepare() {
    paging::switch_to(ROOT.load(Ordering::Acquire));
    interrupts::load();
    redirect_init();
}

/// Makes INIT an exception and forces A20 open, where the processor can do that. Returns whether
/// INIT is one now.
pub fn redirect_init() -> bool {
    let Ok(value) = cpu::read_msr(VM_CR) else { return false };
    // SAFETY: changes only how INIT and A20 act; a locked VM_CR refuses with #GP.
    let _ = unsafe { cpu::write_msr(VM_CR, value | R_INIT | DIS_A20M) };
    cpu::read_msr(VM_CR).is_ok_and(|value| value & R_INIT != 0)
}
