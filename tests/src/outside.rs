//! What must hold of SecVisor's own page tables and of both views, judged by what QEMU's monitor and
//! debugger give: nothing here asks SecVisor, and no line of it is SecVisor's.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use crate::Result;
use crate::elf::{section, symbol};
use crate::paging::{Map, Mapping};

const PAGE: u64 = 4096;
/// The bits of a virtual address that page tables translate.
const TRANSLATED: u64 = (1 << 48) - 1;

/// A register's value in the monitor's answer to `info registers`.
pub fn register(answer: &str, name: &str) -> Result<u64> {
    let digits = answer.split_whitespace().find_map(|it| it.strip_prefix(name)?.strip_prefix('='));
    let value = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    value.ok_or_else(|| format!("the monitor tells no {name}").into())
}

/// Compares what the monitor says to `info tlb` with a walk of the same tables.
pub fn same_mapping(answer: &str, map: &Map) -> Result<()> {
    let line = |leaf: &Mapping| {
        let flag = |set, flag| if set { flag } else { '-' };
        let (no_execute, write) = (flag(!leaf.executable, 'X'), flag(leaf.writable, 'W'));
        format!("{:012x}: {:016x} {no_execute}{write}", leaf.address, leaf.physical)
    };
    // ADDRESS: FRAME XGPDACTUW, the first four digits of the address being its sign.
    let told = answer.lines().filter_map(|line| {
        let (page, flags) = line.trim().split_at_checked(35)?;
        Some(format!("{}{}{}", page.get(4..)?, flags.get(..1)?, flags.get(8..9)?))
    });
    let (told, walked): (Vec<_>, Vec<_>) = (told.collect(), map.leaves.iter().map(line).collect());
    match told.iter().zip(&walked).find(|(told, walked)| told != walked) {
        Some((told, walked)) => Err(format!("the monitor says {told}, a walk {walked}").into()),
        None if told.len() != walked.len() || told.is_empty() => {
            Err(format!("the monitor tells {} pages, a walk {}", told.len(), walked.len()).into())
        }
        None => Ok(()),
    }
}

/// SecVisor's image, as its file and its place say.
pub struct Image {
    /// The addresses that it is linked for, and where they begin to be writable.
    addresses: Range<u64>,
    data: u64,
    /// Code that stays, code that ends with the launch, the page below the stack.
    text: Range<u64>,
    launch: Range<u64>,
    guard: u64,
    /// Where it lies.
    pub physical: Range<u64>,
}

impl Image {
    /// That of this file, which the page tables in `map` place.
    pub fn find(file: &Path, map: &Map) -> Result<Self> {
        let translated = |name| symbol(file, name).map(|range| range.start & TRANSLATED);
        let of = |name| section(file, name).map(|part| part.addresses);
        let low = |range: Range<u64>| range.start & TRANSLATED..range.end & TRANSLATED;
        let addresses = translated("image_start")?..translated("image_end")?;
        let start = physical(map, addresses.start)?;
        Ok(Self {
            data: translated("data_start")?,
            text: low(of(".text")?),
            launch: low(of(".launch")?),
            guard: translated("stack_guard")?,
            physical: start..start + (addresses.end - addresses.start),
            addresses,
        })
    }

    /// Where this address of the image lies.
    pub fn physical_of(&self, address: u64) -> u64 {
        (address & TRANSLATED) - self.addresses.start + self.physical.start
    }

    /// What is wrong with a page of the image.
    fn amiss(&self, leaf: &Mapping) -> Option<&'static str> {
        let at = leaf.address;
        if leaf.bytes != PAGE || leaf.physical != self.physical_of(at) {
            Some("is not where it belongs")
        } else if self.launch.contains(&at) {
            Some("is of the launch, which is over")
        } else if at == self.guard {
            Some("guards the stack and must not be there")
        } else if leaf.executable != self.text.contains(&at) {
            Some("is executable and no code, or code and not executable")
        } else {
            (leaf.writable != (at >= self.data)).then_some("is of the wrong kind")
        }
    }

    /// What is wrong with a page outside of the image.
    fn stray(&self, leaf: &Mapping) -> Option<&'static str> {
        let end = leaf.physical + leaf.bytes;
        if leaf.address != leaf.physical {
            Some("is not mapped one to one")
        } else if leaf.executable {
            Some("is executable outside of the image")
        } else {
            let apart = end <= self.physical.start || leaf.physical >= self.physical.end;
            (!apart).then_some("is another way to the image")
        }
    }
}

/// Where an address lies.
pub fn physical(map: &Map, address: u64) -> Result<u64> {
    let address = address & TRANSLATED;
    let at = map.leaves.partition_point(|leaf| leaf.address <= address);
    let leaf = at.checked_sub(1).map(|at| map.leaves[at]);
    let offset = leaf.map(|leaf| (leaf, address - leaf.address));
    let found = offset.filter(|(leaf, offset)| *offset < leaf.bytes);
    Ok(found.map(|(leaf, offset)| leaf.physical + offset).ok_or("not mapped in SecVisor")?)
}

/// Whether SecVisor's own page tables map what they should, and nothing both writable and executable.
pub fn own_mapping(map: &Map, image: &Image) -> Result<()> {
    for leaf in &map.leaves {
        let inside = image.addresses.contains(&leaf.address);
        let amiss = if leaf.writable && leaf.executable {
            Some("is writable and executable")
        } else if inside {
            image.amiss(leaf)
        } else {
            image.stray(leaf)
        };
        if let Some(amiss) = amiss {
            return Err(format!("SecVisor's page {:#x} {amiss}: {leaf:x?}", leaf.address).into());
        }
    }
    let code = map.leaves.iter().filter(|leaf| leaf.executable).count() as u64 * PAGE;
    let text = image.text.end - image.text.start;
    let equal = code == text.next_multiple_of(PAGE);
    equal.then_some(()).ok_or_else(|| format!("{code} bytes of {text} are mapped as code").into())
}

/// Named frames.
#[derive(Default)]
pub struct Frames(BTreeMap<u64, &'static str>);

impl Frames {
    /// Adds the frames of a range of addresses.
    pub fn add(&mut self, what: &'static str, range: Range<u64>) {
        let frames = range.start / PAGE..range.end.div_ceil(PAGE);
        self.0.extend(frames.map(|frame| (frame, what)));
    }

    /// Adds the frames at these addresses.
    pub fn add_each(&mut self, what: &'static str, pages: &[u64]) {
        pages.iter().for_each(|&page| self.add(what, page..page + PAGE));
    }

    /// The first of them that a leaf maps.
    fn within(&self, leaf: &Mapping) -> Option<(u64, &'static str)> {
        self.0.range(frames(leaf)).next().map(|(&frame, &what)| (frame, what))
    }
}

fn frames(leaf: &Mapping) -> Range<u64> {
    leaf.physical / PAGE..(leaf.physical + leaf.bytes) / PAGE
}

/// Whether the two views keep what they promise: no frame of `hidden` is mapped, exactly those of
/// `approved` are kernel code, and nothing can write them nor those of `guarded`.
pub fn views(
    [kernel, user]: [&Map; 2],
    hidden: &Frames,
    guarded: &Frames,
    approved: &BTreeSet<u64>,
) -> Result<()> {
    for (view, map) in [("kernel", kernel), ("user", user)] {
        for leaf in &map.leaves {
            if let Some((frame, what)) = hidden.within(leaf) {
                return Err(format!("the {view} view maps frame {frame:#x}, {what}").into());
            }
            if leaf.address != leaf.physical {
                return Err(format!("the {view} view moves memory: {leaf:x?}").into());
            }
        }
        if let Some(table) = map.tables.iter().find(|&&at| !hidden.0.contains_key(&(at / PAGE))) {
            return Err(format!("the {view} view's table at {table:#x} is not hidden").into());
        }
    }
    let executable = kernel.leaves.iter().filter(|leaf| leaf.executable);
    let code: BTreeSet<u64> = executable.flat_map(frames).collect();
    if let Some(frame) = code.symmetric_difference(approved).next() {
        let of =
            if code.contains(frame) { "kernel code and not approved" } else { "not kernel code" };
        return Err(format!("frame {frame:#x} is {of}").into());
    }
    let touched = |leaf: &Mapping| code.range(frames(leaf)).next().copied();
    let writes = |leaf: &&Mapping| leaf.writable;
    let either = kernel.leaves.iter().chain(&user.leaves).filter(writes);
    if let Some(frame) = either.clone().find_map(touched) {
        return Err(format!("frame {frame:#x} is kernel code, and writable").into());
    }
    if let Some((frame, what)) = either.clone().find_map(|leaf| guarded.within(leaf)) {
        return Err(format!("frame {frame:#x}, {what}, is writable").into());
    }
    let user_code = user.leaves.iter().filter(|leaf| leaf.executable).find_map(touched);
    match user_code {
        Some(frame) => Err(format!("the user view executes frame {frame:#x}, kernel code").into()),
        None if either.count() == 0 => Err("nothing is writable in either view".into()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
