# Honest programs on segments, memory and virtual-8086 mode. Same section and conventions as user.s.

program u_bad_selectors
    mov eax, 0x10
    faulting mov ds, eax
    mov eax, 0x18
    faulting mov es, eax
    mov eax, 0xfb
    faulting mov fs, eax
    mov eax, 0x93
    faulting mov gs, eax
    mov eax, 0x23
    faulting mov ss, eax
    mov eax, 0x2f4
    faulting mov ds, eax
    mov eax, 0x63
    faulting mov es, eax
    xor eax, eax
    faulting mov ss, eax
    mov eax, 0x9b
    faulting mov ss, eax
    mov eax, 0x3b
    faulting mov es, eax
    push 0x10
    .byte 0x68                      # push
    .long u_bad_selectors
    faulting retf
    faulting lcall [far_null]
    faulting lcall [far_kernel]
    push 2
    push 0x10
    .byte 0x68                      # push
    .long u_bad_selectors
    faulting iretd
    finish

program u_segments
    mov eax, 0x2b
    mov ds, eax
    mov es, eax
    mov eax, 0x5b
    mov fs, eax
    mov ebx, fs:[payload - 0x12345]
    mov eax, 0x0f
    mov gs, eax
    mov ecx, gs:[payload - 0xabcde]
    xor eax, eax
    int 0x80
    mov edx, gs:[payload - 0xabcde + 4]
    xor eax, eax
    mov fs, eax
    mov gs, eax
    push 0x5b
    .byte 0x0f, 0xa1                # pop fs
    push 7
    .byte 0x0f, 0xa9                # pop gs
    lfs eax, [far_data]
    int 0x80
    lds eax, [far_data]
    les esi, [far_data]
    mov eax, 0x2b
    mov ss, eax
    xor eax, eax
    mov es, eax
    int 0x80
    faulting mov eax, es:[payload]
    mov eax, 0x0f
    mov gs, eax
    xor eax, eax
    int 0x80
    mov ebx, gs:[payload - 0xabcde]
    finish

program u_far
    push 0x33
    .byte 0x68                      # push
    .long 1f
    retf
1:  mov ebx, cs
    lcall [far_other]
    mov ecx, cs
    push 0x246
    push 0x23
    .byte 0x68                      # push
    .long 2f
    iretd
2:  pushfd
    pop edx
    mov esi, cs
    ljmp [far_local]
3:  finish
u_far_other:
    mov edi, cs
    retf
u_far_local:                        # in a code segment of the LDT
    mov edi, cs
    int 0x80
    .byte 0xea
    .long 3b
    .short 0x23

program u_flags
    pushfd
    pop ebx
    push 0x3ed7
    popfd
    pushfd
    pop ecx
    push 0x240ad7
    popfd
    pushfd
    pop edx
    pushfw
    pop si
    push 2
    popfd
    finish

program u_faults
    mov ebx, 0x40000000
    faulting mov eax, [ebx]
    faulting mov [ebx], eax
    faulting jmp ebx
    remap 0, 0, 5
    faulting mov [ebx], eax
    mov eax, [ebx]
    remap 0, 0, 3
    faulting mov eax, [ebx]
    faulting mov [ebx], eax
    mov ebx, offset text_start
    faulting mov eax, [ebx]
    faulting mov [ebx], eax
    faulting jmp ebx
    mov ebx, 0xfffffffe
    faulting mov eax, [ebx]
    finish

# NX, as bit 11 asks for it here, and a reserved bit: with PAE only.
program u_no_execute
    mov ebx, 0x40000000
    remap 0, 0, 0x807
    mov eax, [ebx]
    faulting jmp ebx
    remap 0, 0, 0x407
    faulting mov eax, [ebx]
    finish

program u_mappings
    remap 0, 0, 7
    mov ebx, 0x40000000
    mov dword ptr [ebx], 0x1234
    remap 0, 0, 0
    faulting mov ecx, [ebx]
    remap 0, 0, 7
    mov ecx, [ebx]
    remap 0, 0, 5
    faulting mov [ebx], ebx
    mov ecx, [ebx]
    remap 0, 1, 7
    mov dword ptr [ebx], 0x5678
    mov ecx, [ebx]
    remap 0, 0, 7
    mov ecx, [ebx]
    mov dword ptr [ebx], 0x80cdc031
    mov word ptr [ebx + 4], 0xc3
    xor ecx, ecx
    dec ecx
    call ebx
    mov dword ptr [ebx], 0x80cd9090
    call ebx
    finish

# ---- virtual-8086 mode: copied to a segment of its own ----------------------------------------
# After a fault the kernel goes on at the segment's EBP.
.macro virtual_program name
    .balign 16, 0xcc
    .globl \name, \name\()_end

    .code16
\name:
.endm

# mov ebp, the offset of a label in its program
.macro resume_at label, start
    .byte 0x66, 0xbd
    .long \label - \start
.endm
.macro closed instruction:vararg
    resume_at 7778f, u_virtual_closed
    \instruction
7778:
.endm

.macro virtual_body
    mov ax, cs
    mov ds, ax
    mov [0x1000], ax
    mov ebx, [0x1000]
    push ax
    pop cx
    call 1f
    jmp 2f
1:  ret
2:
.endm

# IOPL 3: the mode's own instructions do what they say.
virtual_program u_virtual_open
    virtual_body
    sti
    pushf
    pop dx
    cli
    pushfd
    pop esi
    push dx
    popf
    cli
    pushf
    .byte 0x0e, 0xe8, 2, 0          # push cs; call to the IRET, with 16 bits
    jmp 2f
    iret
2:  xor eax, eax
    int 0x80
    mov edi, 0x1234
    int3
    .byte 0xcd, 3
    mov eax, 0x7fffffff
    add eax, 1
    into
    resume_at 3f, u_virtual_open
    ud2
3:  resume_at 4f, u_virtual_open
    hlt
4:  resume_at 5f, u_virtual_open
    int 0x40
5:  resume_at 6f, u_virtual_open
    div byte ptr [0x1002]
6:  int 0x81
u_virtual_open_end:

# IOPL 0: they fault, and the kernel's monitor would do them.
virtual_program u_virtual_closed
    virtual_body
    closed cli
    closed sti
    closed pushf
    closed popf
    closed iret
    closed hlt
    closed int 0x80
    closed int 0x40
    closed .byte 0xcd, 3
    closed in al, dx
    int3
    mov eax, 0x7fffffff
    add eax, 1
    into
    mov eax, 0x81
    hlt
u_virtual_closed_end:
    .code32

# What an attack runs there: INT 82h, then the end.
virtual_program u_virtual_int82
    int 0x82
    int 0x81
    mov eax, 0x81
    hlt
u_virtual_int82_end:
    .code32

# The same by SYSCALL.
virtual_program u_virtual_syscall
    syscall
    mov eax, 0x81
    hlt
u_virtual_syscall_end:
    .code32

# ---- far pointers and data --------------------------------------------------------------------
.balign 16
far_other:    .long u_far_other
              .short 0x33
far_local:    .long u_far_local
              .short 0x1f
far_null:     .long u_far_other
              .short 0
far_kernel:   .long gate_entry
              .short 0x10
far_data:     .long 0x1234
              .short 0x2b
far_gate:     .long 0
              .short 0x63
far_ldt_gate: .long 0
              .short 0x17
far_task:     .long 0
              .short 0x53
bounds:       .long 2, 4

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
