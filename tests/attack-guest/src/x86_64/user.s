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

# What follows MOV SS belongs to it: no event in between.
program u_mov_ss
    mov eax, 0x2b
    mov ss, eax
    int 0x80
    mov eax, 0x2b
    mov ss, eax
    int3
    xor eax, eax
    mov ecx, 0x2b
    mov ss, ecx
    syscall
    mov ecx, 0x2b
    lea r15, [rip + 1f]
    mov ss, ecx
    ud2
1:  lea r15, [rip + 2f]
    mov ss, ecx
    mov eax, [0]
2:  lea r15, [rip + 3f]
    mov ss, ecx
    mov fs, ecx
    mov ss, ecx
    int 0x40
3:  mov edx, 0xf8
    lea r15, [rip + 4f]
    mov ss, ecx
    mov gs, edx
4:  mov edx, 0x5b
    mov ss, ecx
    mov ss, ecx
    mov fs, edx
    mov ebx, fs
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
