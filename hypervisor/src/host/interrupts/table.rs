//! The table itself, filled once and loaded on every processor before the guest starts.
#![allow(unsafe_code, reason = "loads IDTR")]

use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::VirtAddr;
use x86_64::instructions::tables::lidt;
use x86_64::structures::DescriptorTablePointer;

use super::{general_protection, ignore, ignore_with_error_code};
use crate::panic;

const VECTORS: usize = 32;
const DEBUG: usize = 1;
const NMI: usize = 2;
const GENERAL_PROTECTION: usize = 13;
const SECURITY: usize = 30;
/// Present, 64-bit interrupt gate.
const GATE: u64 = 0x8E00;
/// The code segment of the early GDT, which SecVisor keeps.
const CODE_SELECTOR: u64 = 8;

static TABLE: [AtomicU64; VECTORS * 2] = [const { AtomicU64::new(0) }; VECTORS * 2];

/// Fills the table.
pub fn fill() {
    for (vector, gate) in TABLE.chunks_exact(2).enumerate() {
        let address = match vector {
            DEBUG | NMI => ignore as *const () as u64,
            GENERAL_PROTECTION => general_protection as *const () as u64,
            SECURITY => ignore_with_error_code as *const () as u64,
            _ => panic::entry(vector as u64),
        };
        let (middle, low) = (address >> 16 & 0xFFFF, address & 0xFFFF);
        gate[0].store(low | CODE_SELECTOR << 16 | GATE << 32 | middle << 48, Ordering::Relaxed);
        gate[1].store(address >> 32, Ordering::Relaxed);
    }
}

/// Loads the table on this processor.
pub fn load() {
    let base = VirtAddr::from_ptr(TABLE.as_ptr());
    let limit = (size_of_val(&TABLE) - 1) as u16;
    // SAFETY: the table is static and filled; nothing writes it any more.
    unsafe { lidt(&DescriptorTablePointer { limit, base }) };
}
