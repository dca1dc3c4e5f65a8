//! The attacks: a table of rows, and the ritual around each.
//!
//! A row prepares (whatever a compromised kernel could prepare as mere data), then acts. Before the
//! act the guest says what it aims at and where a success would show; the judge looks there itself.
//!
//! A new attack is a row here and one of the same name in the judge's table, `attack/rows/GROUP.rs`.

mod ahci;
mod aliases;
mod boundary;
mod calls;
mod case;
mod chipset;
mod claims;
mod entry;
mod execute;
mod fatal;
mod hardware;
mod hidden;
mod lock;
mod modes;
mod modules;
mod places;
mod processors;
#[cfg(target_arch = "x86")]
mod protected;
mod release;
mod routing;
mod step;
mod stores;
mod structures;
mod svm;
mod wake;
mod write;

use crate::arch::SYSTEM_CALL;
use crate::boot::Options;
use crate::console;
use crate::devices;
use crate::memory::{self, CANARY, HEAP, PAGE, RW, copy, peek, peek8, poke};
use crate::modules::object::Site;
use crate::say;
use crate::tables;
use crate::trap::{self, END, Frame, TIMER, symbol};

/// One row.
pub struct Attack {
    /// Its name, which the judge's table has too.
    pub name: &'static str,
    /// Prepares it and says what is to happen.
    pub plan: fn(&Options) -> Plan,
}

/// What is to happen.
pub struct Plan {
    /// The frame that the attack is after.
    pub target: u64,
    /// Where its success shows.
    pub witness: u64,
    /// A kernel function that is called before, with its argument, however that ends.
    pub first: Option<(u64, u64)>,
    /// The act itself.
    pub act: Act,
    /// The relocated field that was changed.
    pub site: Option<Site>,
}

/// The act.
pub enum Act {
    /// The kernel calls an address with an argument.
    Call(u64, u64),
    /// User mode runs from these registers on.
    User(Frame),
    /// The same while the timer's interrupt arrives.
    Timer(Frame),
    /// The same while an NMI arrives.
    Nmi(Frame),
    /// As `Call`; the pinned registers afterwards are the witness.
    Pinned(u64, u64),
}

impl Plan {
    /// The kernel calls `function`, which reaches for `target`; success shows in the witness.
    pub fn call(target: u64, function: u64, argument: u64) -> Self {
        let act = Act::Call(function, argument);
        Self { target, witness: symbol!(witness), first: None, act, site: None }
    }

    /// The kernel jumps to the payload at `target`.
    pub fn jump(target: u64) -> Self {
        Self::call(target, target, 0)
    }

    /// User mode at `start` fires what leads to the payload at `target`.
    pub fn user(target: u64, start: u64) -> Self {
        Self { act: Act::User(Frame::user(start)), ..Self::call(target, 0, 0) }
    }

    /// The same with another kernel function, called first.
    pub fn after(self, function: extern "C" fn(u64), argument: u64) -> Self {
        Self { first: Some((function as *const () as u64, argument)), ..self }
    }

    /// The target itself is where success shows.
    pub fn at_target(self) -> Self {
        Self { witness: self.target, ..self }
    }
}

/// All rows, by what `run=` calls them together: of an ordinary run; of modules, which the others need
/// not wait for; such as want a second processor; such as may end the machine; and what can be done
/// only once, in a kernel that is locked.
const ATTACKS: &[(&str, &[Attack])] = &[
    ("attacks", execute::ROWS),
    ("attacks", write::ROWS),
    ("attacks", entry::ROWS),
    ("attacks", hidden::ROWS),
    ("attacks", hardware::ROWS),
    ("attacks", routing::ROWS),
    ("attacks", boundary::ROWS),
    ("attacks", step::ROWS),
    ("attacks", structures::ROWS),
    ("attacks", modes::ROWS),
    ("attacks", svm::ROWS),
    ("attacks", places::ROWS),
    ("attacks", stores::ROWS),
    ("attacks", chipset::ROWS),
    #[cfg(target_arch = "x86")]
    ("attacks", protected::ROWS),
    ("modules", modules::ROWS),
    ("modules", release::ROWS),
    ("smp", wake::ROWS),
    ("modules", claims::ROWS),
    ("modules", calls::ROWS),
    ("modules", aliases::ROWS),
    ("smp", processors::ROWS),
    ("fatal", fatal::ROWS),
    #[cfg(target_arch = "x86")]
    ("fatal", protected::FATAL),
    ("fatal", boundary::FATAL),
    ("fatal", wake::FATAL),
    #[cfg(target_arch = "x86")]
    ("fatal", modes::FATAL),
    #[cfg(target_arch = "x86")]
    ("fatal", structures::FATAL),
    ("pinned", lock::ROWS),
    ("pinned", boundary::LOCKED),
];

/// Runs the chosen rows, in the order in which they were chosen.
pub fn run(options: &Options) {
    // What the text page held at first, to mend it from after an attack that succeeded.
    copy(symbol!(victim), GOLDEN, PAGE);
    for chosen in options.chosen() {
        let together = if chosen == "all" { "attacks" } else { chosen };
        for (batch, rows) in ATTACKS {
            let own = rows.iter().filter(|row| *batch == together || row.name == chosen);
            own.filter(|row| !options.leaves_out(row.name)).for_each(|row| stage(row, options));
        }
    }
}

const GOLDEN: u64 = HEAP + 0x10_0000 - PAGE;

/// Puts the payload at an address.
pub fn place_payload(address: u64) -> u64 {
    copy(symbol!(payload), address, symbol!(payload_end) - symbol!(payload));
    address
}

/// Lets the judge look, if there is one.
fn pause(name: &str, when: &str, options: &Options) {
    if options.ask {
        say!("attack: {name} pause {when}");
        console::read_byte();
    }
}

/// What is at the witness, for a run that nobody outside watches; all zeroes where nothing can be
/// read, or where the judge looks itself.
fn look(witness: u64, options: &Options) -> [u64; 8] {
    extern "C" fn read(address: u64) {
        peek(address);
    }
    if options.ask || trap::attempt(read, witness).is_some() {
        return [0; 8];
    }
    core::array::from_fn(|at| peek(witness + at as u64 * 8))
}

/// One row from beginning to end.
fn stage(row: &Attack, options: &Options) {
    let name = row.name;
    poke(symbol!(witness), CANARY);
    let plan = (row.plan)(options);
    say!("attack: {name} attempt target={:#x} witness={:#x}", plan.target, plan.witness);
    if let Some(site) = &plan.site {
        let mut found = [0; 8];
        found.iter_mut().zip(site.address..).for_each(|(slot, at)| *slot = peek8(at));
        let found = found.get(..site.width() as usize).unwrap_or_default();
        say!("site: {}+{:#x} {found:02x?}", site.section, site.offset);
    }
    pause(name, "before", options);
    let before = look(plan.witness, options);
    if let Some((function, argument)) = plan.first {
        trap::call(function, argument);
    }
    let end = match plan.act {
        Act::Call(function, argument) => trap::call(function, argument),
        Act::User(frame) => Some(trap::run_user(&frame)),
        Act::Timer(frame) => {
            devices::arm_timer();
            Some(trap::run_user(&frame))
        }
        Act::Nmi(frame) => {
            // Late enough to meet user mode on a busy machine: in the kernel nothing recovers from
            // the gate that is the attack.
            devices::arm_nmi_after(50);
            Some(trap::run_user(&frame))
        }
        Act::Pinned(function, argument) => {
            let end = trap::call(function, argument);
            crate::lock::snapshot(symbol!(witness));
            end
        }
    };
    let Frame { vector, error, ip, cs, .. } = end.unwrap_or_default();
    tables::reset();
    say!(
        "attack: {name} done witness={:#x} vector={vector:#x} error={error:#x} rip={ip:#x} \
         cpl={} effect={}",
        peek(symbol!(witness)),
        cs & 3,
        if look(plan.witness, options) == before { "no" } else { "yes" }
    );
    pause(name, "after", options);
    // What changes no entry into the kernel needs no long look at entries.
    let rounds = if mend() { 100 } else { 1000 };
    survive(name, rounds);
    pause(name, "over", options);
}

/// Undoes changes of the text page, and empties the window for modules; whether it was in use.
fn mend() -> bool {
    let page = memory::map(0, symbol!(victim), RW);
    for at in (0..PAGE).step_by(8) {
        if peek(page + at) != peek(GOLDEN + at) {
            poke(page + at, peek(GOLDEN + at));
        }
    }
    memory::map(0, 0, 0);
    let modules = crate::modules::in_use();
    if modules {
        crate::modules::reset();
    }
    modules
}

/// Work that shows a guest in good health: system calls, calls into text, timer interrupts.
pub fn survive(name: &str, rounds: u64) {
    let mut frame = Frame::user(symbol!(u_loop_syscall));
    let mut calls = 0;
    for _ in 0..rounds {
        frame = trap::run_user(&frame);
        calls += u64::from(frame.vector == SYSTEM_CALL);
    }
    let mut ticks = 0;
    for _ in 0..3 {
        devices::arm_timer();
        let frame = Frame { flags: 0x202, ..Frame::user(symbol!(u_spin)) };
        ticks += u64::from(trap::run_user(&frame).vector == TIMER);
    }
    devices::reset();
    let text = trap::call(symbol!(victim), 0).is_none();
    let gate = trap::run_user_at(symbol!(u_call_gate));
    if calls == rounds && ticks == 3 && text && gate.vector == END && gate.cs == 0x10 {
        say!("attack: {name} survived syscalls={calls} ticks={ticks}");
    } else {
        say!(
            "attack: {name} ill syscalls={calls} ticks={ticks} text={text} gate={:#x}",
            gate.vector
        );
        devices::exit(devices::FAILED);
    }
}
