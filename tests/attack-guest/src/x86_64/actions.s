# What attacks and the benchmark run in the kernel: approved text, like all of the kernel's.
.text

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

# ---- what modules call ------------------------------------------------------------------------
.balign 16
.globl mod_kernel_add, __ksymtab_mod_kernel_add, __ksymtab_mod_kernel_word
.set __ksymtab_mod_kernel_add, mod_kernel_add
.set __ksymtab_mod_kernel_word, mod_kernel_word
mod_kernel_add:
    add rbx, 0x300
    ret
    .balign 16, 0xcc
    ret                             # where a call that is aimed too far ends

# What runs once, before the kernel gives its memory away.
.section .init.text, "ax"
.globl init_code
init_code:
    ret
.text

# ---- control registers ------------------------------------------------------------------------
# RDI goes to the register by way of each general-purpose register in turn.
.macro control_register_writer number, register
    .balign 64, 0xcc
    push_kept
    mov [rip + user_rsp], rsp
    mov \register, rdi
    mov cr\number, \register
    mov rsp, [rip + user_rsp]
    pop_kept
    ret
.endm
.globl cr0_writers, cr4_writers
    .balign 64, 0xcc
cr0_writers:
.irp register, rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
    control_register_writer 0, \register
.endr
    .balign 64, 0xcc
cr4_writers:
.irp register, rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
    control_register_writer 4, \register
.endr

# RDI goes to CR4 by other encodings of the instruction, 16 bytes each: prefixes that mean nothing,
# a MOD field that is ignored. (REX before another prefix is left out: QEMU does not ignore it.)
.macro encoded bytes:vararg
    .balign 16, 0xcc
    mov rax, rdi
    .byte \bytes
    ret
.endm
.globl cr4_encodings, cr4_encodings_end, cr4_stepped, cr4_stepped_at
    .balign 16, 0xcc
cr4_encodings:
    encoded 0x2e, 0x0f, 0x22, 0xe0
    encoded 0x66, 0x0f, 0x22, 0xe0
    encoded 0xf2, 0x0f, 0x22, 0xe0
    encoded 0xf3, 0x0f, 0x22, 0xe0
    encoded 0x67, 0x48, 0x0f, 0x22, 0xe0
    encoded 0x0f, 0x22, 0x20
    encoded 0x0f, 0x22, 0x60
    .balign 16, 0xcc
cr4_encodings_end:

# The same with the trap flag set: #DB right behind the instruction.
cr4_stepped:
    pushfq
    or dword ptr [rsp], 0x100
    popfq
    mov cr4, rdi
cr4_stepped_at:
    ret

# Writes RDI to CR0 or CR4, counts that in `passed`, and undoes it at once. Without paging long mode
# is left: the bytes in between mean the same in 64-bit and in 32-bit code.
.macro in_between number
    mov rax, rdi
    mov rcx, cr\number
    mov edi, offset passed
    mov cr\number, rax
    .byte 0xff, 0x07                # inc dword ptr [rdi], or [edi]
    .byte 0x0f, 0x22, 0xc1 | \number << 3  # mov cr, rcx or ecx
.endm
.balign 16
.globl cr0_in_between, cr4_in_between
cr0_in_between:
    in_between 0
    .byte 0xea                      # a far jump from compatibility mode, spelled out
    .long 1f
    .short KCS
1:  ret
.balign 16
cr4_in_between:
    in_between 4
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
