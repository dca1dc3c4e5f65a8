//! What must become of each attack: the table that the guest's own is judged by.

mod code_injection;
mod devices;
mod entry;
mod hypercalls;
mod linux;
mod modules;
mod processors;
mod registers;
mod remap;
mod ret2user;
mod secvisor_memory;
mod text_patching;

use std::sync::LazyLock;

pub use linux::rows_of_linux;

use super::{Column, Guest, Outcome};

/// A section of the catalogue of attacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// Kernel mode executes what nobody approved.
    CodeInjection,
    /// Kernel mode executes user memory.
    Ret2user,
    /// Approved code is written to.
    TextPatching,
    /// Addresses are pointed elsewhere.
    Remap,
    /// Entries into the kernel from user mode.
    Entry,
    /// Control registers, model-specific registers, SVM's instructions.
    Registers,
    /// Modules that must not be approved, releases that must not be done.
    Modules,
    /// Calls to SecVisor that are none.
    Hypercalls,
    /// SecVisor's own memory and log.
    SecvisorMemory,
    /// INIT by any way, and what one processor does to others.
    Processors,
    /// What devices and chipset do for a guest.
    Devices,
    /// What is tried before the first instruction of the guest.
    Boot,
}

impl Group {
    /// Every group, in the catalogue's order.
    pub const ALL: [Self; 12] = [
        Self::CodeInjection,
        Self::Ret2user,
        Self::TextPatching,
        Self::Remap,
        Self::Entry,
        Self::Registers,
        Self::Modules,
        Self::Hypercalls,
        Self::SecvisorMemory,
        Self::Processors,
        Self::Devices,
        Self::Boot,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CodeInjection => "code-injection",
            Self::Ret2user => "ret2user",
            Self::TextPatching => "text-patching",
            Self::Remap => "remap",
            Self::Entry => "entry",
            Self::Registers => "registers",
            Self::Modules => "modules",
            Self::Hypercalls => "hypercalls",
            Self::SecvisorMemory => "secvisor-memory",
            Self::Processors => "processors",
            Self::Devices => "devices",
            Self::Boot => "boot",
        }
    }

    /// The rows of it that the attack guest runs.
    const fn rows(self) -> &'static [Row] {
        match self {
            Self::CodeInjection => code_injection::ROWS,
            Self::Ret2user => ret2user::ROWS,
            Self::TextPatching => text_patching::ROWS,
            Self::Remap => remap::ROWS,
            Self::Entry => entry::ROWS,
            Self::Registers => registers::ROWS,
            Self::Modules => modules::ROWS,
            Self::Hypercalls => hypercalls::ROWS,
            Self::SecvisorMemory => secvisor_memory::ROWS,
            Self::Processors => processors::ROWS,
            Self::Devices => devices::ROWS,
            Self::Boot => &[],
        }
    }
}

/// How a row is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Batch {
    /// Many in one boot.
    Ordinary,
    /// The same, with kernel modules: what SecVisor keeps of frames is compared as well.
    Modules,
    /// Many in one boot, on a machine with two processors.
    Processors,
    /// In a boot of its own: it may end the machine.
    Alone,
    /// Many in one boot, in a kernel that is locked by `set_kernel_mode`.
    Pinned,
}

impl Batch {
    /// Every group.
    pub const ALL: [Self; 5] =
        [Self::Ordinary, Self::Modules, Self::Processors, Self::Alone, Self::Pinned];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ordinary => "ordinary",
            Self::Modules => "modules",
            Self::Processors => "processors",
            Self::Alone => "alone",
            Self::Pinned => "pinned",
        }
    }
}

/// Where a row exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needs {
    /// Everywhere.
    Nothing,
    /// In the 64-bit guest.
    LongMode,
    /// In the 32-bit guests.
    ProtectedMode,
    /// In a 32-bit guest with three levels of page tables.
    PagePointers,
    /// In all others.
    AllButPae,
    /// Where entries of page tables have 64 bits: more of an address, and NX.
    WideEntries,
}

/// Which records an attack that is stopped leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trace {
    /// Of one of these kinds, for the target's frame.
    Frame(&'static [&'static str]),
    /// Of this kind, with the target as the register's or port's number.
    Number(&'static str),
    /// Of this kind.
    Kind(&'static [&'static str]),
    /// None: SecVisor makes it a harmless access.
    Nothing,
    /// Of one of these kinds, for the target's frame, where the processor itself delivers events; with
    /// `entry-guard=events` none, since it does not get so far.
    Delivered(&'static [&'static str]),
    /// A hypercall gets this answer and this refusal in the log, with a record unless it is empty;
    /// then comes a record of this kind for the target's frame.
    Call {
        /// The answer.
        errno: i64,
        /// What the refusal's line says.
        log: &'static str,
        /// The kind of the last record.
        then: &'static str,
    },
}

/// Where its effect shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// In the witness's frame.
    Memory,
    /// In SecVisor's log: a line that SecVisor did not write.
    Log,
    /// The machine sleeps.
    Sleep,
    /// The machine is reset.
    Reset,
}

/// One attack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Its name in the guest.
    pub name: &'static str,
    /// Its section: that of the file in which it stands.
    pub group: Group,
    /// How it is run.
    pub batch: Batch,
    /// Where it exists.
    pub needs: Needs,
    /// What SecVisor must say of it.
    pub trace: Trace,
    /// Where its effect shows.
    pub effect: Effect,
    /// Whether `entry-guard=npf` lets it through: the reason for `events`.
    pub passes_npf: bool,
    /// Why it succeeds in every column, if it does: what stands in the README's list of what is not
    /// promised.
    pub not_promised: Option<&'static str>,
    /// Whether the guest may be past helping after it: the attack breaks its own way to recover.
    pub may_die: bool,
    /// Why the processor, or its emulator, stops it even without SecVisor, if it does.
    pub impossible: Option<&'static str>,
}

impl Row {
    const fn new(name: &'static str, trace: Trace) -> Self {
        Self {
            name,
            group: Group::Boot,
            batch: Batch::Ordinary,
            needs: Needs::Nothing,
            trace,
            effect: Effect::Memory,
            passes_npf: false,
            not_promised: None,
            may_die: false,
            impossible: None,
        }
    }

    const fn entry(name: &'static str) -> Self {
        Self { passes_npf: true, ..Self::new(name, KERNEL_FETCH) }
    }

    const fn alone(name: &'static str, trace: Trace, effect: Effect) -> Self {
        Self { batch: Batch::Alone, effect, ..Self::new(name, trace) }
    }

    const fn only(self, needs: Needs) -> Self {
        Self { needs, ..self }
    }

    /// Whether it exists in a guest.
    pub fn exists_in(&self, guest: Guest) -> bool {
        match self.needs {
            Needs::Nothing => true,
            Needs::LongMode => guest == Guest::Long,
            Needs::ProtectedMode => guest != Guest::Long,
            Needs::PagePointers => guest == Guest::Pae,
            Needs::AllButPae => guest != Guest::Pae,
            Needs::WideEntries => matches!(guest, Guest::Long | Guest::Pae),
        }
    }

    /// What SecVisor must say of it.
    pub(super) fn trace_in(&self, column: Column) -> Trace {
        match (self.trace, column) {
            (Trace::Delivered(_), Column::Events) => Trace::Nothing,
            (Trace::Delivered(kinds), _) => Trace::Frame(kinds),
            (trace, _) => trace,
        }
    }

    /// What must become of it.
    pub fn expected(&self, column: Column) -> Outcome {
        match column {
            Column::Plain if self.impossible.is_some() => Outcome::Stopped,
            _ if self.not_promised.is_some() => Outcome::Succeeded,
            Column::Plain => Outcome::Succeeded,
            Column::Npf if self.passes_npf => Outcome::Succeeded,
            Column::Npf | Column::Events | Column::Gmet => Outcome::Stopped,
        }
    }
}

const KERNEL_FETCH: Trace = Trace::Frame(&["kernel-fetch"]);
const WRITE: Trace = Trace::Frame(&["write"]);
const READ: Trace = Trace::Frame(&["read"]);
/// Page walks read; the hardware reports them as writes.
const WALK: Trace = Trace::Frame(&["read", "write"]);

static ALL: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let of = |group: Group| group.rows().iter().map(move |row| Row { group, ..row.clone() });
    Group::ALL.into_iter().flat_map(of).collect()
});

/// Every row.
pub fn rows() -> &'static [Row] {
    &ALL
}

/// Every row of a guest.
pub fn rows_of(guest: Guest) -> impl Iterator<Item = &'static Row> {
    rows().iter().filter(move |row| row.exists_in(guest))
}

/// The answer that a check must have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// As many as were asked.
    All,
    /// None of them.
    None,
}

/// Each check with its answer without and with SecVisor.
pub(super) const CHECKS: &[(&str, Answer, Answer)] = &[
    ("cpuid-svm", Answer::All, Answer::None),
    ("cpuid-sep", Answer::All, Answer::None),
    ("efer-svme", Answer::All, Answer::None),
    ("efer-absent-bits", Answer::All, Answer::All),
    ("kernel-gs-base", Answer::All, Answer::All),
    ("invd-keeps-memory", Answer::All, Answer::All),
    ("hpet-takes-quads", Answer::All, Answer::All),
    ("low-memory-readable", Answer::All, Answer::All),
    ("svm-instructions-undefined", Answer::All, Answer::All),
    ("hypercall-ring3-undefined", Answer::All, Answer::All),
    ("hypercall-unknown-numbers", Answer::None, Answer::All),
    ("hypercall-hostile-arguments", Answer::None, Answer::All),
    ("init-text-release", Answer::None, Answer::All),
    ("modules-small-pages", Answer::All, Answer::All),
    ("modules-large-page", Answer::All, Answer::All),
    ("modules-huge-page", Answer::All, Answer::All),
    ("modules-together", Answer::All, Answer::All),
    ("modules-cycles", Answer::All, Answer::All),
    ("lock-exits-ts", Answer::All, Answer::All),
    ("lock-exits-mp", Answer::All, Answer::All),
    ("lock-exits-clts", Answer::All, Answer::All),
    ("lock-exits-cr3", Answer::All, Answer::All),
    ("lock-exits-pge", Answer::None, Answer::All),
    ("lock-told", Answer::None, Answer::All),
    ("lock-second-call", Answer::None, Answer::All),
    ("lock-no-write-through", Answer::None, Answer::All),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_part_of_a_run_group_or_twice() {
        let words = ["all", "attacks", "honest", "checks", "bench", "lock"];
        let groups = ["modules", "smp", "fatal", "pinned"];
        for guest in Guest::ALL {
            let names: Vec<_> = rows_of(guest).map(|row| row.name).collect();
            for (index, name) in names.iter().enumerate() {
                assert!(!words.contains(name) && !groups.contains(name));
                assert!(!names[..index].contains(name), "{name}");
            }
        }
    }

    #[test]
    fn the_default_guard_lets_nothing_else_through() {
        for row in rows() {
            let succeeds = row.expected(Column::Events) == Outcome::Succeeded;
            assert_eq!(succeeds, row.not_promised.is_some(), "{}", row.name);
        }
    }
}
