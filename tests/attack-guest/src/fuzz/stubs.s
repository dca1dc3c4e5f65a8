# Instructions that the fuzzer runs in the kernel with registers of its choice, each followed by the
# end. They are spelled out: the bytes mean the same in 64-bit and in 32-bit code.
.text

.macro stub bytes:vararg
    .byte \bytes
    int 0x81
    .balign 16, 0xcc
.endm

.balign 16, 0xcc
.globl f_vmmcall, f_rdmsr, f_wrmsr
f_vmmcall:
    stub 0x0f, 0x01, 0xd9
f_rdmsr:
    stub 0x0f, 0x32
f_wrmsr:
    stub 0x0f, 0x30

# Ways to go where AX says. (IRET is the way to all of these.)
.globl f_jumps, f_jumps_end
f_jumps:
    stub 0xff, 0xe0                 # jmp
    stub 0xff, 0xd0                 # call
    stub 0x50, 0xc3                 # push, ret
f_jumps_end:

# By port DX: IN, OUT, INS, OUTS, REP INS, REP OUTS; 8, 16 and 32 bits each.
.globl f_ports
f_ports:
    stub 0xec
    stub 0x66, 0xed
    stub 0xed
    stub 0xee
    stub 0x66, 0xef
    stub 0xef
    stub 0x6c
    stub 0x66, 0x6d
    stub 0x6d
    stub 0x6e
    stub 0x66, 0x6f
    stub 0x6f
    stub 0xf3, 0x6c
    stub 0x66, 0xf3, 0x6d
    stub 0xf3, 0x6d
    stub 0xf3, 0x6e
    stub 0x66, 0xf3, 0x6f
    stub 0xf3, 0x6f

# MOV of AX to and from control and debug registers 0 to 7, LMSW, XSETBV.
.globl f_to_control, f_to_debug, f_to_task_priority, f_lmsw, f_lmsw_memory, f_xsetbv
f_to_control:
.irp number, 0, 1, 2, 3, 4, 5, 6, 7
    stub 0x0f, 0x22, 0xc0 | \number << 3
.endr
f_to_debug:
.irp number, 0, 1, 2, 3, 4, 5, 6, 7
    stub 0x0f, 0x23, 0xc0 | \number << 3
.endr
f_to_task_priority:                 # CR8, as 32-bit code can name it too
    stub 0xf0, 0x0f, 0x22, 0xc0
f_lmsw:
    stub 0x0f, 0x01, 0xf0
f_lmsw_memory:                      # at BX
    stub 0x0f, 0x01, 0x33
f_xsetbv:
    stub 0x0f, 0x01, 0xd1

# AX goes to CR0 or CR4, which is counted at DI and undone from CX before anything else runs. Without
# paging long mode is left: what comes then is 32-bit code.
.globl f_cr0_between, f_cr4_between
f_cr0_between:
    stub 0x0f, 0x22, 0xc0, 0xff, 0x07, 0x0f, 0x22, 0xc1
f_cr4_between:
    stub 0x0f, 0x22, 0xe0, 0xff, 0x07, 0x0f, 0x22, 0xe1

# LGDT and LIDT from AX, undone at once from BX.
.globl f_lgdt, f_lidt
f_lgdt:
    stub 0x0f, 0x01, 0x10, 0x0f, 0x01, 0x13
f_lidt:
    stub 0x0f, 0x01, 0x18, 0x0f, 0x01, 0x1b

# What else only the kernel may do, or what SecVisor hides.
.globl f_others, f_others_end
f_others:
    stub 0x0f, 0x01, 0xd8           # vmrun
    stub 0x0f, 0x01, 0xda           # vmload
    stub 0x0f, 0x01, 0xdb           # vmsave
    stub 0x0f, 0x01, 0xdc           # stgi
    stub 0x0f, 0x01, 0xdd           # clgi
    stub 0x0f, 0x01, 0xde           # skinit
    stub 0x0f, 0x01, 0xdf           # invlpga
    stub 0x0f, 0xaa                 # rsm
    stub 0x0f, 0x08                 # invd
    stub 0x0f, 0x09                 # wbinvd
    stub 0x0f, 0x06                 # clts
    stub 0x0f, 0x01, 0x38           # invlpg [ax]
    stub 0x0f, 0xae, 0x38           # clflush [ax]
    stub 0x66, 0x0f, 0x38, 0x82, 0x03 # invpcid ax, [bx]
    stub 0x0f, 0x01, 0xc8           # monitor
    stub 0x0f, 0x33                 # rdpmc
    stub 0x0f, 0xa2                 # cpuid
    stub 0x0f, 0x01, 0xd0           # xgetbv
    stub 0x0f, 0x01, 0xf8           # swapgs
    stub 0x0f, 0x01, 0xf9           # rdtscp
    stub 0x0f, 0x01, 0xfe           # invlpgb
    stub 0x0f, 0x01, 0xff           # tlbsync
    stub 0xf2, 0x0f, 0x01, 0xff     # pvalidate
    stub 0xf3, 0x0f, 0x01, 0xff     # psmash
    stub 0xf2, 0x0f, 0x01, 0xfe     # rmpupdate
    stub 0x0f, 0x00, 0xd0           # lldt
    stub 0x0f, 0x07                 # sysret
    stub 0x0f, 0x34                 # sysenter
    stub 0x0f, 0x35                 # sysexit
    stub 0x0f, 0x05                 # syscall
    stub 0xf1                       # icebp
    stub 0x0f, 0x20, 0xe0           # mov ax, cr4
    stub 0x0f, 0x21, 0xf8           # mov ax, dr7
f_others_end:
