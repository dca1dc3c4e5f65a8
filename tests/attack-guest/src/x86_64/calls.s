# Hypercalls from where kernels make none, and approved bytes in another mode.
.macro load_di
.endm
stores rax, rdi, rsp, qword

# RDI = address of RBX, RCX, RDX; what the answer goes to at 32, whether there is anybody to call at 48:
# VMMCALL from compatibility mode, with junk in the registers' upper halves.
.balign 16
.globl vmmcall_compatible
vmmcall_compatible:
    push rbx
    mov eax, KDS
    mov ds, eax
    movabs rax, 0x1234567800000000
    mov rbx, [rdi]
    mov rcx, [rdi + 8]
    mov rdx, [rdi + 16]
    or rbx, rax
    or rcx, rax
    or rdx, rax
    mov eax, 0x5ec00001
    push SPARE_CS
    lea r8, [rip + 1f]
    push r8
    retfq
    .code32
1:  cmp dword ptr [edi + 48], 0
    je 2f
    vmmcall
    mov [edi + 32], eax
2:  .byte 0xea                      # a far jump, spelled out
    .long 3f
    .short KCS
    .code64
3:
    pop rbx
    ret

# Calls RDI as 32-bit code, with the witness's address in EDI.
.balign 16
.globl call_as_32_bit
call_as_32_bit:
    mov eax, KDS
    mov es, eax
    mov ecx, edi
    mov edi, offset witness
    push SPARE_CS
    lea r8, [rip + 1f]
    push r8
    retfq
    .code32
1:  call ecx
    .byte 0xea
    .long 2f
    .short KCS
    .code64
2:  ret

# A constant to 64-bit code; to 32-bit code its upper half is STOSD and RET.
.balign 16
.globl spell_constant
spell_constant:
    movabs rax, 0x9090c3abc0de0000
    ret

# Calls RDI with the witness's address in RDI and the marker in EAX.
.balign 16
.globl call_with_witness
call_with_witness:
    mov rcx, rdi
    mov edi, offset witness
    mov eax, 0xc0de0000
    jmp rcx
