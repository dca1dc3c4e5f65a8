//! Fuzzing from inside: rounds of random input, each of which can be repeated by seed and number.
//!
//! `run=fuzz-NAME seed=N rounds=N` on the command line; `from=N` begins at a later round, `gates` lets
//! the kernel's own gates be aimed at user memory. What may come of a round is written down in its
//! part; anything else ends the run, with the words that repeat it. At the end come the outcomes,
//! counted. The judge reads the round from memory where nobody can say it any more.

mod bytes;
mod control;
mod hypercalls;
mod kernel;
mod msrs;
mod places;
mod ports;
mod random;
mod user;

use core::fmt::Arguments;

use random::Random;

use crate::attacks::survive;
use crate::boot::Options;
use crate::console;
use crate::cpu;
use crate::devices;
use crate::lock;
use crate::memory::{CANARY, PAGE, copy, peek, poke};
use crate::modules;
use crate::say;
use crate::tables;
use crate::trap::{self, END, Frame, KERNEL_CS, symbol};

core::arch::global_asm!(include_str!("stubs.s"));

/// Free RAM for what parts keep.
pub const AREA: u64 = 0x700_0000;
/// The text as it was at first.
const GOLDEN_TEXT: u64 = AREA;
/// The round that runs: for the judge.
const PROGRESS: u64 = AREA + 0x20_0000;
/// Where a page of code that nobody approved lies.
const UNAPPROVED: u64 = PROGRESS + PAGE;
/// Room for the parts' own data.
pub const SCRATCH: u64 = AREA + 0x40_0000;

/// Rounds between two looks at the whole guest.
const LOOK: u64 = 1024;
/// System calls of such a look.
const SYSTEM_CALLS: u64 = 100;
/// Outcomes that are counted apart.
const OUTCOMES: usize = 24;

pub const GENERAL_PROTECTION: u64 = 13;

/// What is fuzzed.
struct Part {
    name: &'static str,
    /// Before the judge looks for the first time.
    start: fn(&mut Fuzz<'_>),
    round: fn(&mut Fuzz<'_>),
    /// The kernel is locked half way.
    locks: bool,
}

const PARTS: [Part; 6] = [
    Part { name: "hypercalls", start: hypercalls::start, round: hypercalls::round, locks: true },
    Part { name: "msrs", start: |_| (), round: msrs::round, locks: true },
    Part { name: "ports", start: ports::start, round: ports::round, locks: false },
    Part { name: "control-registers", start: |_| (), round: control::round, locks: true },
    Part { name: "user-code", start: user::start, round: user::round, locks: false },
    Part { name: "kernel-code", start: kernel::start, round: kernel::round, locks: false },
];

/// A run of a part.
pub struct Fuzz<'a> {
    pub random: Random,
    pub options: &'a Options,
    pub locked: bool,
    name: &'static str,
    seed: u64,
    rounds: u64,
    pub round: u64,
    counts: [(&'static str, u64); OUTCOMES],
    /// SecVisor's count of violations when it was last asked for.
    violations: u32,
}

/// Runs the chosen parts.
pub fn run(options: &Options) {
    for part in &PARTS {
        let is_it = |name: &str| name.strip_prefix("fuzz-") == Some(part.name);
        if options.chosen().any(is_it) {
            run_part(part, options);
        }
    }
}

fn run_part(part: &Part, options: &Options) {
    let number = |key, default| options.number(key).unwrap_or(default);
    let mut fuzz = Fuzz {
        random: Random::new(0, 0),
        options,
        locked: false,
        name: part.name,
        seed: number("seed", 1),
        rounds: number("rounds", 1000),
        round: number("from", 0),
        counts: [("", 0); OUTCOMES],
        violations: 0,
    };
    tables::reset();
    copy(symbol!(text_start), GOLDEN_TEXT, symbol!(text_end) - symbol!(text_start));
    poke(symbol!(witness), CANARY);
    let Fuzz { seed, rounds, .. } = fuzz;
    say!("fuzz: {} seed={seed} rounds={rounds} progress={PROGRESS:#x}", part.name);
    (part.start)(&mut fuzz);
    fuzz.look();
    fuzz.pause("before");
    fuzz.risen();
    while fuzz.round < rounds {
        poke(PROGRESS, fuzz.round);
        fuzz.random = Random::new(seed, fuzz.round);
        if part.locks && fuzz.round >= rounds / 2 && !fuzz.locked {
            lock::engage();
            fuzz.locked = true;
        }
        (part.round)(&mut fuzz);
        fuzz.round += 1;
        if fuzz.round & (LOOK - 1) == 0 {
            fuzz.look();
        }
    }
    fuzz.look();
    modules::reset();
    fuzz.pause("after");
    say!("fuzz: {} over", part.name);
    fuzz.counts.iter().filter(|count| !count.0.is_empty()).for_each(|(outcome, count)| {
        say!("fuzz: {} outcome {outcome}={count}", part.name);
    });
}

impl Fuzz<'_> {
    /// Lets the judge look, if there is one.
    fn pause(&self, when: &str) {
        if self.options.ask {
            say!("fuzz: {} pause {when}", self.name);
            console::read_byte();
        }
    }

    /// Counts an outcome.
    pub fn count(&mut self, outcome: &'static str) {
        let slot = self.counts.iter_mut().find(|slot| slot.0 == outcome || slot.0.is_empty());
        let Some(slot) = slot else { self.fail(format_args!("no room to count {outcome}")) };
        *slot = (outcome, slot.1 + 1);
    }

    /// Ends the run: this must not be.
    pub fn fail(&self, what: Arguments<'_>) -> ! {
        let Self { name, seed, rounds, round, .. } = self;
        say!("fuzz: {name} failed in round {round}: {what}");
        say!("fuzz: repeat by run=fuzz-{name} seed={seed} rounds={rounds} from={round}");
        devices::exit(devices::FAILED)
    }

    /// How a trap differs from what may come.
    pub fn unexpected(&self, what: Arguments<'_>, end: &Frame) -> ! {
        let Frame { vector, error, ip, cs, ax, .. } = end;
        let cr2 = cpu::cr2();
        self.fail(format_args!(
            "{what}: vector={vector:#x} error={error:#x} ip={ip:#x} cs={cs:#x} ax={ax:#x} cr2={cr2:#x}"
        ))
    }

    /// Violations since this was last asked.
    pub fn risen(&mut self) -> u32 {
        let count = if cpu::under_secvisor() { cpu::cpuid(0x4000_0001).ecx } else { 0 };
        let risen = count.wrapping_sub(self.violations);
        self.violations = count;
        risen
    }

    /// Demands that so many violations came since the last time.
    pub fn expect_risen(&mut self, wanted: u32, what: &str, end: &Frame) {
        let risen = self.risen();
        if risen != wanted {
            let how_many = format_args!("{what}: {risen} violations instead of {wanted}");
            self.unexpected(how_many, end);
        }
    }

    /// Kernel mode at `ip` with registers that nobody chose.
    pub fn kernel(&mut self, ip: u64) -> Frame {
        let mut frame = kernel_frame(ip);
        self.registers(&mut frame);
        frame
    }

    /// Fills the general-purpose registers with what looks like values or addresses.
    pub fn registers(&mut self, frame: &mut Frame) {
        each_register(frame, |register| {
            *register =
                if self.random.one_in(3) { places::address(self) } else { self.random.value() };
        });
    }

    /// Looks at the whole guest: its text is as it was, its data does not run, it works.
    fn look(&mut self) {
        tables::reset();
        let text = symbol!(text_start)..symbol!(text_end);
        let changed =
            text.clone().step_by(8).find(|&at| peek(at) != peek(GOLDEN_TEXT + at - text.start));
        if let Some(at) = changed {
            self.fail(format_args!("the text at {at:#x} was changed"));
        }
        self.risen();
        if cpu::under_secvisor() {
            crate::attacks::place_payload(UNAPPROVED);
            let end = trap::call(UNAPPROVED, 0).unwrap_or_default();
            let stopped = end.vector == GENERAL_PROTECTION && end.ip == UNAPPROVED;
            if !stopped || self.risen() != 1 {
                self.unexpected(format_args!("data that runs"), &end);
            }
        }
        self.intact();
        say!("fuzz: {} reached={}", self.name, self.round);
        survive(self.name, SYSTEM_CALLS);
        tables::reset();
        self.risen();
    }

    /// Demands that nothing has run in the kernel that marks the witness.
    pub fn intact(&self) {
        let witness = peek(symbol!(witness));
        if witness != CANARY {
            self.fail(format_args!("code that nobody approved left {witness:#x} in the kernel"));
        }
    }
}

/// Kernel mode at `ip`, on a stack that is not in use.
#[cfg(target_arch = "x86_64")]
pub fn kernel_frame(ip: u64) -> Frame {
    let sp = symbol!(trap_stack_top) - 0x100;
    Frame { ip, sp, cs: KERNEL_CS, ss: KERNEL_CS + 8, flags: 2, ..Frame::default() }
}

/// The same; IRET to the same level takes the stack where it is.
#[cfg(target_arch = "x86")]
pub fn kernel_frame(ip: u64) -> Frame {
    let data = KERNEL_CS + 8;
    Frame { ip, cs: KERNEL_CS, flags: 2, segments: [data, data, 0, 0], ..Frame::default() }
}

/// Runs through the general-purpose registers but the stack pointer.
pub fn each_register(frame: &mut Frame, mut each: impl FnMut(&mut u64)) {
    let Frame { ax, bx, cx, dx, si, di, bp, .. } = frame;
    [ax, bx, cx, dx, si, di, bp].into_iter().for_each(&mut each);
    #[cfg(target_arch = "x86_64")]
    {
        let Frame { r8, r9, r10, r11, r12, r13, r14, r15, .. } = frame;
        [r8, r9, r10, r11, r12, r13, r14, r15].into_iter().for_each(&mut each);
    }
}

/// Whether two traps have the same general-purpose registers, as far as `mask` goes.
pub fn same_registers(one: &Frame, other: &Frame, mask: u64) -> bool {
    let mask = mask & usize::MAX as u64;
    let values = |frame: &Frame| {
        let (mut copy, mut values, mut at) = (*frame, [0; 15], 0);
        each_register(&mut copy, |register| {
            values[at] = *register & mask;
            at += 1;
        });
        values
    };
    values(one) == values(other)
}

/// Whether a run in the kernel came to its end.
pub fn is_done(end: &Frame) -> bool {
    end.vector == END
}
