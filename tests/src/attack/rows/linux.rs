//! Attacks from inside Linux, through an approved module with a hole.

use super::*;

const PINNED: Trace = Trace::Kind(&["pinned"]);
const INIT: Trace = Trace::Kind(&["init"]);

/// A hypercall that gets this answer, and this refusal; what it was for is then stopped by a record of
/// this kind.
const fn call(name: &'static str, errno: i64, log: &'static str, then: &'static str) -> Row {
    Row::new(name, Trace::Call { errno, log, then })
}

const CODE_INJECTION: &[Row] = &[
    Row::new("exec-heap", KERNEL_FETCH),
    Row::new("exec-vmalloc", KERNEL_FETCH),
    Row::new("exec-module-data", KERNEL_FETCH),
    Row::new("exec-module-bss", KERNEL_FETCH),
    Row::new("exec-data", KERNEL_FETCH),
    Row::new("exec-bss", KERNEL_FETCH),
    Row::new("exec-stack", KERNEL_FETCH),
    Row::new("exec-per-cpu", KERNEL_FETCH),
    Row::new("exec-boot-params", KERNEL_FETCH),
    Row::new("exec-initrd", KERNEL_FETCH),
    Row::new("exec-vdso", KERNEL_FETCH),
    Row::new("exec-init-text", KERNEL_FETCH),
    Row::new("exec-page-table", KERNEL_FETCH),
    Row::new("exec-freed-module", KERNEL_FETCH),
    Row::new("exec-module-slack", WRITE),
];

const RET2USER: &[Row] = &[
    Row::new("ret2dir", KERNEL_FETCH),
    Row::new("ret2dir-page-cache", KERNEL_FETCH),
    // SMEP, which stays on, does the rest.
    Row::new("ret2user", PINNED),
    Row::new("ret2user-supervisor-page", KERNEL_FETCH),
];

const TEXT_PATCHING: &[Row] = &[
    Row::new("write-text-direct-map", WRITE),
    Row::new("write-text-entry", WRITE),
    Row::new("write-text-alias", WRITE),
    Row::new("write-text-user-alias", WRITE),
    // The kernel's own page table, which CR0.WP keeps up, does the rest.
    Row::new("write-text-wp", PINNED).only(Needs::LongMode),
    // This one maps its text writable.
    Row::new("write-text-wp", Trace::Kind(&["pinned", "write"])).only(Needs::ProtectedMode),
    Row::new("write-text-devmem", WRITE),
    Row::new("write-text-slack", WRITE),
    Row::new("write-module-text", WRITE),
];

const REMAP: &[Row] = &[
    Row::new("exec-repointed-text", KERNEL_FETCH),
    Row::new("exec-own-cr3", KERNEL_FETCH),
    Row::new("exec-table-of-user", KERNEL_FETCH),
];

const ENTRY: &[Row] = &[
    Row::entry("idt-int"),
    Row::entry("idt-breakpoint"),
    Row::entry("idt-divide"),
    Row::entry("idt-undefined"),
    Row::entry("gdt-call-gate"),
    // A 32-bit kernel enters itself by the page that the attack takes from it.
    Row::entry("entry-repointed").only(Needs::LongMode),
    Row::new("idtr-moved", PINNED),
    Row::new("lstar", PINNED).only(Needs::LongMode),
    Row::new("sysenter", Trace::Nothing).only(Needs::ProtectedMode),
];

const REGISTERS: &[Row] = &[Row::new("msr-mtrr", Trace::Number("msr"))];

const HYPERCALLS: &[Row] = &[
    call("approve-own-code", -1, "approved SHA-256", "kernel-fetch"),
    call("approve-user-code", -22, "outside the window for modules: 0x30000000", "kernel-fetch"),
    call("release-kernel-text", -1, "", "write"),
    // Last: a module without text cannot be unloaded.
    Row::new("exec-released-module", KERNEL_FETCH),
];

const SECVISOR_MEMORY: &[Row] = &[
    Row::new("hidden-read", READ),
    Row::new("hidden-write", WRITE),
    // The kernel looks at what the task that dies was about to execute.
    Row::new("hidden-exec", Trace::Frame(&["kernel-fetch", "read"])),
    Row::new("hidden-read-user", READ),
    Row::new("hidden-write-user", WRITE),
    Row::new("hidden-page-table", WALK),
];

const PROCESSORS: &[Row] = &[Row::alone("init-apic", INIT, Effect::Reset)];

const DEVICES: &[Row] = &[
    Row::new("pci-bridge", Trace::Number("port")),
    Row::alone("init-message", WRITE, Effect::Reset),
    Row::alone("sleep-s3", Trace::Kind(&["sleep"]), Effect::Sleep),
];

static ALL: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let groups = [
        (Group::CodeInjection, CODE_INJECTION),
        (Group::Ret2user, RET2USER),
        (Group::TextPatching, TEXT_PATCHING),
        (Group::Remap, REMAP),
        (Group::Entry, ENTRY),
        (Group::Registers, REGISTERS),
        (Group::Hypercalls, HYPERCALLS),
        (Group::SecvisorMemory, SECVISOR_MEMORY),
        (Group::Processors, PROCESSORS),
        (Group::Devices, DEVICES),
    ];
    let of = |(group, rows): (Group, &'static [Row])| {
        rows.iter().map(move |row| Row { group, ..row.clone() })
    };
    groups.into_iter().flat_map(of).collect()
});

/// Every row of Linux on the processor mode of a guest.
pub fn rows_of_linux(guest: Guest) -> impl Iterator<Item = &'static Row> {
    ALL.iter().filter(move |row| row.exists_in(guest))
}
