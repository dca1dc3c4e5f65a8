//! Modules under enforcement: honest ones work, live text is what it must be, all else is refused.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use harness::Result;
use harness::module::{Module, Text, places};
use harness::paging::{Snapshot, symbols};
use harness::record::{Record, ranges};

use super::linux::{On, none, passed, start};
use super::{Context, Test};
use crate::run::{Options, Violation};
use crate::shell::Shell;

const DEADLINE: Duration = Duration::from_secs(300);
/// Ten thousand cycles take their time.
const SOAK_DEADLINE: Duration = Duration::from_secs(3600);
const PAGE: u64 = 4096;
/// RAM of the guests whose whole memory is read.
const RAM: u64 = 256 << 20;
/// Modules that must at least be there.
const MODULES: usize = 40;
/// INT3, which fills the rest of a module's last page.
const FILLER: u8 = 0xcc;
/// Bytes of the frame table, as in the policy's `FrameClass`.
const APPROVED: u8 = 1;
const DATA: u8 = 0;

/// What a test of one guest is.
type OfGuest = fn(&Context, On) -> Result<()>;

/// All of them.
pub fn tests() -> Vec<Test> {
    let mut tests = vec![
        Test::new("linux/modules-unlisted-in-audit", unlisted_in_audit),
        Test::new("linux/modules-cycles", cycles),
    ];
    let of_each: [(_, OfGuest); 4] = [
        ("modules-as-without-secvisor", as_without),
        ("modules-text-exact", text_exact),
        ("modules-changed-refused", changed),
        ("modules-unlisted-refused", unlisted),
    ];
    for on in On::ALL {
        let test = |(what, body): (_, OfGuest)| {
            on.test(what, move |context, on| passed(body(context, on)))
        };
        tests.extend(of_each.map(test));
    }
    tests
}

/// The lines that `modules` and what it starts print.
fn told(console: &str) -> Vec<String> {
    let ours = ["modules: ", "tun: ", "sctp: ", "alg: ", "watchdog: "];
    let lines = console.lines().map(str::trim);
    lines.filter(|line| ours.iter().any(|own| line.starts_with(own))).map(str::to_owned).collect()
}

/// Every module is loaded, some are used, all are unloaded that can be: with the same words.
fn as_without(context: &Context, on: On) -> Result<()> {
    let run = |name, plain| {
        let mut running = start(context, on, name, "modules", |o| o.plain = plain)?;
        running.wait_for("secvisor-guest: modules done")?;
        running.wait_done()?;
        Ok::<_, harness::Error>((told(&running.console.text()), running.log()))
    };
    let (plain, _) = run("modules-plain", true)?;
    let (guarded, log) = run("modules", false)?;
    // Which of the modules there must be, only this checkout's configuration knows.
    let bad = |line: &&String| {
        line.contains("FAILED") || !context.own() && line.starts_with("modules: no ")
    };
    if let Some(line) = plain.iter().chain(&guarded).find(bad) {
        return Err(line.as_str().into());
    }
    let loaded = guarded.iter().filter(|line| line.starts_with("modules: load ")).count();
    let other = plain.iter().zip(&guarded).find(|(a, b)| a != b);
    match other {
        Some((a, b)) => Err(format!("{a:?} without SecVisor, {b:?} under it").into()),
        None if plain.len() != guarded.len() => Err("one of them tells less".into()),
        None if loaded < MODULES => Err(format!("only {loaded} modules").into()),
        None => none(&log),
    }
}

/// A guest that runs `sh` under SecVisor, with all of its RAM within reach.
fn shell(context: &Context, on: On, name: &str, deadline: Duration) -> Result<Shell> {
    let change = |options: &mut Options| options.memory = "256M".into();
    let mut running = start(context, on, name, "shell", change)?;
    running.deadline = std::time::Instant::now() + deadline;
    Shell::new(running)
}

/// A block of SecVisor's memory that its log names: `secvisor: NAME 0xSTART-0xEND`.
fn block(shell: &Shell, name: &str) -> Result<Vec<u8>> {
    let log = shell.machine().log();
    let range = ranges(&log, &format!("secvisor: {name}")).next();
    let range = range.ok_or_else(|| format!("the log names no {name}"))?;
    shell.machine().memory(range.start, range.end - range.start)
}

fn frames(shell: &Shell) -> Result<Vec<u8>> {
    let mut table = block(shell, "frame table")?;
    table.truncate(usize::try_from(RAM / PAGE)?);
    Ok(table)
}

fn approved(frames: &[u8]) -> usize {
    frames.iter().filter(|&&class| class == APPROVED).count()
}

/// The pages of a module's code: the first one's address, and their number.
fn pages(texts: &[(u64, Text)]) -> (u64, u64) {
    let start = texts.iter().map(|(at, _)| at / PAGE).min().unwrap_or_default();
    let end = texts.iter().map(|(at, text)| (at + text.bytes.len() as u64).div_ceil(PAGE)).max();
    (start * PAGE, end.unwrap_or_default() - start)
}

/// The physical frames of all loaded modules' code, each compared byte by byte.
pub(super) fn compare(
    snapshot: &Snapshot,
    console: &str,
    folder: &Path,
    known: &HashMap<String, u64>,
) -> Result<Vec<u64>> {
    let places = places(console);
    let mut modules = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let module = Module::read(&entry?.path())?;
        modules.insert(module.name.clone(), module);
    }
    let mut known = known.clone();
    let mut loaded = Vec::new();
    for (name, places) in &places {
        let module = modules.get(name).ok_or_else(|| format!("{name} has no file"))?;
        known.extend(module.exports(places));
        loaded.push((module, places));
    }
    let mut frames = Vec::new();
    for (module, places) in &loaded {
        let texts = module.loaded(places, &known)?;
        if texts.is_empty() {
            continue;
        }
        let (start, count) = pages(&texts);
        let mut wanted = vec![FILLER; usize::try_from(count * PAGE)?];
        for (at, text) in &texts {
            let from = usize::try_from(at - start)?;
            wanted[from..from + text.bytes.len()].copy_from_slice(&text.bytes);
        }
        let live = snapshot.read(start, count * PAGE)?;
        if let Some(at) = live.iter().zip(&wanted).position(|(a, b)| a != b) {
            let (found, wanted) = (live[at], wanted[at]);
            return Err(format!(
                "{}: {found:#x} instead of {wanted:#x} at {:#x}",
                module.name,
                start + at as u64
            )
            .into());
        }
        for page in 0..count {
            frames.push(snapshot.physical(start + page * PAGE)? / PAGE);
        }
    }
    Ok(frames)
}

/// The text of every loaded module, read from outside, is what its file and its place make it, and
/// nothing but it and the kernel's is approved; after they are unloaded their frames are data.
fn text_exact(context: &Context, on: On) -> Result<()> {
    let guest = context.guest_of(on.arch)?;
    let folder = guest.modules.as_deref().ok_or("no modules")?;
    let known = symbols(&guest.vmlinux.with_file_name("System.map"))?;
    let mut shell = shell(context, on, "modules-text", DEADLINE)?;
    let kernel = approved(&frames(&shell)?);
    shell.expect("modules load", " loaded")?;
    let sections = shell.expect("modules sections", "sections told")?;
    let snapshot = Snapshot::new(shell.machine().memory(0, RAM)?, &known)?;
    let loaded = places(&sections).len();
    if loaded < MODULES {
        return Err(format!("only {loaded} modules are loaded").into());
    }
    let code = compare(&snapshot, &sections, folder, &known)?;
    let table = frames(&shell)?;
    let class = |frame: u64| usize::try_from(frame).ok().and_then(|frame| table.get(frame));
    if let Some(frame) = code.iter().find(|&&frame| class(frame) != Some(&APPROVED)) {
        return Err(format!("frame {frame:#x} is a module's code and not approved").into());
    }
    // Init text is gone by now: nothing else is approved.
    if approved(&table) != kernel + code.len() {
        return Err(format!(
            "{} frames are approved, {kernel} of the kernel, {} of modules",
            approved(&table),
            code.len()
        )
        .into());
    }
    let answer = shell.expect("modules unload", " stay")?;
    let sections = shell.expect("modules sections", "sections told")?;
    let table = frames(&shell)?;
    let left: Vec<_> = places(&sections).into_keys().collect();
    let staying = answer.lines().filter(|line| line.trim().ends_with(" stays")).count();
    if left.len() != staying {
        return Err(format!("{staying} modules should stay, {left:?} are there").into());
    }
    let gone = code.iter().filter(|&&f| table.get(f as usize) == Some(&DATA)).count();
    if gone + approved(&table) != kernel + code.len() || gone == 0 {
        return Err(format!("{gone} frames of {} are data again", code.len()).into());
    }
    none(&shell.end()?.log())
}

/// One change of a module's file: where, which bits, and what SecVisor must name.
struct Change {
    what: String,
    told: String,
    offset: u64,
    bits: u8,
}

/// A bit of each section with code, and a bit of the aim of a relocation in each.
fn changes(module: &Module) -> Vec<Change> {
    let mut changes = Vec::new();
    for text in [false, true].into_iter().flat_map(|init| module.texts(init)) {
        let section = &text.name;
        let region = if section.starts_with(".init") { "init" } else { "core" };
        let unit = format!("{}/{region}", module.name);
        let free = |at: &u64| {
            let near = |site: &&(u64, u64)| site.0 <= *at && *at < site.0 + 8;
            text.relocations.iter().find(near).is_none()
        };
        let length = text.bytes.len() as u64;
        // The middle, so that it is neither the first byte nor the last.
        if let Some(at) = (length / 2..length).chain(0..length / 2).find(free) {
            changes.push(Change {
                what: format!("a bit of {section}"),
                told: format!("{unit}: section {section}: approved SHA-256 "),
                offset: text.file_offset + at,
                bits: 1 << (at % 8),
            });
        }
        if let Some(&(site, addend)) = text.relocations.get(text.relocations.len() / 2) {
            changes.push(Change {
                what: format!("the aim of a relocation in {section}"),
                told: format!("{unit}: {section}+{site:#x}: expected "),
                offset: addend,
                bits: 0x10,
            });
        }
    }
    changes
}

/// Busybox's insmod tries all system calls that load modules; older kernels have one.
const TRIES: RangeInclusive<usize> = 1..=2;

/// Loads a file that must be refused, and looks at everything that must not change.
fn refused(shell: &mut Shell, name: &str, what: &str, command: &str, told: &str) -> Result<()> {
    let wrong = |text: String| harness::Error::from(format!("{name}, {what}: {text}"));
    let before = frames(shell)?;
    let log = shell.machine().log().len();
    let answer = shell.run(&format!("{command}; echo code=$?"))?;
    if !answer.contains("Operation not permitted") || !answer.contains("code=1") {
        return Err(wrong(format!("insmod said {answer:?}")));
    }
    let new = shell.machine().log()[log..].to_owned();
    let records = Record::all(&new);
    if !TRIES.contains(&records.len()) || records.iter().any(|record| record.kind != "hypercall") {
        return Err(wrong(format!("the log says {new:?}")));
    }
    if !new.lines().any(|line| line.starts_with("secvisor: refused module ") && line.contains(told))
    {
        return Err(wrong(format!("no line names {told:?}: {new:?}")));
    }
    shell
        .expect(&format!("grep -c '^{name} ' /proc/modules"), "\n0\n")
        .map_err(|_| wrong("it stands in /proc/modules".into()))?;
    let after = frames(shell)?;
    match before.iter().zip(&after).position(|(a, b)| a != b) {
        Some(frame) => Err(wrong(format!("frame {frame:#x} is of another class afterwards"))),
        None => Ok(()),
    }
}

/// Modules whose every section is changed: small, large, with much init text, with others beneath.
const CHANGED: [&str; 6] = ["dummy", "loop", "ipv6", "jbd2", "8139cp", "sd_mod"];

fn changed(context: &Context, on: On) -> Result<()> {
    let folder = context.guest_of(on.arch)?.modules.clone().ok_or("no modules")?;
    let mut shell = shell(context, on, "modules-changed", DEADLINE)?;
    shell.run("cd /lib/modules/*; PS1='$ '")?;
    for name in CHANGED {
        let module = Module::read(&folder.join(format!("{name}.ko")))?;
        // What it depends on is there, and it has been, but for the one that never goes again.
        if name == "ipv6" {
            shell.run("echo nothing beneath it")?;
        } else {
            shell.run(&format!("modprobe {name}; rmmod {name}"))?;
        }
        for change in changes(&module) {
            let file = "/tmp/x.ko";
            let (offset, bits) = (change.offset, change.bits);
            shell.run(&format!("modtool change {name}.ko {offset} {bits} >{file}"))?;
            refused(&mut shell, name, &change.what, &format!("insmod {file}"), &change.told)?;
        }
        let answer = shell.run(&format!("insmod {name}.ko; echo code=$?"))?;
        if !answer.contains("code=0") {
            return Err(format!("afterwards {name} itself: {answer:?}").into());
        }
    }
    shell.expect("dmesg | grep -cE 'Oops|BUG|WARNING'", "\n0\n")?;
    shell.end().map(|_| ())
}

/// A module that is not on the list, and one that claims to be another.
fn unlisted(context: &Context, on: On) -> Result<()> {
    let folder = context.guest_of(on.arch)?.modules.clone().ok_or("no modules")?;
    let mut shell = shell(context, on, "modules-unlisted", DEADLINE)?;
    shell.run("cd /lib/modules/*; PS1='$ '")?;
    let own = "secvisor_demo_unapproved";
    let command = format!("insmod /lib/unapproved/{own}.ko");
    refused(&mut shell, own, "not listed", &command, own)?;
    if context.own() && !folder.join("crc7.ko").exists() {
        return shell.end().map(|_| ());
    }
    // crc7's code by the name of crc4: the last letter of the name in the module's own record.
    let data = std::fs::read(folder.join("crc7.ko"))?;
    let name = b"crc7\0\0\0\0\0\0\0\0";
    let at = data.windows(name.len()).position(|bytes| bytes == name).ok_or("no name")? + 3;
    let bits = b'7' ^ b'4';
    shell.run(&format!("modtool change crc7.ko {at} {bits} >/tmp/x.ko"))?;
    refused(&mut shell, "crc4", "another's name", "insmod /tmp/x.ko", "crc4")?;
    for genuine in ["crc7", "crc4"] {
        shell.expect(&format!("insmod {genuine}.ko; echo code=$?"), "code=0")?;
    }
    shell.expect("dmesg | grep -cE 'Oops|BUG|WARNING'", "\n0\n")?;
    shell.end().map(|_| ())
}

/// In audit the same module is recorded and runs.
fn unlisted_in_audit(context: &Context) -> Result<()> {
    let audit = |options: &mut Options| options.violation = Some(Violation::Audit);
    let mut shell = Shell::new(start(context, On::REFERENCE, "modules-audit", "shell", audit)?)?;
    let own = "secvisor_demo_unapproved";
    shell.expect(&format!("insmod /lib/unapproved/{own}.ko; echo code=$?"), "code=0")?;
    shell.expect(&format!("rmmod {own}; echo code=$?"), "code=0")?;
    let log = shell.end()?.log();
    let records = Record::all(&log);
    let of = |kind: &str| records.iter().filter(|record| record.kind == kind).count();
    let told = records.iter().all(|record| record.line.ends_with("audit=no-guarantee-holds"));
    if told && of("hypercall") > 0 && of("kernel-fetch") > 0 && log.contains("not on the approval")
    {
        return Ok(());
    }
    Err(format!("records {records:?}").into())
}

/// What the guest's memory is used for, in KiB.
fn memory(shell: &mut Shell) -> Result<BTreeMap<String, i64>> {
    let command = "sync; echo 3 >/proc/sys/vm/drop_caches; sleep 1; cat /proc/meminfo";
    let answer = shell.run(command)?;
    let parse = |line: &str| {
        let (name, rest) = line.trim().split_once(':')?;
        let wanted = ["MemFree", "Slab", "VmallocUsed", "PageTables"].contains(&name);
        Some((name.to_owned(), rest.split_whitespace().next()?.parse().ok()?)).filter(|_| wanted)
    };
    Ok(answer.lines().filter_map(parse).collect())
}

/// Memory that may come and go by chance, in KiB: a page per cycle of the long run would show.
const CHANCE: i64 = 4096;

/// Init text of a module that has begun is released before anything else: the kernel frees it some
/// time later, when the same module may have gone and come again.
fn init_text_leaves_at_once(log: &str) -> Result<()> {
    let unit = |line: &&str| line.ends_with("/core") || line.ends_with("/init");
    let units: Vec<_> = log.lines().filter(unit).collect();
    let begun = |line: &str| {
        Some(line.strip_prefix("secvisor: approved ")?.strip_suffix("/init")?.to_owned())
    };
    let late = units.windows(2).find(|pair| {
        begun(pair[0]).is_some_and(|name| pair[1] != format!("secvisor: released {name}/init"))
    });
    match late {
        Some(pair) => Err(format!("{:?} is followed by {:?}", pair[0], pair[1]).into()),
        None if units.is_empty() => Err("the log tells of no module".into()),
        None => Ok(()),
    }
}

/// Three modules come and go, and leave nothing behind.
fn cycles(context: &Context) -> Result<()> {
    let (count, deadline) = if context.soak() { (10_000, SOAK_DEADLINE) } else { (100, DEADLINE) };
    let mut shell = shell(context, On::REFERENCE, "modules-cycles", deadline)?;
    shell.run("cd /lib/modules/*; PS1='$ '")?;
    let cycle = |count| format!("modtool cycle {count} fat.ko vfat.ko dummy.ko");
    shell.expect(&cycle(5), "5 cycles")?;
    let (free, table) = (memory(&mut shell)?, frames(&shell)?);
    let nested = block(&shell, "nested tables")?;
    shell.expect(&cycle(count), &format!("{count} cycles"))?;
    let (free_after, table_after) = (memory(&mut shell)?, frames(&shell)?);
    let nested_after = block(&shell, "nested tables")?;
    let differing: Vec<_> =
        table.iter().zip(&table_after).filter(|(a, b)| a != b).map(|(a, b)| (*a, *b)).collect();
    if !differing.is_empty() {
        let count = differing.len();
        return Err(format!("{count} frames of other classes, first {:?}", differing[0]).into());
    }
    let entries = nested.chunks(8).zip(nested_after.chunks(8)).filter(|(a, b)| a != b).count();
    if entries > 0 {
        return Err(format!("{entries} entries of the nested tables differ").into());
    }
    for (name, before) in &free {
        let after = free_after.get(name).copied().unwrap_or_default();
        if (after - before).abs() > CHANCE {
            return Err(format!("{name} was {before} KiB, is {after} KiB").into());
        }
    }
    if free.len() != 4 {
        return Err("meminfo was not understood".into());
    }
    let log = shell.end()?.log();
    init_text_leaves_at_once(&log)?;
    none(&log)
}
