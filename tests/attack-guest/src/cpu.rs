//! Privileged instructions, as functions. They are safe to call in the sense of this program
//! alone: the guest owns the whole machine, and whatever breaks is part of the experiment.

use core::arch::asm;
#[cfg(target_arch = "x86")]
use core::arch::x86::{__cpuid_count, CpuidResult};
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::{__cpuid_count, CpuidResult};

pub use crate::arch::vmmcall;

pub const EFER: u32 = 0xC000_0080;
pub const STAR: u32 = 0xC000_0081;
pub const LSTAR: u32 = 0xC000_0082;
pub const CSTAR: u32 = 0xC000_0083;
pub const SFMASK: u32 = 0xC000_0084;
pub const APIC_BASE: u32 = 0x1B;
pub const EFER_SCE: u64 = 1;
pub const EFER_NXE: u64 = 1 << 11;
pub const EFER_SVME: u64 = 1 << 12;
pub const EFER_TCE: u64 = 1 << 15;
pub const CR0_WP: u64 = 1 << 16;
pub const CR4_SMEP: u64 = 1 << 20;

/// Defines a function that runs one instruction without a result.
macro_rules! instruction {
    ($name:ident($($argument:ident: $type:ty),*), $text:literal $(, $operand:tt)*) => {
        pub fn $name($($argument: $type),*) {
            // SAFETY: see the module's comment.
            unsafe { instruction!(@asm $text, $($argument),*) }
        }
    };
    (@asm $text:literal,) => { asm!($text) };
    (@asm $text:literal, $argument:ident) => { asm!($text, in(reg) $argument as usize) };
}

instruction!(write_cr0(value: u64), "mov cr0, {}");
instruction!(write_cr3(value: u64), "mov cr3, {}");
instruction!(write_cr4(value: u64), "mov cr4, {}");
instruction!(clts(), "clts");
instruction!(lmsw(value: u64), "lmsw {:x}");
instruction!(write_dr0(value: u64), "mov dr0, {}");
instruction!(write_dr6(value: u64), "mov dr6, {}");
instruction!(write_dr7(value: u64), "mov dr7, {}");
instruction!(lgdt(pointer: u64), "lgdt [{}]");
instruction!(lidt(pointer: u64), "lidt [{}]");
instruction!(lldt(selector: u64), "lldt {:x}");
instruction!(ltr(selector: u64), "ltr {:x}");
instruction!(invlpg(address: u64), "invlpg [{}]");

/// Defines a function that reads one register.
macro_rules! register {
    ($name:ident, $text:literal) => {
        pub fn $name() -> u64 {
            let value: usize;
            // SAFETY: see the module's comment.
            unsafe { asm!($text, out(reg) value) };
            value as u64
        }
    };
}

register!(cr0, "mov {}, cr0");
register!(cr2, "mov {}, cr2");
register!(cr4, "mov {}, cr4");
register!(dr6, "mov {}, dr6");

pub fn tsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: see the module's comment.
    unsafe { asm!("lfence; rdtsc", out("eax") low, out("edx") high) };
    u64::from(high) << 32 | u64::from(low)
}

/// Where IDTR says that the table is.
pub fn idt_base() -> u64 {
    let mut pointer = [0u64; 2];
    // SAFETY: see the module's comment; SIDT writes ten bytes.
    unsafe { asm!("sidt [{}]", in(reg) &raw mut pointer) };
    pointer[0] >> 16 | pointer[1] << 48
}

pub fn outb(port: u16, value: u8) {
    // SAFETY: see the module's comment.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value) }
}

pub fn outw(port: u16, value: u16) {
    // SAFETY: see the module's comment.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value) }
}

pub fn outl(port: u16, value: u32) {
    // SAFETY: see the module's comment.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value) }
}

pub fn inb(port: u16) -> u8 {
    let value;
    // SAFETY: see the module's comment.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value) };
    value
}

pub fn inl(port: u16) -> u32 {
    let value;
    // SAFETY: see the module's comment.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value) };
    value
}

pub fn rdmsr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: see the module's comment.
    unsafe { asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high) };
    u64::from(high) << 32 | u64::from(low)
}

pub fn wrmsr(msr: u32, value: u64) {
    // SAFETY: see the module's comment.
    unsafe { asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32) }
}

pub fn cpuid(leaf: u32) -> CpuidResult {
    __cpuid_count(leaf, 0)
}

/// Whether SecVisor is below.
pub fn under_secvisor() -> bool {
    let leaf = cpuid(0x4000_0000);
    let words = [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes);
    words.as_flattened() == b"SecVisorRust"
}

/// VM exits so far, this CPUID included; 0 without SecVisor.
pub fn exits() -> u64 {
    if !under_secvisor() {
        return 0;
    }
    let leaf = cpuid(0x4000_0002);
    u64::from(leaf.ebx) << 32 | u64::from(leaf.eax)
}
