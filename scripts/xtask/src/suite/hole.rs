//! Attacks from inside Linux, through an approved module with a hole, each judged from outside.

use clap::ValueEnum;
use harness::Result;
use harness::attack::{Asked, Column, Guest, judge_on, rows_of_linux};

use super::attack::judged;
use super::linux::On;
use super::{Context, Outcome, Test};
use crate::artifacts::Arch;
use crate::demo::workload_ran;
use crate::run::Options;

/// The module.
const HOLE: &str = "secvisor_demo_hole.ko";

/// All of them.
pub fn tests() -> Vec<Test> {
    let of = |arch: Arch| {
        Column::ALL.map(|column| {
            let (on, _) = On::in_column(arch, column);
            let name = format!("hole-{}", column.name());
            on.test(&name, move |context, _| attacks(context, arch, column)).in_matrix()
        })
    };
    Arch::value_variants().iter().flat_map(|&arch| of(arch)).collect()
}

fn attacks(context: &Context, arch: Arch, column: Column) -> Result<Outcome> {
    let guest = context.guest_of(arch)?;
    if !guest.modules.as_ref().is_some_and(|folder| folder.join(HOLE).exists()) {
        return Ok(Outcome::Skipped(format!("the kernel comes without {HOLE}")));
    }
    let (on, options) = On::in_column(arch, column);
    let options = Options {
        // The initial RAM disk stays what it is.
        append: "retain_initrd".into(),
        ..options
    };
    let (kind, in_matrix, modules) = match arch {
        Arch::X86_64 => (Guest::Long, "linux-x86_64", 0xffff_ffff_a000_0000..0xffff_ffff_ff00_0000),
        Arch::I386 => (Guest::Pae, "linux-i386", 0xe000_0000..0xff80_0000),
    };
    let directory = context.directory(&on.name(&format!("hole-{}", column.name())))?;
    let asked = Asked {
        machine: options.machine(context.hypervisor()?, guest, "hole", &directory)?,
        kernel: guest.vmlinux.clone(),
        modules,
        works: workload_ran,
        directory,
    };
    let rows: Vec<_> = rows_of_linux(kind).collect();
    judged(context, in_matrix, column, &rows, judge_on(&asked, column, &rows))
}
