//! Approved code: where each unit lies, and how it comes and goes.
//!
//! A unit is a code section of the kernel, approved at launch, or a module's code in one region.
//! The list says how many there can be and how large each is: room for all is reserved at launch.

use crate::PAGE_SIZE;
use crate::address::{Gpa, Gva};
use crate::approval::{ApprovalList, Module};
use crate::flush::FlushDuty;
use crate::frame::FrameClass;
use crate::hypercall::{Error, Unit, UnitKind};
use crate::nested::{Nested, TableMemory};
use crate::violation::UNIT_NAME_BYTES;

mod build;
mod name;
mod refused;
#[cfg(test)]
mod tests;
mod verify;

pub use refused::Refused;
use refused::refused;

/// The guest's memory, as verification needs it.
pub trait CodeMemory {
    /// Where the guest's own tables map an address. They are hostile: a hint, never a permission.
    fn translate(&self, gva: Gva) -> Option<Gpa>;
    /// Returns when no processor holds an old translation, and no cache holds anything of the
    /// frames that memory does not.
    fn settle(&mut self, duty: FlushDuty, frames: &[u32]);
    /// Copies from `gpa` on as far as the frame and `to` reach; returns how many bytes.
    fn read(&self, gpa: Gpa, to: &mut [u8]) -> usize;
    /// Writes INT3 from `gpa` on as far as the frame and `length` reach; returns how many bytes.
    fn fill(&mut self, gpa: Gpa, length: usize) -> usize;
}

/// What is kept of a unit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Slot {
    /// Virtual address of its first page; 0 while it is not approved.
    base: u64,
    /// Its first frame in the table of frames.
    first: u32,
    pages: u32,
}

impl Slot {
    fn size(self) -> u64 {
        u64::from(self.pages).saturating_mul(PAGE_SIZE)
    }

    fn end(self) -> u64 {
        self.base.saturating_add(self.size())
    }

    fn frames(self) -> core::ops::Range<usize> {
        self.first as usize..self.first.saturating_add(self.pages) as usize
    }
}

/// All units that the list knows, approved or not.
pub struct Units<'a> {
    list: ApprovalList<'a>,
    /// How many of the slots are the kernel's.
    kernel: usize,
    /// The kernel's ranges, then each module's core and init region.
    slots: &'a mut [Slot],
    /// The frames of each unit, in the order of its pages.
    frames: &'a mut [u32],
}

/// A module's region that the guest asks to be approved, at the bases that it chose.
struct Request<'a> {
    module: Module<'a>,
    init: bool,
    core_base: u64,
    init_base: u64,
}

impl Request<'_> {
    fn base(&self) -> u64 {
        if self.init { self.init_base } else { self.core_base }
    }
}

impl<'a> Units<'a> {
    fn index(&self, module: usize, init: bool) -> usize {
        module.saturating_mul(2).saturating_add(init.into()).saturating_add(self.kernel)
    }

    fn slot(&self, module: usize, init: bool) -> Slot {
        self.slots.get(self.index(module, init)).copied().unwrap_or_default()
    }

    fn frames(&self, slot: Slot) -> &[u32] {
        self.frames.get(slot.frames()).unwrap_or_default()
    }

    /// Makes the code that `unit` names executable in kernel mode, if every byte of it is what the
    /// list says: protect, settle, verify in place, grant.
    ///
    /// # Errors
    /// [`Refused`], with all frame classes as they were and nothing kept.
    pub fn approve<M: TableMemory>(
        &mut self,
        unit: &Unit,
        nested: &mut Nested<'_, M>,
        memory: &mut impl CodeMemory,
    ) -> Result<(), Refused<'a>> {
        let request = self.request(unit)?;
        let slot = self.slot(request.module.number, request.init);
        for (page, frame) in self.frames.get_mut(slot.frames()).into_iter().flatten().enumerate() {
            let gva = request.base().saturating_add((page as u64).saturating_mul(PAGE_SIZE));
            let found = memory.translate(Gva(gva)).and_then(|gpa| u32::try_from(gpa.frame()).ok());
            *frame = found.ok_or(refused(Error::Fault, "no memory is mapped at", gva))?;
        }
        let frames = self.frames(slot);
        // A frame that comes a second time is Pending then, and no data.
        let (duty, protected) = set_all(nested, frames, FrameClass::Data, FrameClass::Pending);
        memory.settle(duty, frames);
        let verified = match frames.len().saturating_sub(protected) as u64 {
            0 => self.verify(&request, frames, memory),
            others => Err(refused(Error::Fault, "frames that are no data, or come twice", others)),
        };
        if verified.is_ok() {
            verify::fill_gaps(&request, slot, frames, memory);
        }
        let class = if verified.is_ok() { FrameClass::Approved } else { FrameClass::Data };
        memory.settle(set_all(nested, frames, FrameClass::Pending, class).0, &[]);
        let index = self.index(request.module.number, request.init);
        if let (Ok(()), Some(slot)) = (&verified, self.slots.get_mut(index)) {
            slot.base = request.base();
        }
        verified
    }

    /// Checks all of a descriptor that can be checked without the guest's memory.
    fn request(&self, unit: &Unit) -> Result<Request<'a>, Refused<'a>> {
        let (init, region) = (unit.kind != UnitKind::ModuleCore, unit.region());
        // The kernel's own code was approved at launch, and comes no second time.
        let name = if unit.kind == UnitKind::KernelInit { "" } else { unit.name() };
        let unknown = refused(Error::NotPermitted, "not on the approval list, base", region.base);
        let module = self.list.find_module(name).ok_or(unknown)?;
        let slot = self.slot(module.number, init);
        if slot.pages == 0 || slot.size() != region.size {
            return Err(refused(Error::Invalid, "not the size that the list says", region.size));
        }
        let window = self.list.window();
        let placed = Slot { base: region.base, ..slot };
        let other = if init { unit.core.base } else { unit.init.base };
        // A module without the other region gives it no base.
        let other = if other == 0 { region.base } else { other };
        let named = [placed.base, placed.end().saturating_sub(1), other];
        if let Some(outside) = named.into_iter().find(|address| !window.contains(address)) {
            return Err(refused(Error::Invalid, "outside the window for modules", outside));
        }
        let core = self.slot(module.number, false);
        if init && core.pages != 0 && (core.base == 0 || core.base != unit.core.base) {
            return Err(refused(Error::NoEntry, "no core approved at its base", unit.core.base));
        }
        let apart = |it: &Slot| it.base == 0 || it.end() <= placed.base || placed.end() <= it.base;
        if slot.base != 0 || !self.slots.iter().all(apart) {
            return Err(refused(Error::Busy, "approved already, or in the way", region.base));
        }
        Ok(Request { module, init, core_base: unit.core.base, init_base: unit.init.base })
    }

    /// Gives an approved unit's frames back as data: a module's region, or the kernel's init code.
    /// Its base says which; its name, for the log.
    ///
    /// # Errors
    /// [`Error::NoEntry`] if no unit begins there, [`Error::NotPermitted`] for kernel code that is no
    /// init code and for a unit of the other kind, [`Error::Invalid`] for another size.
    pub fn release<M: TableMemory>(
        &mut self,
        unit: &Unit,
        nested: &mut Nested<'_, M>,
        memory: &mut impl CodeMemory,
    ) -> Result<[u8; UNIT_NAME_BYTES], Error> {
        let region = unit.region();
        let index = self.slots.iter().position(|it| it.base != 0 && it.base == region.base);
        let index = index.ok_or(Error::NoEntry)?;
        let kernel = unit.kind == UnitKind::KernelInit;
        if self.list.kernel_range(index).map_or(kernel, |(_, init)| !(kernel && init)) {
            return Err(Error::NotPermitted);
        }
        let slot = self.slots.get(index).copied().unwrap_or_default();
        if region.size != 0 && region.size != slot.size() {
            return Err(Error::Invalid);
        }
        let name = self.name(index);
        // Execute goes first and is flushed; only then may anyone write.
        let frames = self.frames(slot);
        memory.settle(set_all(nested, frames, FrameClass::Approved, FrameClass::Pending).0, &[]);
        memory.settle(set_all(nested, frames, FrameClass::Pending, FrameClass::Data).0, &[]);
        if let Some(slot) = self.slots.get_mut(index) {
            slot.base = 0;
        }
        Ok(name)
    }
}

/// Gives those of the frames that have the class `from` the class `to`. Returns how many.
fn set_all<M: TableMemory>(
    nested: &mut Nested<'_, M>,
    frames: &[u32],
    from: FrameClass,
    to: FrameClass,
) -> (FlushDuty, usize) {
    let mut all = (FlushDuty::new(false), 0usize);
    for frame in frames.iter().map(|&frame| frame.into()) {
        let next = if nested.class(frame) == from { nested.set_class(frame, to) } else { None };
        let Some(next) = next else { continue };
        all = (all.0.and(next), all.1.saturating_add(1));
    }
    all
}
