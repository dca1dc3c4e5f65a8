# Honest programs on segments, memory and registers. Same section and conventions as user.s.

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
