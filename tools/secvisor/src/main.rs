//! The host tool: makes, shows and checks approval lists and decodes violation records.
//!
//! Exit codes: 0 done; 1 the answer is no (`check` found a difference, `ring` found no ring);
//! 2 the question could not be answered, and a line says why.

mod bzimage;
mod check;
mod kernel;
mod list;
mod ring;
mod show;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kernel::Kernel;

/// What stops a command, for people to read.
type Error = String;

/// Makes, shows and checks the list of kernel code that SecVisor lets run.
#[derive(Parser)]
#[command(version, after_help = "Exit codes: 0 done, 1 the answer is no, 2 something is wrong.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make an approval list from a kernel
    ///
    /// The list holds the physical place and the SHA-256 of the kernel's code sections and
    /// nothing else that may run in kernel mode. The same files give the same list, byte for
    /// byte. Give it to GRUB as the module `policy`, beside the very vmlinux it was made from.
    Approve {
        /// The kernel: an ELF vmlinux, or a bzImage, which is unpacked
        #[arg(long, value_name = "FILE")]
        kernel: PathBuf,
        /// A kernel module to approve; may be repeated
        #[arg(long, value_name = "FILE.ko")]
        module: Vec<PathBuf>,
        /// A folder whose kernel modules are all approved
        #[arg(long, value_name = "DIR")]
        modules: Option<PathBuf>,
        /// Where the list goes
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Where the unpacked ELF of a bzImage goes: SecVisor boots this one
        #[arg(long, value_name = "FILE")]
        vmlinux_out: Option<PathBuf>,
    },
    /// Print an approval list in readable form
    Show {
        /// The approval list
        list: PathBuf,
    },
    /// Compare an approval list with a kernel; exit code 1 if they differ
    Check {
        /// The approval list
        list: PathBuf,
        /// The kernel: an ELF vmlinux or a bzImage
        #[arg(long, value_name = "FILE")]
        kernel: PathBuf,
    },
    /// Find SecVisor's violation records in a dump of the machine's memory
    ///
    /// The dump may be raw or an ELF core (QEMU: pmemsave, dump-guest-memory). Records are
    /// printed from the oldest to the newest; exit code 1 if the dump holds no ring of records.
    Ring {
        /// The dump
        dump: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("secvisor: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> Result<bool, Error> {
    match command {
        Command::Approve { module, modules, .. } if !module.is_empty() || modules.is_some() => Err(
            "this version cannot approve kernel modules yet, and SecVisor refuses to load any; \
                 leave out --module and --modules"
                .into(),
        ),
        Command::Approve { kernel, output, vmlinux_out, .. } => {
            approve(&kernel, &output, vmlinux_out.as_deref())?;
            Ok(true)
        }
        Command::Show { list } => {
            let bytes = read(&list)?;
            print!("{}", show::show(&bytes).map_err(|error| in_file(&list, error))?);
            Ok(true)
        }
        Command::Check { list, kernel } => {
            let bytes = read(&list)?;
            let approved = policy::approval::ApprovalList::parse(&bytes)
                .map_err(|error| in_file(&list, format!("no sound approval list: {error}")))?;
            let image = read_kernel(&kernel)?;
            let found = Kernel::read(&image).map_err(|error| in_file(&kernel, error))?;
            let differences = check::differences(approved, &found);
            for difference in &differences {
                println!("{difference}");
            }
            if differences.is_empty() {
                println!("{} approves {}", list.display(), kernel.display());
            }
            Ok(differences.is_empty())
        }
        Command::Ring { dump } => {
            let file = fs::File::open(&dump).map_err(|error| in_file(&dump, error))?;
            let found = ring::print(file, &mut std::io::stdout().lock());
            if !found.map_err(|error| in_file(&dump, error))? {
                println!(
                    "no violation ring in {}: did SecVisor run, and is all of its memory dumped?",
                    dump.display()
                );
                return Ok(false);
            }
            Ok(true)
        }
    }
}

fn approve(path: &Path, output: &Path, vmlinux_out: Option<&Path>) -> Result<(), Error> {
    let packed = read(path)?;
    let image = bzimage::unpack(&packed).map_err(|error| in_file(path, error))?;
    let kernel = Kernel::read(&image).map_err(|error| in_file(path, error))?;
    let bytes = list::encode(&list::Contents::of(&kernel)).map_err(|error| in_file(path, error))?;
    // What the hypervisor would refuse is not written.
    let summary = show::show(&bytes).map_err(|error| in_file(path, error))?;
    write(output, &bytes)?;
    match vmlinux_out {
        Some(out) => write(out, &image)?,
        None if packed != *image => eprintln!(
            "secvisor: note: SecVisor boots an ELF, not a bzImage; --vmlinux-out FILE writes it"
        ),
        None => {}
    }
    print!("{summary}");
    for section in &kernel.not_approved {
        println!("not approved  {section}");
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| in_file(path, error))
}

fn read_kernel(path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = read(path)?;
    bzimage::unpack(&bytes).map(|image| image.into_owned()).map_err(|error| in_file(path, error))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(path, bytes).map_err(|error| in_file(path, error))
}

fn in_file(path: &Path, error: impl ToString) -> Error {
    format!("{}: {}", path.display(), error.to_string())
}
