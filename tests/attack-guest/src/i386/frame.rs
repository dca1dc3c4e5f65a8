//! Registers at a trap.

use crate::say;
use crate::trap::{END, symbol};

const USER_CS: u64 = 0x23;
const USER_SS: u64 = 0x2B;
/// EFLAGS.VM: virtual-8086 mode.
const VIRTUAL: u64 = 1 << 17;
/// Where programs for virtual-8086 mode run, and their stack's segment.
const LOW_SEGMENT: u64 = 0x800;
const LOW_STACK: u64 = 0x900;
/// What such a program without any other way to end has in EAX.
const END_OF_VIRTUAL: u64 = 0x81;

/// Registers at a trap.
#[derive(Clone, Copy, Default)]
pub struct Frame {
    pub ax: u64,
    pub bx: u64,
    pub cx: u64,
    pub dx: u64,
    pub si: u64,
    pub di: u64,
    pub bp: u64,
    pub vector: u64,
    pub error: u64,
    pub ip: u64,
    pub cs: u64,
    pub flags: u64,
    pub sp: u64,
    pub ss: u64,
    /// DS, ES, FS, GS.
    pub segments: [u64; 4],
}

/// Registers as the stubs in entry.s and the processor push them. Of the last ones only those are
/// there that the mode has: none from the kernel, stack from user mode, all from virtual-8086 mode.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Pushed {
    gs: u32,
    fs: u32,
    es: u32,
    ds: u32,
    edi: u32,
    esi: u32,
    ebp: u32,
    unused: u32,
    ebx: u32,
    edx: u32,
    ecx: u32,
    eax: u32,
    vector: u32,
    error: u32,
    eip: u32,
    cs: u32,
    eflags: u32,
    esp: u32,
    ss: u32,
    /// ES, DS, FS, GS.
    virtual_8086: [u32; 4],
}

impl Frame {
    /// A user-mode start at `ip`.
    pub fn user(ip: u64) -> Self {
        let sp = symbol!(user_stack_top);
        let segments = [USER_SS, USER_SS, 0, 0];
        Self { ip, sp, cs: USER_CS, ss: USER_SS, flags: 2, segments, ..Self::default() }
    }

    /// The same with these flags; with VM it is virtual-8086 mode at the start of its segment.
    pub fn with_flags(ip: u64, flags: u64) -> Self {
        if flags & VIRTUAL == 0 {
            return Self { flags, ..Self::user(ip) };
        }
        let segments = [LOW_SEGMENT; 4];
        Self { sp: 0x800, cs: LOW_SEGMENT, ss: LOW_STACK, flags, segments, ..Self::default() }
    }

    /// What the stubs left.
    pub fn of(pushed: &Pushed) -> Self {
        let [cs, flags] = [pushed.cs & 0xFFFF, pushed.eflags].map(u64::from);
        let virtual_8086 = flags & VIRTUAL != 0;
        let (sp, ss) = match cs & 3 != 0 || virtual_8086 {
            true => (pushed.esp.into(), u64::from(pushed.ss & 0xFFFF)),
            false => (&raw const pushed.esp as u64, 0x18),
        };
        let [es, ds, fs, gs] = pushed.virtual_8086;
        let segments = if virtual_8086 {
            [ds, es, fs, gs]
        } else {
            [pushed.ds, pushed.es, pushed.fs, pushed.gs]
        };
        Self {
            ax: pushed.eax.into(),
            bx: pushed.ebx.into(),
            cx: pushed.ecx.into(),
            dx: pushed.edx.into(),
            si: pushed.esi.into(),
            di: pushed.edi.into(),
            bp: pushed.ebp.into(),
            vector: pushed.vector.into(),
            error: pushed.error.into(),
            ip: pushed.eip.into(),
            cs,
            flags,
            sp,
            ss,
            segments: segments.map(|segment| u64::from(segment & 0xFFFF)),
        }
    }

    /// What IRET and the stubs take.
    pub fn pushed(&self) -> Pushed {
        let [ds, es, fs, gs] = self.segments.map(|segment| segment as u32);
        let virtual_8086 = self.flags & VIRTUAL != 0;
        let given = |segment| if virtual_8086 { 0 } else { segment };
        Pushed {
            gs: given(gs),
            fs: given(fs),
            es: given(es),
            ds: given(ds),
            edi: self.di as u32,
            esi: self.si as u32,
            ebp: self.bp as u32,
            ebx: self.bx as u32,
            edx: self.dx as u32,
            ecx: self.cx as u32,
            eax: self.ax as u32,
            eip: self.ip as u32,
            cs: self.cs as u32,
            eflags: self.flags as u32,
            esp: self.sp as u32,
            ss: self.ss as u32,
            virtual_8086: [es, ds, fs, gs],
            ..Pushed::default()
        }
    }

    /// Where a program wants to go on after a fault.
    pub fn resume(&self) -> u64 {
        self.bp
    }

    /// Whether a program is at its end. One that can send no event from virtual-8086 mode faults.
    pub fn is_end(&self) -> bool {
        let faults = self.flags & VIRTUAL != 0 && self.vector == 13;
        self.vector == END || faults && self.ax == END_OF_VIRTUAL
    }

    /// The register that the benchmark counts down.
    pub fn counter(&mut self) -> &mut u64 {
        &mut self.si
    }

    /// User mode with a pattern in each register.
    pub fn patterned(ip: u64, resume: u64) -> Self {
        let pattern = |digit: u64| digit * 0x1111_1111;
        Self {
            ax: pattern(1),
            bx: pattern(2),
            cx: pattern(3),
            dx: pattern(4),
            si: pattern(5),
            di: pattern(6),
            bp: resume,
            ..Self::user(ip)
        }
    }
}

/// Says what the general-purpose and segment registers hold.
pub fn print_registers(name: &str, count: usize, frame: &Frame) {
    let Frame { ax, bx, cx, dx, si, di, bp, segments: [ds, es, fs, gs], .. } = frame;
    say!(
        "honest: {name} {count} registers {ax:x} {bx:x} {cx:x} {dx:x} {si:x} {di:x} {bp:x} {ds:x} \
         {es:x} {fs:x} {gs:x}"
    );
}
