//! What is built once: kept by the content of its inputs, outside the checkout.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use harness::Result;
use sha2::{Digest, Sha256};

/// Results of one kind that are kept, however old.
const KEPT: usize = 3;
/// How long a result stays that may still be in use.
const UNUSED: Duration = Duration::from_secs(24 * 3600);

/// The cache's own folder.
pub fn directory() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into()));
    let own = std::env::var_os("SECVISOR_CACHE").map(PathBuf::from);
    own.unwrap_or_else(|| {
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        base.unwrap_or_else(|| home().join(".cache")).join("secvisor")
    })
}

/// A hash over everything a result depends on.
#[derive(Default)]
pub struct Key(Sha256);

impl Key {
    /// Adds a text.
    pub fn text(mut self, text: &str) -> Self {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text);
        self
    }

    /// Adds a file, or every file of a folder with its path inside it.
    pub fn path(self, path: &Path) -> Result<Self> {
        self.below(path, path)
    }

    fn below(mut self, base: &Path, path: &Path) -> Result<Self> {
        let context = |error| format!("{}: {error}", path.display());
        if path.is_dir() {
            let entries = std::fs::read_dir(path).map_err(context)?;
            let mut names = entries
                .map(|entry| Ok(entry?.path()))
                .collect::<std::io::Result<Vec<_>>>()
                .map_err(context)?;
            names.sort();
            return names.iter().try_fold(self, |key, name| key.below(base, name));
        }
        let inside = path.strip_prefix(base)?.to_string_lossy().into_owned();
        let data = std::fs::read(path).map_err(context)?;
        self.0.update((data.len() as u64).to_le_bytes());
        self.0.update(data);
        Ok(self.text(&inside))
    }

    fn name(self, kind: &str) -> String {
        let digest = self.0.finalize();
        let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("{kind}-{hex}")
    }
}

/// The folder with the result of `kind` for `key`; `make` fills it if it is not there yet.
pub fn entry(kind: &str, key: Key, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let cache = directory();
    std::fs::create_dir_all(&cache)
        .map_err(|error| format!("cannot write to {}: {error}", cache.display()))?;
    let ready = cache.join(key.name(kind));
    // Two runs at once build it once.
    let lock = File::create(cache.join(format!("{kind}.lock")))?;
    lock.lock()?;
    if !ready.is_dir() {
        let building = cache.join(format!("building-{kind}"));
        if building.exists() {
            std::fs::remove_dir_all(&building)?;
        }
        std::fs::create_dir_all(&building)?;
        make(&building)?;
        std::fs::rename(&building, &ready)?;
    }
    File::open(&ready)?.set_modified(SystemTime::now())?;
    forget_old(&cache, kind)?;
    Ok(ready)
}

fn forget_old(cache: &Path, kind: &str) -> Result<()> {
    let prefix = format!("{kind}-");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(cache)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() && name.starts_with(&prefix) {
            found.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    found.sort();
    found.reverse();
    let old = |used: &SystemTime| used.elapsed().is_ok_and(|age| age > UNUSED);
    let mut forgotten = found.iter().skip(KEPT).filter(|(used, _)| old(used));
    forgotten.try_for_each(|(_, path)| Ok(std::fs::remove_dir_all(path)?))
}
