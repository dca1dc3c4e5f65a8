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
    .long start
    .short KCS

.code64
.globl start
start:                            # RSI = boot_params, or the multiboot2 information
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

# From a frame's registers to what IRETQ takes, past vector and error code.
.macro pop_frame
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
    test rax, rax
    jnz 1f
    mov rsp, rbp
    pop_frame
    iretq
1:  mov rsp, rax
    push KDS
    push rax
    push 2
    push KCS
    push offset land
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
# The registers that a called function must keep.
.macro push_kept
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
.endm
.macro pop_kept
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
.endm
.macro save_context
    push_kept
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
    pop_kept
    ret

.macro load_user_registers
    lea rsp, [rip + user_frame]
    pop_frame
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
