//! scripts/run: one guest on the terminal.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Stdio};
use std::time::Duration;

use clap::{Args, ValueEnum};
use harness::Result;
use harness::attack::Column;
use harness::iso::Menu;
use harness::qemu::{Boot, EXIT_DONE, Machine, major_version};
use harness::record::field;

use crate::artifacts::{self, Arch, Guest};
use crate::kvm::{self, Host};
use crate::own;
use crate::process::{caller_path, target_directory};

/// The line with which the guest's init says that its shell is there.
pub const SHELL: &str = "secvisor-guest: shell";
/// A guest on a terminal may run as long as its user wants.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// What keeps the kernel out of what was not approved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Views {
    /// GMET where the processor has it, else two views.
    Auto,
    /// Two nested tables, switched with the mode.
    Two,
    /// One nested table and Guest Mode Execute Trap; refused where the processor has none.
    Gmet,
}

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
    #[arg(long, conflicts_with_all = ["demo", "views", "guard", "violation"])]
    pub plain: bool,
    /// Run every attack without and with SecVisor and print one table
    #[arg(long)]
    pub demo: bool,
    /// What keeps the kernel out of what was not approved
    #[arg(long, value_enum, conflicts_with = "guard")]
    pub views: Option<Views>,
    /// How events from user mode reach the kernel, with two views
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
    /// Insist on the host's KVM, which else is used where it can be; this was never tried on an AMD host
    ///
    /// KVM must give its guests SVM. Whether it gives GMET too SecVisor's log says, and the last line
    /// of this program: views=gmet.
    #[arg(long, conflicts_with = "emulator")]
    pub kvm: bool,
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
            views: None,
            guard: None,
            violation: None,
            memory: "512M".into(),
            emulator: Emulator::Installed,
            kvm: false,
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
        fn word<T: ValueEnum>(name: &str, value: Option<T>) -> Option<String> {
            Some(format!("{name}={}", value?.to_possible_value()?.get_name()))
        }
        let words = [
            word("views", self.views),
            word("entry-guard", self.guard),
            word("violation", self.violation),
        ];
        words.into_iter().flatten().collect::<Vec<_>>().join(" ")
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
    let engine = match options.emulator {
        Emulator::Gmet => "TCG of a QEMU that this project patched: it has GMET".into(),
        Emulator::Installed => engine(options, Host::this().lacks().is_none(), machine)?,
    };
    eprintln!("Runs by {engine}.");
    Ok(())
}

/// Sets up the engine on a host whose KVM can run it or not, and describes it.
fn engine(options: &Options, by_kvm: bool, machine: &mut Machine) -> Result<String> {
    if !by_kvm {
        return Ok(format!("TCG of QEMU {} (no KVM here gives it SVM)", major_version()?));
    }
    machine.kvm = true;
    if options.cpu.is_none() {
        machine.cpu = kvm::CPU.into();
    }
    Ok("KVM with SVM inside, which nobody has tried: please report how it went".into())
}

/// Boots the guest; its console is the terminal, or this program's input and output.
pub fn run(options: &Options) -> Result<bool> {
    kvm::insist(options.kvm)?;
    let guest = options.guest()?;
    let directory = run_directory()?;
    let mut machine = options.machine(&options.secvisor()?, &guest, "shell", &directory)?;
    choose_engine(options, &mut machine)?;
    if options.plain {
        eprintln!("Without SecVisor: nothing is enforced.");
    } else {
        eprintln!("SecVisor's log: {}", directory.join("secvisor.log").display());
    }
    let ended_well = if std::io::stdin().is_terminal() {
        on_terminal(&machine, &directory)?
    } else {
        on_pipes(&machine, &directory)?
    };
    let log = std::fs::read_to_string(directory.join("secvisor.log")).unwrap_or_default();
    if let Some(views) = views(&log) {
        eprintln!("SecVisor ran with views={views}.");
    }
    Ok(ended_well)
}

/// What SecVisor's log says it enforced by: `gmet`, or the guard of two views.
fn views(log: &str) -> Option<&str> {
    log.lines().find_map(|line| field(line.strip_prefix("secvisor: ")?, "views"))
}

fn on_pipes(machine: &Machine, directory: &Path) -> Result<bool> {
    let mut running = machine.start_with(directory, FOREVER, |piece| {
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
    fn kvm_passes_on_what_the_host_has() {
        let command = |line: &str, by_kvm: bool| {
            let options = parse(line).unwrap();
            let mut machine = Machine::new(Boot::Iso("boot.iso".into()));
            machine.cpu = options.cpu.clone().unwrap_or(machine.cpu);
            engine(&options, by_kvm, &mut machine).unwrap();
            let command = machine.command("/tmp".as_ref()).unwrap();
            command.get_args().map(|it| it.to_string_lossy()).collect::<Vec<_>>().join(" ")
        };
        let by_kvm = "-accel kvm -cpu host,migratable=off ";
        assert!(command("--kvm", true).contains(by_kvm));
        assert!(command("--disk", true).contains(by_kvm));
        assert!(command("--kvm --cpu EPYC", true).contains("-accel kvm -cpu EPYC "));
        assert!(command("--disk", false).contains("-accel tcg -cpu max "));
    }

    #[test]
    fn secvisors_words_are_those_of_the_options() {
        let words = |line| parse(line).map(|options| options.secvisor_words());
        assert_eq!(words("--views gmet --violation halt").unwrap(), "views=gmet violation=halt");
        assert_eq!(words("--guard npf").unwrap(), "entry-guard=npf");
        assert_eq!(words("--disk").unwrap(), "");
        let log = "secvisor: CPUs: 1\nsecvisor: views=gmet violation=inject parked-processors=0\n";
        assert_eq!((views(log), views("secvisor: refused: no SVM")), (Some("gmet"), None));
    }

    #[test]
    fn a_kernel_of_ones_own_has_its_own_options() {
        let options = parse("--demo --kernel /etc/passwd --modules /etc --append quiet").unwrap();
        assert_eq!(options.append, "quiet");
        assert!(options.demo && options.modules == Some("/etc".into()));
        assert_eq!(parse("--arch i386 --plain").unwrap().arch, Arch::I386);
        for (line, told) in [
            ("--arch i386 --kernel /etc/passwd", "cannot be used with"),
            ("--views gmet --guard npf", "cannot be used with"),
            ("--kvm --emulator gmet", "cannot be used with"),
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
