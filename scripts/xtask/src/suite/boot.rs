//! What SecVisor refuses, in one clear line and before any guest code runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::Result;
use harness::iso::Menu;
use harness::qemu::{Boot, Machine};
use harness::record::refusal;

use super::{Context, Test};

const DEADLINE: Duration = Duration::from_secs(90);

/// What one refusal needs and how it must read.
struct Case {
    name: &'static str,
    /// Changes the menu that would boot.
    change: fn(&mut Menu, &Path) -> Result<()>,
    cpu: &'static str,
    /// Parts the line must contain, in any case.
    says: &'static [&'static str],
}

const CASES: [Case; 9] = [
    Case { name: "no-svm", change: |_, _| Ok(()), cpu: "qemu64,-svm", says: &["svm"] },
    Case { name: "no-npt", change: |_, _| Ok(()), cpu: "qemu64,+svm,-npt", says: &["nested"] },
    Case { name: "no-kernel", change: no_kernel, cpu: "max", says: &["kernel"] },
    Case { name: "no-policy", change: no_policy, cpu: "max", says: &["policy"] },
    Case { name: "truncated-list", change: truncated, cpu: "max", says: &["list"] },
    Case { name: "empty-list", change: empty, cpu: "max", says: &["policy"] },
    Case { name: "list-of-another-kernel", change: other_kernel, cpu: "max", says: &[".text"] },
    Case { name: "kernel-is-no-elf", change: no_elf, cpu: "max", says: &["elf"] },
    Case { name: "unknown-option", change: option, cpu: "max", says: &["bogus"] },
];

/// All of them.
pub fn tests() -> Vec<Test> {
    let test = |case: &'static Case| {
        Test::new(format!("refusal/{}", case.name), |context| refuses(context, case))
    };
    CASES.iter().map(test).collect()
}

fn no_kernel(menu: &mut Menu, _: &Path) -> Result<()> {
    menu.kernel = None;
    Ok(())
}

fn no_policy(menu: &mut Menu, _: &Path) -> Result<()> {
    menu.approvals = None;
    Ok(())
}

fn option(menu: &mut Menu, _: &Path) -> Result<()> {
    if let Some((_, options)) = &mut menu.secvisor {
        options.push_str(" bogus=1");
    }
    Ok(())
}

/// Replaces a file of the menu by a changed copy.
fn edit(
    file: &mut Option<PathBuf>,
    directory: &Path,
    change: impl FnOnce(&mut Vec<u8>) -> Result<()>,
) -> Result<()> {
    let mut data = std::fs::read(file.as_ref().ok_or("no such file in the menu")?)?;
    change(&mut data)?;
    let changed = directory.join("changed");
    std::fs::write(&changed, data)?;
    *file = Some(changed);
    Ok(())
}

fn truncated(menu: &mut Menu, directory: &Path) -> Result<()> {
    edit(&mut menu.approvals, directory, |data| {
        data.truncate(data.len() / 2);
        Ok(())
    })
}

fn empty(menu: &mut Menu, directory: &Path) -> Result<()> {
    edit(&mut menu.approvals, directory, |data| {
        data.clear();
        Ok(())
    })
}

fn no_elf(menu: &mut Menu, directory: &Path) -> Result<()> {
    edit(&mut menu.kernel, directory, |data| {
        data.truncate(4096);
        data.fill(0x55);
        Ok(())
    })
}

/// One bit of the kernel's text differs from what was approved.
fn other_kernel(menu: &mut Menu, directory: &Path) -> Result<()> {
    let text = harness::elf::section(menu.kernel.as_ref().ok_or("no kernel")?, ".text")?;
    edit(&mut menu.kernel, directory, |data| {
        let mark = &text.bytes[..64.min(text.bytes.len())];
        let at = data.windows(mark.len()).position(|part| part == mark).ok_or("no text")?;
        data[at + text.bytes.len() / 2] ^= 1;
        Ok(())
    })
}

fn refuses(context: &Context, case: &Case) -> Result<()> {
    let directory = context.directory(&format!("refusal/{}", case.name))?;
    let guest = context.guest()?;
    let mut menu = Menu {
        secvisor: Some((context.hypervisor()?.clone(), String::new())),
        kernel: Some(guest.vmlinux.clone()),
        append: "console=ttyS0 panic=-1".into(),
        initrd: Some(guest.initrd.clone()),
        approvals: Some(guest.approvals.clone()),
    };
    (case.change)(&mut menu, &directory)?;
    let mut machine = Machine::new(Boot::Iso(menu.write(&directory)?));
    machine.cpu = case.cpu.into();
    let mut running = machine.start(&directory, DEADLINE)?;
    running.wait_for_log("refused: ")?;
    let whole =
        |log: &str| log.split_once("refused: ").is_some_and(|(_, rest)| rest.contains('\n'));
    while !whole(&running.log()) {
        running.wait_for_log("\n")?;
        std::thread::sleep(Duration::from_millis(50));
    }
    let log = running.log();
    let line = refusal(&log).ok_or("no line that begins with the refusal")?.to_lowercase();
    if let Some(missing) = case.says.iter().find(|part| !line.contains(**part)) {
        return Err(format!("the refusal does not say {missing:?}: {line}").into());
    }
    // A guest that was let in all the same would speak within the time of a boot.
    std::thread::sleep(Duration::from_secs(2));
    match running.console.text().trim() {
        "" => Ok(()),
        words => Err(format!("a guest spoke: {}", harness::console::tail(words)).into()),
    }
}
