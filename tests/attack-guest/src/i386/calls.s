# Hypercalls from where kernels make none.
.macro load_di
    mov edi, [esp + ARGUMENT]
.endm
stores eax, edi, esp, dword

# The argument is the address of EBX, ECX, EDX, each of 8 bytes; what the answer goes to at 32, the bits
# of CR0 that are cleared meanwhile at 40, whether there is anybody to call at 48. The segments stay as
# they were loaded.
.balign 16
.globl vmmcall_without
vmmcall_without:
    load_di
    mov ebx, [edi]
    mov ecx, [edi + 8]
    mov edx, [edi + 16]
    mov esi, cr0
    mov eax, [edi + 40]
    not eax
    and eax, esi
    mov cr0, eax
    jmp 1f
1:  mov eax, 0x5ec00001
    cmp dword ptr [edi + 48], 0
    je 1f
    vmmcall
    mov [edi + 32], eax
1:  mov cr0, esi
    jmp 1f
1:  ret

# Calls the argument with the witness's address in EDI and the marker in EAX.
.balign 16
.globl call_with_witness
call_with_witness:
    mov ecx, [esp + ARGUMENT]
    mov edi, offset witness
    mov eax, 0xc0de0000
    jmp ecx
