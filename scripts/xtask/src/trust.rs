//! What a reader must trust: code by part, unsafe blocks with their reasons, code bytes by crate, and
//! every dependency with its lines, its licence and why it is there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::Result;

use crate::artifacts;
use crate::lines;
use crate::process::root;

/// What is linked for the bare machine.
const HYPERVISOR: [&str; 6] =
    ["-p", "secvisor-hypervisor", "--target", "x86_64-unknown-none", "-e", "normal"];
/// All that is built anywhere, tests included.
const EVERYTHING: [&str; 5] = ["--workspace", "--target", "all", "-e", "all"];
/// Licences that a dependency may have: one of those it offers, or all that it names.
const LICENCES: [&str; 9] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "NCSA",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// A package of the dependency tree.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    /// Where it is from, if not from the registry: cargo's words.
    source: Option<String>,
    licence: String,
}

impl Package {
    /// Reads a line of `cargo tree --format {p}|{l}`.
    fn parse(line: &str) -> Option<Self> {
        let (package, licence) = line.trim_end_matches(" (*)").split_once('|')?;
        let package = package.replace(" (proc-macro)", "");
        let mut words = package.splitn(3, ' ');
        let (name, version) = (words.next()?.to_owned(), words.next()?.to_owned());
        let source = words.next().map(|it| it.trim_matches(['(', ')']).to_owned());
        Some(Self { name, version, source, licence: licence.to_owned() })
    }

    fn is_own(&self, root: &Path) -> bool {
        self.source.as_ref().is_some_and(|source| Path::new(source).starts_with(root))
    }

    /// What is wrong with its origin or licence, if anything.
    fn amiss(&self, root: &Path) -> Option<String> {
        let Self { name, version, source, licence } = self;
        match source {
            Some(source) if !self.is_own(root) => {
                return Some(format!("{name} {version} is from {source}, not from the registry"));
            }
            _ => (),
        }
        let known = |offer: &str| LICENCES.contains(&offer.trim_matches(['(', ')', ' ']));
        let granted = |part: &str| part.split(" OR ").flat_map(|it| it.split('/')).any(known);
        (!licence.split(" AND ").all(granted)).then(|| {
            format!("{name} {version} has the licence {licence:?}, which nobody looked at")
        })
    }

    /// Lines of code in its sources, without its tests and examples; `None` if they are not there.
    fn lines(&self) -> Option<usize> {
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home =
            home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
        let folder = format!("{}-{}", self.name, self.version.trim_start_matches('v'));
        let registries = std::fs::read_dir(home.join("registry/src")).ok()?;
        let mut places = registries.flatten().map(|it| it.path().join(&folder).join("src"));
        count(&places.find(|it| it.is_dir())?).ok()
    }
}

fn count(folder: &Path) -> Result<usize> {
    let mut lines = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            lines += count(&path)?;
        } else if path.extension().is_some_and(|it| it == "rs") {
            lines += lines::code_lines("a.rs", &std::fs::read_to_string(&path)?);
        }
    }
    Ok(lines)
}

fn tree(what: &[&str]) -> Result<Vec<Package>> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root()).args(["tree", "--prefix", "none", "--format", "{p}|{l}"]).args(what);
    let output = cargo.output()?;
    if !output.status.success() {
        return Err(format!("cargo tree: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let text = String::from_utf8(output.stdout)?;
    let mut packages: Vec<_> = text.lines().filter_map(Package::parse).collect();
    packages.sort();
    packages.dedup();
    Ok(packages)
}

/// Why each dependency is there, by name.
fn reasons() -> Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(root().join("scripts/dependencies.txt"))?;
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once(' '));
    Ok(pairs.map(|(name, why)| (name.to_owned(), why.trim().to_owned())).collect())
}

/// Fails where a dependency is from elsewhere than the registry or of an unknown licence, and where what
/// the hypervisor is linked with and the list of reasons differ.
pub fn check() -> Result<()> {
    let root = root().canonicalize()?;
    let everything = tree(&EVERYTHING)?;
    let mut wrong: Vec<_> = everything.iter().filter_map(|package| package.amiss(&root)).collect();
    let mut reasons = reasons()?;
    let linked = tree(&HYPERVISOR)?;
    for package in linked.iter().filter(|package| !package.is_own(&root)) {
        if reasons.remove(&package.name).is_none() {
            wrong.push(format!(
                "scripts/dependencies.txt does not say why {} is there",
                package.name
            ));
        }
    }
    wrong.extend(
        reasons.keys().map(|name| format!("scripts/dependencies.txt: {name} is not linked")),
    );
    if everything.len() < linked.len() || linked.len() < 2 {
        wrong.push(format!("cargo tree tells of {} packages only", everything.len()));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ").into()) }
}

/// An unsafe block or implementation, and why it is sound.
struct Unsafe {
    place: String,
    reason: String,
}

/// The reasons of the unsafe code in a file.
fn unsafe_code(file: &str, text: &str) -> Vec<Unsafe> {
    let bare = lines::without_tests(&lines::without_comments(text, true));
    let count = bare.lines().filter(|line| opens_unsafe(line)).count();
    let all: Vec<_> = text.lines().collect();
    let found = all
        .iter()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//") && opens_unsafe(line));
    let reason = |at: usize| {
        let before = || all[..at].iter().rev().take(12).map(|line| line.trim());
        let skipped = before().position(|line| line.starts_with("// "))?;
        let mut lines: Vec<_> =
            before().skip(skipped).take_while(|line| line.starts_with("// ")).collect();
        lines.reverse();
        let text = lines.iter().map(|line| &line[3..]).collect::<Vec<_>>().join(" ");
        Some(text.split_once("SAFETY: ")?.1.to_owned())
    };
    let found = found.take(count).map(|(at, _)| Unsafe {
        place: format!("{file}:{}", at + 1),
        reason: reason(at).unwrap_or_else(|| "no reason given".into()),
    });
    found.collect()
}

fn opens_unsafe(line: &str) -> bool {
    line.contains("unsafe {") || line.contains("unsafe impl")
}

/// Bytes of code that stays mapped beside a guest, by crate.
fn code_by_crate(hypervisor: &Path) -> Result<BTreeMap<String, u64>> {
    let text = harness::elf::section(hypervisor, ".text")?.addresses;
    let output = Command::new("nm").args(["-CS", "--defined-only"]).arg(hypervisor).output()?;
    let mut bytes = BTreeMap::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let mut words = line.splitn(4, ' ');
        let mut number = || u64::from_str_radix(words.next()?, 16).ok();
        let (Some(address), Some(size)) = (number(), number()) else { continue };
        let name = words.nth(1).unwrap_or_default();
        if text.contains(&address) {
            *bytes.entry(owner(name)).or_default() += size;
        }
    }
    Ok(bytes)
}

/// The crate of a symbol: the first path in its name.
fn owner(name: &str) -> String {
    let before = name.split("::").next().unwrap_or_default();
    let word = before.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
    let found = name.contains("::") && !word.is_empty();
    if found { word.to_owned() } else { "(memcpy and the like)".to_owned() }
}

/// Prints it all; false if a check fails.
pub fn print() -> Result<bool> {
    let root = root().canonicalize()?;
    let held = lines::print()?;
    println!("\nUnsafe code of what is linked into the hypervisor:");
    let mut count = 0;
    for file in lines::sources(&root)? {
        if !(file.starts_with("hypervisor/") || file.starts_with("boot/")) || !file.ends_with(".rs")
        {
            continue;
        }
        for Unsafe { place, reason } in
            unsafe_code(&file, &std::fs::read_to_string(root.join(&file))?)
        {
            println!("  {place}: {reason}");
            count += 1;
        }
    }
    println!("  {count} in all");
    println!("\nCode that stays mapped beside a guest, bytes by crate:");
    let bytes = code_by_crate(&artifacts::hypervisor()?)?;
    bytes.iter().for_each(|(name, bytes)| println!("{bytes:>8}  {name}"));
    println!("{:>8}  in all", bytes.values().sum::<u64>());
    println!("\nLinked into the hypervisor, with all lines of their sources, used or not:");
    let reasons = reasons()?;
    for package in tree(&HYPERVISOR)?.iter().filter(|package| !package.is_own(&root)) {
        let lines = package.lines().map_or("-".into(), |lines| lines.to_string());
        let Package { name, version, licence, .. } = package;
        let why = reasons.get(name).map_or("no reason given", String::as_str);
        println!("{lines:>8}  {name:<14} {version:<9} {licence:<18} {why}");
    }
    check()?;
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_judged() {
        let root = Path::new("/p");
        let judged = |line| Package::parse(line).map(|it| it.amiss(root).is_some());
        assert_eq!(judged("a v1.0|MIT"), Some(false));
        assert_eq!(judged("a v1.0 (proc-macro)|Apache-2.0/GPL-3.0 (*)"), Some(false));
        assert_eq!(judged("a v1.0|(MIT OR Apache-2.0) AND Unicode-3.0"), Some(false));
        assert_eq!(judged("own v0.1.0 (/p/own)|MIT OR Apache-2.0"), Some(false));
        assert_eq!(judged("a v1.0|GPL-3.0"), Some(true));
        assert_eq!(judged("a v1.0|(MIT OR Apache-2.0) AND GPL-3.0"), Some(true));
        assert_eq!(judged("a v1.0|"), Some(true));
        assert_eq!(judged("a v1.0 (https://example.org/a#1)|MIT"), Some(true));
        assert_eq!(judged(""), None);
    }

    #[test]
    fn unsafe_code_is_found_with_its_reason() {
        let text = "// unsafe { }\nfn f() {\n    // SAFETY: one\n    // line more.\n    let a =\n        \
                    unsafe { g() };\n    unsafe { h() }\n}\n#[cfg(test)]\nmod tests { unsafe { } }\n";
        let found = unsafe_code("f.rs", text);
        let told: Vec<_> = found.iter().map(|it| (it.place.as_str(), it.reason.as_str())).collect();
        assert_eq!(told[0], ("f.rs:6", "one line more."));
        assert_eq!(told.len(), 2);
    }

    #[test]
    fn symbols_have_an_owner() {
        assert_eq!(owner("policy::units::Units::request"), "policy");
        assert_eq!(owner("<policy::address::Gpa as core::fmt::LowerHex>::fmt"), "policy");
        assert_eq!(owner("<&T as core::fmt::Display>::fmt"), "core");
        assert_eq!(owner("memcpy"), "(memcpy and the like)");
    }
}
