//! From GRUB's information to the guest's first instruction. Whatever does not hold ends here,
//! with one clear line and before the guest runs.
#![allow(unsafe_code, reason = "takes memory for good and enters the guest")]

use core::fmt;
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, AtomicU8};

use arrayvec::ArrayString;
use boot::acpi::{self, AcpiTables};
use boot::information::{self, Information};
use boot::kernel::Kernel;
use boot::linux::{self, LinuxInputs};
use boot::memory::PhysicalMemory;
use boot::options::{LogPort, Options};
use boot::plan::Plan;
use boot::screen::{self, Screen};
use policy::address::{Gpa, PhysicalRange};
use policy::approval::ApprovalList;
use policy::fault::EntryGuard;
use policy::frame::{FrameClass, View};
use policy::nested::{Geometry, Nested};
use policy::port::Ports;
use policy::units::{Slot, Units};
use policy::violation::{Action, RING_BYTES, RING_MAGIC};
use policy::{LARGE_PAGE_SIZE, PAGE_SIZE, msr};
use spin::Mutex;

use crate::hardware::{self, Features};
use crate::host::paging::{self, Image};
use crate::host::{console, interrupts};
use crate::machine::{Machine, Ring};
use crate::memory::{Guest, Launch, Tables};
use crate::panic::SYMBOLS;
use crate::smp;
use crate::svm::cpu;
use crate::vcpu::Vcpu;

mod enter;
mod guarded;
mod layout;

use enter::enter;
use guarded::{disarm_virtual_apic, guarded_frames};
use layout::Belongings;

/// What the early page tables map.
const EARLY_LIMIT: u64 = 4 << 30;
/// GRUB's information is a few KiB; what says more is damaged.
const INFORMATION_BYTES: usize = 64 << 10;

static INFORMATION: Mutex<[u8; INFORMATION_BYTES]> = Mutex::new([0; INFORMATION_BYTES]);

/// Says why there is no guest, in the log and on the screen, and stops.
fn refuse(screen: &Screen, why: fmt::Arguments<'_>) -> ! {
    log::error!("secvisor: refused: {why}");
    let mut text = ArrayString::<512>::new();
    // A text that is too long is shown as far as it fits.
    let _ = write!(text, "SecVisor refused to start: {why}");
    if let Some(range) = screen.bytes().filter(|range| range.end() <= EARLY_LIMIT) {
        // SAFETY: the range is the screen's memory; nothing else of SecVisor uses it.
        let mut memory = unsafe { Launch::new() };
        screen::write(screen, memory.bytes_mut(range), &text);
    }
    cpu::stop()
}

fn or_refuse<T, E: fmt::Display>(result: Result<T, E>, screen: &Screen) -> T {
    result.unwrap_or_else(|error| refuse(screen, format_args!("{error}")))
}

/// Reads GRUB's information and starts the guest. All arguments are physical addresses: of the
/// information, of SecVisor's image, of the page tables that it was entered with.
///
/// # Safety
/// Once, on the processor that booted, with SecVisor alone on the machine.
pub unsafe fn launch(information: u64, image: u64, tables: u64) -> ! {
    interrupts::fill();
    interrupts::load();
    console::open(LogPort::Com2);
    // SAFETY: this is the only one, and it ends before the guest runs.
    let mut memory = unsafe { Launch::new() };

    // Copied before anything is written: it lies in memory that the guest will get.
    let copy = spin::MutexGuard::leak(INFORMATION.lock());
    let source = PhysicalRange::new(information, INFORMATION_BYTES as u64);
    if let Some(source) = source.filter(|source| source.end() <= EARLY_LIMIT) {
        copy.copy_from_slice(memory.bytes(source));
    }
    let information = or_refuse(information::parse(copy), &Screen::Text80x25);
    if let Some(symbols) = information.symbols {
        keep_symbols(&memory, symbols);
    }
    let screen = information.screen;
    let options = or_refuse(Options::parse(information.command_line), &screen);
    console::open(options.log);
    log::info!("secvisor: SecVisor {}", env!("CARGO_PKG_VERSION"));
    let features = or_refuse(hardware::check(), &screen);
    let Some(image) = Image::at(image) else {
        refuse(&screen, format_args!("no room for SecVisor"))
    };
    prepare(&mut memory, &information, options, features, image, tables)
}

/// Keeps the names of SecVisor's functions, for the report of a failure; without them if GRUB left
/// none or more than there is room for.
fn keep_symbols(memory: &Launch, [table, names]: [PhysicalRange; 2]) {
    let mut kept = SYMBOLS.lock();
    let ends = [table.length(), table.length().saturating_add(names.length())];
    let early = [table, names].into_iter().all(|range| range.end() <= EARLY_LIMIT);
    if early && ends[1] <= kept.bytes.len() as u64 {
        kept.ends = ends.map(|end| end as usize);
        let [table_end, names_end] = kept.ends;
        kept.bytes[..table_end].copy_from_slice(memory.bytes(table));
        kept.bytes[table_end..names_end].copy_from_slice(memory.bytes(names));
    }
}

fn prepare(
    memory: &mut Launch,
    information: &Information<'_>,
    options: Options,
    features: Features,
    loaded: Image,
    early_tables: u64,
) -> ! {
    let screen = information.screen;
    let mut acpi = read_acpi(memory, information);
    // The firmware's table only says where it should be.
    let local_apic = cpu::read_msr(msr::APIC_BASE).unwrap_or(0) & 0x000F_FFFF_FFFF_F000;
    acpi.local_apic = Some(local_apic);
    let image = loaded.physical;
    // Everything that SecVisor will ever need is reserved now.
    let map = &information.memory;
    let guard = or_refuse(options.guard(features.gmet), &screen);
    let Features { address_bits, giant_pages, .. } = features;
    let gmet = guard == EntryGuard::Gmet;
    let geometry = Geometry::new(map.top_of_ram(), address_bits, giant_pages, gmet);
    let pci = hardware::guarded_pci();
    let virtual_apic = disarm_virtual_apic(memory).unwrap_or_else(|| {
        refuse(
            &screen,
            format_args!(
                "QEMU's paravirtual APIC cannot be switched off from here: start QEMU with -global \
                 apic-common.vapic=off"
            ),
        )
    });
    let guarded = guarded_frames(&acpi, &pci, virtual_apic)
        .unwrap_or_else(|| refuse(&screen, format_args!("too many guarded devices")));
    let regions = |range: PhysicalRange| {
        range.end().div_ceil(LARGE_PAGE_SIZE) - range.start() / LARGE_PAGE_SIZE
    };
    let split = map.ram().map(regions).sum::<u64>() + guarded.len() as u64;
    let mapped = map.top_of_ram().max(EARLY_LIMIT);
    let room = Units::room(&approval_list(memory.bytes(information.policy.range), &screen));
    let layout = |start| Belongings::at(start, &geometry, split, mapped, room);
    let size = layout(0).nested.end();
    let plan = {
        let file = memory.bytes(information.kernel.range);
        let kernel = or_refuse(Kernel::parse(file), &screen);
        or_refuse(Plan::new(information, &kernel, image, size, EARLY_LIMIT), &screen)
    };
    let own = layout(plan.reserved.start());
    plan.move_modules(information, memory);
    // SAFETY: the plan reserved it for nothing else.
    let root = paging::load(unsafe { memory.claim(own.host_tables) }, mapped, loaded);

    // SAFETY: the plan reserved it; it becomes Hidden before the guest runs.
    let list = unsafe { memory.keep(plan.policy) };
    let approvals = approval_list(list, &screen);
    // SAFETY: the file was moved clear of all that is written until the kernel is loaded.
    let file = unsafe { memory.keep(plan.kernel_file) };
    let kernel = or_refuse(Kernel::parse(file), &screen);
    kernel.load(memory);

    // SAFETY: the plan reserved it; AtomicU8 and u8 have the same layout.
    let classes: &'static mut [AtomicU8] = unsafe { memory.claim(own.classes) };
    let classes = &mut classes[..geometry.frames() as usize];
    let mut mark = |range: PhysicalRange, class: FrameClass| {
        for frame in range.frames() {
            if let Some(slot) = classes.get_mut(frame as usize) {
                *slot.get_mut() = class as u8;
            }
        }
    };
    mark(PhysicalRange::new(0, geometry.frames() * PAGE_SIZE).unwrap_or(image), FrameClass::Device);
    map.ram().for_each(|range| mark(range, FrameClass::Data));
    approve_kernel(memory, &screen, &approvals, &kernel).for_each(|range| {
        mark(range, FrameClass::Approved);
    });
    // Kernels search low memory for the firmware's tables: they may read the start-up code.
    let guarded = guarded.iter().copied().chain([plan.startup]);
    guarded.for_each(|range| mark(range, FrameClass::Guarded));
    let own_ranges = [image, plan.reserved, plan.policy];
    own_ranges.into_iter().for_each(|range| mark(range, FrameClass::Hidden));

    // SAFETY: the plan reserved both.
    let leaves: &'static mut [u32] = unsafe { memory.claim(own.leaves) };
    let leaves = &mut leaves[..geometry.regions() as usize];
    // SAFETY: as above; zeroed, so that a table is empty until it is filled.
    let _: &mut [u64] = unsafe { memory.claim(own.nested) };
    // SAFETY: only the nested tables use this range from now on.
    let tables = unsafe { Tables::new() };
    let nested = Nested::build(tables, geometry, classes, leaves, own.nested)
        .unwrap_or_else(|| refuse(&screen, format_args!("the nested tables do not fit")));

    // SAFETY: the plan reserved both; a slot of zeroes is one of nothing.
    let (slots, frames): (&mut [Slot], &mut [u32]) =
        unsafe { (memory.claim(own.slots), memory.claim(own.unit_frames)) };
    let (slots, frames) = (&mut slots[..room.0 as usize], &mut frames[..room.1 as usize]);
    let units = Units::new(approvals, slots, frames)
        .unwrap_or_else(|| refuse(&screen, format_args!("the approval list has no room")));

    let guest_map = or_refuse(plan.guest_memory(map, image), &screen);
    let inputs = LinuxInputs {
        architecture: kernel.architecture(),
        entry: kernel.entry(),
        command_line: information.kernel.command_line,
        initrd: plan.initrd,
        memory_map: &guest_map,
        rsdp: information.rsdp,
        screen,
    };
    let start = or_refuse(linux::prepare(memory, plan.guest_low, &inputs), &screen);

    let others = acpi.processors.len().saturating_sub(1) as u32;
    smp::park_others(memory, plan.startup, [early_tables, root], own.stacks, others, local_apic)
        .unwrap_or_else(|arrived| {
            refuse(
                &screen,
                format_args!(
                    "{arrived} of {others} other processors could be taken from the firmware; \
                     a processor outside SecVisor could undo it"
                ),
            )
        });
    let init_is_redirected = smp::redirect_init();

    let ram: u64 = map.ram().map(PhysicalRange::length).sum();
    let taken = image.length() + plan.reserved.length() + plan.policy.length();
    log::info!("secvisor: takes {taken} of {ram} bytes of RAM");
    for range in [image, plan.reserved, plan.policy] {
        log::info!("secvisor: hidden {:#x}-{:#x}", range.start(), range.end());
    }
    for (what, range) in [("frame table", own.classes), ("nested tables", own.nested)] {
        log::info!("secvisor: {what} {:#x}-{:#x}", range.start(), range.end());
    }
    log_options(guard, options.violation, others);

    let roots = View::ALL.map(|view| nested.root(view));
    let guest = Guest::new(nested.classes());
    let ports =
        Ports::new(console::first_port(options.log), acpi.pm1_control, acpi.s5_sleep_type, pci);
    fill_port_map(memory.bytes_mut(own.port_map), &ports);
    if let Some(map) = memory.bytes_mut(own.msr_map).first_chunk_mut() {
        msr::fill_map(map);
    }
    let machine = Machine {
        options,
        guard,
        roots,
        port_map: own.port_map.start(),
        msr_map: own.msr_map.start(),
        guest,
        nested: Mutex::new(nested),
        ports: Mutex::new(ports),
        units: Mutex::new(units),
        locked: AtomicBool::new(false),
        ring: Mutex::new(new_ring(memory, own.ring)),
        acpi,
        efer: features.efer,
    };
    // SAFETY: the plan reserved both places.
    let vcpu = unsafe {
        let machine: &'static Machine = memory.place(own.machine, machine);
        memory.place(own.vcpu, Vcpu::new(0, machine, &features, init_is_redirected))
    };
    enter(vcpu, &start, &screen)
}

fn approval_list<'a>(bytes: &'a [u8], screen: &Screen) -> ApprovalList<'a> {
    ApprovalList::parse(bytes)
        .unwrap_or_else(|error| refuse(screen, format_args!("the approval list: {error}")))
}

fn log_options(guard: EntryGuard, action: Action, others: u32) {
    let guard = match guard {
        EntryGuard::Events => "two entry-guard=events",
        EntryGuard::Npf => "two entry-guard=npf (unsound: for comparison and measurement only)",
        EntryGuard::Gmet => "gmet",
    };
    let action = match action {
        Action::Inject => "inject",
        Action::Halt => "halt",
        Action::Audit => "audit (NO GUARANTEE HOLDS)",
    };
    log::info!("secvisor: views={guard} violation={action} parked-processors={others}");
    log::info!("secvisor: no IOMMU protection: devices can write to memory by DMA");
    log::info!("secvisor: the boot path is not measured: /boot must be honest");
    log::info!("secvisor: launching");
}

/// The firmware's tables, read before anything in memory moves.
#[inline(never)]
fn read_acpi(memory: &Launch, information: &Information<'_>) -> AcpiTables {
    let Some(rsdp) = information.rsdp else {
        refuse(
            &information.screen,
            format_args!("the firmware has no ACPI tables, so its other processors are unknown"),
        )
    };
    let bytes = |address: u64, length: usize| {
        let range = PhysicalRange::new(address, length as u64)?;
        (range.end() <= EARLY_LIMIT).then(|| memory.bytes(range))
    };
    or_refuse(acpi::read(rsdp, &bytes), &information.screen)
}

/// Compares the loaded kernel with the list and fills what its code leaves of the last pages.
#[inline(never)]
fn approve_kernel<'a>(
    memory: &mut Launch,
    screen: &Screen,
    approvals: &ApprovalList<'a>,
    kernel: &Kernel<'_>,
) -> impl Iterator<Item = PhysicalRange> + use<'a> {
    let (architecture, entry) = (kernel.architecture(), Gpa(kernel.entry()));
    if (approvals.architecture(), approvals.entry()) != (architecture, entry) {
        refuse(
            screen,
            format_args!(
                "the approval list is for another kernel: {}, entry {:#x}, but this one is {}, entry \
                 {:#x}; make a new list with 'secvisor approve'",
                approvals.architecture().name(),
                approvals.entry(),
                architecture.name(),
                entry,
            ),
        );
    }
    for range in approvals.kernel_ranges() {
        let inside = kernel.span().contains(range.physical);
        let filled = PhysicalRange::new(range.physical.start(), range.filled);
        let Some(filled) = filled.filter(|_| inside) else {
            refuse(
                screen,
                format_args!("the approval list's {} lies outside the kernel", range.name),
            )
        };
        if let Err(mismatch) = range.verify(memory.bytes(filled)) {
            refuse(
                screen,
                format_args!(
                    "the kernel is not the approved one: {mismatch}; make a new list with \
                              'secvisor approve' if you trust it"
                ),
            );
        }
        if let Some(slack) = range.slack() {
            memory.bytes_mut(slack).fill(0xCC);
        }
    }
    approvals.kernel_ranges().map(|range| range.physical)
}

fn new_ring(memory: &mut Launch, place: PhysicalRange) -> Ring {
    // SAFETY: the plan reserved it.
    let bytes: &'static mut [u8] = unsafe { memory.claim(place) };
    let ring: &'static mut [u8; RING_BYTES] =
        bytes.first_chunk_mut().expect("the ring's place has its size");
    ring[..RING_MAGIC.len()].copy_from_slice(&RING_MAGIC);
    Ring::new(ring)
}

fn fill_port_map(map: &mut [u8], ports: &Ports) {
    map.fill(0);
    map[8192..].fill(0xFF);
    for port in ports.watched() {
        map[usize::from(port / 8)] |= 1 << (port % 8);
    }
}
