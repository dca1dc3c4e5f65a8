//! scripts/test: every test by name, two at a time, summed up in the last line.

mod attack;
mod audit;
mod bench;
mod boot;
mod fuzz;
mod hole;
mod host;
mod linux;
mod matrix;
mod modules;
mod outside;
mod own;
mod proof;
mod selfcheck;

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use clap::Args;
use harness::Result;
use harness::attack::Column;

use crate::artifacts::{self, Approved, Arch, Guest, TARGET, TARGET_32};
use crate::process::target_directory;
use crate::run;
use matrix::{Cell, Second, Told};
use proof::Proved;

/// Emulators that run at the same time.
const WORKERS: usize = 2;

/// Options of scripts/test.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Run only the tests whose name contains one of these
    names: Vec<String>,
    /// Ten thousand cycles instead of a hundred where modules come and go, and long fuzzing
    #[arg(long)]
    soak: bool,
    /// What the fuzzer's numbers come from, instead of the clock in a soak and 1 otherwise
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Run every attack in every column, and print the matrix of them
    #[arg(long)]
    attacks: bool,
    /// Explore the policy's model, put faults back into it, and mutate the policy, instead of all else
    #[arg(long, conflicts_with_all = ["attacks", "soak", "kernel"])]
    proof: bool,
    /// Write the matrix of attacks here too, which runs them as --attacks does, or what --proof finds
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Print the names and run nothing
    #[arg(long)]
    list: bool,
    /// A vmlinux of your own instead of the Linux 6.1 of its architecture, bzImage and System.map beside it
    #[arg(long, value_name = "PATH", value_parser = run::file, requires = "modules")]
    kernel: Option<PathBuf>,
    /// A folder with that kernel's modules
    #[arg(long, value_name = "DIR", value_parser = run::folder, requires = "kernel")]
    modules: Option<PathBuf>,
}

impl Options {
    /// Those of the steps of a proof whose name contains one of these.
    pub fn proof(names: &[String]) -> Self {
        Self { names: names.to_vec(), proof: true, ..Self::default() }
    }
}

/// What came of a test that did not fail.
pub enum Outcome {
    /// It held.
    Passed,
    /// It could not be run here, for this reason.
    Skipped(String),
    /// It was a run of many: those that passed, and the names of those that failed.
    Counted(u32, Vec<String>),
}

type Body = Box<dyn Fn(&Context) -> Result<Outcome> + Send + Sync>;

/// When a test is run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// But for the matrix of attacks.
    Ordinarily,
    /// For the matrix too, which it tells its verdicts.
    Always,
    /// For the matrix only.
    ForMatrix,
}

/// A named test.
pub struct Test {
    name: String,
    when: When,
    body: Body,
}

impl Test {
    /// A test that passes if `body` gives no error.
    pub fn new(
        name: impl Into<String>,
        body: impl Fn(&Context) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::with_outcome(name, move |context| body(context).map(|()| Outcome::Passed))
    }

    /// A test that may also skip itself, or count.
    pub fn with_outcome(
        name: impl Into<String>,
        body: impl Fn(&Context) -> Result<Outcome> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), when: When::Ordinarily, body: Box::new(body) }
    }

    /// The same, on the emulator that this project patches: its name says so.
    pub fn on_patched(self) -> Self {
        Self { name: self.name + " (QEMU patched by this project)", ..self }
    }

    /// [`Test::on_patched`], where the column is that of the patched emulator.
    pub fn on_emulator_of(self, column: Column) -> Self {
        if column == Column::Gmet { self.on_patched() } else { self }
    }

    /// The same, run for the matrix of attacks as well.
    pub fn in_matrix(self) -> Self {
        Self { when: When::Always, ..self }
    }

    /// The same, run for the matrix of attacks alone.
    pub fn only_in_matrix(self) -> Self {
        Self { when: When::ForMatrix, ..self }
    }
}

/// What is built once, also where that fails.
type Built<T> = OnceLock<std::result::Result<T, String>>;

fn once<T>(cell: &Built<T>, build: impl FnOnce() -> Result<T>) -> Result<&T> {
    let built = cell.get_or_init(|| build().map_err(|error| error.to_string()));
    built.as_ref().map_err(|error| error.clone().into())
}

/// What the tests of a run share.
#[derive(Default)]
pub struct Context {
    guest: Built<Guest>,
    guest_i386: Built<Guest>,
    attack_guest: Built<Approved>,
    attack_guest_i386: Built<Approved>,
    hypervisor: Built<PathBuf>,
    /// Words of the command line, for the test runners that take such.
    names: Vec<String>,
    soak: bool,
    seed: Option<u64>,
    own: bool,
    told: Mutex<Told>,
    sources: Built<PathBuf>,
    proved: Mutex<Proved>,
}

impl Context {
    /// Tells the matrix what became of attacks.
    pub fn tell(&self, cells: Vec<Cell>) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).cells.extend(cells);
    }

    /// Tells it what a guest's rows came to on the second emulator.
    pub fn tell_second(&self, second: Second) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).second.push(second);
    }

    /// Notes what was proved.
    pub fn prove(&self, note: impl FnOnce(&mut Proved)) {
        note(&mut self.proved.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A copy of the checkout, to put faults in.
    pub fn sources(&self) -> Result<&PathBuf> {
        once(&self.sources, crate::proof::copy_of_the_sources)
    }

    /// Whether a kernel is tested that may have other modules than this checkout's.
    pub fn own(&self) -> bool {
        self.own
    }

    /// Whether what is repeated is to be repeated for long.
    pub fn soak(&self) -> bool {
        self.soak
    }

    /// What the fuzzer's numbers are to come from, if that was said.
    pub fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// The 64-bit Linux guest.
    pub fn guest(&self) -> Result<&Guest> {
        self.guest_of(Arch::X86_64)
    }

    /// The Linux guest of an architecture.
    pub fn guest_of(&self, arch: Arch) -> Result<&Guest> {
        once(self.built(arch), || artifacts::guest(arch))
    }

    fn built(&self, arch: Arch) -> &Built<Guest> {
        match arch {
            Arch::X86_64 => &self.guest,
            Arch::I386 => &self.guest_i386,
        }
    }

    /// The freestanding guest of an architecture.
    pub fn attack_guest(&self, arch: Arch) -> Result<&Approved> {
        match arch {
            Arch::X86_64 => once(&self.attack_guest, || artifacts::attack_guest(TARGET)),
            Arch::I386 => once(&self.attack_guest_i386, || artifacts::attack_guest(TARGET_32)),
        }
    }

    /// The hypervisor.
    pub fn hypervisor(&self) -> Result<&PathBuf> {
        // A copy: what is tested stays the same if it is built again meanwhile.
        once(&self.hypervisor, || {
            let copy = self.directory("hypervisor")?.join("secvisor.elf");
            std::fs::copy(artifacts::hypervisor()?, &copy)?;
            Ok(copy)
        })
    }

    /// An empty folder for the test of this name.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let directory = target_directory().join("test").join(name.replace([' ', '/'], "-"));
        if directory.exists() {
            std::fs::remove_dir_all(&directory)?;
        }
        std::fs::create_dir_all(&directory)?;
        Ok(directory)
    }
}

#[derive(Default)]
struct Sum {
    passed: u32,
    failed: Vec<String>,
    skipped: Vec<String>,
}

/// All tests that boot something.
fn guest_tests() -> Vec<Test> {
    let mut guests: Vec<Test> = boot::tests();
    guests.extend(attack::tests());
    guests.extend(fuzz::tests());
    guests.extend(linux::tests());
    guests.extend(hole::tests());
    guests.extend(audit::tests());
    guests.extend(modules::tests());
    guests.extend(outside::tests());
    guests.extend(own::tests());
    guests.extend(selfcheck::tests());
    guests.extend(bench::tests());
    guests
}

/// Runs the tests.
pub fn test(options: &Options) -> Result<bool> {
    let attacks = options.attacks || options.json.is_some() && !options.proof;
    let wanted = |test: &Test| {
        test.when != (if attacks { When::Ordinarily } else { When::ForMatrix })
            && (options.names.is_empty() || options.names.iter().any(|it| test.name.contains(it)))
    };
    let (mut host, mut guests) =
        if options.proof { (proof::tests()?, vec![]) } else { (host::tests(), guest_tests()) };
    if options.list {
        let all = host.iter().chain(&guests).filter(|test| wanted(test));
        all.for_each(|test| println!("{}", test.name));
        return Ok(true);
    }
    host.retain(wanted);
    guests.retain(wanted);
    let mut context = Context { soak: options.soak, seed: options.seed, ..Context::default() };
    if host.is_empty() && guests.is_empty() && !attacks && !options.proof {
        // Not one of ours: it may be the name of a unit test.
        host.push(host::unit_tests());
        context.names.clone_from(&options.names);
    }
    if let Some(kernel) = &options.kernel {
        let (kernel, modules) = (Some(kernel.clone()), options.modules.clone());
        // The demo boots it in both ways, as the tests do.
        let both = run::Options { kernel, modules, demo: true, ..run::Options::for_tests() };
        // What was approved is this file, and not a copy without System.map beside it.
        let guest = Guest { vmlinux: both.kernel.clone().unwrap_or_default(), ..both.guest()? };
        let arch = crate::own::identify(&guest.vmlinux)?.0;
        once(context.built(arch), || Ok(guest))?;
        context.own = true;
    }
    let start = Instant::now();
    let sum = Mutex::new(Sum::default());
    // The host's tests keep both cores busy by themselves.
    work(&context, host, 1, &sum);
    work(&context, guests, WORKERS, &sum);
    if attacks {
        let mut told = context.told.into_inner().unwrap_or_else(PoisonError::into_inner);
        told.chosen = !options.names.is_empty();
        let start = Instant::now();
        let held = matrix::show(told, options.json.as_deref());
        report("matrix", start, held.map(|()| Outcome::Passed), &sum);
    }
    if let (true, Some(json)) = (options.proof, &options.json) {
        proof::write(&context.proved.into_inner().unwrap_or_else(PoisonError::into_inner), json)?;
    }
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("\n{:.0} s in all", start.elapsed().as_secs_f32());
    sum.skipped.iter().for_each(|line| println!("skipped: {line}"));
    sum.failed.iter().for_each(|line| println!("failed: {line}"));
    if sum.passed == 0 && sum.failed.is_empty() {
        println!("failed: no test was run");
        println!("0 passed, 1 failed");
        return Ok(false);
    }
    let left = target_directory().join("test");
    if sum.failed.is_empty() && left.exists() {
        // Nobody needs to look into gigabytes of boot CDs.
        std::fs::remove_dir_all(left)?;
    }
    println!("{} passed, {} failed", sum.passed, sum.failed.len());
    Ok(sum.failed.is_empty())
}

fn work(context: &Context, mut tests: Vec<Test>, workers: usize, sum: &Mutex<Sum>) {
    tests.reverse();
    let queue = Mutex::new(tests);
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(test) = next() {
                    let start = Instant::now();
                    let outcome = (test.body)(context);
                    report(&test.name, start, outcome, sum);
                }
            });
        }
    });
}

fn report(name: &str, start: Instant, outcome: Result<Outcome>, sum: &Mutex<Sum>) {
    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
    let seconds = start.elapsed().as_secs_f32();
    match outcome {
        Ok(Outcome::Passed) => {
            println!("{name}: ok ({seconds:.1} s)");
            sum.passed += 1;
        }
        Ok(Outcome::Skipped(why)) => {
            println!("{name}: skipped: {why}");
            sum.skipped.push(format!("{name}: {why}"));
        }
        Ok(Outcome::Counted(passed, failed)) => {
            println!("{name}: {passed} ok, {} failed ({seconds:.1} s)", failed.len());
            sum.passed += passed;
            sum.failed.extend(failed.into_iter().map(|inner| format!("{name}: {inner}")));
        }
        Err(error) => {
            println!("{name}: FAILED ({seconds:.1} s): {error}");
            sum.failed.push(format!("{name}: {error}"));
        }
    }
    let _ = std::io::stdout().flush();
}
