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
#[derive(Clone, Copy, Default, Debug)]
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
        let (duty, protected) = protect(nested, frames);
        memory.settle(duty, frames);
        let verified = match frames.get(protected) {
            Some(&frame) => {
                let gpa = u64::from(frame).saturating_mul(PAGE_SIZE);
                Err(refused(Error::Fault, "no data, or named twice, is the frame at", gpa))
            }
            None => self.verify(&request, frames, memory),
        };
        if verified.is_ok() {
            verify::fill_gaps(&request, slot, frames, memory);
        }
        let class = if verified.is_ok() { FrameClass::Approved } else { FrameClass::Data };
        let duty = set_all(nested, frames.get(..protected).unwrap_or_default(), class);
        memory.settle(duty, &[]);
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
        let inside = |address: u64| window.contains(&address);
        let own = inside(placed.base) && inside(placed.end().saturating_sub(1));
        if !own || other != 0 && !inside(other) {
            return Err(refused(Error::Invalid, "outside the window for modules", region.base));
        }
        let core = self.slot(module.number, false);
        if init && core.pages != 0 && core.base != unit.core.base {
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
    /// [`Error::NoEntry`] if no such unit begins there, and for kernel code that is not init code.
    pub fn release<M: TableMemory>(
        &mut self,
        unit: &Unit,
        nested: &mut Nested<'_, M>,
        memory: &mut impl CodeMemory,
    ) -> Result<[u8; UNIT_NAME_BYTES], Error> {
        let region = unit.region();
        let index = self.slots.iter().position(|it| it.base != 0 && it.base == region.base);
        let index = index.filter(|&index| match unit.kind {
            UnitKind::KernelInit => self.list.kernel_range(index).is_some_and(|(_, init)| init),
            _ => index >= self.kernel,
        });
        let index = index.ok_or(Error::NoEntry)?;
        let slot = self.slots.get(index).copied().unwrap_or_default();
        if region.size != 0 && region.size != slot.size() {
            return Err(Error::Invalid);
        }
        let name = self.name(index);
        // Execute goes first and is flushed; only then may anyone write.
        let duty = set_all(nested, self.frames(slot), FrameClass::Pending);
        memory.settle(duty, &[]);
        let duty = set_all(nested, self.frames(slot), FrameClass::Data);
        memory.settle(duty, &[]);
        if let Some(slot) = self.slots.get_mut(index) {
            slot.base = 0;
        }
        Ok(name)
    }
}

/// Makes data Pending, up to the first frame that is no data, as one that comes a second time is
/// not. Returns how many frames it was.
fn protect<M: TableMemory>(nested: &mut Nested<'_, M>, frames: &[u32]) -> (FlushDuty, usize) {
    let mut duty = FlushDuty::new(false);
    for (done, &frame) in frames.iter().enumerate() {
        let data = nested.class(frame.into()) == FrameClass::Data;
        let next = if data { nested.set_class(frame.into(), FrameClass::Pending) } else { None };
        let Some(next) = next else { return (duty, done) };
        duty = duty.and(next);
    }
    (duty, frames.len())
}

/// Gives frames whose classes may change a class.
fn set_all<M: TableMemory>(
    nested: &mut Nested<'_, M>,
    frames: &[u32],
    class: FrameClass,
) -> FlushDuty {
    let duties = frames.iter().filter_map(|&frame| nested.set_class(frame.into(), class));
    duties.fold(FlushDuty::new(false), FlushDuty::and)
}
