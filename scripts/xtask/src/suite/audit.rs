//! The first step with a kernel of one's own: a stock kernel, without the port, in audit.

use std::process::Command;
use std::time::Duration;

use harness::Result;
use harness::qemu::Running;
use harness::record::Record;

use super::linux::{On, passed};
use super::{Context, Outcome, Test};
use crate::artifacts::{self, Arch, Guest};
use crate::run::{Options, SHELL, Violation};
use crate::stock::{self, Stock};

const DEADLINE: Duration = Duration::from_secs(300);
const MARK: &str = " audit=no-guarantee-holds";
/// What is typed at the shell; the echo of it must not look like what it prints. Port CD6h is one
/// that SecVisor denies.
const COMMANDS: &str = "workload; for m in loop dummy nls_utf8; do insmod /lib/modules/stock/$m.ko && \
                        echo in''serted $m; done; rmmod dummy && echo re''moved; \
                        printf x | dd of=/dev/port bs=1 seek=3286 2>/dev/null && echo po''rt; \
                        exit-qemu 0x10\n";
/// What those print, in front of anything else.
const PRINTED: [&str; 6] =
    ["workload: ", "inserted loop", "inserted dummy", "inserted nls_utf8", "removed", "port"];
/// What Debian's kernel does that enforcement stops: all of it, each with a row that must be there.
const GROUPS: [(&str, &str); 6] = [
    ("writes to approved code", ".text by .text"),
    ("changed code that ran again", ".text"),
    ("kernel code that the list leaves out", ".init.text"),
    ("code from elsewhere", "where Linux loads modules and BPF"),
    ("writes to model-specific registers", "MSR 0x2ff by .text"),
    ("accesses to ports", "port 0xcd6 by .text"),
];

/// All of them.
pub fn tests() -> Vec<Test> {
    let long = On::ALL.into_iter().filter(|on| on.arch == Arch::X86_64);
    let test = |on: On| {
        on.test("audit-stock-kernel", |context, on| match stock::stock()? {
            Ok(stock) => passed(audit(context, on, &stock)),
            Err(why) => Ok(Outcome::Skipped(why)),
        })
    };
    long.map(test).collect()
}

/// Boots the stock kernel, with SecVisor in audit or without, and works at its shell.
fn work(context: &Context, on: On, stock: &Stock, name: &str, plain: bool) -> Result<Running> {
    let directory = context.directory(&on.name(&format!("audit-stock-{name}")))?;
    let mut options = Options { plain, ..on.options() };
    let mut guest = Guest {
        vmlinux: stock.vmlinuz.clone(),
        bzimage: Some(stock.vmlinuz.clone()),
        initrd: stock::initrd(&context.guest()?.initrd, stock, &directory)?,
        approvals: std::path::PathBuf::new(),
        modules: None,
    };
    if !plain {
        options.violation = Some(Violation::Audit);
        let approved = artifacts::approve(&stock.vmlinuz, None, true)?;
        (guest.vmlinux, guest.approvals) = (approved.vmlinux, approved.list);
    }
    let machine = options.machine(context.hypervisor()?, &guest, "shell", &directory)?;
    let mut running = machine.start(&directory, DEADLINE)?;
    running.wait_for(SHELL)?;
    running.send(COMMANDS)?;
    running.wait_done()?;
    Ok(running)
}

/// What the programs and commands printed.
fn results(running: &Running) -> Vec<String> {
    let console = running.console.text();
    let lines = console.lines().map(str::trim);
    lines.filter(|line| PRINTED.iter().any(|w| line.starts_with(w))).map(str::to_owned).collect()
}

fn audit(context: &Context, on: On, stock: &Stock) -> Result<()> {
    let plain = results(&work(context, on, stock, "plain", true)?);
    let running = work(context, on, stock, "audit", false)?;
    let audited = results(&running);
    for word in PRINTED {
        if !plain.iter().any(|line| line.starts_with(word)) {
            return Err(format!("no {word:?} without SecVisor either").into());
        }
    }
    if let Some((a, b)) = plain.iter().zip(&audited).find(|(a, b)| a != b) {
        return Err(format!("{a:?} without SecVisor, {b:?} in audit").into());
    }
    if audited.len() != plain.len() {
        return Err(
            format!("{} lines without SecVisor, {} in audit", plain.len(), audited.len()).into()
        );
    }
    let log = running.log();
    let records = Record::all(&log);
    let mut counts = records.iter().map(|record| record.count).zip(1..);
    if records.is_empty() || counts.any(|(count, expected)| count != expected) {
        return Err(format!("{} records, whose counts leave gaps", records.len()).into());
    }
    if let Some(record) = records.iter().find(|record| !record.line.ends_with(MARK)) {
        return Err(format!("does not end with{MARK}: {}", record.line).into());
    }
    judge(&summary(context, on, stock, &log)?, records.len() as u64)
}

/// What the host tool makes of the log.
fn summary(context: &Context, on: On, stock: &Stock, log: &str) -> Result<String> {
    let path = context.directory(&on.name("audit-stock-log"))?.join("log");
    std::fs::write(&path, log)?;
    let mut tool = Command::new(artifacts::tool()?);
    let output = tool.arg("audit").arg(&path).arg("--kernel").arg(&stock.vmlinuz).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(String::from_utf8(output.stdout)?) } else { Err(errors.into()) }
}

/// The summary counts every record once, in the groups that are expected and in no other.
fn judge(summary: &str, records: u64) -> Result<()> {
    let wrong = |what: &str| Err(format!("{what} in the summary:\n{summary}").into());
    let head = format!("{records} violations read, the last says count={records}: none is missing");
    if summary.lines().next() != Some(&head) {
        return wrong("not all records");
    }
    let title = |line: &str| {
        Some((line.split_once(": ")?.0.to_owned(), line.rsplit_once(": ")?.1.parse().ok()?))
    };
    let groups: Vec<(String, u64)> = summary.lines().skip(1).filter_map(title).collect();
    if groups.iter().map(|(name, _)| name.as_str()).ne(GROUPS.iter().map(|(name, _)| *name)) {
        return wrong("other groups than expected");
    }
    if groups.iter().map(|(_, times)| times).sum::<u64>() != records {
        return wrong("groups that do not sum up");
    }
    for (group, row) in GROUPS {
        let rows = summary.split_once(&format!("\n{group}: ")).map_or("", |(_, rest)| rest);
        let mut rows = rows.lines().skip(1).take_while(|line| !line.is_empty());
        if !rows.any(|line| line.contains(&format!("  {row}  (count "))) {
            return wrong(&format!("no row {row:?} of {group:?}"));
        }
    }
    Ok(())
}
