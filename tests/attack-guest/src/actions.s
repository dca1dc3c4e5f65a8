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
