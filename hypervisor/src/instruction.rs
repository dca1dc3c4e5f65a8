//! Reading the guest's instructions, where the processor does not tell what they are.
//!
//! User bytes can change between execution and this look at them: a wrong decode only picks the
//! wrong event for the guest. Kernel bytes are approved, and so immutable.

use policy::address::{Gpa, Gva};
use policy::walk::Paging;

use crate::vcpu::Vcpu;

/// The longest instruction, in bytes.
const LONGEST: usize = 15;

/// The bytes at RIP, as far as they could be read.
pub struct Instruction {
    bytes: [u8; LONGEST],
    valid: usize,
    /// Bytes of legacy and REX prefixes.
    prefixes: usize,
    rex: u8,
    long: bool,
}

impl Instruction {
    /// Reads the instruction at the guest's RIP.
    pub fn fetch(vcpu: &Vcpu) -> Self {
        let long = vcpu.is_64_bit();
        let Gva(start) = vcpu.instruction_address(long);
        let mut instruction = Self { bytes: [0; LONGEST], valid: 0, prefixes: 0, rex: 0, long };
        // At most two pieces: the instruction may cross a page.
        for _ in 0..2 {
            let address = start.wrapping_add(instruction.valid as u64);
            let rest = &mut instruction.bytes[instruction.valid..];
            let Some(gpa) = vcpu.translate(Gva(address)).filter(|_| !rest.is_empty()) else {
                break;
            };
            instruction.valid += vcpu.guest().copy(gpa, rest);
        }
        instruction.skip_prefixes();
        instruction
    }

    fn skip_prefixes(&mut self) {
        while let Some(byte) = self.byte(0) {
            self.rex = match byte {
                0x26 | 0x2E | 0x36 | 0x3E | 0x64..=0x67 | 0xF2 | 0xF3 => 0,
                0x40..=0x4F if self.long => byte,
                _ => break,
            };
            self.prefixes += 1;
        }
    }

    /// The `index`th byte behind the prefixes.
    pub fn byte(&self, index: usize) -> Option<u8> {
        let at = self.prefixes + index;
        self.bytes.get(..self.valid)?.get(at).copied()
    }

    /// Whether the opcode begins with `bytes`.
    pub fn is(&self, bytes: &[u8]) -> bool {
        bytes.iter().enumerate().all(|(index, &byte)| self.byte(index) == Some(byte))
    }

    /// Length with prefixes of an instruction whose opcode and operands take `rest` bytes.
    pub fn length(&self, rest: usize) -> u64 {
        (self.prefixes + rest) as u64
    }

    /// The value that MOV to a control register moves; `None` if it is not that instruction.
    pub fn moved_to_control_register(&self, vcpu: &Vcpu) -> Option<u64> {
        let register = self.byte(2).filter(|_| self.is(&[0x0F, 0x22]))? & 7 | (self.rex & 1) << 3;
        let value = vcpu.register(register);
        Some(if self.long { value } else { value & 0xFFFF_FFFF })
    }

    /// What a MOV to memory stores: the value, its 4 or 8 bytes, the instruction's length. `MOV m, r`,
    /// `MOV m, imm32` and `MOV moffs, rAX`; `None` for every other one.
    pub fn stored_value(&self, vcpu: &Vcpu) -> Option<(u64, u64, u64)> {
        // 16 bits of data, or a shorter address, is not what drivers use.
        let prefixes = self.bytes.get(..self.prefixes)?;
        if prefixes.contains(&0x66) || prefixes.contains(&0x67) {
            return None;
        }
        let size = if self.rex & 8 != 0 { 8 } else { 4 };
        let opcode = self.byte(0)?;
        if opcode == 0xA3 {
            return Some((vcpu.vmcb.save.rax, size, self.length(if self.long { 9 } else { 5 })));
        }
        let modrm = self.byte(1)?;
        let (mode, register, base) = (modrm >> 6, modrm >> 3 & 7, modrm & 7);
        let sib = usize::from(base == 4);
        let absolute = mode == 0 && (base == 5 || sib == 1 && self.byte(2)? & 7 == 5);
        let displacement = match mode {
            0 if absolute => 4,
            0 => 0,
            1 => 1,
            2 => 4,
            _ => return None,
        };
        let operands = 2 + sib + displacement;
        match opcode {
            0x89 => {
                let number = register | (self.rex & 4) << 1;
                Some((vcpu.register(number), size, self.length(operands)))
            }
            0xC7 if register == 0 => {
                let mut value = [0; 4];
                for (index, slot) in value.iter_mut().enumerate() {
                    *slot = self.byte(operands + index)?;
                }
                let value = i64::from(i32::from_le_bytes(value));
                Some((value as u64, size, self.length(operands + 4)))
            }
            _ => None,
        }
    }
}

impl Vcpu {
    /// Where the guest's tables map `gva`, if at all.
    pub fn translate(&self, gva: Gva) -> Option<Gpa> {
        let save = &self.vmcb.save;
        let guest = self.guest();
        Paging::of(save.cr0, save.cr4, self.efer()).translate(save.cr3, gva, |at| guest.read(at))
    }

    /// Where the instruction at RIP lies, which is 64-bit code or not.
    #[inline(always)]
    pub fn instruction_address(&self, is_64_bit: bool) -> Gva {
        let save = &self.vmcb.save;
        let linear = save.cs.base.wrapping_add(save.rip);
        Gva(if is_64_bit { save.rip } else { linear & 0xFFFF_FFFF })
    }

    /// A general-purpose register by its number in instructions.
    pub fn register(&self, number: u8) -> u64 {
        let registers = &self.registers;
        match number {
            0 => self.vmcb.save.rax,
            1 => registers.rcx,
            2 => registers.rdx,
            3 => registers.rbx,
            4 => self.vmcb.save.rsp,
            5 => registers.rbp,
            6 => registers.rsi,
            7 => registers.rdi,
            8 => registers.r8,
            9 => registers.r9,
            10 => registers.r10,
            11 => registers.r11,
            12 => registers.r12,
            13 => registers.r13,
            14 => registers.r14,
            _ => registers.r15,
        }
    }
}
