# Every way to write to memory that is no plain store, each a function of the kernel with the address
# as its argument. One text for both builds: they give the names of their registers.

.macro store name
    .balign 16
    .globl store_\name
store_\name:
    load_di
.endm

.macro stores ax, di, sp, word
.text
# Backwards, with the direction flag: the first byte lies behind.
store string
    std
    mov esi, offset payload + 7
    mov ecx, 8
    add \di, 7
    rep movsb
    cld
    ret

store exchange
    mov eax, 0xc0de0000
    xchg [\di], eax
    ret

store compare
    mov eax, [\di]
    mov edx, [\di + 4]
    mov ebx, 0xc0de0000
    mov ecx, edx
    lock cmpxchg8b [\di]
    ret

# The operand's own address lies elsewhere: the bit's number is what reaches.
store bit
    mov ecx, 8 * 0x40000
    lock bts dword ptr [\di - 0x40000], ecx
    ret

store nontemporal
    mov eax, 0xc0de0000
    movnti [\di], eax
    ret

store masked
    pcmpeqd xmm0, xmm0
    maskmovdqu xmm0, xmm0
    ret

store fxsave
    fxsave [\di]
    ret

store environment
    fnstenv [\di]
    ret

store descriptor_table
    sgdt [\di]
    ret

store pop
    push 0x12345678
    pop \word ptr [\di]
    ret

# From a port: the status of COM1's line.
store port
    mov edx, 0x3fd
    insb
    ret

# The stack is the address.
store enter
    mov \sp, \di
    enter 16, 3
    int 0x81

store call
    mov \sp, \di
    call 1f
1:  int 0x81

# ---- what approved bytes spell ----------------------------------------------------------------
# The last instruction of the first page ends in the next one: there it stores what the witness holds
# already. Behind the third page's four bytes it would store those.
.section .victim, "ax"
.balign 4096
.globl spell_entry, spell_first, spell_other
spell_first:
    .fill 4096 - (spell_end - spell_entry), 1, 0xcc
spell_entry:
    load_di
    .byte 0xc7, 0x07                # mov dword ptr [di], ...
spell_end:
    .long 0x5afe5afe
    ret
    .org spell_first + 0x2000, 0xcc
spell_other:
    nop
    nop
    nop
    nop
    ret
    .org spell_first + 0x3000, 0xcc
.text
.endm
