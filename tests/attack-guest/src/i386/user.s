# User mode: everything here is data to the approval list, and open to ring 3.
#
# Conventions: `int 0x81` ends a program. After a fault or an interrupt the kernel goes on at EBP,
# after a trap at the saved EIP. INT 0x80 with EAX = 1 maps page EDI of the window to user frame ESI
# with flags EDX; EAX = 0 does nothing.
.section .user, "aw"
.code32

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
    lea ebp, [7777f]
    \instruction
7777:
.endm

.macro patterns
    mov eax, 0
    mov ebx, 0x11111111
    mov ecx, 0x22222222
    mov edx, 0x33333333
    mov esi, 0x44444444
    mov edi, 0x55555555
    mov ebp, 0x66666666
.endm

.macro remap page, frame, flags
    mov eax, 1
    mov edi, \page
    mov esi, \frame
    mov edx, \flags
    int 0x80
.endm

# ---- the payload: what must never run at CPL < 3 ----------------------------------------------
# Position-independent. Leaves marker + CPL in the witness if it is in kernel mode, then ends. SS is
# the one segment that every way into the kernel loads.
.balign 16
.globl payload, payload_end
payload:
    mov ecx, cs
    and ecx, 3
    cmp ecx, 3
    je 1f
    mov eax, 0xc0de0000
    or eax, ecx
    mov edx, offset witness
    mov ss:[edx], eax
1:  int 0x81
payload_end:

# The same as 64-bit code, which returns to compatibility mode.
.balign 16
.globl payload_64, payload_64_end
payload_64:
    .byte 0xb8                      # mov eax, 0xc0de0000
    .long 0xc0de0000
    .byte 0x89, 0x04, 0x25          # mov [witness], eax
    .long witness
    .byte 0x6a, 0x10, 0x68          # push 10h; push back_from_long_mode
    .long back_from_long_mode
    .byte 0x48, 0xcb                # retfq
payload_64_end:

# ---- honest programs --------------------------------------------------------------------------
program u_loop_syscall
1:  int 0x80
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
    mov ebp, esp
    syscall
    mov esp, ebp
    cld
    pushfd
    pop edx
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
    .byte 0xcd, 3
    nop
    finish

program u_into_bound
    mov eax, 0x7fffffff
    into
    add eax, 1
    into
    nop
    lea ebx, [bounds]
    mov eax, 4
    bound eax, [ebx]
    mov eax, 5
    faulting bound eax, [ebx]
    finish

program u_icebp
    .byte 0xf1
    nop
    finish

program u_step
    push 0x102
    popfd
    nop
    mov eax, 1
    push eax
    pop ebx
    mov ecx, 3
    lea esi, [payload]
    lea edi, [user_data]
    rep movsb
    xor eax, eax
    int 0x80
    mov eax, ss
    mov ss, eax
    nop
    mov eax, 0x5b
    mov fs, eax
    pushfd
    pop eax
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
    pushfd
    and dword ptr [esp], ~0x100
    popfd
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
    mov ecx, 0x2b
    lea ebp, [1f]
    mov ss, ecx
    ud2
1:  lea ebp, [2f]
    mov ss, ecx
    mov eax, ds:[0xfffff000]
2:  lea ebp, [3f]
    mov ss, ecx
    mov fs, ecx
    mov ss, ecx
    int 0x40
3:  mov edx, 0xf8
    lea ebp, [4f]
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
    popfd
    faulting ud2
    nop
    faulting mov eax, ds:[0xfffff000]
    nop
    mov eax, 0x10
    faulting mov ds, eax
    nop
    pushfd
    and dword ptr [esp], ~0x100
    popfd
    finish

program u_hw_break
    nop
.globl u_hw_break_at
u_hw_break_at:
    mov eax, 0x77
    nop
    finish

program u_hw_watch
    mov dword ptr [user_data], 5
    nop
    mov eax, [user_data]
    lea edi, [user_data]
    mov eax, 6
    stosd
    nop
    finish

program u_divide
    xor ecx, ecx
    xor edx, edx
    mov eax, 7
    faulting div ecx
    mov eax, 0x80000000
    cdq
    mov ecx, -1
    faulting idiv ecx
    finish

program u_undefined
    patterns
    faulting ud2
    faulting .byte 0x0f, 0xff, 0xc0
    faulting vmmcall
    faulting sysenter
    faulting sysexit
    finish

program u_privileged
    faulting hlt
    faulting cli
    faulting sti
    mov edx, 0x60
    faulting in al, dx
    faulting out dx, al
    faulting mov eax, cr0
    faulting mov cr3, eax
    faulting rdmsr
    faulting wrmsr
    faulting lgdt [user_data]
    faulting lidt [user_data]
    faulting lldt ax
    faulting ltr ax
    faulting invd
    faulting wbinvd
    faulting clts
    faulting invlpg [eax]
    finish

program u_svm
    lea eax, [user_data]
    faulting .byte 0x0f, 0x01, 0xd8 # vmrun
    faulting .byte 0x0f, 0x01, 0xda # vmload
    faulting .byte 0x0f, 0x01, 0xdb # vmsave
    faulting .byte 0x0f, 0x01, 0xdd # clgi
    faulting .byte 0x0f, 0x01, 0xdc # stgi
    faulting .byte 0x0f, 0x01, 0xdf # invlpga
    faulting .byte 0x0f, 0x01, 0xde # skinit
    finish

program u_call_gate
    lcall [far_gate]
    finish

program u_ldt_gate
    lcall [far_ldt_gate]
    finish

# The stack that the TSS names is not there: whatever is raised ends in the double fault's task.
program u_double_fault
    patterns
    faulting ud2
    finish

# The kernel has CR0.TS set, and clears it after #NM.
program u_lazy_fpu
    patterns
    lea ebp, [1f]
1:  fninit
    fld1
    fldpi
    fstp qword ptr [user_data]
    mov eax, [user_data]
    mov ebx, [user_data + 4]
    finish
