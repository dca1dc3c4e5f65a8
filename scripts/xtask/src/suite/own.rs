//! A kernel of one's own, from what its build left: approved on the way, with its modules.

use std::time::Duration;

use clap::ValueEnum;
use harness::Result;
use harness::record::Record;

use super::{Context, Test};
use crate::artifacts::Arch;
use crate::run::Options;
use crate::shell::Shell;

const DEADLINE: Duration = Duration::from_secs(240);

/// All of them.
pub fn tests() -> Vec<Test> {
    let test = |arch: Arch| {
        Test::new(format!("linux/own-kernel-{}", arch.name()), move |context| {
            [true, false].into_iter().try_for_each(|plain| boots(context, arch, plain))
        })
    };
    Arch::value_variants().iter().map(|&arch| test(arch)).collect()
}

/// This checkout's kernel, given as another's would be. The module that nobody approves lies in the
/// same folder as the others.
fn boots(context: &Context, arch: Arch, plain: bool) -> Result<()> {
    let kernel = context.guest_of(arch)?.vmlinux.clone();
    let options = Options {
        plain,
        modules: kernel.parent().map(Into::into),
        kernel: Some(kernel),
        append: "sv.word=own".into(),
        ..Options::for_tests()
    };
    let way = if plain { "plain" } else { "guarded" };
    let directory = context.directory(&format!("linux/own-{}-{way}", arch.name()))?;
    let machine = options.machine(context.hypervisor()?, &options.guest()?, "shell", &directory)?;
    let mut shell = Shell::new(machine.start(&directory, DEADLINE)?)?;
    shell.expect("cat /proc/cmdline", " sv.word=own")?;
    shell.expect("modprobe fat; echo code=$?", "code=0")?;
    let unapproved = "insmod /lib/unapproved/secvisor_demo_unapproved.ko; echo code=$?";
    shell.expect(unapproved, if plain { "code=0" } else { "code=1" })?;
    let records = Record::all(&shell.end()?.log());
    // Who asks again with the file's bytes is refused again.
    let told = records.iter().all(|record| record.kind == "hypercall");
    if told && records.is_empty() == plain {
        return Ok(());
    }
    Err(format!("{way}: records {records:?}").into())
}
