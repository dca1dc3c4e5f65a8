//! Code of the guest while it is verified.
#![allow(unsafe_code, reason = "fills the gaps of code pages, which the guest cannot write then")]

use policy::PAGE_SIZE;
use policy::address::{Gpa, Gva};
use policy::flush::FlushDuty;
use policy::units::CodeMemory;

use crate::memory::Guest;
use crate::svm::cpu;
use crate::vcpu::Vcpu;

/// The guest's code as this processor sees it.
pub struct Code<'a>(pub &'a mut Vcpu);

impl CodeMemory for Code<'_> {
    fn translate(&self, gva: Gva) -> Option<Gpa> {
        self.0.translate(gva)
    }

    fn settle(&mut self, duty: FlushDuty, frames: &[u32]) {
        // Enough as long as one processor runs guest code: it flushes before it runs any again.
        duty.discharge(|| self.0.flush_owed = true);
        frames.iter().for_each(|&frame| self.0.guest().write_back(frame));
    }

    fn read(&self, gpa: Gpa, to: &mut [u8]) -> usize {
        self.0.guest().copy(gpa, to)
    }

    fn fill(&mut self, gpa: Gpa, length: usize) -> usize {
        self.0.guest().fill(gpa, length)
    }
}

impl Guest {
    /// Writes INT3 from `gpa` on, as far as the frame and `length` reach, through to memory;
    /// returns how many bytes, 0 where the guest has no RAM.
    fn fill(&self, gpa: Gpa, length: usize) -> usize {
        if !self.is_ram(gpa) {
            return 0;
        }
        let count = length.min((PAGE_SIZE - gpa.0 % PAGE_SIZE) as usize);
        // SAFETY: the bytes lie in one frame, which is RAM and which nothing in SecVisor refers to.
        unsafe { core::ptr::write_bytes(gpa.0 as *mut u8, 0xCC, count) };
        self.write_back(gpa.frame() as u32);
        count
    }

    /// Makes memory and all caches agree on a frame's contents, whatever type an alias of the
    /// guest's has (APM vol. 2, 7.4).
    fn write_back(&self, frame: u32) {
        let start = u64::from(frame) * PAGE_SIZE;
        if self.is_ram(Gpa(start)) {
            cpu::flush_cache_lines(start, PAGE_SIZE);
        }
    }
}
