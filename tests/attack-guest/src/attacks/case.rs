//! What the rows about modules share: a question to SecVisor, and what is done after the answer.
//!
//! Without SecVisor there is nobody to ask, so every module runs and every release just happens.

use super::execute::run_code;
use super::{Act, Plan};
use crate::cpu;
use crate::memory::{self, MARKER, PAGE, RW, peek, peek8, peek32, poke, poke8};
use crate::modules::object::{Site, read_field, write_field};
use crate::modules::{
    self, ALPHA, APPROVE, CORE, DESCRIPTOR, Descriptor, GAMMA, INIT, Module, RELEASE,
};
use crate::say;
use crate::trap::symbol;

/// A call to SecVisor, then code that is run whatever the answer was.
pub struct Case {
    pub module: Module,
    /// What is said of it.
    pub unit: Descriptor,
    /// Where that is written.
    pub at: u64,
    pub size: u64,
    pub operation: u64,
    /// What is run, in the window's small pages.
    pub entry: u64,
    pub site: Option<Site>,
    /// A function that calls in another way than kernels do, and its argument.
    pub by: (u64, u64),
}

/// What the call is to be made with, at an address that the act finds: three registers; who makes it,
/// the answer, an argument and whether there is anybody to call.
const CALL_WORDS: u64 = DESCRIPTOR - 0x100;
const MAKER: u64 = CALL_WORDS + 24;
const ANSWER: u64 = CALL_WORDS + 32;

/// A relocated field: by its section, its type, and how many of that type stand before it there.
pub fn field(
    module: &Module,
    section: &str,
    (kind, before): (u64, usize),
    needed: Option<&Module>,
) -> Option<Site> {
    let (mut left, mut found) = (before, None);
    let Module { object, place } = module;
    let needed = needed.map(|module| (&module.object, &module.place));
    object.relocations(place, needed, |site, _| {
        if site.section == section && site.kind == kind && found.is_none() {
            found = if left == 0 { Some(site) } else { None };
            left = left.saturating_sub(1);
        }
    });
    found
}

impl Case {
    pub fn new(module: Module, kind: u64, entry: &str) -> Self {
        Self {
            module,
            unit: module.unit(kind),
            at: DESCRIPTOR,
            size: size_of::<Descriptor>() as u64,
            operation: APPROVE,
            entry: module.symbol(entry),
            site: None,
            by: (0, 0),
        }
    }

    /// Alpha's core, in order but for what a row changes.
    pub fn core() -> Self {
        Self::new(Module::load(ALPHA, 0), CORE, "alpha_entry")
    }

    /// Alpha's init region, its core approved.
    pub fn init() -> Self {
        let module = Module::load(ALPHA, 0);
        module.approve(CORE);
        Self::new(module, INIT, "alpha_init")
    }

    /// Turns one bit over.
    pub fn flip(&mut self, symbol: &str, offset: u64) {
        let at = self.module.symbol(symbol) + offset;
        poke8(at, peek8(at) ^ 1);
    }

    /// Aims a field elsewhere.
    pub fn aim(&mut self, section: &str, which: (u64, usize), needed: Option<&Module>) {
        self.site = field(&self.module, section, which, needed);
        if let Some(site) = self.site {
            write_field(&site, read_field(&site) + 0x10);
        }
    }

    /// Puts another frame behind the core's second page.
    pub fn second_page(&self, frame: u64) {
        modules::map(self.module.place.core + PAGE, frame);
    }

    fn words(&self) {
        let under = u64::from(cpu::under_secvisor());
        let words = [self.operation, self.at, self.size, self.by.0, 0, self.by.1, under];
        for (at, word) in words.into_iter().enumerate() {
            poke(CALL_WORDS + at as u64 * 8, word);
        }
    }

    /// Asks, then runs.
    pub fn plan(self) -> Plan {
        if self.at == DESCRIPTOR {
            self.unit.store(DESCRIPTOR);
        }
        self.words();
        let act = Act::Call(ask_and_run as *const () as u64, self.entry);
        let target = modules::physical(self.entry);
        Plan { site: self.site, act, ..Plan::jump(target) }
    }

    /// Asks, then writes to a frame by another address than its own.
    pub fn plan_write(self, target: u64) -> Plan {
        self.unit.store(DESCRIPTOR);
        self.words();
        let alias = memory::map(0, target, RW);
        Plan::call(target, ask_and_write as *const () as u64, alias).at_target()
    }
}

fn ask() {
    let [operation, at, size] = [0, 8, 16].map(|at| peek(CALL_WORDS + at));
    let result = match peek(MAKER) {
        0 => modules::hypercall(operation, at, size),
        maker => {
            run_code(maker, CALL_WORDS);
            i64::from(peek32(ANSWER) as i32)
        }
    };
    say!("call: result={result}");
}

extern "C" fn ask_and_run(entry: u64) {
    ask();
    run_code(entry, symbol!(witness));
}

extern "C" fn ask_and_write(target: u64) {
    ask();
    poke(target, MARKER);
}

/// Runs module code without a question.
pub fn run(entry: u64, target: u64) -> Plan {
    Plan::call(target, entry, symbol!(witness))
}

/// A release of the unit at a base, then a write to the frame `target`.
pub fn release(base: u64, size: u64, target: u64) -> Plan {
    // Clear of what a row has approved.
    let mut case = Case::new(Module::load(GAMMA, 4), CORE, "gamma_entry");
    case.operation = RELEASE;
    case.unit = Descriptor::new(CORE, "");
    case.unit.core = [base, size];
    case.plan_write(target)
}

/// Alpha, both regions approved, and the frame of its first page.
pub fn approved() -> (Module, u64) {
    let module = Module::load(ALPHA, 0);
    module.approve_all();
    (module, modules::physical(module.place.core))
}
