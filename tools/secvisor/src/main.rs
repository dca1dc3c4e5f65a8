//! The host tool: makes, shows and checks approval lists and decodes violation records.
//!
//! Exit codes: 0 done; 1 the answer is no (`check` found a difference, `ring` found no ring);
//! 2 the question could not be answered, and a line says why.

mod audit;
mod bzimage;
mod check;
mod exports;
mod kernel;
mod layout;
mod list;
mod module;
mod modules;
mod relocate;
mod ring;
mod show;
mod unpack;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use exports::Exports;
use kernel::Kernel;
use modules::Chosen;

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
    /// Make an approval list from a kernel and its modules
    ///
    /// The list holds the physical place and the SHA-256 of the kernel's code sections, for each
    /// module the SHA-256 and every relocation of its code sections, and nothing else that may
    /// run in kernel mode. The same files give the same list, byte for byte, in whatever order.
    /// Modules load if they, and the modules that they depend on, are in the list. Give it to GRUB
    /// as the module `policy`, beside the very vmlinux it was made from.
    Approve {
        /// The kernel: an ELF vmlinux, or a bzImage, which is unpacked
        #[arg(long, value_name = "FILE")]
        kernel: PathBuf,
        #[command(flatten)]
        modules: Chosen,
        /// For violation=audit only: leave out code that shares a page with data
        #[arg(long)]
        audit: bool,
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
        /// Print all that the list says of this module, relocations included
        #[arg(long, value_name = "NAME")]
        module: Option<String>,
    },
    /// Compare an approval list with a kernel and its modules; exit code 1 if they differ
    ///
    /// Without --module and --modules only the kernel is compared.
    Check {
        /// The approval list
        list: PathBuf,
        /// The kernel: an ELF vmlinux or a bzImage
        #[arg(long, value_name = "FILE")]
        kernel: PathBuf,
        #[command(flatten)]
        modules: Chosen,
    },
    /// Sum up SecVisor's log: what the kernel did that enforcement stops
    ///
    /// Meant for a boot with violation=audit, which lets it all happen. Groups and counts the
    /// violations and says of each group what it means and what mends it.
    Audit {
        /// The log, as SecVisor wrote it to its serial port
        log: PathBuf,
        /// The kernel that ran, which names sections: an ELF vmlinux or a bzImage
        #[arg(long, value_name = "FILE")]
        kernel: Option<PathBuf>,
        /// Names functions and modules: the kernel's System.map, or /proc/kallsyms of that boot
        #[arg(long, value_name = "FILE")]
        map: Option<PathBuf>,
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
        Command::Approve { kernel, modules, audit, output, vmlinux_out } => {
            approve(&kernel, &modules, audit, &output, vmlinux_out.as_deref())?;
            Ok(true)
        }
        Command::Show { list, module } => {
            let bytes = read(&list)?;
            let text = match module {
                Some(name) => show::show_module(&bytes, &name),
                None => show::show(&bytes),
            };
            print!("{}", text.map_err(|error| in_file(&list, error))?);
            Ok(true)
        }
        Command::Check { list, kernel, modules } => {
            let bytes = read(&list)?;
            let approved = show::parse(&bytes).map_err(|error| in_file(&list, error))?;
            let image = read_kernel(&kernel)?;
            let found = Kernel::read(&image).map_err(|error| in_file(&kernel, error))?;
            let mut differences = check::differences(approved, &found);
            if !modules.is_empty() {
                let mut contents = list::Contents::of(&found);
                let refused = add_modules(&mut contents, &modules, &kernel, &image)?;
                refused.iter().for_each(|refused| println!("not approved  {refused}"));
                let found = list::encode(&contents)?;
                differences.extend(check::module_differences(approved, show::parse(&found)?));
            }
            for difference in &differences {
                println!("{difference}");
            }
            if differences.is_empty() {
                println!("{} approves {}", list.display(), kernel.display());
            }
            Ok(differences.is_empty())
        }
        Command::Audit { log, kernel, map } => {
            let mut names = audit::Names::default();
            if let Some(path) = &kernel {
                let sections = kernel::sections(&read_kernel(path)?);
                names.sections = sections.map_err(|error| in_file(path, error))?;
            }
            if let Some(path) = &map {
                let text = read(path)?;
                let symbols = audit::Symbols::parse(&String::from_utf8_lossy(&text));
                names.symbols = symbols.map_err(|error| in_file(path, error))?;
            }
            let text = read(&log)?;
            let summary = audit::summary(&String::from_utf8_lossy(&text), &names);
            print!("{}", summary.map_err(|error| in_file(&log, error))?);
            Ok(true)
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

fn approve(
    path: &Path,
    modules: &Chosen,
    audit: bool,
    output: &Path,
    vmlinux_out: Option<&Path>,
) -> Result<(), Error> {
    let packed = read(path)?;
    let image = bzimage::unpack(&packed).map_err(|error| in_file(path, error))?;
    let kernel = if audit { Kernel::read_for_audit(&image) } else { Kernel::read(&image) };
    let kernel = kernel.map_err(|error| in_file(path, error))?;
    let mut contents = list::Contents::of(&kernel);
    let refused = add_modules(&mut contents, modules, path, &image)?;
    let bytes = list::encode(&contents)?;
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
    for left_out in kernel.not_approved.iter().chain(&refused) {
        println!("not approved  {left_out}");
    }
    Ok(())
}

/// Adds the modules to what a list is to hold; the lines say what is left out, and why.
fn add_modules(
    contents: &mut list::Contents,
    modules: &Chosen,
    path: &Path,
    image: &[u8],
) -> Result<Vec<String>, Error> {
    if modules.is_empty() {
        return Ok(Vec::new());
    }
    let exports = Exports::read(image).map_err(|error| in_file(path, error))?;
    let approved = modules::approve(&exports, contents.architecture, &modules.read()?)?;
    if let Some(patched) = approved.patched {
        eprintln!("secvisor: note: {patched}");
    }
    contents.modules = approved.modules;
    Ok(approved.refused)
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
