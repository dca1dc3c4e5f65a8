# User mode: everything here is data to the approval list, and open to ring 3.
#
# Conventions: `int 0x81` ends a program. After a fault or an interrupt the kernel goes on at R15,
# after a trap or SYSCALL at the saved RIP. A SYSCALL with RAX = 1 maps page RDI of the window to
# user frame RSI with flags RDX; RAX = 0 does nothing.
.section .user, "aw"
.code64

.macro program name
    .balign 16, 0xcc
    .globl \name
\name:
.endm

.macro finish
    int 0x81
.endm

# Runs one instruction (or more) that faults, and goes on behind it.
.macro faulting instruction:vararg
    lea r15, [rip + 7777f]
    \instruction
7777:
.endm

.macro patterns
    movabs rax, 0
    movabs rbx, 0x1111111111111111
    movabs rcx, 0x2222222222222222
    movabs rdx, 0x3333333333333333
    movabs rsi, 0x4444444444444444
    movabs rdi, 0x5555555555555555
    movabs rbp, 0x6666666666666666
    movabs r8, 0x8888888888888888
    movabs r9, 0x9999999999999999
    movabs r10, 0xaaaaaaaaaaaaaaaa
    movabs r11, 0xbbbbbbbbbbbbbbbb
    movabs r12, 0xcccccccccccccccc
    movabs r13, 0xdddddddddddddddd
    movabs r14, 0xeeeeeeeeeeeeeeee
.endm

.macro remap page, frame, flags
    mov eax, 1
    mov edi, \page
    mov esi, \frame
    movabs rdx, \flags
    syscall
.endm

# ---- the payload: what must never run at CPL < 3 ----------------------------------------------
# Position-independent. Leaves marker + CPL in the witness if it is in kernel mode, then ends.
.balign 16
.globl payload, payload_end
payload:
    mov ecx, cs
    and ecx, 3
    cmp ecx, 3
    je 1f
    movabs rax, 0x5ec0bad0c0de0000
    or rax, rcx
    movabs rdx, offset witness
    mov [rdx], rax
1:  int 0x81
payload_end:

# ---- honest programs --------------------------------------------------------------------------
program u_loop_syscall
1:  syscall
    jmp 1b

program u_spin                      # the kernel sets the registers: the event may come at once
1:  jmp 1b
.globl u_spin_end
u_spin_end:
    finish

program u_syscall
    patterns
    stc
    std
    syscall
    cld
    pushfq
    pop rdx
    finish

program u_int80
    patterns
    int 0x80
    int 0x80
    finish

program u_int_closed
    faulting int 0x40
    faulting int 0x0d
    faulting int 0x84
    faulting int 2
    int 4
    finish

program u_breakpoints
    int3
    int 3
    nop
    finish

program u_icebp
    .byte 0xf1
    nop
    finish

program u_step
    push 0x102
    popfq
    nop
    mov rax, 1
    push rax
    pop rbx
    mov ecx, 3
    lea rsi, [rip + payload]
    lea rdi, [rip + user_data]
    rep movsb
    xor eax, eax
    syscall
    mov eax, ss
    mov ss, eax
    nop
    mov eax, 0x5b
    mov fs, eax
    pushfq
    pop rax
    jmp 1f
    nop
1:  mov eax, 0x80000002
    xor ecx, ecx
    cpuid
    xor eax, eax
    xor ebx, ebx
    xor ecx, ecx
    xor edx, edx
    int3
    int 0x80
    nop
    pushfq
    and qword ptr [rsp], ~0x100
    popfq
    nop
    finish

program u_step_faults
    push 0x102
    popfq
    faulting ud2
    nop
    faulting mov eax, [0]
    nop
    mov eax, 0x10
    faulting mov ds, eax
    nop
    pushfq
    and qword ptr [rsp], ~0x100
    popfq
    finish

program u_hw_break
    nop
.globl u_hw_break_at
u_hw_break_at:
    mov eax, 0x77
    nop
    finish

program u_hw_watch
    mov qword ptr [rip + user_data], 5
    nop
    mov rax, [rip + user_data]
    lea rdi, [rip + user_data]
    mov eax, 6
    stosq
    nop
    finish

program u_divide
    xor ecx, ecx
    xor edx, edx
    mov eax, 7
    faulting div ecx
    mov rax, 0x8000000000000000
    cqo
    mov rcx, -1
    faulting idiv rcx
    finish

program u_undefined
    patterns
    faulting ud2
    faulting .byte 0x0f, 0xff, 0xc0
    faulting .byte 0x06
    faulting vmmcall
    finish

program u_privileged
    faulting hlt
    faulting cli
    faulting sti
    mov edx, 0x60
    faulting in al, dx
    faulting out dx, al
    faulting mov rax, cr0
    faulting mov cr3, rax
    faulting rdmsr
    faulting wrmsr
    faulting lgdt [rip + user_data]
    faulting invd
    faulting wbinvd
    faulting clts
    faulting invlpg [rax]
    movabs rax, 0x8000000000000000
    faulting mov rbx, [rax]
    mov rbp, rax
    faulting mov rbx, [rbp]
    faulting jmp rax
    finish

program u_bad_selectors
    mov eax, 0x10
    faulting mov ds, eax
    mov eax, 0x18
    faulting mov es, eax
    mov eax, 0xfb
    faulting mov fs, eax
    mov eax, 0x93
    faulting mov gs, eax
    mov eax, 0x33
    faulting mov ss, eax
    mov eax, 0x2f4
    faulting mov ds, eax
    mov eax, 0x63
    faulting mov es, eax
    xor eax, eax
    faulting mov ss, eax
    mov eax, 0x9b
    faulting mov ss, eax
    push 0x10
    push offset u_bad_selectors
    faulting retfq
    faulting lcall [rip + far_null]
    faulting lcall [rip + far_kernel]
    push 0x2b
    push 0x10000
    push 2
    push 0x10
    push offset u_bad_selectors
    faulting iretq
    finish

program u_segments
    mov eax, 0x2b
    mov ds, eax
    mov es, eax
    mov eax, 0x5b
    mov fs, eax
    mov rbx, fs:[payload - 0x12345]
    mov eax, 0x0f
    mov gs, eax
    mov rcx, gs:[payload - 0xabcde]
    mov edi, ds
    mov esi, es
    mov ebp, fs
    mov r8d, gs
    xor eax, eax
    syscall
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    push 0x5b
    pop fs
    push 7
    pop gs
    lfs eax, [rip + far_data]
    mov ebp, fs
    mov r8d, gs
    mov eax, 0x2b
    mov ss, eax
    xor eax, eax
    syscall
    mov eax, 0x0f
    mov fs, eax
    int 0x80
    mov ebp, fs
    finish

program u_far
    push 0x33
    lea rax, [rip + 1f]
    push rax
    retfq
1:  lcall [rip + far_64]
    mov r10d, cs
    mov rax, rsp
    push 0x2b
    push rax
    push 0x246
    push 0x33
    lea rax, [rip + 2f]
    push rax
    iretq
2:  pushfq
    pop r11
    mov r12d, cs
    finish
u_far_64:
    mov r9d, cs
    retf

program u_compatibility
    mov r14, rsp
    push 0x23
    lea rax, [rip + u_32]
    push rax
    retfq
    .code32
u_32:
    mov eax, cs
    mov ebx, eax
    mov eax, 0x2b
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, offset user_stack_top - 256
    push es
    pop ds
    mov eax, 0x12345678
    push eax
    pop ecx
    int 0x80
    mov ebp, 0x7777
    xor eax, eax
    syscall
    int3
    mov eax, 0x5b
    mov fs, eax
    mov esi, dword ptr fs:[payload - 0x12345]
    int 0x80
    .byte 0xea
    .long u_compat_back
    .short 0x33
    .code64
u_compat_back:
    mov rsp, r14
    finish

program u_flags
    pushfq
    pop rbx
    push 0x3ed7
    popfq
    pushfq
    pop rcx
    push 0x240ad7
    popfq
    pushfq
    pop rdx
    pushfw
    pop si
    push 2
    popfq
    finish

program u_faults
    movabs rbx, 0x8000000000
    faulting mov rax, [rbx]
    faulting mov [rbx], rax
    remap 0, 0, 5
    mov rbx, 0x8000000000
    faulting mov rax, [rbx]
    faulting mov [rbx], rax
    remap 0, 0, 0x8000000000000007
    mov rbx, 0x8000000000
    faulting jmp rbx
    remap 0, 0, 0x8000000000007
    mov rbx, 0x8000000000
    faulting mov rax, [rbx]
    remap 0, 0, 3
    mov rbx, 0x8000000000
    faulting mov rax, [rbx]
    faulting jmp rbx
    movabs rbx, offset text_start
    faulting mov rax, [rbx]
    faulting mov [rbx], rax
    faulting jmp rbx
    finish

program u_mappings
    remap 0, 0, 7
    movabs rbx, 0x8000000000
    mov qword ptr [rbx], 0x1234
    remap 0, 0, 0
    faulting mov rcx, [rbx]
    remap 0, 0, 7
    mov rcx, [rbx]
    remap 0, 0, 5
    faulting mov [rbx], rbx
    mov rcx, [rbx]
    remap 0, 1, 7
    mov qword ptr [rbx], 0x5678
    mov rcx, [rbx]
    remap 0, 0, 7
    mov rcx, [rbx]
    mov dword ptr [rbx], 0x80cdc031
    mov word ptr [rbx + 4], 0xc3
    xor ecx, ecx
    dec rcx
    call rbx
    remap 0, 0, 0x8000000000000007
    faulting call rbx
    remap 0, 0, 7
    mov dword ptr [rbx], 0x80cd9090
    call rbx
    finish

program u_registers
    lea rbx, [rip + user_data + 256]
    mov eax, 0x3ff
    xor ecx, ecx
1:  mov [rbx + rcx], rax
    imul rax, rax, 1103515245
    add rax, 12345
    add ecx, 8
    cmp ecx, 512
    jb 1b
    fninit
    fld1
    fldpi
    .set at, 0
    .irp register, xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14, xmm15
    movups \register, [rbx + at]
    .set at, at + 16
    .endr
    mov r14d, 50
2:  xor eax, eax
    syscall
    int 0x80
    mov eax, 0x80000000
    cpuid
    lea rbx, [rip + user_data + 256]
    dec r14d
    jnz 2b
    xor ecx, ecx
    .set at, 0
    .irp register, xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14, xmm15
    movups [rip + user_data + 1024], \register
    mov rax, [rip + user_data + 1024]
    xor rax, [rbx + at]
    or rcx, rax
    mov rax, [rip + user_data + 1032]
    xor rax, [rbx + at + 8]
    or rcx, rax
    .set at, at + 16
    .endr
    fstp qword ptr [rip + user_data + 1024]
    mov rsi, [rip + user_data + 1024]
    fstp qword ptr [rip + user_data + 1024]
    mov rdi, [rip + user_data + 1024]
    xor eax, eax
    xor ebx, ebx
    xor edx, edx
    finish

program u_svm
    lea rax, [rip + user_data]
    faulting .byte 0x0f, 0x01, 0xd8 # vmrun
    faulting .byte 0x0f, 0x01, 0xda # vmload
    faulting .byte 0x0f, 0x01, 0xdb # vmsave
    faulting .byte 0x0f, 0x01, 0xdd # clgi
    faulting .byte 0x0f, 0x01, 0xdc # stgi
    faulting .byte 0x0f, 0x01, 0xdf # invlpga
    faulting .byte 0x0f, 0x01, 0xde # skinit
    finish

program u_call_gate
    lcall [rip + far_gate]
    finish

program u_ldt_gate
    lcall [rip + far_ldt_gate]
    finish

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
    mov ecx, 2000000
1:  loop 1b
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

# ---- far pointers (m16:32) and data -----------------------------------------------------------
.balign 16
far_64:       .long u_far_64
              .short 0x33
far_null:     .long u_far_64
              .short 0
far_kernel:   .long gate_entry
              .short 0x10
far_data:     .long 0x1234
              .short 0x2b
far_gate:     .long 0
              .short 0x63
far_ldt_gate: .long 0
              .short 0x17

.balign 4096
.globl user_frames
user_frames:  .skip 2 * 4096        # what programs map in the window
.globl user_payload
user_payload: .skip 4096            # where attacks put code for the kernel to run
.globl user_data
user_data:    .skip 4096
              .skip 8192
.globl user_stack_top
user_stack_top:
