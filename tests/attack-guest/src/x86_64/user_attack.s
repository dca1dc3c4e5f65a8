# User mode's part in attacks and in the benchmark. Same section and conventions as user.s.

# ---- what ring 3 fires in attacks -------------------------------------------------------------
program u_int82
    int 0x82
    finish

program u_do_divide
    xor ecx, ecx
    div ecx

program u_do_page_fault
    mov eax, [0x8000000]
    hlt

program u_do_breakpoint
    int3

program u_do_undefined
    ud2

program u_do_protection
    hlt

program u_do_step
    push 0x102
    popfq
    nop
    nop
    finish

program u_do_syscall
    syscall
    finish

program u_do_syscall32
    push 0x23
    lea rax, [rip + 1f]
    push rax
    retfq
    .code32
1:  syscall
    .code64
    hlt

# RDI = address, RAX = value: a store from ring 3.
program u_store
    mov [rdi], rax
    finish

# RDI = address of a page-table entry, RAX = its new value; then the entry is used.
program u_store_int82
    mov [rdi], rax
    int 0x82

program u_store_syscall
    mov [rdi], rax
    syscall

# RDI, RSI = addresses: a copy from ring 3.
program u_copy
    mov rax, [rdi]
    mov [rsi], rax
    finish

program u_jump
    jmp rdi

# RSI = address, RAX = value; copied to where ring 3 must not execute.
program u_mark
    mov [rsi], rax
    finish
.globl u_mark_end
u_mark_end:

# RDI = the local APIC's ICR, mapped for ring 3; EAX = INIT, EDX = SIPI.
program u_start_others
    mov [rdi], eax
    mov ecx, 2000000
1:  loop 1b
    mov [rdi], edx
    mov ecx, 2000000
1:  loop 1b
    mov [rdi], edx
    mov ecx, 200000000          # a busy host may let the other processor wait
1:  loop 1b
    finish

program u_just_vmmcall              # the kernel sets the registers
    vmmcall
    finish

program u_vmmcall
    mov eax, 0x5ec00001
    mov ebx, 1
    faulting vmmcall
    finish

# ---- the benchmark's loops: R15 = iterations --------------------------------------------------
program b_empty
1:  dec r15
    jnz 1b
    finish

program b_syscall
1:  syscall
    dec r15
    jnz 1b
    finish

program b_int
1:  int 0x83
    dec r15
    jnz 1b
    finish

program b_fault                     # the handler adds RDX to RIP
    movabs rbx, 0x8000000000
    mov edx, 2
1:  mov eax, [rbx]
    dec r15
    jnz 1b
    finish

program b_segment
    mov eax, 0x5b
1:  mov fs, eax
    dec r15
    jnz 1b
    finish

program b_interrupt
    nop
    sti
    nop
1:  jmp 1b

# ---- what only long mode has -------------------------------------------------------------------
program u_do_sysenter
    sysenter

program u_do_sysenter32
    push 0x23
    lea rax, [rip + 1f]
    push rax
    retfq
    .code32
1:  sysenter
    .code64

program u_syscall_prefixed
    .byte 0x66, 0xf3, 0x48, 0x0f, 0x05
    finish

# Entered in compatibility mode.
    .code32
program u_do_overflow
    mov eax, 0x7fffffff
    add eax, 1
    into

program u_do_bound
    xor eax, eax
    bound eax, [bounds]
bounds: .long 2, 4
    .code64
