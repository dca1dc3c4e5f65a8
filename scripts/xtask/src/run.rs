//! scripts/run: one guest on the terminal.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Stdio};
use std::time::Duration;

use clap::{Args, ValueEnum};
use harness::Result;
use harness::attack::Column;
use harness::iso::Menu;
use harness::qemu::{Boot, EXIT_DONE, Machine, kvm_with_svm, major_version};

use crate::artifacts::{self, Arch, Guest};
use crate::own;
use crate::process::{caller_path, target_directory};

/// The line with which the guest's init says that its shell is there.
pub const SHELL: &str = "secvisor-guest: shell";
/// A guest on a terminal may run as long as its user wants.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// How events from user mode reach the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Guard {
    /// Never through guest tables in the user view.
    Events,
    /// As the paper: by the nested fault. For comparison only.
    Npf,
}

/// Which QEMU runs the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Emulator {
    /// The installed one.
    Installed,
    /// One with Guest Mode Execute Trap, which this project's patch adds; it is built if need be.
    Gmet,
}

/// What follows a violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Violation {
    /// The offending task dies.
    Inject,
    /// The machine stops.
    Halt,
    /// Nothing; no guarantee holds.
    Audit,
}

/// Options of scripts/run.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Boot the same kernel without SecVisor
    #[arg(long, conflicts_with_all = ["demo", "guard", "violation"])]
    pub plain: bool,
    /// Run every attack without and with SecVisor and print one table
    #[arg(long)]
    pub demo: bool,
    /// How events from user mode reach the kernel
    #[arg(long, value_enum)]
    pub guard: Option<Guard>,
    /// What follows a violation
    #[arg(long, value_enum)]
    pub violation: Option<Violation>,
    /// The guest's memory, such as 512M or 2G
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = size)]
    pub memory: String,
    /// Which QEMU runs it
    #[arg(long, value_enum, default_value = "installed")]
    pub emulator: Emulator,
    /// QEMU's name of the processor model
    #[arg(long, value_name = "MODEL")]
    pub cpu: Option<String>,
    /// Which of this checkout's guests boots; a kernel of your own says itself what it is for
    #[arg(long, value_enum, default_value = "x86_64", conflicts_with = "kernel")]
    pub arch: Arch,
    /// More words for the guest kernel's command line
    #[arg(long, value_name = "WORDS", default_value = "", allow_hyphen_values = true)]
    pub append: String,
    /// Start by UEFI instead of a BIOS
    #[arg(long)]
    pub uefi: bool,
    /// Root file system on a virtio disk instead of the initramfs
    #[arg(long)]
    pub disk: bool,
    /// A kernel of your own (with the port), 32 or 64 bit: vmlinux or bzImage
    ///
    /// It is approved on the way; what of it cannot be approved is told. --plain and --demo boot it
    /// without SecVisor too, which takes a bzImage: with a vmlinux, the one that its build left
    /// beside it or in arch/*/boot.
    #[arg(long, value_name = "PATH", value_parser = file)]
    pub kernel: Option<PathBuf>,
    /// A folder with that kernel's modules (*.ko, at any depth), which are all approved
    ///
    /// Without --initrd those that are not packed are in the guest, too. secvisor_demo_unapproved.ko, which the demo
    /// wants refused, is left out of the approval.
    #[arg(long, requires = "kernel", value_name = "DIR", value_parser = folder)]
    pub modules: Option<PathBuf>,
    /// An initial RAM disk of your own, instead of this checkout's userland
    #[arg(long, value_name = "PATH", value_parser = file, conflicts_with = "disk")]
    pub initrd: Option<PathBuf>,
}

fn size(text: &str) -> std::result::Result<String, String> {
    let digits = text.trim_end_matches(['M', 'G', 'm', 'g']);
    let good = text.len() - digits.len() == 1 && digits.parse::<u32>().is_ok_and(|n| n > 0);
    good.then(|| text.to_owned()).ok_or_else(|| "a size is a number and M or G".into())
}

/// The path of a file, as the caller of the script meant it.
pub fn file(text: &str) -> std::result::Result<PathBuf, String> {
    let path = caller_path(text.as_ref());
    path.is_file().then_some(path).ok_or_else(|| "no such file".into())
}

/// The path of a folder, as the caller of the script meant it.
pub fn folder(text: &str) -> std::result::Result<PathBuf, String> {
    let path = caller_path(text.as_ref());
    path.is_dir().then_some(path).ok_or_else(|| "no such folder".into())
}

impl Options {
    /// Those of a machine that nothing was asked of.
    pub fn for_tests() -> Self {
        Self {
            plain: false,
            demo: false,
            guard: None,
            violation: None,
            memory: "512M".into(),
            emulator: Emulator::Installed,
            cpu: None,
            arch: Arch::X86_64,
            append: String::new(),
            uefi: false,
            disk: false,
            kernel: None,
            modules: None,
            initrd: None,
        }
    }

    /// SecVisor's command line.
    pub fn secvisor_words(&self) -> String {
        let mut words = Vec::new();
        match self.guard {
            Some(Guard::Events) => words.push("entry-guard=events"),
            Some(Guard::Npf) => words.push("entry-guard=npf"),
            None => (),
        }
        match self.violation {
            Some(Violation::Inject) => words.push("violation=inject"),
            Some(Violation::Halt) => words.push("violation=halt"),
            Some(Violation::Audit) => words.push("violation=audit"),
            None => (),
        }
        words.join(" ")
    }

    /// SecVisor, if these options want it.
    pub fn secvisor(&self) -> Result<PathBuf> {
        if self.plain { Ok(PathBuf::new()) } else { artifacts::hypervisor() }
    }

    /// The guest these options ask for.
    pub fn guest(&self) -> Result<Guest> {
        let Some(kernel) = &self.kernel else {
            let guest = artifacts::guest(self.arch)?;
            return Ok(Guest { initrd: self.initrd.clone().unwrap_or(guest.initrd), ..guest });
        };
        own::guest(&own::Files {
            kernel,
            initrd: self.initrd.as_deref(),
            modules: self.modules.as_deref(),
            plain: self.plain || self.demo,
            guarded: !self.plain,
            audit: self.violation == Some(Violation::Audit),
        })
    }

    /// The machine, with its boot CD in `directory`; `what` tells the guest's init what to do.
    pub fn machine(
        &self,
        secvisor: &Path,
        guest: &Guest,
        what: &str,
        directory: &Path,
    ) -> Result<Machine> {
        // On a busy machine the kernel would miss ticks of its timer and give up.
        let mut append = format!("console=ttyS0 panic=-1 no_timer_check sv.run={what}");
        let initrd = Some(guest.initrd.clone());
        let mut disk = None;
        if self.disk {
            // The initramfs loads what the root file system needs, and goes on from there.
            append.push_str(" root=/dev/vda");
            disk = Some(artifacts::disk(guest)?);
        }
        if !self.append.is_empty() {
            append = format!("{append} {}", self.append);
        }
        let menu = if self.plain {
            let kernel = guest.bzimage.clone().ok_or("--plain needs a bzImage")?;
            Menu { secvisor: None, kernel: Some(kernel), append, initrd, approvals: None }
        } else {
            Menu {
                secvisor: Some((secvisor.to_path_buf(), self.secvisor_words())),
                kernel: Some(guest.vmlinux.clone()),
                append,
                initrd,
                approvals: Some(guest.approvals.clone()),
            }
        };
        std::fs::create_dir_all(directory)?;
        let mut machine = Machine::new(Boot::Iso(menu.write(directory)?));
        machine.memory.clone_from(&self.memory);
        machine.uefi = self.uefi;
        machine.disk = disk;
        if self.emulator == Emulator::Gmet {
            machine.emulator = artifacts::gmet_emulator()?;
            let any = self.cpu.as_deref().is_none_or(|cpu| cpu == "max");
            let chosen = !self.plain && self.guard.is_none() && any;
            machine.launched = Column::Gmet.launched().filter(|_| chosen);
        }
        machine.cpu = self.cpu.clone().unwrap_or(machine.cpu);
        Ok(machine)
    }
}

/// A folder for this run; those of runs that have ended are removed.
pub fn run_directory() -> Result<PathBuf> {
    let runs = target_directory().join("run");
    std::fs::create_dir_all(&runs)?;
    for entry in std::fs::read_dir(&runs)? {
        let entry = entry?;
        if !PathBuf::from("/proc").join(entry.file_name()).exists() {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    let own = runs.join(std::process::id().to_string());
    std::fs::create_dir_all(&own)?;
    Ok(own)
}

/// KVM where this host is AMD with nested SVM, TCG elsewhere; says which.
pub fn choose_engine(options: &Options, machine: &mut Machine) -> Result<()> {
    let patched = options.emulator == Emulator::Gmet;
    machine.kvm = kvm_with_svm() && !patched;
    if machine.kvm && options.cpu.is_none() {
        machine.cpu = "host".into();
    }
    let engine = if patched {
        "TCG of a QEMU that this project patched: it has GMET".to_owned()
    } else if machine.kvm {
        "KVM (this host has nested SVM)".to_owned()
    } else {
        format!("TCG of QEMU {} (this host has no nested SVM to use)", major_version()?)
    };
    eprintln!("Runs by {engine}.");
    Ok(())
}

/// Boots the guest; its console is the terminal, or this program's input and output.
pub fn run(options: &Options) -> Result<bool> {
    let guest = options.guest()?;
    let directory = run_directory()?;
    let mut machine = options.machine(&options.secvisor()?, &guest, "shell", &directory)?;
    choose_engine(options, &mut machine)?;
    if options.plain {
        eprintln!("Without SecVisor: nothing is enforced.");
    } else {
        eprintln!("SecVisor's log: {}", directory.join("secvisor.log").display());
    }
    if std::io::stdin().is_terminal() {
        return on_terminal(&machine, &directory);
    }
    let mut running = machine.start_with(&directory, FOREVER, |piece| {
        let mut output = std::io::stdout().lock();
        let _ = output.write_all(piece).and_then(|()| output.flush());
    })?;
    // What is piped in must not be typed before somebody reads it.
    if running.wait_for(SHELL).is_ok()
        && let Some(input) = running.take_input()
    {
        std::thread::spawn(move || forward(input));
    }
    Ok(ended_well(running.wait()?))
}

fn forward(mut guest: ChildStdin) {
    let mut piece = [0; 256];
    while let Ok(count @ 1..) = std::io::stdin().read(&mut piece) {
        // The guest's serial port holds 16 bytes, and its shell echoes them as they come.
        for part in piece[..count].chunks(8) {
            if guest.write_all(part).and_then(|()| guest.flush()).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    // End of input is what it is on a terminal: control-D, which ends the shell.
    let _ = guest.write_all(b"\x04").and_then(|()| guest.flush());
    std::thread::sleep(FOREVER);
}

fn on_terminal(machine: &Machine, directory: &Path) -> Result<bool> {
    eprintln!("Leave with control-A X.");
    let log = directory.join("secvisor.log");
    let status = machine
        .command(directory)?
        .args(["-serial", "mon:stdio", "-serial", &format!("file:{}", log.display())])
        .stdin(Stdio::inherit())
        .status()
        .map_err(|error| format!("{}: {error}", machine.emulator.display()))?;
    Ok(ended_well(status.code().unwrap_or(-1)))
}

fn ended_well(status: i32) -> bool {
    status == 0 || status == EXIT_DONE
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parse(line: &str) -> std::result::Result<Options, String> {
        let words = std::iter::once("run").chain(line.split(' '));
        Line::try_parse_from(words).map(|it| it.options).map_err(|error| error.to_string())
    }

    #[test]
    fn a_kernel_of_ones_own_has_its_own_options() {
        let options = parse("--demo --kernel /etc/passwd --modules /etc --append quiet").unwrap();
        assert_eq!(options.append, "quiet");
        assert!(options.demo && options.modules == Some("/etc".into()));
        assert_eq!(parse("--arch i386 --plain").unwrap().arch, Arch::I386);
        for (line, told) in [
            ("--arch i386 --kernel /etc/passwd", "cannot be used with"),
            ("--arch arm", "invalid value 'arm'"),
            ("--modules /etc", "--kernel"),
            ("--kernel /etc", "no such file"),
            ("--kernel /etc/passwd --modules /etc/passwd", "no such folder"),
            ("--disk --initrd /etc/passwd", "cannot be used with"),
            ("quiet", "unexpected argument"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(told), "{line}: {error}");
        }
    }
}
