# What attacks and the benchmark run in the kernel: approved text, like all of the kernel's.
.text

# ---- what attacks call: each with an address as its argument ----------------------------------
# Writes the marker there, by one plain store.
.balign 16
.globl write_marker
write_marker:
    mov ecx, [esp + ARGUMENT]
    mov eax, 0xc0de0000
.globl write_marker_at
write_marker_at:
    mov [ecx], eax
    ret

# Reads what is there into the witness.
.balign 16
.globl read_marker
read_marker:
    mov ecx, [esp + ARGUMENT]
    mov eax, [ecx]
    mov [witness], eax
    ret

# An event with this stack.
.balign 16
.globl event_on_stack
event_on_stack:
    mov esp, [esp + ARGUMENT]
    int 0x81

# A fault with this stack.
.balign 16
.globl fault_on_stack
fault_on_stack:
    mov esp, [esp + ARGUMENT]
    ud2

# A push with this stack.
.balign 16
.globl push_on_stack
push_on_stack:
    mov esp, [esp + ARGUMENT]
    push 0xc0de0000
    int 0x81

# "Returns to user mode" there, but at CPL 0.
.balign 16
.globl iret_at_cpl0
iret_at_cpl0:
    mov eax, [esp + ARGUMENT]
    push 2
    push KCS
    push eax
    iretd

# Loads CR3, writes the witness through the new tables, comes back.
.balign 16
.globl load_cr3_and_mark
load_cr3_and_mark:
    mov ecx, [esp + ARGUMENT]
    mov edx, cr3
    mov cr3, ecx
    mov dword ptr [witness], 0xc0de0000
    mov cr3, edx
    ret

# Jumps there without paging, which `tables::reset` turns on again.
.balign 16
.globl jump_unpaged
jump_unpaged:
    mov ecx, [esp + ARGUMENT]
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    jmp ecx

# Jumps there with the tables of `scratch_tables` in the format that EDX, the argument's upper half,
# says by CR4's bits.
.balign 16
.globl jump_in_other_format
jump_in_other_format:
    mov ecx, [esp + ARGUMENT]
    mov edx, [esp + ARGUMENT + 4]
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov eax, cr4
    and eax, ~0x30
    or eax, edx
    mov cr4, eax
    lea eax, [scratch_tables]
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    jmp ecx

# The same by long mode: to 64-bit code.
.balign 16
.globl jump_in_long_mode
jump_in_long_mode:
    mov esi, [esp + ARGUMENT]
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov eax, cr4
    or eax, 0x20
    mov cr4, eax
    lea eax, [scratch_tables]
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100                   # LME
    wrmsr
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    push 0xa0                       # 64-bit code
    push esi
    retf

.balign 16
.globl back_from_long_mode
back_from_long_mode:
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov ecx, 0xc0000080
    rdmsr
    and eax, ~0x100
    wrmsr
    int 0x81

# Jumps to the task whose selector is the argument.
.balign 16
.globl jump_to_task
jump_to_task:
    push dword ptr [esp + ARGUMENT]
    push 0
    ljmp [esp]

# Returns to the task that the TSS names.
.balign 16
.globl return_to_task
return_to_task:
    pushfd
    or dword ptr [esp], 0x4000      # NT
    popfd
    iretd

# ---- what modules call ------------------------------------------------------------------------
.balign 16
.globl mod_kernel_add, __ksymtab_mod_kernel_add, __ksymtab_mod_kernel_word
.set __ksymtab_mod_kernel_add, mod_kernel_add
.set __ksymtab_mod_kernel_word, mod_kernel_word
mod_kernel_add:
    add ebx, 0x300
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
# The argument goes to the register by way of each general-purpose register in turn.
.macro control_register_writer number, register
    .balign 64, 0xcc
    push_kept
    mov [user_sp], esp
    mov \register, [esp + KEPT + ARGUMENT]
    mov cr\number, \register
    mov esp, [user_sp]
    pop_kept
    ret
.endm
.globl cr0_writers, cr4_writers
    .balign 64, 0xcc
cr0_writers:
.irp register, eax, ecx, edx, ebx, esp, ebp, esi, edi
    control_register_writer 0, \register
.endr
    .balign 64, 0xcc
cr4_writers:
.irp register, eax, ecx, edx, ebx, esp, ebp, esi, edi
    control_register_writer 4, \register
.endr

# The argument goes to CR4 by other encodings of the instruction, 16 bytes each: prefixes that mean
# nothing, a MOD field that is ignored.
.macro encoded bytes:vararg
    .balign 16, 0xcc
    mov eax, [esp + ARGUMENT]
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
    encoded 0x67, 0x0f, 0x22, 0xe0
    encoded 0x0f, 0x22, 0x20
    encoded 0x0f, 0x22, 0x60
    .balign 16, 0xcc
cr4_encodings_end:

# The same with the trap flag set: #DB right behind the instruction.
cr4_stepped:
    mov eax, [esp + ARGUMENT]
    pushfd
    or dword ptr [esp], 0x100
    popfd
    mov cr4, eax
cr4_stepped_at:
    ret

# Writes the argument to CR0 or CR4, counts that in `passed`, and undoes it at once.
.irp number, 0, 4
.balign 16
.globl cr\number\()_in_between
cr\number\()_in_between:
    mov eax, [esp + ARGUMENT]
    mov ecx, cr\number
    mov cr\number, eax
    inc dword ptr [passed]
    mov cr\number, ecx
    ret
.endr

# ---- what the benchmark's user mode enters ----------------------------------------------------
.balign 16
.globl bench_int
bench_int:
    iretd
# #PF: skips the faulting instruction, whose length user mode left in EDX.
.balign 16
.globl bench_fault
bench_fault:
    add esp, 4
    add [esp], edx
    iretd
