# What attacks of both guests run in the kernel, approved text. All addresses fit into 32 bits.
.text
.set SPARE_CS, 0xa8

# The function's argument.
.macro argument register
    .if BITS == 64
    mov \register, edi
    .else
    mov \register, [esp + ARGUMENT]
    .endif
.endm

.macro popf_
    .byte 0x9d
.endm

.macro iret_
    .if BITS == 64
    .byte 0x48
    .endif
    .byte 0xcf
.endm

.macro retf_
    .if BITS == 64
    .byte 0x48
    .endif
    .byte 0xcb
.endm

# "Returns to user mode" there, but at a level that is none of user mode's.
.macro return_at_level name, code, stack
.balign 16
.globl \name
\name:
    argument ecx
    mov eax, esp
    push \stack
    .byte 0x50                      # push eax or rax
    push 2
    push \code
    .byte 0x51                      # push ecx or rcx
    iret_
.endm
return_at_level iret_at_cpl1, 0x71, 0x79
return_at_level iret_at_cpl2, 0x82, 0x8a

# A far return at CPL 0: there, or to a segment whose base leads there.
.macro far_return name, code
.balign 16
.globl \name
\name:
    argument ecx
    push \code
    .byte 0x51
    retf_
.endm
far_return far_at_cpl0, KCS
far_return far_to_spare, SPARE_CS

# Loads the task register, which marks the descriptor as busy.
.balign 16
.globl load_task
load_task:
    argument ecx
    ltr cx
    ret

# Loads a data segment, whose descriptor the processor marks as accessed.
.balign 16
.globl load_segment
load_segment:
    argument ecx
    mov fs, ecx
    ret

.if BITS == 64
# Jumps there without paging, and so without long mode: by way of a 32-bit code segment.
.balign 16
.globl jump_unpaged
jump_unpaged:
    lidt [legacy_idt_pointer]
    mov eax, KDS
    mov ds, eax
    mov ss, eax
    push SPARE_CS
    lea eax, [1f]
    push rax
    retf_
    .code32
1:  mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    jmp edi

# Where every event ends there.
.balign 16
.globl back_to_long_mode
back_to_long_mode:
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    .byte 0xea                      # a far jump, spelled out
    .long 1f
    .short KCS
    .code64
1:  lidt [idt_pointer]
    int 0x81
.else
# Jumps there in real mode: the segments stay as they were, flat and of 32 bits. No event gets through.
.balign 16
.globl jump_real
jump_real:
    argument ecx
    lidt [no_idt_pointer]
    mov eax, cr0
    mov ebx, eax
    and eax, 0x7ffffffe
    mov cr0, eax
    jmp ecx
.endif

.section .user, "aw"
.balign 16
.globl payload_32, payload_32_end
payload_32:                         # the payload as 32-bit code
    .code32
    mov ecx, cs
    and ecx, 3
    or ecx, 0xc0de0000
    mov edx, offset witness
    mov ss:[edx], ecx
    smsw eax
    test al, 1
    jnz 1f
    mov cr0, ebx                    # out of real mode
    lidt [idt_pointer]
1:  int 0x81
payload_32_end:
    .if BITS == 64
    .code64
    .endif

.data
.balign 8
.globl idt_pointer
idt_pointer: .short 256 * BITS / 4 - 1
             .long idt, 0
no_idt_pointer: .short 0
             .long 0, 0
legacy_idt_pointer: .short 256 * 8 - 1
             .long scratch_tables, 0
