//! `fuzz-ports`: IN, OUT and their string forms, on PCI configuration and everywhere else.
//!
//! Each is performed or refused with a record. What routes memory keeps its value. Some writes are
//! left out, because they end the run or the guest's words: see [`kept_from`].

use super::{Fuzz, GENERAL_PROTECTION, SCRATCH, is_done, places};
use crate::cpu::{self, inl, outl};
use crate::devices::{LPC_BRIDGE, PCI_DATA};
use crate::trap::{self, PAGE_FAULT, symbol};

const STUB: u64 = 16;
const PCI_ADDRESS: u16 = 0xCF8;
const BUFFER: u64 = SCRATCH;
/// Registers of the host bridge and the LPC bridge that place memory, its windows and devices.
const ROUTING: [(u32, u32); 6] = [
    (0, 0x60),
    (0, 0x9C),
    (LPC_BRIDGE, 0x40),
    (LPC_BRIDGE, 0x44),
    (LPC_BRIDGE, 0xA0),
    (LPC_BRIDGE, 0xF0),
];
/// Where they are kept.
const KEPT: u64 = SCRATCH + 0x1000;

/// Forms of the instructions: stub number, whether it writes, whether it is a string's.
const FORMS: [(u64, bool, bool); 6] = [
    (0, false, false),
    (3, true, false),
    (6, false, true),
    (9, true, true),
    (12, false, true),
    (15, true, true),
];

fn configuration(function: u32, register: u32) -> u32 {
    outl(PCI_ADDRESS, 0x8000_0000 | function << 8 | register);
    inl(PCI_DATA)
}

pub fn start(_: &mut Fuzz<'_>) {
    for (at, (function, register)) in (KEPT..).step_by(4).zip(ROUTING) {
        crate::memory::poke32(at, configuration(function, register));
    }
}

/// An access: its first port and 1, 2 or 4 bytes.
#[derive(Clone, Copy)]
struct Access {
    port: u16,
    /// Logarithm of its bytes.
    width: u64,
    form: u64,
    writes: bool,
    string: bool,
    value: u64,
}

impl Access {
    fn choose(fuzz: &mut Fuzz<'_>, port: u16) -> Self {
        let random = &mut fuzz.random;
        let form = if random.one_in(3) { random.below(6) } else { random.below(2) };
        let (form, writes, string) = FORMS[form as usize];
        Self { port, width: random.below(3), form, writes, string, value: random.value() }
    }

    fn touches(&self, first: u16, last: u16) -> bool {
        let end = self.port.saturating_add((1 << self.width) - 1);
        self.port <= last && first <= end
    }

    /// What would end the run, or the guest's words.
    fn is_left_out(&self) -> bool {
        // The guest's own console; the ports that end a run under QEMU and under Bochs.
        self.touches(0x3F8, 0x3FF)
            || self.touches(0xF4, 0xF7)
            || self.touches(0x8900, 0x8900)
            // PM1_CNT: S5 powers off. The chipset's watchdog resets.
            || self.writes && (self.touches(0x604, 0x605) || self.touches(0x660, 0x67F))
    }

    /// Takes the resets out of a value: by the keyboard controller, port 92h and port CF9h.
    fn without_reset(self) -> Self {
        let value = match (self.port, self.width) {
            (0x64, 0) if self.value & 0xF0 == 0xF0 => self.value & !0x80,
            (0x92, 0) => self.value & !1,
            (0xCF9, 0) => self.value & !4,
            _ => self.value,
        };
        Self { value, ..self }
    }

    /// Performs it, and judges what came of it.
    fn make(self, fuzz: &mut Fuzz<'_>) -> &'static str {
        if self.is_left_out() {
            return "left-out";
        }
        let access = self.without_reset();
        let stub = symbol!(f_ports) + (access.form + access.width) * STUB;
        let mut frame = fuzz.kernel(stub);
        frame.ax = access.value;
        frame.dx = frame.dx & !0xFFFF | u64::from(access.port);
        frame.cx = 1 + fuzz.random.below(4);
        if !fuzz.random.one_in(8) {
            (frame.si, frame.di) = (BUFFER, BUFFER);
        } else {
            (frame.si, frame.di) = (places::address(fuzz), BUFFER);
            if !access.writes {
                frame.di = fuzz.options.hidden;
            }
        }
        if access.string && access.writes {
            // The resets of single writes, too.
            fuzz.random.fill(BUFFER, 16);
        }
        let end = trap::run_user(&frame);
        let risen = fuzz.risen();
        match end.vector {
            _ if is_done(&end) && risen == 0 => {
                if access.writes {
                    "written"
                } else {
                    "read"
                }
            }
            GENERAL_PROTECTION if risen == 1 => "refused",
            GENERAL_PROTECTION if risen == 0 && access.string => "protection",
            PAGE_FAULT | 12 if risen == 0 && access.string => "fault",
            _ => {
                let Access { port, width, form, value, .. } = access;
                fuzz.unexpected(
                    format_args!(
                        "port {port:#x} width {width} form {form} value {value:#x}, {risen} records"
                    ),
                    &end,
                )
            }
        }
    }
}

pub fn round(fuzz: &mut Fuzz<'_>) {
    let random = &mut fuzz.random;
    let outcome = if random.one_in(2) {
        pci(fuzz)
    } else {
        let port = match random.below(4) {
            0 => random.number() as u16,
            1 => random.pick(&[0x60, 0x64, 0x92, 0x2F8, 0x510, 0x514, 0x600, 0xCD6, 0xCF8]),
            _ => random.below(0x1000) as u16,
        };
        Access::choose(fuzz, port).make(fuzz)
    };
    fuzz.count(outcome);
    for (at, (function, register)) in (KEPT..).step_by(4).zip(ROUTING) {
        let (kept, now) = (crate::memory::peek32(at), configuration(function, register));
        if kept != now && cpu::under_secvisor() {
            fuzz.fail(format_args!(
                "register {register:#x} of function {function:#x} was {kept:#x} and is {now:#x}"
            ));
        }
    }
}

/// An access to a function's configuration, which is put back.
fn pci(fuzz: &mut Fuzz<'_>) -> &'static str {
    let random = &mut fuzz.random;
    let function = match random.below(4) {
        0 => random.below(256) as u32,
        _ => random.pick(&[0, 0, 8, LPC_BRIDGE, LPC_BRIDGE, LPC_BRIDGE + 2, LPC_BRIDGE + 3]),
    };
    let register = (random.below(64) * 4) as u32;
    let flags = if random.one_in(8) { random.number() as u32 & 0xFFFF_0003 } else { 0x8000_0000 };
    let old = configuration(function, register);
    outl(PCI_ADDRESS, flags | function << 8 | register);
    let narrow = random.one_in(8);
    if narrow {
        // Not a whole write to the address: nobody should take it for one.
        let port = random.pick(&[0xCF7, 0xCF8, 0xCFA, 0xCFB]);
        let access = Access { port, ..Access::choose(fuzz, port) };
        if access.width < 2 && !access.touches(0xCF9, 0xCF9) {
            access.make(fuzz);
        }
    }
    let port = PCI_ADDRESS + 3 + fuzz.random.below(5) as u16;
    let outcome = Access::choose(fuzz, port).make(fuzz);
    if flags == 0x8000_0000 && configuration(function, register) != old {
        outl(PCI_DATA, old);
        fuzz.risen();
    }
    outcome
}
