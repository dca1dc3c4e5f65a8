//! The modules of one list: which files they are, and which of them can be approved.

use std::fs;
use std::path::{Path, PathBuf};

use policy::approval::{Architecture, MAX_MODULES};

use crate::exports::Exports;
use crate::layout::Loader;
use crate::module::Module;
use crate::relocate::Scope;
use crate::{Error, in_file, list, unpack};

/// Sections that list what a kernel patches in a module's code when, or after, it loads it.
const PATCHED: [&str; 8] = [
    ".call_sites",
    ".ibt_endbr_seal",
    ".parainstructions",
    ".retpoline_sites",
    ".return_sites",
    ".static_call_sites",
    "__jump_table",
    "__mcount_loc",
];

/// What a user says of modules: files that must be approved, and folders of files that may be.
#[derive(clap::Args)]
pub struct Chosen {
    /// A kernel module to approve; may be repeated
    ///
    /// Packed ones (.gz, .xz, .zst) are unpacked. What it depends on must be given as well.
    #[arg(long, value_name = "FILE.ko")]
    module: Vec<PathBuf>,
    /// A folder whose kernel modules are all approved, such as /lib/modules/VERSION; may be repeated
    ///
    /// Files that cannot be approved are named, with the reason, and left out.
    #[arg(long, value_name = "DIR")]
    modules: Vec<PathBuf>,
}

/// A module's file.
pub struct File {
    path: PathBuf,
    bytes: Result<Vec<u8>, Error>,
    /// Whether there is to be no list without it.
    required: bool,
}

/// What became of the files.
#[derive(Debug)]
pub struct Approved {
    /// The modules of the list.
    pub modules: Vec<list::Module>,
    /// The files that are left out, each with the reason.
    pub refused: Vec<String>,
    /// A warning of modules that are in the list but that their kernel may patch.
    pub patched: Option<String>,
}

impl Chosen {
    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.module.is_empty() && self.modules.is_empty()
    }

    /// Reads all files.
    pub fn read(&self) -> Result<Vec<File>, Error> {
        let read = |path: &Path, required| {
            let packed = fs::read(path).map_err(|error| error.to_string());
            File { path: path.into(), bytes: packed.and_then(unpack::module), required }
        };
        let mut files: Vec<_> = self.module.iter().map(|path| read(path, true)).collect();
        for folder in &self.modules {
            let mut paths = Vec::new();
            find(folder, &mut paths).map_err(|error| in_file(folder, error))?;
            if paths.is_empty() {
                return Err(in_file(folder, "no kernel module (.ko) in it or below it"));
            }
            files.extend(paths.iter().map(|path| read(path, false)));
        }
        Ok(files)
    }
}

/// All module files below `folder`. Links to folders are not followed: they may lead in circles.
fn find(folder: &Path, paths: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name();
        let is_module = |name: &str| {
            [".ko", ".ko.gz", ".ko.xz", ".ko.zst"].iter().any(|end| name.ends_with(end))
        };
        if entry.file_type()?.is_dir() {
            find(&path, paths)?;
        } else if name.to_str().is_some_and(is_module) {
            paths.push(path);
        }
    }
    Ok(())
}

/// What approves the modules in `files` for a kernel.
pub fn approve(
    kernel: &Exports<'_>,
    architecture: Architecture,
    files: &[File],
) -> Result<Approved, Error> {
    let mut refused = Vec::new();
    let mut refuse = |file: &File, error: Error| {
        let line = in_file(&file.path, error);
        if file.required {
            return Err(line);
        }
        refused.push(line);
        Ok(())
    };
    let mut found: Vec<(&File, Module<'_>)> = Vec::new();
    for file in files {
        match file.bytes.as_ref().map_err(Error::clone).and_then(|bytes| Module::read(bytes)) {
            Ok(module) => found.push((file, module)),
            Err(error) => refuse(file, error)?,
        }
    }
    // Required files first among equals, so that order does not matter.
    found.sort_by_key(|(file, module)| (module.name, !file.required, &file.path));
    for pair in found.windows(2) {
        let [(one, module), (other, same)] = pair else { continue };
        if module.name == same.name && one.bytes != other.bytes {
            let (one, other) = (one.path.display(), other.path.display());
            return Err(format!(
                "{one} and {other} are different modules with the name {}: give one of them",
                module.name
            ));
        }
    }
    found.dedup_by_key(|(_, module)| module.name);

    let vermagic = kernel.vermagic.or(found.first().map(|(_, module)| module.vermagic));
    let loader = vermagic.map(|vermagic| Loader::of(kernel, architecture, vermagic)).transpose()?;
    let mut fit = Vec::new();
    for (file, mut module) in found {
        let fits = matches(&module, architecture, vermagic.unwrap_or_default());
        match fits.and_then(|()| loader.map_or(Ok(()), |loader| module.lay_out(loader))) {
            Ok(()) => fit.push((file, module)),
            Err(error) => refuse(file, error)?,
        }
    }
    // Each module that is left out may take others with it.
    loop {
        if fit.len() > MAX_MODULES as usize {
            return Err(format!("{} modules, but a list holds {MAX_MODULES}", fit.len()));
        }
        let modules: Vec<_> = fit.iter().map(|(_, module)| module).collect();
        let scope = Scope::new(kernel, &modules);
        let judge = |(number, module): (usize, &&Module<'_>)| {
            let found = list::Module { name: module.name.into(), sections: scope.code(number)? };
            found.check().map(|()| found)
        };
        let judged: Vec<Result<_, Error>> = modules.iter().enumerate().map(judge).collect();
        if judged.iter().all(Result::is_ok) {
            let patched = patched(&modules);
            let modules = judged.into_iter().flatten().collect();
            return Ok(Approved { modules, refused, patched });
        }
        let mut left = Vec::new();
        for ((file, module), judged) in fit.into_iter().zip(judged) {
            match judged {
                Ok(_) => left.push((file, module)),
                Err(error) => refuse(file, error)?,
            }
        }
        fit = left;
    }
}

/// Which modules' code may not stay as it is approved.
fn patched(modules: &[&Module<'_>]) -> Option<String> {
    let listed = |module: &Module<'_>, name: &str| {
        module.sections.iter().any(|section| section.name == name && section.place.is_some())
    };
    let any = |module: &&&Module<'_>| PATCHED.iter().any(|name| listed(module, name));
    let patched: Vec<_> = modules.iter().filter(any).collect();
    let sections = PATCHED.iter().filter(|name| patched.iter().any(|module| listed(module, name)));
    let sections = sections.copied().collect::<Vec<_>>().join(", ");
    Some(format!(
        "{} of the modules, such as {}, have sections by which kernels patch code ({sections}), \
         and SecVisor refuses patched code: build kernel and modules with the options of \
         guest-patches/linux-6.1/config",
        patched.len(),
        patched.first()?.name,
    ))
}

/// Whether the kernel would load the module at all, as its `same_magic` judges.
fn matches(module: &Module<'_>, architecture: Architecture, vermagic: &str) -> Result<(), Error> {
    if module.architecture != architecture {
        let (module, kernel) = (module.architecture.name(), architecture.name());
        return Err(format!("made for {module}, the kernel for {kernel}"));
    }
    // With checksums of interfaces, the version itself need not be the same.
    let judged = |text: &str| match text.split_once(' ') {
        Some((_, rest)) if module.has_versions => rest.to_owned(),
        _ => text.to_owned(),
    };
    if judged(module.vermagic) == judged(vermagic) {
        return Ok(());
    }
    Err(format!(
        "built for the kernel '{}', not for this one, '{}'",
        module.vermagic.trim_end(),
        vermagic.trim_end()
    ))
}
