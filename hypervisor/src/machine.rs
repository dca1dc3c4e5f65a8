//! What all processors share: tables, filters, the approval list, the record of violations.

use core::sync::atomic::{AtomicBool, Ordering};

use boot::acpi::AcpiTables;
use boot::options::Options;
use policy::address::{Gpa, Gva};
use policy::approval::ApprovalList;
use policy::frame::FrameClass;
use policy::nested::Nested;
use policy::port::Ports;
use policy::violation::{Kind, RING_BYTES, UNIT_NAME_BYTES, Violation, record_offset};
use spin::Mutex;

use crate::memory::{Guest, Tables};
use crate::vcpu::Vcpu;

/// What all processors share.
pub struct Machine {
    /// What the owner chose.
    pub options: Options,
    /// Roots of the kernel and the user view.
    pub roots: [u64; 2],
    /// Physical address of the I/O permission map.
    pub port_map: u64,
    /// Physical address of the MSR permission map.
    pub msr_map: u64,
    /// The guest's memory.
    pub guest: Guest,
    /// Frame classes and nested tables.
    pub nested: Mutex<Nested<'static, Tables>>,
    /// Watched ports.
    pub ports: Mutex<Ports>,
    /// What the owner approved.
    pub approvals: ApprovalList<'static>,
    /// Whether the kernel's init text was given back.
    pub init_released: AtomicBool,
    /// Whether the guest called `set_kernel_mode`.
    pub locked: AtomicBool,
    /// The last violations.
    pub ring: Mutex<Ring>,
    /// What the firmware says of the machine.
    pub acpi: AcpiTables,
    /// Bits of EFER that the processor has.
    pub efer: u64,
}

/// The last violations, kept in RAM for a memory dump.
pub struct Ring {
    bytes: &'static mut [u8; RING_BYTES],
    count: u64,
}

impl Ring {
    /// An empty ring in `bytes`, whose header is written already.
    pub fn new(bytes: &'static mut [u8; RING_BYTES]) -> Self {
        Self { bytes, count: 0 }
    }

    /// Violations so far.
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// A violation as a handler reports it.
#[derive(Clone, Copy)]
pub struct Refusal {
    /// What happened.
    pub kind: Kind,
    /// The guest-physical address, if there is one.
    pub gpa: Option<Gpa>,
    /// Kind-dependent detail.
    pub info: u64,
}

impl Refusal {
    /// A violation without an address.
    pub fn of(kind: Kind, info: u64) -> Self {
        Self { kind, gpa: None, info }
    }

    /// A violation at an address.
    pub fn at(kind: Kind, gpa: Gpa) -> Self {
        Self { kind, gpa: Some(gpa), info: 0 }
    }
}

impl Machine {
    /// Records a violation by what runs on `vcpu`: in the ring, then in the log.
    pub fn record(&self, vcpu: &Vcpu, refusal: Refusal) {
        let save = &vcpu.vmcb.save;
        let mut ring = self.ring.lock();
        ring.count += 1;
        let mut unit = [0; UNIT_NAME_BYTES];
        if save.cpl < 3 {
            self.name_unit(Gva(save.rip), &mut unit);
        }
        let violation = Violation {
            kind: refusal.kind,
            action: self.options.violation,
            cpu: vcpu.number,
            gpa: refusal.gpa,
            rip: Gva(save.rip),
            cr3: save.cr3,
            cpl: save.cpl,
            class: refusal.gpa.map(|gpa| self.guest.class(gpa)),
            info: refusal.info,
            count: ring.count,
            unit,
        };
        let at = record_offset(ring.count);
        let record = violation.encode();
        if let Some(slot) = ring.bytes.get_mut(at..at + record.len()) {
            slot.copy_from_slice(&record);
        }
        log::warn!("{violation}");
    }

    /// Writes the name of the approved unit nearest to `rip`, as `kernel/.text`.
    fn name_unit(&self, rip: Gva, unit: &mut [u8; UNIT_NAME_BYTES]) {
        let distance = |start: Gva, end: Gva| {
            if rip.0 < start.0 { start.0 - rip.0 } else { rip.0.saturating_sub(end.0) }
        };
        let ranges = self.approvals.kernel_ranges();
        let nearest = ranges.min_by_key(|range| distance(range.virtual_start, range.virtual_end()));
        if let Some(range) = nearest {
            let name = b"kernel/".iter().chain(range.name.as_bytes());
            unit.iter_mut().zip(name).for_each(|(slot, byte)| *slot = *byte);
        }
    }

    /// In audit, makes the class of the frame allow what was refused. `false` where even audit
    /// must not: SecVisor's own memory and devices.
    pub fn allow(&self, vcpu: &mut Vcpu, refusal: Refusal) -> bool {
        let Some(gpa) = refusal.gpa.filter(|&gpa| self.guest.is_ram(gpa)) else { return false };
        let class = match refusal.kind {
            Kind::KernelFetch => FrameClass::Approved,
            Kind::Write | Kind::UserFetch => FrameClass::Data,
            _ => return false,
        };
        self.set_class(vcpu, gpa.frame()..gpa.frame() + 1, class)
    }

    /// Gives frames a class and flushes what the processors cached of the old one. `false`, with
    /// nothing changed, where classes never change.
    pub fn set_class(
        &self,
        vcpu: &mut Vcpu,
        frames: core::ops::Range<u64>,
        class: FrameClass,
    ) -> bool {
        let Some(duty) = self.nested.lock().set_class(frames, class) else { return false };
        // One processor runs guest code; it flushes before it runs any again.
        duty.discharge(|| vcpu.flush_owed = true);
        true
    }

    /// Gives the kernel's init text back as data, once.
    pub fn release_init(&self, vcpu: &mut Vcpu, start: u64, size: u64) -> bool {
        let mut ranges = self.approvals.kernel_ranges().filter(|range| range.init);
        let named =
            ranges.find(|range| range.virtual_start.0 == start && range.physical.length() == size);
        let Some(range) = named else { return false };
        if self.init_released.swap(true, Ordering::Relaxed) {
            return false;
        }
        // Execute goes first and is flushed; only then may anyone write.
        self.set_class(vcpu, range.physical.frames(), FrameClass::Pending)
            && self.set_class(vcpu, range.physical.frames(), FrameClass::Data)
    }
}
