//! The freestanding guest: its attacks, its honest programs, its questions, on two emulators.

use harness::attack::{self, Column, Group, Row, Setup, rows};
use harness::{Result, bochs};

use super::{Context, Outcome, Test};

/// The QEMU version that the tests were made with.
const REFERENCE: u32 = 10;

/// All of them.
pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for column in Column::ALL {
        let name = column.name();
        for group in Group::ALL {
            // What becomes of modules does not depend on the guard.
            if group == Group::Modules && column == Column::Npf {
                continue;
            }
            let name = format!("attack/{}-{name}", group.name());
            let test = name.clone();
            tests.push(Test::with_outcome(test, move |context| {
                let rows: Vec<_> = rows().iter().filter(|row| row.group == group).collect();
                judged(context, &name, column, &rows)
            }));
        }
        let test = format!("attack/checks-{name}");
        tests.push(Test::with_outcome(test.clone(), move |context| {
            if let Some(why) = old_emulator()? {
                return Ok(Outcome::Skipped(why));
            }
            match attack::checks(&setup(context, &test)?, column)?.as_slice() {
                [] => Ok(Outcome::Passed),
                wrong => Err(wrong.join("; ").into()),
            }
        }));
        if column != Column::Plain {
            let test = format!("attack/honest-{name}");
            tests.push(Test::with_outcome(test.clone(), move |context| {
                if let Some(why) = old_emulator()? {
                    return Ok(Outcome::Skipped(why));
                }
                let setup = setup(context, &test)?;
                // Without intercepted exceptions the #GP that SVM's instructions raise in user mode
                // stays one, where a processor without SVM raises #UD.
                let left_out: &[&str] = if column == Column::Npf { &["svm"] } else { &[] };
                let seen = |column| attack::honest(&setup, column, left_out);
                same(&seen(Column::Plain)?, &seen(column)?)?;
                Ok(Outcome::Passed)
            }));
        }
    }
    for (column, budget) in ROUND_TRIPS {
        let test = format!("bench/round-trip-{}", column.name());
        tests.push(Test::new(test.clone(), move |context| {
            round_trip(&setup(context, &test)?, column, budget)
        }));
    }
    tests.push(Test::with_outcome("bochs/honest", |context| {
        on_bochs(context, "bochs/honest", |setup| {
            // Bochs forgets RF in #VMEXIT, so a code breakpoint there hits for ever; it tells DR6's
            // causes only at delivery, so a watchpoint looks like a step; and it traps behind a
            // stepped SYSCALL even where SFMASK clears TF, which QEMU does not.
            let left_out =
                ["hw-break", "hw-watch", "step", "step-sysret", "mov-ss-step", "segments-step"];
            let seen = |column| attack::honest_on_bochs(setup, column, &left_out);
            same(&seen(Column::Plain)?, &seen(Column::Events)?)?;
            Ok(Outcome::Passed)
        })
    }));
    tests.push(Test::with_outcome("bochs/attacks", |context| {
        on_bochs(context, "bochs/attacks", |setup| {
            let (through, tried) = attack::attacks_on_bochs(setup, Column::Events)?;
            let stopped = tried.len().saturating_sub(through.len());
            if tried.is_empty() {
                return Err("no attack was tried".into());
            }
            Ok(Outcome::Counted(u32::try_from(stopped)?, through))
        })
    }));
    tests
}

/// Instructions that a system call may take there and back, user code included.
const ROUND_TRIPS: [(Column, f64); 2] = [(Column::Events, 350.0), (Column::Npf, 180.0)];

/// A null system call takes two exits, and no more instructions than its budget.
fn round_trip(setup: &Setup, column: Column, budget: f64) -> Result<()> {
    let figures = attack::bench(setup, column)?;
    let find = |name: &str| figures.iter().find(|figure| figure.name == name);
    let (Some(empty), Some(call)) = (find("empty"), find("syscall")) else {
        return Err("the guest told nothing of system calls".into());
    };
    // Going to user mode and back once is no part of the loop.
    let exits = call.exits.saturating_sub(empty.exits);
    let instructions = call.instructions_per_round();
    if exits != 2 * call.iterations || instructions > budget {
        return Err(format!(
            "{exits} exits in {} rounds of {instructions} instructions, allowed {budget}",
            call.iterations
        )
        .into());
    }
    Ok(())
}

fn setup(context: &Context, name: &str) -> Result<Setup> {
    let guest = context.attack_guest()?.clone();
    let secvisor = context.hypervisor()?.clone();
    Ok(Setup::new(guest.vmlinux, secvisor, guest.list, context.directory(name)?))
}

/// Why a test that needs every intercept cannot be run, if it cannot.
fn old_emulator() -> Result<Option<String>> {
    let version = harness::qemu::major_version()?;
    let why = || format!("QEMU {version} has no intercepts for INVD, ICEBP and XSETBV");
    Ok((version < REFERENCE).then(why))
}

fn same(one: &[String], other: &[String]) -> Result<()> {
    match attack::first_difference(one, other) {
        Some(difference) => Err(difference.into()),
        None => Ok(()),
    }
}

/// Each row counts as a test of its own.
fn judged(context: &Context, name: &str, column: Column, rows: &[&'static Row]) -> Result<Outcome> {
    let verdicts = attack::judge(&setup(context, name)?, column, rows)?;
    let (held, wrong): (Vec<_>, Vec<_>) =
        verdicts.iter().partition(|verdict| verdict.as_expected());
    let told = wrong.iter().map(|verdict| {
        let wanted = verdict.row.expected(column);
        format!(
            "{}: {:?}, wanted {wanted:?}; {:?}",
            verdict.row.name, verdict.outcome, verdict.records
        )
    });
    let missing = rows.len().saturating_sub(verdicts.len());
    let told = told.chain((0..missing).map(|_| "a row was not judged".into())).collect();
    Ok(Outcome::Counted(u32::try_from(held.len())?, told))
}

fn on_bochs(
    context: &Context,
    name: &str,
    body: impl FnOnce(&Setup) -> Result<Outcome>,
) -> Result<Outcome> {
    if !bochs::available() {
        return Ok(Outcome::Skipped("Bochs is not installed".into()));
    }
    let mut setup = setup(context, name)?;
    let copy = setup.directory.join("secvisor.elf");
    bochs::without_framebuffer(&setup.secvisor, &copy)?;
    setup.secvisor = copy;
    body(&setup)
}
