# User mode's part in attacks on the entry into the kernel, for both guests. Same section and
# conventions as user.s; all addresses fit into 32 bits, so 32-bit registers hold them.
.section .user, "aw"

# What a program does with the trap flag set.
.macro stepped instruction:vararg
    push 0x102
    popf_
    \instruction
    finish
.endm

# The program of that name: MOV SS, and one instruction in its shadow.
.macro shadowed name, instruction:vararg
program \name
    mov eax, 0x2b
    mov ss, eax
    \instruction
    finish
.endm

# What IRET takes to go on behind it, with the trap flag clear.
.macro push_return to
    .if BITS == 64
    mov eax, esp
    push 0x2b
    push rax
    push 2
    push 0x33
    .else
    push 2
    push 0x23
    .endif
    lea eax, [\to]
    .byte 0x50                      # push eax or rax
.endm

# ---- events at the border ---------------------------------------------------------------------
program u_step_syscall
    stepped syscall

program u_step_int
    stepped int 0x80

program u_step_cpuid
    stepped cpuid

program u_step_port                 # with I/O privilege
    push 0x3102
    popf_
    in al, 0x92
    finish

program u_int_prefixed
    .byte 0x66, 0xf2, 0xcd, 0x82    # int 0x82
    finish

program u_int_bytes                 # copied to where a page ends between them
    int 0x82
    finish

program u_do_icebp
    .byte 0xf1
    finish

program u_do_rsm
    rsm

program u_do_vmrun
    mov eax, offset user_data
    .byte 0x0f, 0x01, 0xd8

program u_do_vmmcall
    vmmcall

program u_do_rdmsr
    mov ecx, 0xc0000080
    rdmsr

# RDI = address, mapped for ring 3. Where the load does not fault HLT does.
program u_touch
    .byte 0x8b, 0x07                # mov eax, [edi] or [rdi]
    hlt

program u_do_math
    fninit
    mov dword ptr [user_data], 0x37b        # division by zero unmasked
    fldcw [user_data]
    fld1
    fldz
    fdivp
    fwait
    finish

program u_do_fpu
    fninit
    finish

# EDI = an address of the data breakpoint DR0, which MOV SS holds back until after INT n.
program u_shadow_watch
    mov ss, [edi]
    int 0x82
    finish

# EDI = a descriptor's address; EAX, EDX = its halves. User mode makes itself a gate.
program u_store_gate
    mov [edi], eax
    mov [edi + 4], edx
    lcall [far_gate]
    finish

# RDI = address, mapped for ring 3; DX = port.
program u_port_then_store
    in al, dx
    .byte 0xc7, 0x07                # mov dword ptr [edi] or [rdi]
    .long 0xc0de0003
    finish

# ---- out of the step of a segment load --------------------------------------------------------
# ECX = selector.
program u_load_fs
    mov fs, ecx
    finish

program u_load_ss
    mov ss, ecx
    finish

program u_step_gate
    mov eax, 0x5b
    mov fs, eax
    lcall [far_gate]
    finish

program u_step_break
    mov eax, 0x5b
    mov fs, eax
.globl u_step_break_at
u_step_break_at:
    nop
    finish

program u_step_popf
    mov eax, 0x5b
    push 2
    mov fs, eax
    popf_
    lcall [far_gate]
    finish

program u_step_iret
    push_return 1f
    iret_
1:  lcall [far_gate]
    finish

program u_shadow_popf
    push 2
    mov eax, 0x2b
    mov ss, eax
    popf_
    lcall [far_gate]
    finish

program u_shadow_iret
    push_return 1f
    mov eax, 0x2b
    mov ss, eax
    iret_
1:  lcall [far_gate]
    finish

program u_shadow_pushf
    mov eax, 0x2b
    mov ss, eax
    .byte 0x9c                      # pushf
    lcall [far_gate]
    finish

program u_shadow_chain
    mov eax, 0x2b
    .rept 3
    mov ss, eax
    .endr
    lcall [far_gate]
    finish

shadowed u_shadow_gate, lcall [far_gate]
shadowed u_shadow_int, int 0x82
shadowed u_shadow_breakpoint, int3
shadowed u_shadow_icebp, .byte 0xf1
shadowed u_shadow_undefined, ud2
shadowed u_shadow_syscall, syscall
