# Boot, traps and the two ways out of the kernel. Intel syntax.
#
# Everything that the kernel runs lies in .text; page tables, stacks and descriptors lie in .data.

.set KCS, 0x10
.set KDS, 0x18
.set UDS, 0x2b
.set UCS, 0x33
.set UCS32, 0x23

# ---- multiboot2: a 32-bit entry beside the ELF's own 64-bit one -------------------------------
.section .multiboot2, "a"
.balign 8
mb2_header:
    .long 0xe85250d6, 0, mb2_end - mb2_header, -(0xe85250d6 + (mb2_end - mb2_header))
    .balign 8
    .short 3, 0
    .long 12, start32
    .balign 8
    .short 0, 0
    .long 8
mb2_end:

.text
.code32
.globl start32
start32:
    cli
    mov dword ptr [boot_magic], eax
    mov esi, ebx
    mov eax, cr4
    or eax, 0x20                    # PAE
    mov cr4, eax
    mov eax, offset pml4
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100                   # LME
    wrmsr
    mov eax, cr0
    or eax, 0x80000001              # PG, PE
    mov cr0, eax
    lgdt [gdt_pointer]
    # A far jump to 64-bit code, spelled out.
    .byte 0xea
    .long start64
    .short KCS

.code64
.globl start64
start64:                            # RSI = boot_params, or the multiboot2 information
    cli
    cld
    mov rax, offset pml4
    mov cr3, rax
    lgdt [gdt_pointer]
    mov eax, KDS
    mov ds, eax
    mov es, eax
    mov ss, eax
    lea rsp, [rip + boot_stack_top]
    push KCS
    lea rax, [rip + 1f]
    push rax
    retfq
1:  xor eax, eax
    mov fs, eax
    mov gs, eax
    mov rdi, rsi
    call main
2:  hlt
    jmp 2b

# ---- traps ------------------------------------------------------------------------------------
# 256 stubs of 16 bytes: an error code where the CPU pushes none, the vector, the common part.
.balign 16
.globl trap_stubs
trap_stubs:
.set vec, 0
.rept 256
    .balign 16, 0xcc
    .if !((vec == 8) || ((vec >= 10) && (vec <= 14)) || (vec == 17) || (vec == 21) || (vec == 29) || (vec == 30))
    push 0
    .endif
    .byte 0x68
    .long vec
    jmp trap_common
    .set vec, vec + 1
.endr

.balign 16
trap_common:
    cld
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    mov rdi, rsp
    mov rbp, rsp
    and rsp, -16
    call trap
    mov rsp, rbp
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq

# SYSCALL becomes "vector" 0x100 from 64-bit code, 0x101 from compatibility mode.
.macro syscall_frame vector, cs
    mov [rip + user_rsp], rsp
    lea rsp, [rip + trap_stack_top]
    push UDS
    push [rip + user_rsp]
    push r11
    push \cs
    push rcx
    push 0
    push \vector
    jmp trap_common
.endm

.balign 16
.globl syscall_entry
syscall_entry:
    syscall_frame 0x100, UCS
.balign 16
.globl syscall_entry32
syscall_entry32:
    syscall_frame 0x101, UCS32

# A call gate's honest target.
.balign 16
.globl gate_entry
gate_entry:
    int 0x81

# ---- calls that come back whatever happens ----------------------------------------------------
.macro save_context
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    sub rsp, 8
    mov [rip + recover_rsp], rsp
.endm

# guarded_call(function, argument) -> 0 if it returned, 1 if a trap ended it.
.balign 16
.globl guarded_call
guarded_call:
    save_context
    mov rax, rdi
    mov rdi, rsi
    call rax
    xor eax, eax
    jmp leave_context

# Where every trap goes on, with RSP = recover_rsp.
.balign 16
.globl land
land:
    mov eax, 1
leave_context:
    mov qword ptr [rip + recover_rsp], 0
    add rsp, 8
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

.macro load_user_registers
    lea rsp, [rip + user_frame]
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
.endm

# Leaves for user mode with the registers in user_frame; comes back at `land`.
.balign 16
.globl enter_user
enter_user:
    save_context
    load_user_registers
    iretq

# The same by SYSRET: RCX and R11 become the user's RIP and RFLAGS.
.balign 16
.globl enter_user_sysret
enter_user_sysret:
    save_context
    load_user_registers
    mov rcx, [rsp]
    mov r11, [rsp + 16]
    mov rsp, [rsp + 24]
    sysretq

# ---- what attacks call ------------------------------------------------------------------------
# Writes the marker to the address in RDI, by one plain store.
.balign 16
.globl write_marker
write_marker:
    movabs rax, 0x5ec0bad0c0de0000
.globl write_marker_at
write_marker_at:
    mov [rdi], rax
    ret

# Reads the quadword at RDI into the witness, tagged with the marker if it is the expected one.
.balign 16
.globl read_marker
read_marker:
    mov rax, [rdi]
    mov [rip + witness], rax
    ret

# An event with RDI as its stack.
.balign 16
.globl event_on_stack
event_on_stack:
    mov rsp, rdi
    int 0x81

# A fault with RDI as its stack.
.balign 16
.globl fault_on_stack
fault_on_stack:
    mov rsp, rdi
    ud2

# A push with RDI as the stack.
.balign 16
.globl push_on_stack
push_on_stack:
    mov rsp, rdi
    movabs rax, 0x5ec0bad0c0de0000
    push rax
    int 0x81

# "Returns to user mode" at RDI, but at CPL 0.
.balign 16
.globl iret_at_cpl0
iret_at_cpl0:
    mov rax, rsp
    push KDS
    push rax
    push 2
    push KCS
    push rdi
    iretq

# Loads CR3 from RDI, reads the witness through the new tables, comes back.
.balign 16
.globl load_cr3_and_mark
load_cr3_and_mark:
    mov rdx, cr3
    mov cr3, rdi
    movabs rax, 0x5ec0bad0c0de0000
    mov [rip + witness], rax
    mov cr3, rdx
    ret

# ---- what the benchmark's user mode enters ----------------------------------------------------
.balign 16
.globl bench_syscall
bench_syscall:
    sysretq
.balign 16
.globl bench_int
bench_int:
    iretq
# #PF: skips the faulting instruction, whose length user mode left in RDX.
.balign 16
.globl bench_fault
bench_fault:
    add rsp, 8
    add [rsp], rdx
    iretq

# ---- what attacks overwrite -------------------------------------------------------------------
# A page of its own in the approved text. Offset 0x00 is a function, 0x80 an entry that looks like
# a page table's, from 0x400 on there is room for stacks.
.section .victim, "ax"
.balign 4096
.globl victim
victim:
    mov eax, 0x11111111
    ret
    .balign 16, 0xcc
.globl victim_gate
victim_gate:                        # an honest interrupt handler
    int 0x81
    .org victim + 0x80, 0xcc
.globl victim_entry
victim_entry:
    .quad bss_payload + 3           # present, writable
    .org victim + 4096, 0xcc

# ---- data -------------------------------------------------------------------------------------
.data
.balign 4096
.globl pml4, pdpt_low, pdpt_window, pd_low, pt_image, pd_window, pt_window
pml4:
    .quad pdpt_low + 7, pdpt_window + 7
    .fill 510, 8, 0
pdpt_low:
    .quad pd_low + 7, pd_low + 0x1007, pd_low + 0x2007, pd_low + 0x3007
    .fill 508, 8, 0
pdpt_window:
    .quad pd_window + 7
    .fill 511, 8, 0
pd_low:                             # 4 GiB, identity, 2 MiB pages for the kernel
.set at, 0
.rept 2048
    .if at == 8
    .quad pt_image + 7
    .else
    .quad at * 0x200000 + 0x83
    .endif
    .set at, at + 1
.endr
pt_image:                           # 16 to 18 MiB in 4 KiB pages; refined at start
.set at, 0
.rept 512
    .quad 0x1000000 + at * 0x1000 + 3
    .set at, at + 1
.endr
pd_window:
    .quad pt_window + 7
    .fill 511, 8, 0
pt_window:
    .fill 512, 8, 0

.balign 16
.globl gdt, gdt_pointer
gdt:                                # what the boot stub needs; the rest is written at start
    .quad 0, 0
    .quad 0x00af9b000000ffff        # 0x10 kernel code
    .quad 0x00cf93000000ffff        # 0x18 kernel data
    .fill 28, 8, 0
gdt_pointer:
    .short 255
    .quad gdt

.balign 8
.globl boot_magic, recover_rsp, user_rsp
boot_magic:  .quad 0
recover_rsp: .quad 0
user_rsp:    .quad 0

.balign 4096
.globl data_payload
data_payload: .fill 4096, 1, 0

.bss
.balign 4096
.globl idt, tss, ldt, last_frame, user_frame, witness, bss_payload, scratch_tables
idt:          .skip 4096
idt_copy:     .skip 4096
witness:      .skip 4096
bss_payload:  .skip 4096
scratch_tables: .skip 8 * 4096
tss:          .skip 256
ldt:          .skip 256
last_frame:   .skip 256
              .skip 1024            # room for a fault that IRETQ raises
user_frame:   .skip 256
.balign 4096
boot_stack:   .skip 0x8000
.globl boot_stack_top, trap_stack_top, gp_stack_top, df_stack_top, nmi_stack_top, low_cpl_stack_top
boot_stack_top:
.globl trap_stack_guard
trap_stack_guard:                   # never mapped: a handler that faults for ever ends in #DF
              .skip 0x1000
              .skip 0x2000
trap_stack_top:
              .skip 0x4000
gp_stack_top:
              .skip 0x4000
df_stack_top:
              .skip 0x4000
nmi_stack_top:
              .skip 0x4000
low_cpl_stack_top:
