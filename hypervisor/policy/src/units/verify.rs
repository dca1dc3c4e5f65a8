//! Comparing a module's protected code with the approval list, byte by byte.

use sha2::{Digest, Sha256};

use super::refused::{Reason, Refused, refused};
use super::{CodeMemory, Request, Slot, Units};
use crate::PAGE_SIZE;
use crate::address::Gpa;
use crate::approval::{Base, Mismatch};
use crate::hypercall::Error;

impl<'a> Units<'a> {
    /// Compares protected code with the list: relocated fields one by one, all else by its hash.
    pub(super) fn verify(
        &self,
        request: &Request<'a>,
        frames: &[u32],
        memory: &impl CodeMemory,
    ) -> Result<(), Refused<'a>> {
        for section in request.module.region(request.init) {
            let mut hash = Sha256::new();
            let mut at = section.offset;
            for relocation in section.relocations() {
                let field = section.offset.saturating_add(relocation.offset);
                hash_until(&mut hash, at, field, frames, memory);
                let width = relocation.field.width();
                let mut found = [0; 8];
                read(field, found.get_mut(..width).unwrap_or_default(), frames, memory);
                let base = self.base(request, relocation.base)?;
                let place = request.base().saturating_add(field.into());
                let unfit = refused(Error::NotPermitted, "out of reach, from", place);
                let expected = relocation.bytes(base, place).ok_or(unfit)?;
                if found != expected {
                    let (section, offset) = (section.name, relocation.offset);
                    let reason = Reason::Field { section, offset, width, expected, found };
                    return Err(Refused { error: Error::NotPermitted, reason });
                }
                hash.update([0; 8].get(..width).unwrap_or_default());
                at = field.saturating_add(width as u32);
            }
            hash_until(&mut hash, at, section.end(), frames, memory);
            let (name, expected, found) = (section.name, section.sha256, hash.finalize().into());
            if found != expected {
                let reason = Reason::Hash(Mismatch { name, expected, found });
                return Err(Refused { error: Error::NotPermitted, reason });
            }
        }
        Ok(())
    }

    /// Where what a relocation counts from lies.
    fn base(&self, request: &Request<'a>, base: Base) -> Result<u64, Refused<'a>> {
        let own = request.module.number;
        let (base, module) = match base {
            Base::Kernel => return Ok(0),
            Base::Init => (request.init_base, own),
            Base::Core(number) if usize::from(number) == own => (request.core_base, own),
            Base::Core(number) => (self.slot(number.into(), false).base, number.into()),
        };
        if base != 0 {
            return Ok(base);
        }
        let name = self.list.module(module).map_or("?", |module| module.name);
        Err(Refused { error: Error::NoEntry, reason: Reason::Missing(name) })
    }
}

/// Where the byte at `offset` of a region with these frames lies.
fn place(frames: &[u32], offset: u32) -> Option<Gpa> {
    let frame = u64::from(*frames.get(Gpa(offset.into()).frame() as usize)?);
    Some(Gpa(frame.saturating_mul(PAGE_SIZE) | (u64::from(offset) % PAGE_SIZE)))
}

/// Reads from `offset` of the region on. What cannot be read stays as it is.
fn read(mut offset: u32, mut to: &mut [u8], frames: &[u32], memory: &impl CodeMemory) {
    while let Some(gpa) = place(frames, offset).filter(|_| !to.is_empty()) {
        let count = memory.read(gpa, to).max(1);
        to = to.split_at_mut_checked(count).map_or(&mut [], |(_, rest)| rest);
        offset = offset.saturating_add(count as u32);
    }
}

fn hash_until(hash: &mut Sha256, mut at: u32, end: u32, frames: &[u32], memory: &impl CodeMemory) {
    while at < end {
        let mut piece = [0; 64];
        let length = end.saturating_sub(at).min(piece.len() as u32);
        let bytes = piece.get_mut(..length as usize).unwrap_or_default();
        read(at, bytes, frames, memory);
        hash.update(bytes);
        at = at.saturating_add(length);
    }
}

/// Makes what no section fills INT3: an approved page is approved in every byte.
pub(super) fn fill_gaps(
    request: &Request<'_>,
    slot: Slot,
    frames: &[u32],
    memory: &mut impl CodeMemory,
) {
    let mut at = 0;
    let sections =
        request.module.region(request.init).map(|section| (section.offset, section.end()));
    for (gap_end, next) in sections.chain([(slot.size() as u32, u32::MAX)]) {
        while let Some(gpa) = place(frames, at).filter(|_| at < gap_end) {
            let filled = memory.fill(gpa, gap_end.saturating_sub(at) as usize);
            at = at.saturating_add(filled as u32);
        }
        at = next;
    }
}
