//! One call: its number, its registers, its descriptor, the mode that it is made in.

use super::module::{self, Loaded};
use super::{Fuzz, Granted};
use crate::fuzz::{SCRATCH, is_done, places, same_registers};
use crate::memory::{self, PAGE, PRESENT, RW, WINDOW, copy, peek8, poke8};
use crate::modules::{self, APPROVE, CORE, DESCRIPTOR, Descriptor, INIT, RELEASE};
use crate::tables::{CPL1_CS, CPL2_CS};
use crate::trap::{self, Frame, UNDEFINED, symbol};

const APPROVE_CODE: u64 = 0x5EC0_0001;
const SET_KERNEL_MODE: u64 = 0x5EC0_0002;
const DESCRIPTOR_BYTES: u64 = size_of::<Descriptor>() as u64;
const NO_ENTRY: i32 = -2;
const NO_SYSTEM_CALL: i32 = -38;
const BUSY: i32 = -16;
/// Every errno of the interface.
const ERRNOS: [(i32, &str); 6] = [
    (-1, "not-permitted"),
    (NO_ENTRY, "no-entry"),
    (-14, "fault"),
    (BUSY, "busy"),
    (-22, "invalid"),
    (NO_SYSTEM_CALL, "no-such-call"),
];
/// Two frames for a descriptor that crosses a page.
const FIRST: u64 = SCRATCH + 0x10_0000;
const SECOND: u64 = FIRST + 5 * PAGE;
/// The segment of 32-bit kernel code, which only the fuzzer needs.
#[cfg(target_arch = "x86_64")]
const COMPATIBILITY_CS: u64 = 0xA8;

/// Has the kernel's init text released.
pub fn release_init_text() {
    let (start, end) = (symbol!(init_text_start), symbol!(init_text_end));
    let mut unit = Descriptor::new(0, "kernel");
    unit.init = [start, end - start];
    modules::call(RELEASE, &unit);
}

/// Names a frame as a module's.
pub fn name_frame(frame: u64) {
    let place = modules::Place::small(0);
    modules::map(place.core, frame);
    let mut unit = Descriptor::new(CORE, "gamma");
    unit.core = [place.core, PAGE];
    modules::call(APPROVE, &unit);
    // The frame may have been loaded with it.
    modules::release(place.core);
}

/// A mode to call from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Kernel,
    /// 32-bit code of a 64-bit kernel.
    #[cfg(target_arch = "x86_64")]
    Compatibility,
    /// Code and stack selectors at a lower privilege.
    Lower(u64, u64),
}

pub struct Call {
    number: u64,
    operation: u64,
    address: u64,
    size: u64,
    mode: Mode,
    /// Whether the page tables are as they will be behind the call.
    pub certain: bool,
}

impl Call {
    /// A call about what is loaded, honest but for what the generator changes.
    pub fn choose(fuzz: &mut Fuzz<'_>, loaded: &Loaded) -> Self {
        let random = &mut fuzz.random;
        let kind = random.pick(&[CORE, CORE, INIT]);
        let mut unit = loaded.unit(kind);
        let operation = match random.below(16) {
            0..10 => APPROVE,
            10..15 => RELEASE,
            _ => random.value(),
        };
        if random.one_in(2) {
            for _ in 0..=random.below(2) {
                mutate(fuzz, &mut unit);
            }
        }
        let mut call = Self {
            number: APPROVE_CODE,
            operation,
            address: place(fuzz, &unit),
            size: DESCRIPTOR_BYTES,
            mode: mode(fuzz),
            certain: true,
        };
        let random = &mut fuzz.random;
        if random.one_in(16) {
            call.size = random.pick(&[0, 8, 120, 127, 129, 136, 256, 1 << 32 | 128, 1 << 63]);
        }
        if random.one_in(12) {
            call.number = match random.below(4) {
                0 => APPROVE_CODE ^ 1 << random.below(64),
                1 => APPROVE_CODE.wrapping_add(random.below(5)).wrapping_sub(1),
                2 => APPROVE_CODE | random.number() << 32,
                _ => random.value(),
            };
        }
        // That would be no attempt: the kernel locks itself half way, with all that belongs to it.
        if call.number & 0xFFFF_FFFF == SET_KERNEL_MODE && !fuzz.locked {
            call.number = APPROVE_CODE;
        }
        call
    }

    /// Makes it, and judges what came of it.
    pub fn make(&self, fuzz: &mut Fuzz<'_>, granted: &mut Granted) {
        let mut frame = fuzz.kernel(symbol!(f_vmmcall));
        frame.ax = self.number;
        frame.bx = self.operation;
        frame.cx = self.address;
        frame.dx = self.size;
        self.mode.apply(&mut frame);
        let end = trap::run_user(&frame);
        fuzz.count("calls");
        if let Mode::Lower(..) = self.mode {
            if end.vector != UNDEFINED || end.ip != frame.ip || end.cs != frame.cs {
                fuzz.unexpected(format_args!("a call from CPL {}", frame.cs & 3), &end);
            }
            fuzz.expect_risen(0, "a call from a lower privilege", &end);
            fuzz.count("undefined");
            return;
        }
        let wide = self.mode == Mode::Kernel && size_of::<usize>() == 8;
        let mask = if wide { u64::MAX } else { 0xFFFF_FFFF };
        let kept = Frame { ax: frame.ax, ..end };
        if !is_done(&end) || !same_registers(&frame, &kept, mask) {
            fuzz.unexpected(format_args!("a call"), &end);
        }
        self.judge(fuzz, granted, &end, mask);
    }

    fn judge(&self, fuzz: &mut Fuzz<'_>, granted: &mut Granted, end: &Frame, mask: u64) {
        let result = end.ax as i32;
        let [number, operation] = [self.number, self.operation].map(|value| value & mask);
        let outcome = ERRNOS.iter().find(|errno| errno.0 == result).map(|errno| errno.1);
        let outcome = match (number, operation, result) {
            (APPROVE_CODE, APPROVE, 0) => self.judge_grant(fuzz, granted),
            (APPROVE_CODE, RELEASE, 0) => self.judge_release(fuzz, granted),
            (APPROVE_CODE, _, ..0) if outcome.is_some() && result != NO_SYSTEM_CALL => outcome,
            (SET_KERNEL_MODE, _, BUSY) => outcome,
            (APPROVE_CODE | SET_KERNEL_MODE, ..) => None,
            (_, _, NO_SYSTEM_CALL) => outcome,
            _ => None,
        };
        let Some(outcome) = outcome else {
            fuzz.unexpected(format_args!("number {number:#x}, operation {operation:#x}"), end)
        };
        let quiet =
            result == 0 || number != APPROVE_CODE || operation == RELEASE && result == NO_ENTRY;
        fuzz.expect_risen(u32::from(!quiet), outcome, end);
        fuzz.count(outcome);
    }

    /// The descriptor as it lies in memory, its name, and whether it means an init region.
    fn descriptor(&self) -> (Descriptor, [u8; 64], bool) {
        let mut unit = Descriptor::new(0, "");
        copy(self.address, &raw mut unit as u64, DESCRIPTOR_BYTES);
        let mut name = [0; 64];
        name.iter_mut().zip(self.address + 64..).for_each(|(slot, at)| *slot = peek8(at));
        (unit, name, u64::from(unit.kind) != CORE)
    }

    /// A grant: only of what is exact.
    fn judge_grant(&self, fuzz: &Fuzz<'_>, granted: &mut Granted) -> Option<&'static str> {
        let (unit, name, init) = self.descriptor();
        let base = if init { unit.init[0] } else { unit.core[0] };
        let Some(case) = module::exact(&unit, &name, init) else {
            fuzz.fail(format_args!("what lies at {base:#x} was approved and is no module"))
        };
        granted.certain[case][usize::from(init)] = self.certain;
        let slot = &mut granted.bases[case][usize::from(init)];
        (core::mem::replace(slot, base) == 0).then_some("granted")
    }

    /// A release: only of what was granted.
    fn judge_release(&self, fuzz: &Fuzz<'_>, granted: &mut Granted) -> Option<&'static str> {
        let (unit, _, init) = self.descriptor();
        let base = if init { unit.init[0] } else { unit.core[0] };
        let slot = granted.bases.iter_mut().flatten().find(|slot| **slot == base && base != 0);
        let Some(slot) = slot.filter(|_| unit.kind != 0) else {
            fuzz.fail(format_args!("what lies at {base:#x} was released and was no module"))
        };
        *slot = 0;
        Some("released")
    }
}

impl Mode {
    fn apply(self, frame: &mut Frame) {
        match self {
            Self::Kernel => (),
            #[cfg(target_arch = "x86_64")]
            Self::Compatibility => {
                memory::poke(symbol!(gdt) + COMPATIBILITY_CS, 0x00CF_9B00_0000_FFFF);
                frame.cs = COMPATIBILITY_CS;
            }
            Self::Lower(code, stack) => {
                (frame.cs, frame.ss) = (code, stack);
                frame.sp = symbol!(low_cpl_stack_top);
                if code & 3 == 3 {
                    frame.ip = symbol!(user_payload);
                    copy(symbol!(f_vmmcall), frame.ip, 5);
                }
            }
        }
    }
}

fn mode(fuzz: &mut Fuzz<'_>) -> Mode {
    let random = &mut fuzz.random;
    match random.below(16) {
        0 => Mode::Lower(random.pick(&[0x33, 0x23]), 0x2B),
        1 if random.one_in(2) => Mode::Lower(CPL1_CS | 1, (CPL1_CS + 8) | 1),
        1 => Mode::Lower(CPL2_CS | 2, (CPL2_CS + 8) | 2),
        #[cfg(target_arch = "x86_64")]
        2..4 => Mode::Compatibility,
        _ => Mode::Kernel,
    }
}

/// Changes one thing of a descriptor.
fn mutate(fuzz: &mut Fuzz<'_>, unit: &mut Descriptor) {
    let (address, value) = (places::address(fuzz), fuzz.random.value());
    let random = &mut fuzz.random;
    let region = if random.one_in(2) { &mut unit.core } else { &mut unit.init };
    match random.below(14) {
        0 => region[0] = address,
        1 => region[0] = address & !(PAGE - 1),
        2 => region[0] = random.pick(&[0, region[0] ^ PAGE, region[0] + 0x1_0000, value]),
        3 => region[1] = random.pick(&[0, region[1] ^ PAGE, region[1] + 1, !0xFFF, value]),
        4 => core::mem::swap(&mut unit.core, &mut unit.init),
        5 => unit.kind = random.below(5) as u32,
        6 => unit.kind = value as u32,
        7 => unit.version = value as u32,
        8 => unit.reserved[random.below(3) as usize] = value,
        9 => unit.set_name(random.pick(&["alpha", "beta", "gamma", "kernel", "", "alphaa"])),
        10 => unit.set_name(random.pick(&[LONG, "gamma/core", "alp\u{e9}", "\u{1}"])),
        11 => random.fill(&raw mut *unit as u64, DESCRIPTOR_BYTES),
        _ => {
            let at = &raw mut *unit as u64 + random.below(DESCRIPTOR_BYTES);
            poke8(at, peek8(at) ^ 1 << random.below(8));
        }
    }
}

/// A name without an end.
const LONG: &str = "gammagammagammagammagammagammagammagammagammagammagammagammagamma";

/// Writes a descriptor somewhere, and says where; or says so of another place.
fn place(fuzz: &mut Fuzz<'_>, unit: &Descriptor) -> u64 {
    unit.store(DESCRIPTOR);
    match fuzz.random.below(10) {
        0 => places::address(fuzz),
        1 => DESCRIPTOR + fuzz.random.below(8),
        2 => {
            // Across a page, whose other half may be anything.
            let inside = 8 + 8 * fuzz.random.below(15);
            copy(DESCRIPTOR, FIRST + PAGE - inside, inside);
            copy(DESCRIPTOR + inside, SECOND, DESCRIPTOR_BYTES - inside);
            let frame = if fuzz.random.one_in(2) { SECOND } else { places::frame(fuzz) };
            let flags = fuzz.random.pick(&[RW, RW, RW, PRESENT, 0]);
            memory::map(0, FIRST, RW);
            memory::map(1, frame, flags);
            WINDOW + PAGE - inside
        }
        _ => DESCRIPTOR,
    }
}
