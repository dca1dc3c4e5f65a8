//! A running SecVisor looked at with QEMU's monitor and debugger: its own page tables, both views, and
//! what becomes of its records. What SecVisor says of itself counts for nothing here.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use harness::Result;
use harness::attack::Column;
use harness::elf::{mangled, section, symbol};
use harness::gdb::{Debugger, RDI};
use harness::outside::{self, Frames, Image};
use harness::paging::{Map, Snapshot, symbols};
use harness::qemu::{Machine, Running};
use harness::record::{Record, ranges};

use super::linux::{DEADLINE, On, none, ring};
use super::modules::compare;
use super::{Context, Test};
use crate::artifacts::{Arch, Guest};
use crate::run::Options;
use crate::shell::Shell;

const PAGE: u64 = 4096;
/// All memory of the machines: what is read at once.
const RAM: u64 = 256 << 20;
/// Keeps a guest going from one mode to the other.
const BUSY: &str = "(while :; do /bin/true; done) & true";
/// Modules that are loaded for the views' sake, and what unloads them again.
const MODULES: [&str; 2] = ["modprobe -a loop dummy ipv6", "rmmod dummy; rmmod loop"];
/// Looks at exits before a verdict, and before it is given up that a view is ever loaded.
const EXITS: Range<usize> = 50..2000;
/// Registers through which one processor stops another, or a device writes.
const GUARDED: [(&str, Range<u64>); 3] = [
    ("the I/O APIC", 0xFEC0_0000..0xFEC0_1000),
    ("the HPET", 0xFED0_0000..0xFED0_1000),
    ("the local APIC and the window of its messages", 0xFEE0_0000..0xFEF0_0000),
];
/// CR0: PG, WP, ET, PE. CR4: PAE. EFER: SVME but for parked processors, NXE, LMA, LME.
const CONTROL: [(&str, [u64; 2]); 3] =
    [("CR0", [0x8001_0011; 2]), ("CR4", [0x20; 2]), ("EFER", [0x1D00, 0xD00])];

/// Places in a VMCB and in the host save area, which has its form (AMD64 APM vol. 2, appendix B).
mod vmcb {
    pub const PORT_MAP: usize = 0x40;
    pub const MSR_MAP: usize = 0x48;
    pub const EXIT_CODE: usize = 0x70;
    pub const EXIT_INFO_1: usize = 0x78;
    pub const EXIT_INFO_2: usize = 0x80;
    pub const NESTED_CONTROL: usize = 0x90;
    pub const NESTED_CR3: usize = 0xB0;
    pub const CPL: usize = 0x4CB;
    pub const CR4: usize = 0x548;
    pub const CR3: usize = 0x550;
    pub const CR0: usize = 0x558;
}
/// Where firmware loads the boot loader's first sector.
const BOOT_LOADER: u64 = 0x7C00;
/// UD2.
const UNDEFINED: [u8; 2] = [0x0F, 0x0B];
/// The function of SecVisor that is made to fail, and those that called it.
const FAILING: [&str; 3] = ["Vcpu::enter_kernel_view", "exits::slow", "world_switch::run"];
/// The end of a report.
const STOPPED: &str = "secvisor: stopped; the ring of violations is in memory\n";
/// Attacks that are made for their records.
const ATTACKS: usize = 5;
/// Exit code of a nested page fault, and the bit of its first detail that says an instruction fetch.
const NESTED_FAULT: u64 = 0x400;
const FETCH: u64 = 1 << 4;
/// Bits of a VMCB's nested control.
const NESTED_PAGING: u64 = 1 << 0;
const GMET: u64 = 1 << 3;

/// All of them.
pub fn tests() -> Vec<Test> {
    let columns = Column::ALL.into_iter().filter(|column| *column != Column::Plain);
    let views = columns.flat_map(|column| {
        Arch::value_variants().iter().map(move |&arch| {
            let name = format!("outside/views-{}-{}", arch.name(), column.name());
            let test = name.clone();
            let body = move |context: &Context| views(context, &test, arch, column);
            Test::new(name, body).on_emulator_of(column)
        })
    });
    let mut tests = vec![Test::new("outside/own-mapping", own_mapping)];
    tests.extend(views);
    tests.push(Test::new("outside/panic", panic));
    tests.push(Test::new("outside/ring-after-reset", ring_after_reset));
    tests
}

/// A Linux guest under SecVisor with a shell.
fn boot(
    context: &Context,
    name: &str,
    options: Options,
    change: impl FnOnce(&mut Machine),
) -> Result<Shell> {
    let directory = context.directory(name)?;
    let options = Options { memory: "256M".into(), ..options };
    let guest = context.guest_of(options.arch)?;
    let mut machine = options.machine(context.hypervisor()?, guest, "shell", &directory)?;
    change(&mut machine);
    Shell::new(machine.start(&directory, DEADLINE)?)
}

fn number(page: &[u8], at: usize) -> u64 {
    page.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// SecVisor's page tables, on a machine that was stopped inside of it.
fn own(machine: &Running, ram: &[u8], secvisor: &Path) -> Result<(Map, Image)> {
    let root = outside::register(&machine.monitor("info registers")?, "CR3")?;
    let map = Map::walk(ram, root)?;
    let image = Image::find(secvisor, &map)?;
    Ok((map, image))
}

/// On every processor SecVisor's own tables are as they must be, and so are its control registers.
fn own_mapping(context: &Context) -> Result<()> {
    let change = |machine: &mut Machine| machine.cpus = 2;
    let mut shell = boot(context, "outside/own-mapping", Options::for_tests(), change)?;
    shell.run(BUSY)?;
    let (machine, secvisor) = (shell.machine(), context.hypervisor()?);
    let mut debugger = Debugger::attach(machine)?;
    debugger.run_to(symbol(secvisor, "exits::slow")?.start)?;
    let ram = machine.memory(0, RAM)?;
    let (map, image) = own(machine, &ram, secvisor)?;
    outside::own_mapping(&map, &image)?;
    for processor in 0..2 {
        machine.monitor(&format!("cpu {processor}"))?;
        let answer = machine.monitor("info registers")?;
        let wanted = CONTROL.map(|(name, values)| (name, values[processor]));
        for (name, wanted) in wanted.into_iter().chain([("CR3", map.tables[0])]) {
            let found = outside::register(&answer, name)?;
            if found != wanted {
                return Err(format!("processor {processor}: {name} is {found:#x}").into());
            }
        }
        outside::same_mapping(&machine.monitor("info tlb")?, &map)?;
    }
    debugger.detach()?;
    none(&shell.end()?.log())
}

/// Stops at exits until both views were seen; the roots of the kernel's and of the user's, and where
/// the VMCB lies. With GMET the processor must be told so at every exit, and both are one: a mode that
/// does not exit, as it need not there, has the other's.
fn roots(
    machine: &Running,
    debugger: &mut Debugger,
    handler: u64,
    gmet: bool,
) -> Result<([u64; 2], u64)> {
    let mut roots: [BTreeSet<u64>; 2] = Default::default();
    let wanted = if gmet { NESTED_PAGING | GMET } else { NESTED_PAGING };
    let seen = |roots: &[BTreeSet<u64>; 2]| gmet || roots.iter().all(|roots| !roots.is_empty());
    for count in 0..EXITS.end {
        debugger.run_to(handler)?;
        // The argument is an address; memory is mapped one to one, as `own_mapping` sees to.
        let at = debugger.register(RDI)?;
        let page = machine.memory(at, PAGE)?;
        let control = number(&page, vmcb::NESTED_CONTROL);
        if control != wanted {
            return Err(format!("the VMCB's nested control is {control:#x}").into());
        }
        // The fetch by which a mode begins faults in the other mode's view.
        let fault = number(&page, vmcb::EXIT_CODE) == NESTED_FAULT;
        let begins = fault && number(&page, vmcb::EXIT_INFO_1) & FETCH != 0;
        let user = (page[vmcb::CPL] == 3) != begins;
        roots[usize::from(user)].insert(number(&page, vmcb::NESTED_CR3));
        if count >= EXITS.start && seen(&roots) {
            let all: BTreeSet<u64> = roots.iter().flatten().copied().collect();
            let one = |of: &BTreeSet<u64>| of.first().or(all.first()).copied().unwrap_or_default();
            let each = roots.iter().all(|roots| roots.len() <= 1);
            if each && all.len() == if gmet { 1 } else { 2 } {
                return Ok((roots.each_ref().map(one), at));
            }
            return Err(format!("kernel and user mode ran in the views {roots:x?}").into());
        }
    }
    Err(format!("in {} exits only the views {roots:x?} were seen", EXITS.end).into())
}

/// The pages that hold what the processor saved of SecVisor at VMRUN.
fn host_save_areas(ram: &[u8], root: u64) -> Vec<u64> {
    let saved = [(vmcb::CR3, root), (vmcb::CR0, CONTROL[0].1[0]), (vmcb::CR4, CONTROL[1].1[0])];
    let pages = ram.chunks(PAGE as usize).zip((0..).step_by(PAGE as usize));
    let is = |page: &[u8]| saved.iter().all(|&(at, value)| number(page, at) == value);
    pages.filter(|(page, _)| is(page)).map(|(_, at)| at).collect()
}

/// Judges both views of a guest that is at work; `code` gives the frames of approved code.
fn judge_views(
    shell: &Shell,
    secvisor: &Path,
    column: Column,
    code: impl FnOnce(&Snapshot) -> Result<BTreeSet<u64>>,
    known: &HashMap<String, u64>,
) -> Result<()> {
    let machine = shell.machine();
    let mut debugger = Debugger::attach(machine)?;
    let handler = symbol(secvisor, &format!("fast::{}", column.name()))?.start;
    let (roots, at) = roots(machine, &mut debugger, handler, column == Column::Gmet)?;
    let snapshot = Snapshot::new(machine.memory(0, RAM)?, known)?;
    let ram = &snapshot.ram;
    let (own, image) = own(machine, ram, secvisor)?;
    let [kernel, user] = if column == Column::Gmet {
        Map::walk(ram, roots[0])?.by_mode()
    } else {
        let [kernel, user] = roots.map(|root| Map::walk(ram, root));
        [kernel?, user?]
    };
    let mut hidden = Frames::default();
    ranges(&machine.log(), "secvisor: hidden").for_each(|it| hidden.add("said to be hidden", it));
    hidden.add("of SecVisor's image", image.physical);
    hidden.add_each("of SecVisor's page tables", &own.tables);
    hidden.add_each("of the nested tables", &kernel.tables);
    hidden.add_each("of the nested tables", &user.tables);
    hidden.add_each("the VMCB", &[at]);
    let saved = host_save_areas(ram, own.tables[0]);
    if saved.is_empty() {
        return Err("there is no host save area".into());
    }
    hidden.add_each("the host save area", &saved);
    let page = &ram[usize::try_from(at)?..];
    let [ports, msrs] = [vmcb::PORT_MAP, vmcb::MSR_MAP].map(|field| number(page, field));
    hidden.add("of the port map", ports..ports + 3 * PAGE);
    hidden.add("of the MSR map", msrs..msrs + 2 * PAGE);
    let mut guarded = Frames::default();
    GUARDED.into_iter().for_each(|(what, range)| guarded.add(what, range));
    outside::views([&kernel, &user], &hidden, &guarded, &code(&snapshot)?)?;
    debugger.detach()
}

/// No frame of SecVisor is in either view, and nothing but approved code is kernel code: before
/// modules are loaded, with them, and behind them.
fn views(context: &Context, name: &str, arch: Arch, column: Column) -> Result<()> {
    let mut shell = boot(context, name, On::in_column(arch, column).1, |_| ())?;
    let (guest, secvisor): (&Guest, _) = (context.guest_of(arch)?, context.hypervisor()?);
    let folder = guest.modules.as_deref().ok_or("no modules")?;
    let known = symbols(&guest.vmlinux.with_file_name("System.map"))?;
    let text = section(&guest.vmlinux, ".text")?;
    let end = text.physical + text.bytes.len() as u64;
    let kernel: BTreeSet<u64> = (text.physical / PAGE..end.div_ceil(PAGE)).collect();
    shell.run(BUSY)?;
    judge_views(&shell, secvisor, column, |_| Ok(kernel.clone()), &known)?;
    let mut counts = Vec::new();
    for command in MODULES {
        shell.run(command)?;
        let sections = shell.expect("modules sections", "sections told")?;
        let code = |snapshot: &Snapshot| {
            let modules = compare(snapshot, &sections, folder, &known)?;
            counts.push(modules.len());
            Ok(kernel.iter().copied().chain(modules).collect())
        };
        judge_views(&shell, secvisor, column, code, &known)?;
    }
    if counts[1] == 0 || counts[0] <= counts[1] {
        return Err(format!("modules had {counts:?} frames of code").into());
    }
    none(&shell.end()?.log())
}

/// Attacks that the guest survives, and the lines of their records.
fn attacked(shell: &mut Shell) -> Result<Vec<String>> {
    shell.run("evil exec-data write-text-alias devmem ret2user-supervisor module")?;
    let records = Record::all(&shell.machine().log());
    let lines: Vec<String> = records.into_iter().map(|record| record.line).collect();
    if lines.len() < ATTACKS { Err(format!("only {lines:?}").into()) } else { Ok(lines) }
}

/// Whether a dump gives back all of these records.
fn kept(machine: &Running, records: &[String]) -> Result<()> {
    let found = ring(machine, &machine.file("hidden.dump"))?;
    match records.iter().find(|record| !found.contains(*record)) {
        Some(record) => Err(format!("a dump gives back {found:?} without {record:?}").into()),
        None => Ok(()),
    }
}

/// A reset leaves the records in memory, until GRUB loads what it boots to the same place.
fn ring_after_reset(context: &Context) -> Result<()> {
    let change = |machine: &mut Machine| {
        machine.extra.extend(["-action", "reboot=reset"].map(String::from));
    };
    let options = Options::for_tests();
    let mut shell = boot(context, "outside/ring-after-reset", options, change)?;
    let records = attacked(&mut shell)?;
    let machine = shell.machine();
    let mut debugger = Debugger::attach(machine)?;
    machine.monitor("system_reset")?;
    debugger.run_to(BOOT_LOADER)?;
    kept(machine, &records)
}

/// SecVisor's own failure is told with registers, exits and callers, stops the machine, and loses no
/// record.
fn panic(context: &Context) -> Result<()> {
    let mut shell = boot(context, "outside/panic", Options::for_tests(), |_| ())?;
    let records = attacked(&mut shell)?;
    shell.run(BUSY)?;
    let (mut machine, secvisor) = (shell.into_machine(), context.hypervisor()?);
    let [failing, slow, switch] = FAILING.map(|name| symbol(secvisor, name));
    let (failing, callers) = (failing?.start, [slow?, switch?]);
    let mut debugger = Debugger::attach(&machine)?;
    debugger.run_to(failing)?;
    let vmcb = machine.memory(debugger.register(RDI)?, PAGE)?;
    let (_, image) = own(&machine, &machine.memory(0, RAM)?, secvisor)?;
    debugger.write(image.physical_of(failing), &UNDEFINED)?;
    debugger.detach()?;
    machine.wait_for_end(STOPPED)?;
    let log = machine.log();
    let [code, one, two] =
        [vmcb::EXIT_CODE, vmcb::EXIT_INFO_1, vmcb::EXIT_INFO_2].map(|at| number(&vmcb, at));
    let said = [
        "panic: exception 6 in SecVisor\n".into(),
        format!(" rip: {failing:x}, "),
        format!("exit {code:#x} info {one:#x} {two:#x} rip "),
        format!("at {failing:#x} "),
    ];
    // Of the exits the last, which the backtrace follows.
    let ends = log
        .lines()
        .zip(log.lines().skip(1))
        .filter(|(line, next)| line.contains(&said[2]) && next.contains(&said[3]));
    if ends.count() != 1 || !said.iter().all(|words| log.contains(words)) {
        return Err(format!("the log does not say {said:?}: {log}").into());
    }
    traced(&log, FAILING[0], &(failing..failing + 1))?;
    for (name, range) in FAILING[1..].iter().zip(&callers) {
        traced(&log, name, range)?;
    }
    std::thread::sleep(Duration::from_secs(2));
    let registers = machine.monitor("info registers")?;
    if !registers.contains("HLT=1")
        || machine.log() != log
        || log.matches("secvisor: launching").count() != 1
    {
        return Err(format!("it went on: {registers}").into());
    }
    kept(&machine, &records)
}

/// Whether the backtrace has a line in this function, by its name.
fn traced(log: &str, name: &str, range: &Range<u64>) -> Result<()> {
    let lines = log.lines().filter_map(|line| line.strip_prefix("secvisor: at ")?.split_once(' '));
    let at = |text| harness::record::number(text).is_some_and(|at| range.contains(&at));
    let mut named =
        lines.filter(|(address, symbol)| at(address) && symbol.contains(&mangled(name)));
    named.next().map(|_| ()).ok_or_else(|| format!("{name} is not in the trace: {log}").into())
}
