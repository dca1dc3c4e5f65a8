# Boot, traps and the way out of the kernel. Intel syntax.
#
# Everything that the kernel runs lies in .text; page tables, stacks and descriptors lie in .data.

.set KCS, 0x10
.set KDS, 0x18
.set UCS, 0x23
.set UDS, 0x2b
.set TSS, 0x38
.set FAULT_TSS, 0x40

# ---- multiboot2: an entry beside the ELF's own, which is Linux's for 32 bits -------------------
.section .multiboot2, "a"
.balign 8
mb2_header:
    .long 0xe85250d6, 0, mb2_end - mb2_header, -(0xe85250d6 + (mb2_end - mb2_header))
    .balign 8
    .short 3, 0
    .long 12, start_multiboot
    .balign 8
    .short 0, 0
    .long 8
mb2_end:

.text
.code32
start_multiboot:
    mov [boot_magic], eax
    mov esi, ebx
.globl start
start:                              # ESI = boot_params, or the multiboot2 information
    cli
    cld
    lgdt [gdt_pointer]
    .byte 0xea                      # a far jump, spelled out
    .long 1f
    .short KCS
1:  mov eax, KDS
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    lea esp, [boot_stack_top]
    push 0
    push esi
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
    .byte 0x68                      # push
    .long vec
    jmp trap_common
    .set vec, vec + 1
.endr

.balign 16
trap_common:
    cld
    pushad
    .byte 0x1e, 0x06, 0x0f, 0xa0, 0x0f, 0xa8    # push ds, es, fs, gs: 32 bits each
trap_pushed:
    mov eax, KDS
    mov ds, eax
    mov es, eax
    push esp
    call trap
    add esp, 4
    test eax, eax
    jnz 1f
    .byte 0x0f, 0xa9, 0x0f, 0xa1, 0x07, 0x1f    # pop gs, fs, es, ds
    popad
    add esp, 8
    iretd
1:  mov esp, eax
    push 2
    push KCS
    .byte 0x68                      # push
    .long land
    iretd

# SYSCALL leaves the user's stack; it becomes "vector" 0x100.
.balign 16
.globl syscall_entry
syscall_entry:
    mov ss:[user_sp], esp
    lea esp, [trap_stack_top]
    push UDS
    push dword ptr ss:[user_sp]
    pushfd
    push UCS
    push ecx
    push 0
    push 0x100
    jmp trap_common

# The task of the double fault: what it interrupted lies in the kernel's TSS. Goes on as a trap of
# the kernel's own task.
.balign 16
.globl double_fault
double_fault:
    pop eax
    lea ebx, [tss]
    .irp at, 80, 56, 36, 76, 32
    push dword ptr [ebx + \at]
    .endr
    push eax
    push 8
    .irp at, 40, 44, 48, 52, 56, 60, 64, 68, 84, 72, 88, 92
    push dword ptr [ebx + \at]
    .endr
    clts
    and byte ptr [gdt + TSS + 5], ~2
    and byte ptr [gdt + FAULT_TSS + 5], ~2
    mov eax, TSS
    ltr ax
    pushfd
    and dword ptr [esp], ~0x4000    # NT
    popfd
    jmp trap_pushed

# A call gate's honest target.
.balign 16
.globl gate_entry
gate_entry:
    int 0x81

# ---- calls that come back whatever happens ----------------------------------------------------
# The registers that a called function must keep.
.macro push_kept
    push ebx
    push ebp
    push esi
    push edi
.endm
.macro pop_kept
    pop edi
    pop esi
    pop ebp
    pop ebx
.endm
.set KEPT, 16
# Where a function's first argument lies, and its second if both have 64 bits.
.set ARGUMENT, 4
.set SECOND, 12

# guarded_call(function, argument) -> 0 if it returned, 1 if a trap ended it.
.balign 16
.globl guarded_call
guarded_call:
    push_kept
    mov [recover_rsp], esp
    push dword ptr [esp + KEPT + SECOND + 4]
    push dword ptr [esp + 4 + KEPT + SECOND]
    call dword ptr [esp + 8 + KEPT + ARGUMENT]
    xor eax, eax
    jmp leave_context

# Where every trap goes on, with ESP = recover_rsp.
.balign 16
.globl land
land:
    mov eax, 1
leave_context:
    mov esp, [recover_rsp]
    mov dword ptr [recover_rsp], 0
    pop_kept
    ret

# Leaves for user mode with the registers in user_frame; comes back at `land`.
.balign 16
.globl enter_user, enter_user_sysret
enter_user:
enter_user_sysret:
    push_kept
    mov [recover_rsp], esp
    lea esp, [user_frame]
    .byte 0x0f, 0xa9, 0x0f, 0xa1, 0x07, 0x1f    # pop gs, fs, es, ds
    popad
    add esp, 8
    iretd
