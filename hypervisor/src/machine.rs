//! What all processors share: tables, filters, the approval list, the record of violations.

use core::sync::atomic::AtomicBool;

use boot::acpi::AcpiTables;
use boot::options::Options;
use policy::address::{Gpa, Gva};
use policy::fault::EntryGuard;
use policy::frame::FrameClass;
use policy::nested::Nested;
use policy::port::Ports;
use policy::units::Units;
use policy::violation::{Kind, RING_BYTES, UNIT_NAME_BYTES, Violation, record_offset};
use spin::Mutex;

use crate::memory::{Guest, Tables};
use crate::vcpu::Vcpu;

/// What all processors share.
pub struct Machine {
    /// What the owner chose.
    pub options: Options,
    /// What keeps kernel entries inside approved code.
    pub guard: EntryGuard,
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
    /// What the owner approved, and where it lies.
    pub units: Mutex<Units<'static>>,
    /// Whether the guest called `set_kernel_mode`: control registers and entry points are pinned.
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
        let rip = Gva(save.rip);
        let unit = if save.cpl < 3 { self.units.lock().nearest(rip) } else { [0; UNIT_NAME_BYTES] };
        let violation = Violation {
            kind: refusal.kind,
            action: self.options.violation,
            cpu: vcpu.number,
            gpa: refusal.gpa,
            rip,
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

    /// In audit, makes the class of the frame allow what was refused. `false` where even audit
    /// must not: SecVisor's own memory and devices.
    pub fn allow(&self, vcpu: &mut Vcpu, refusal: Refusal) -> bool {
        let Some(gpa) = refusal.gpa.filter(|&gpa| self.guest.is_ram(gpa)) else { return false };
        let class = match refusal.kind {
            Kind::KernelFetch => FrameClass::Approved,
            Kind::Write | Kind::UserFetch => FrameClass::Data,
            _ => return false,
        };
        let Some(duty) = self.nested.lock().set_class(gpa.frame(), class) else { return false };
        duty.discharge(|| vcpu.flush_owed = true);
        true
    }
}
