//! The freestanding guest: its attacks, its honest programs, its questions, on two emulators.

use std::path::PathBuf;

use harness::attack::{self, Batch, Column, Figure, Guest, Row, Run, Setup, Verdict, rows_of};
use harness::qemu::INSTALLED;
use harness::{Result, bochs};

use super::matrix::{Cell, Second};
use super::{Context, Outcome, Test};
use crate::artifacts::{self, Arch};

/// The QEMU version that the tests were made with.
const REFERENCE: u32 = 10;

/// All of them.
pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for column in Column::ALL {
        for batch in Batch::ALL {
            tests.push(watched(Guest::Long, batch, column));
            tests.push(watched(Guest::Pae, batch, column));
        }
        tests.push(checked(Guest::Long, column));
    }
    tests.push(honest(Guest::Long, Column::Npf));
    tests.push(honest(Guest::Long, Column::Events));
    tests.push(honest(Guest::Long, Column::Gmet));
    protected_mode(&mut tests);
    for (column, exits, budget) in ROUND_TRIPS {
        let name = format!("bench/round-trip-{}", column.name());
        let test = name.clone();
        let body = move |context: &Context| {
            let figures = attack::bench(&setup(context, &test, Guest::Long, column)?, column)?;
            round_trip(&figures, exits, budget)
        };
        tests.push(Test::new(name, body).on_emulator_of(column));
    }
    controls(&mut tests);
    for guest in [Guest::Long, Guest::Pae] {
        on_second_emulator(&mut tests, guest);
    }
    tests
}

/// The 32-bit guests, unwatched: that takes seconds.
fn protected_mode(tests: &mut Vec<Test>) {
    for guest in [Guest::Pae, Guest::Large, Guest::Small] {
        for column in Column::ALL {
            // What the entry guard lets through does not depend on the size of pages.
            if guest != Guest::Small || column != Column::Npf {
                tests.push(unwatched(guest, column));
            }
        }
        tests.push(checked(guest, Column::Events));
        tests.push(honest(guest, Column::Events));
        tests.push(honest(guest, Column::Gmet));
    }
    tests.push(checked(Guest::Pae, Column::Plain));
    tests.push(checked(Guest::Pae, Column::Gmet));
    tests.push(honest(Guest::Pae, Column::Npf));
}

/// That the tests of GMET can fail, and what it is that stops attacks there.
fn controls(tests: &mut Vec<Test>) {
    for (what, cpu) in [("installed-emulator", "max"), ("processor-without", "max,-gmet")] {
        let name = format!("attack/gmet-control-{what}");
        let test = name.clone();
        let column = if cpu == "max" { Column::Events } else { Column::Gmet };
        let body = move |context: &Context| {
            let setup = setup(context, &test, Guest::Long, column)?;
            not_by_gmet(&Setup { cpu: cpu.into(), ..setup })
        };
        tests.push(Test::new(name, body).on_emulator_of(column));
    }
    // The patched emulator by itself stops nothing: neither without SecVisor nor with the other guard.
    for column in [Column::Plain, Column::Npf] {
        let name = format!("attack/gmet-control-{}", column.name());
        let test = name.clone();
        let body = move |context: &Context| {
            let setup = setup(context, &test, Guest::Long, Column::Gmet)?;
            counted(attack::unwatched(&setup, column)?)
        };
        tests.push(Test::with_outcome(name, body).on_patched());
    }
}

/// Where there is no GMET, SecVisor takes two views, and every row of the column fails for that.
fn not_by_gmet(setup: &Setup) -> Result<()> {
    let rows: Vec<_> = rows_of(setup.kind).filter(|row| row.batch == Batch::Ordinary).collect();
    let verdicts = attack::judge(setup, Column::Gmet, &rows)?;
    let wanted = Column::Events.launched().unwrap_or_default();
    let fails = |verdict: &&Verdict| match &verdict.outcome {
        attack::Outcome::Failed(why) => why.contains(wanted),
        _ => false,
    };
    match verdicts.iter().find(|verdict| !fails(verdict)) {
        Some(verdict) => Err(format!("{}: {:?}", verdict.row.name, verdict.outcome).into()),
        None if verdicts.is_empty() => Err("no row was judged".into()),
        None => Ok(()),
    }
}

/// Whether a batch is watched for the matrix only. What becomes of modules does not depend on the
/// guard, and of 32-bit rows not much is new beside the other guest's and their own unwatched run.
fn is_left_to_the_matrix(guest: Guest, batch: Batch, column: Column) -> bool {
    match guest {
        Guest::Long => batch == Batch::Modules && column == Column::Npf,
        _ => match column {
            Column::Plain => batch != Batch::Alone,
            Column::Npf => true,
            Column::Events | Column::Gmet => false,
        },
    }
}

/// A batch of rows in a column, each judged from outside.
fn watched(guest: Guest, batch: Batch, column: Column) -> Test {
    let name = format!("attack/{}{}-{}", guest.prefix(), batch.name(), column.name());
    let test = Test::with_outcome(name.clone(), move |context| {
        let rows: Vec<_> = rows_of(guest).filter(|row| row.batch == batch).collect();
        let verdicts = attack::judge(&setup(context, &name, guest, column)?, column, &rows);
        judged(context, guest.name(), column, &rows, verdicts)
    });
    let test = test.on_emulator_of(column);
    match is_left_to_the_matrix(guest, batch, column) {
        true => test.only_in_matrix(),
        false => test.in_matrix(),
    }
}

/// All rows that can be run without a look from outside.
fn unwatched(guest: Guest, column: Column) -> Test {
    let name = format!("attack/{}unwatched-{}", guest.prefix(), column.name());
    Test::with_outcome(name.clone(), move |context| {
        counted(attack::unwatched(&setup(context, &name, guest, column)?, column)?)
    })
    .on_emulator_of(column)
}

fn counted(run: Run) -> Result<Outcome> {
    if run.tried == 0 {
        return Err("no attack was tried".into());
    }
    Ok(Outcome::Counted(u32::try_from(run.tried.saturating_sub(run.wrong.len()))?, run.wrong))
}

/// The questions with one right answer.
fn checked(guest: Guest, column: Column) -> Test {
    let name = format!("attack/{}checks-{}", guest.prefix(), column.name());
    Test::with_outcome(name.clone(), move |context| {
        if let Some(why) = old_emulator()? {
            return Ok(Outcome::Skipped(why));
        }
        match attack::checks(&setup(context, &name, guest, column)?, column)?.as_slice() {
            [] => Ok(Outcome::Passed),
            wrong => Err(wrong.join("; ").into()),
        }
    })
    .on_emulator_of(column)
}

/// What honest programs see, with and without SecVisor.
fn honest(guest: Guest, column: Column) -> Test {
    let name = format!("attack/{}honest-{}", guest.prefix(), column.name());
    Test::with_outcome(name.clone(), move |context| {
        if let Some(why) = old_emulator()? {
            return Ok(Outcome::Skipped(why));
        }
        let setup = setup(context, &name, guest, column)?;
        // Without intercepted exceptions the #GP that SVM's instructions raise in user mode stays
        // one, where a processor without SVM raises #UD.
        let left_out: &[&str] = if column == Column::Events { &[] } else { &["svm"] };
        let seen = |column| attack::honest(&setup, column, left_out);
        same(&seen(Column::Plain)?, &seen(column)?)?;
        Ok(Outcome::Passed)
    })
    .on_emulator_of(column)
}

fn on_second_emulator(tests: &mut Vec<Test>, guest: Guest) {
    let name = format!("bochs/{}honest", guest.prefix());
    tests.push(Test::with_outcome(name.clone(), move |context| {
        on_bochs(context, &name, guest, |setup| {
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
    let name = format!("bochs/{}attacks", guest.prefix());
    let attacks = Test::with_outcome(name.clone(), move |context| {
        on_bochs(context, &name, guest, |setup| {
            let run = attack::attacks_on_bochs(setup, Column::Events)?;
            let left_out = rows_of(guest)
                .filter_map(|row| Some((id(guest.name(), row.name), attack::not_on_bochs(row)?)));
            context.tell_second(Second {
                same: run.tried.saturating_sub(run.wrong.len()),
                unrecorded: run.unrecorded,
                otherwise: run.wrong.iter().map(|row| id(guest.name(), row)).collect(),
                left_out: left_out.collect(),
            });
            counted(run)
        })
    });
    tests.push(attacks.in_matrix());
}

/// Exits of a system call there and back, and instructions that it may take, user code included.
const ROUND_TRIPS: [(Column, u64, f64); 3] =
    [(Column::Events, 2, 350.0), (Column::Npf, 2, 180.0), (Column::Gmet, 0, 35.0)];

/// A null system call takes these exits, and no more instructions than its budget.
fn round_trip(figures: &[Figure], exits_each: u64, budget: f64) -> Result<()> {
    let find = |name: &str| figures.iter().find(|figure| figure.name == name);
    let (Some(empty), Some(call)) = (find("empty"), find("syscall")) else {
        return Err("the guest told nothing of system calls".into());
    };
    // Going to user mode and back once is no part of the loop.
    let exits = call.exits.saturating_sub(empty.exits);
    let instructions = call.instructions_per_round();
    if exits != exits_each * call.iterations || instructions > budget {
        return Err(format!(
            "{exits} exits in {} rounds of {instructions} instructions, allowed {budget}",
            call.iterations
        )
        .into());
    }
    Ok(())
}

/// The files of a test with a guest in a column.
pub fn setup(context: &Context, name: &str, kind: Guest, column: Column) -> Result<Setup> {
    let arch = if kind == Guest::Long { Arch::X86_64 } else { Arch::I386 };
    let guest = context.attack_guest(arch)?.clone();
    let secvisor = context.hypervisor()?.clone();
    let setup = Setup::new(guest.vmlinux, secvisor, guest.list, context.directory(name)?);
    let emulator = emulator_of(column)?;
    Ok(Setup { kind, emulator, ..setup })
}

/// The emulator that a column is run on.
pub(super) fn emulator_of(column: Column) -> Result<PathBuf> {
    if column == Column::Gmet { artifacts::gmet_emulator() } else { Ok(INSTALLED.into()) }
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

/// A row's name in the matrix.
fn id(guest: &str, row: &str) -> String {
    format!("{guest}/{row}")
}

/// Each row counts as a test of its own, and stands in the matrix with its guest's name.
pub(super) fn judged(
    context: &Context,
    guest: &str,
    column: Column,
    rows: &[&'static Row],
    verdicts: Result<Vec<Verdict>>,
) -> Result<Outcome> {
    let verdicts = verdicts.unwrap_or_else(|error| {
        let outcome = attack::Outcome::Failed(error.to_string());
        let verdict =
            |row: &&'static Row| Verdict { row, column, outcome: outcome.clone(), records: vec![] };
        rows.iter().map(verdict).collect()
    });
    let cell = |verdict: &Verdict| Cell {
        id: id(guest, verdict.row.name),
        group: verdict.row.group.name(),
        column,
        outcome: verdict.outcome.clone(),
        note: verdict.reason().map(str::to_owned),
    };
    context.tell(verdicts.iter().map(cell).collect());
    let (held, wrong): (Vec<_>, Vec<_>) =
        verdicts.iter().partition(|verdict| verdict.as_expected());
    let told = wrong.iter().map(|verdict| {
        let wanted = verdict.row.expected(column);
        format!(
            "{}: {:?}, wanted {wanted:?}; {:?}",
            verdict.row.name, verdict.outcome, verdict.records
        )
    });
    Ok(Outcome::Counted(u32::try_from(held.len())?, told.collect()))
}

fn on_bochs(
    context: &Context,
    name: &str,
    guest: Guest,
    body: impl FnOnce(&Setup) -> Result<Outcome>,
) -> Result<Outcome> {
    if !bochs::available() {
        return Ok(Outcome::Skipped("Bochs is not installed".into()));
    }
    let mut setup = setup(context, name, guest, Column::Events)?;
    let copy = setup.directory.join("secvisor.elf");
    bochs::without_framebuffer(&setup.secvisor, &copy)?;
    setup.secvisor = copy;
    body(&setup)
}
