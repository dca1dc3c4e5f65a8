//! A processor's own state: the VMCB, the guest's registers, the loaded view.

use policy::address::Gva;
use policy::fault::EntryGuard;
use policy::frame::View;
use policy::msr;

use crate::machine::Machine;
use crate::memory::Guest;
use crate::svm::cpu;
use crate::svm::vmcb::{
    Control, Event, FLUSH_ALL, Intercepts, SEGMENT_LONG, Segment, Vmcb, WRITES_CR4,
};

mod build;

/// General-purpose registers that VMRUN does not switch.
#[repr(C)]
#[derive(Default, Debug)]
#[allow(missing_docs, reason = "named as the processor names them")]
pub struct Registers {
    pub rcx: u64,
    pub rdx: u64,
    pub rbx: u64,
    pub rbp: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
}

/// SYSCALL's registers as the guest wrote them.
#[derive(Clone, Copy, Default)]
#[allow(missing_docs, reason = "named as the processor names them")]
pub struct SystemCall {
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
}

/// What loading a view writes into the VMCB.
#[derive(Clone, Copy)]
struct Load {
    nested_cr3: u64,
    address_space: u64,
    exceptions_and_intercepts: u64,
}

/// The user-mode instruction that runs with the guest's real descriptor tables.
#[derive(Clone, Copy)]
pub struct Step {
    /// Where it lies.
    pub rip: u64,
    /// RFLAGS.TF as the guest had it.
    pub trap_flag: u64,
    /// DR6 as the guest had it.
    pub dr6: u64,
    /// IRET pops its own trap flag.
    pub pops_flags: bool,
}

/// An exit that the fast path left, kept for the report of a failure.
#[derive(Clone, Copy, Default)]
pub struct Noted {
    /// Code.
    pub exit: u64,
    /// Details.
    pub info: [u64; 2],
    /// Where the guest was.
    pub rip: u64,
}

/// A processor. The VMCB comes first: the world switch finds the rest relative to it.
#[repr(C, align(4096))]
pub struct Vcpu {
    /// The processor's control block.
    pub vmcb: Vmcb,
    host_save_area: [u8; 4096],
    /// Registers that VMRUN does not switch.
    pub registers: Registers,
    /// Exits so far.
    pub exits: u64,
    /// Which tables are loaded.
    view: View,
    loads: [Load; 2],
    nested_controls: [u64; 2],
    /// EFER, GDTR.limit and LDTR of the guest while the user view hides them.
    hidden_efer: u64,
    hidden_gdt_limit: u32,
    hidden_ldtr: Option<Segment>,
    /// SYSCALL's registers.
    pub system_call: SystemCall,
    /// The segment load that is being stepped.
    pub step: Option<Step>,
    /// Where a stale translation was last suspected: GPA and RIP.
    pub retried: Option<(u64, u64)>,
    /// IDTR's base and limit and the vector of the gate that last let INT n in.
    pub open_gate: Option<(u64, u32, u8)>,
    /// The processor saves the next RIP at exits (CPUID 8000_000Ah EDX bit 3).
    saves_next_rip: bool,
    /// Every ASID of this processor must be flushed before the guest runs on.
    pub flush_owed: bool,
    /// The last exits, the next one at `noted` modulo their number.
    pub recent: [Noted; 8],
    /// Exits noted so far.
    pub noted: usize,
    /// Number of this processor.
    pub number: u32,
    guest: Guest,
    /// What the processors share.
    pub machine: &'static Machine,
}

/// The ASID's half of the VMCB field that it shares with TLB control.
const ASID: u64 = 0xFFFF_FFFF;

impl Vcpu {
    /// What ends an open segment-load step: it would show or change the trap flag.
    const STEP: Intercepts = Intercepts::PUSHF.union(Intercepts::POPF).union(Intercepts::IRET);

    /// Where the processor does not save the next RIP, the field holds what was once there.
    pub fn forget_stale_next_rip(&mut self) {
        if !self.saves_next_rip {
            self.vmcb.control.next_rip = 0;
        }
    }

    /// Keeps this exit among the last.
    pub fn note_exit(&mut self) {
        let Control { exit_code, exit_info_1, exit_info_2, .. } = self.vmcb.control;
        let info = [exit_info_1, exit_info_2];
        self.recent[self.noted % 8] = Noted { exit: exit_code, info, rip: self.vmcb.save.rip };
        self.noted = self.noted.wrapping_add(1);
    }

    /// Physical address of the host save area, for VM_HSAVE_PA.
    pub fn host_save_area(&self) -> u64 {
        self.host_save_area.as_ptr() as u64
    }

    /// The view that is loaded.
    #[inline(always)]
    pub fn view(&self) -> View {
        self.view
    }

    /// The guest's memory.
    #[inline(always)]
    pub fn guest(&self) -> Guest {
        self.guest
    }

    /// The guest's EFER with SVME, whatever the user view hides of it.
    #[inline(always)]
    pub fn efer(&self) -> u64 {
        match (self.view, self.machine.guard) {
            (View::Kernel, _) | (_, EntryGuard::Npf) => self.vmcb.save.efer,
            _ => self.hidden_efer,
        }
    }

    /// Whether the guest runs 64-bit code. No view hides LMA.
    #[inline(always)]
    pub fn is_64_bit(&self) -> bool {
        self.vmcb.save.cs.attributes & SEGMENT_LONG != 0 && self.vmcb.save.efer & msr::LMA != 0
    }

    /// Makes a hypercall's arguments from 32-bit code what they are: 32 bits.
    pub fn clear_upper_halves(&mut self) {
        if !self.is_64_bit() {
            let Registers { rbx, rcx, rdx, .. } = &mut self.registers;
            for register in [&mut self.vmcb.save.rax, rbx, rcx, rdx] {
                *register &= 0xFFFF_FFFF;
            }
        }
    }

    /// Loads a view's tables, ASID and intercepts: all that the `npf` guard needs.
    #[inline(always)]
    pub fn load_plain(&mut self, view: View) {
        let load = &self.loads[view as usize];
        let control = &mut self.vmcb.control;
        control.nested_cr3 = load.nested_cr3;
        control.address_space = load.address_space;
        control.exceptions_and_intercepts = load.exceptions_and_intercepts;
        self.view = view;
    }

    /// Loads the user view: from here on no event is delivered, no SYSCALL and no descriptor
    /// load succeeds without an exit.
    #[inline(always)]
    pub fn load_user_view(&mut self) {
        self.load_plain(View::User);
        let save = &mut self.vmcb.save;
        self.hidden_efer = save.efer;
        save.efer &= !msr::SCE;
        self.hidden_gdt_limit = save.gdtr.limit;
        save.gdtr.limit = 0;
        // Selectors 0 to 3 are null.
        if cpu::local_descriptor_table() & !3 != 0 {
            self.hide_local_descriptors();
        }
    }

    /// Loads the kernel view and gives the guest its own state back.
    #[inline(always)]
    pub fn load_kernel_view(&mut self) {
        self.load_plain(View::Kernel);
        let save = &mut self.vmcb.save;
        save.efer = self.hidden_efer;
        save.gdtr.limit = self.hidden_gdt_limit;
        if self.hidden_ldtr.is_some() {
            self.show_local_descriptors();
            self.hidden_ldtr = None;
        }
    }

    /// Loads the user view from the kernel view.
    pub fn enter_user_view(&mut self) {
        match self.machine.guard {
            EntryGuard::Npf => self.load_plain(View::User),
            _ => self.load_user_view(),
        }
    }

    /// Loads the kernel view from whichever is loaded.
    pub fn enter_kernel_view(&mut self) {
        if self.view == View::Kernel {
            return;
        }
        match self.machine.guard {
            EntryGuard::Npf => self.load_plain(View::Kernel),
            _ => self.load_kernel_view(),
        }
    }

    #[cold]
    fn hide_local_descriptors(&mut self) {
        cpu::save_hidden_state(&mut self.vmcb);
        self.hidden_ldtr = Some(self.vmcb.save.ldtr);
        cpu::clear_local_descriptor_table();
    }

    #[cold]
    fn show_local_descriptors(&mut self) {
        if let Some(ldtr) = self.hidden_ldtr {
            cpu::save_hidden_state(&mut self.vmcb);
            self.vmcb.save.ldtr = ldtr;
            cpu::load_hidden_state(&self.vmcb);
        }
    }

    /// Where the descriptor of a selector lies in the guest's own tables, which the user view hides.
    pub fn descriptor(&self, selector: u32) -> Option<Gva> {
        let (base, limit) = match (selector & 4, self.hidden_ldtr) {
            (0, _) => (self.vmcb.save.gdtr.base, self.hidden_gdt_limit),
            (_, Some(ldtr)) => (ldtr.base, ldtr.limit),
            (_, None) => return None,
        };
        (selector | 7 <= limit).then(|| Gva(base.wrapping_add(u64::from(selector & !7))))
    }

    /// Lets the one instruction at RIP see the guest's real descriptor tables, in the user view.
    pub fn open_step(&mut self, step: Step) {
        self.step = Some(step);
        self.vmcb.save.gdtr.limit = self.hidden_gdt_limit;
        self.show_local_descriptors();
        // IRET itself may be stepped: it is ended by #DB, whatever it pops.
        let escapes = if step.pops_flags { Self::STEP - Intercepts::IRET } else { Self::STEP };
        self.vmcb.control.exceptions_and_intercepts |= escapes.bits() << 32;
    }

    /// Hides the descriptor tables again. Every exit does this first.
    pub fn close_step(&mut self) -> Option<Step> {
        let step = self.step.take()?;
        self.vmcb.save.gdtr.limit = 0;
        if self.hidden_ldtr.is_some() {
            cpu::clear_local_descriptor_table();
        }
        self.vmcb.control.exceptions_and_intercepts &= !(Self::STEP.bits() << 32);
        Some(step)
    }

    /// Injects an event. It is delivered through the guest's tables, so only in the kernel view.
    pub fn inject(&mut self, event: Event) {
        self.enter_kernel_view();
        self.vmcb.control.event_injection = event.0;
        // RIP is where the guest shall return to; some processors push this for INT n instead.
        self.vmcb.control.next_rip = self.vmcb.save.rip;
    }

    /// From now on every write to CR0 that changes more than TS and MP exits, and every one to CR4
    /// and IDTR (APM vol. 2, 15.9).
    pub fn pin_registers(&mut self) {
        self.vmcb.control.control_register_intercepts = WRITES_CR4;
        let pinned = (Intercepts::WRITES_CR0 | Intercepts::WRITES_IDTR).bits() << 32;
        for load in &mut self.loads {
            load.exceptions_and_intercepts |= pinned;
        }
        self.vmcb.control.exceptions_and_intercepts |= pinned;
    }

    /// Readies the flush that is owed, at the end of a slow exit, and GMET as the view wants it.
    pub fn discharge_flush(&mut self) {
        self.vmcb.control.nested_control = self.nested_controls[self.view as usize];
        let asid = self.loads[self.view as usize].address_space & ASID;
        if core::mem::take(&mut self.flush_owed) {
            self.vmcb.control.address_space = asid | FLUSH_ALL;
        } else if self.view == View::Kernel {
            self.vmcb.control.address_space = asid;
        }
    }
}
