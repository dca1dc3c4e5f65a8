//! What must become of each attack: the table that the guest's own is judged by.

mod modules;
mod pinned;
mod protected;

use std::sync::LazyLock;

use super::{Column, Guest, Outcome};

/// How a row is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
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

impl Group {
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
    /// How it is run.
    pub group: Group,
    /// Where it exists.
    pub needs: Needs,
    /// What SecVisor must say of it.
    pub trace: Trace,
    /// Where its effect shows.
    pub effect: Effect,
    /// Whether `entry-guard=npf` lets it through: the reason for `events`.
    pub passes_npf: bool,
    /// Whether any guest may do this, so that it happens in every column.
    pub allowed: bool,
    /// Whether the guest may be past helping after it: the attack breaks its own way to recover.
    pub may_die: bool,
    /// Whether the processor itself refuses it, so that it happens in no column.
    pub impossible: bool,
}

impl Row {
    const fn new(name: &'static str, trace: Trace) -> Self {
        Self {
            name,
            group: Group::Ordinary,
            needs: Needs::Nothing,
            trace,
            effect: Effect::Memory,
            passes_npf: false,
            allowed: false,
            may_die: false,
            impossible: false,
        }
    }

    const fn entry(name: &'static str) -> Self {
        Self { passes_npf: true, ..Self::new(name, KERNEL_FETCH) }
    }

    const fn msr(name: &'static str) -> Self {
        Self::new(name, Trace::Number("msr"))
    }

    const fn processors(name: &'static str) -> Self {
        Self { group: Group::Processors, ..Self::new(name, Trace::Kind(&["init"])) }
    }

    const fn alone(name: &'static str, trace: Trace, effect: Effect) -> Self {
        Self { group: Group::Alone, effect, ..Self::new(name, trace) }
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

    /// What must become of it.
    pub fn expected(&self, column: Column) -> Outcome {
        match column {
            _ if self.allowed => Outcome::Reset,
            Column::Plain if self.impossible => Outcome::Stopped,
            Column::Plain => Outcome::Succeeded,
            Column::Npf if self.passes_npf => Outcome::Succeeded,
            Column::Npf | Column::Events => Outcome::Stopped,
        }
    }
}

const KERNEL_FETCH: Trace = Trace::Frame(&["kernel-fetch"]);
const WRITE: Trace = Trace::Frame(&["write"]);
const READ: Trace = Trace::Frame(&["read"]);
/// Page walks read; the hardware reports them as writes.
const WALK: Trace = Trace::Frame(&["read", "write"]);

const ROWS: &[Row] = &[
    Row::new("exec-data", KERNEL_FETCH),
    Row::new("exec-bss", KERNEL_FETCH),
    Row::new("exec-heap", KERNEL_FETCH),
    Row::new("exec-stack", KERNEL_FETCH),
    Row::new("exec-low-memory", KERNEL_FETCH),
    Row::new("exec-device", KERNEL_FETCH),
    Row::new("exec-nx-cleared", KERNEL_FETCH).only(Needs::WideEntries),
    Row::new("exec-nxe-off", KERNEL_FETCH).only(Needs::WideEntries),
    Row::new("exec-large-page", KERNEL_FETCH),
    Row::new("exec-after-text", KERNEL_FETCH),
    Row::new("exec-repointed-text", KERNEL_FETCH),
    Row::new("exec-own-cr3", KERNEL_FETCH),
    Row::new("ret2user", KERNEL_FETCH),
    Row::new("ret2user-supervisor-page", KERNEL_FETCH),
    Row::new("ret2user-smep", KERNEL_FETCH),
    Row::new("ret2user-iret", KERNEL_FETCH),
    Row::new("ret2dir", KERNEL_FETCH),
    Row::new("exec-after-user", KERNEL_FETCH),
    Row::new("write-text-wp0", WRITE),
    Row::new("write-text-entry", WRITE),
    Row::new("write-text-alias", WRITE),
    Row::new("write-text-large-alias", WRITE),
    Row::new("write-text-user-alias", WRITE),
    Row::new("write-text-straddling", WRITE),
    Row::new("push-text", WRITE),
    Row::new("push-text-event", WRITE),
    Row::new("push-text-fault", WRITE),
    Row::new("push-text-entry-stack", WRITE),
    Row::new("page-walk-text", WRITE),
    Row::entry("idt-int"),
    Row::entry("idt-divide"),
    Row::entry("idt-step"),
    Row::entry("idt-breakpoint"),
    Row::entry("idt-undefined"),
    Row::entry("idt-page-fault"),
    Row::entry("idt-timer"),
    Row::entry("idt-nmi"),
    Row::entry("idt-cpl1"),
    Row::entry("idt-cpl2"),
    Row::entry("lstar").only(Needs::LongMode),
    Row::entry("cstar").only(Needs::LongMode),
    Row::entry("idt-handler-repointed"),
    Row::entry("lstar-repointed").only(Needs::LongMode),
    Row::entry("idt-page-repointed"),
    Row::entry("idtr-moved"),
    Row::entry("gdt-call-gate"),
    Row::entry("ldt-call-gate"),
    Row::entry("call-gate-cpl1"),
    Row::entry("call-gate-cpl2"),
    Row::new("hidden-read", READ),
    Row::new("hidden-read-user", READ),
    Row::new("hidden-write", WRITE),
    Row::new("hidden-write-user", WRITE),
    Row::new("hidden-exec", KERNEL_FETCH),
    Row::new("hidden-exec-user", Trace::Frame(&["user-fetch"])),
    Row::new("hidden-page-table", WALK),
    Row::new("hidden-stack", WRITE),
    Row::new("hidden-stack-event", WRITE),
    Row::new("hidden-entry-stack", WRITE),
    Row::msr("apic-base-move"),
    Row::msr("msr-mtrr-base"),
    Row::msr("msr-mtrr-mask"),
    Row::msr("msr-mtrr-fixed"),
    Row::msr("msr-mtrr-default"),
    Row::msr("msr-syscfg"),
    Row::msr("msr-hwcr"),
    Row::msr("msr-iorr-base"),
    Row::msr("msr-iorr-mask"),
    Row::msr("msr-top-mem"),
    Row::msr("msr-tom2"),
    Row::msr("msr-patch-loader"),
    Row::msr("msr-mmio-config"),
    Row::msr("msr-smm-base"),
    Row::msr("msr-smm-addr"),
    Row::msr("msr-smm-mask"),
    Row::msr("msr-vm-cr"),
    Row::msr("msr-vm-hsave"),
    Row::msr("msr-unknown"),
    Row { effect: Effect::Log, ..Row::new("forge-log", Trace::Nothing) },
    Row::new("a20-port-92", Trace::Nothing),
    Row::new("a20-keyboard", Trace::Nothing),
    Row::new("a20-in-between", Trace::Nothing),
    Row::new("pci-text-ports", Trace::Number("port")),
    Row::new("pci-text-memory", WRITE),
    Row::new("hpet-text", WRITE),
    Row::new("hpet-text-quads", WRITE).only(Needs::LongMode),
    Row::new("firmware-dma-text", Trace::Nothing),
    Row::processors("init-broadcast"),
    Row::processors("init-directed"),
    Row { trace: Trace::Kind(&["init", "write"]), ..Row::processors("init-user") },
    Row::processors("init-x2apic-broadcast"),
    Row::processors("init-x2apic-directed"),
    Row { allowed: true, ..Row::alone("reset-port-92", Trace::Nothing, Effect::Reset) },
    Row { allowed: true, ..Row::alone("reset-keyboard", Trace::Nothing, Effect::Reset) },
    Row::alone("sleep-s3", Trace::Kind(&["sleep"]), Effect::Sleep),
    Row::alone("init-io-apic", Trace::Kind(&["init"]), Effect::Reset),
    Row::alone("init-message", WRITE, Effect::Reset),
    Row::alone("init-message-page", Trace::Frame(&["init"]), Effect::Reset),
    Row::alone("sleep-moved", Trace::Number("port"), Effect::Sleep),
    Row { may_die: true, group: Group::Alone, ..Row::entry("idt-protection") },
    Row { may_die: true, ..Row::alone("hidden-cr3", WALK, Effect::Memory) },
];

static ALL: LazyLock<Vec<Row>> =
    LazyLock::new(|| [ROWS, protected::ROWS, modules::ROWS, pinned::ROWS].concat());

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
    fn the_default_guard_lets_nothing_through() {
        for row in rows() {
            assert_ne!(row.expected(Column::Events), Outcome::Succeeded);
        }
    }
}
