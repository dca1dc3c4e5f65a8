# Every type of relocation, between all kinds of places; each adds a digit of its own to the result.
.include "module.inc"
module alpha

.globl alpha_entry
alpha_entry:
    begin
    mov ecx, offset alpha_data          # R_386_32, to data of the core region
    add ebx, [ecx]                      # 1
    add ebx, [alpha_data + 8]           # the same with an addend: 20
    call mod_kernel_add                 # R_386_PC32, to the kernel: 300
    call mod_kernel_add@PLT             # R_386_PLT32: 300
    xor ecx, ecx
    add ebx, [ecx + alpha_table]        # to constants: 4000
    mov ecx, offset mod_kernel_word
    add ebx, [ecx]                      # 50000
    call alpha_far                      # 600000
    call alpha_cold                     # 7000000
    call alpha_exit                     # 10000000
    mov ecx, offset alpha_init          # to the init region, twice
    cmp ecx, offset alpha_init
    jne 1f
    bts ebx, 31                         # 80000000
1:  jmp 2f
    .org 4093, 0xcc
2:  mov ecx, offset mod_kernel_word     # its field lies across the page border
    add ebx, [ecx]                      # 50000
    finish
    .org 0x1100, 0xcc                   # where the first page has no code
export alpha_far
alpha_far:
    add ebx, 0x600000
    ret
    .org 5000, 0x90                     # more of the second page

.section .text.unlikely, "ax"
    .p2align 8                          # a gap before it
.globl alpha_cold
alpha_cold:
    add ebx, 0x7000000
    ret

.section .exit.text, "ax"
    .p2align 9
.globl alpha_exit
alpha_exit:
    add ebx, 0x10000000
    ret

.section .init.text, "ax"
.globl alpha_init
alpha_init:
    begin
    call alpha_far@PLT                  # to the core region: 600000
    add ebx, [alpha_init_data]          # a
    mov ecx, offset alpha_data
    add ebx, [ecx]                      # 1
    finish

.section .init.text.more, "ax"
    .p2align 5
.globl alpha_more
alpha_more:
    ret

.section .init.data, "aw"
.globl alpha_init_data
alpha_init_data:
    .long 0xa

.section .rodata, "a"
.globl alpha_table
alpha_table:
    .long 0x4000

.data
export alpha_data
alpha_data:
    .quad 0x1, 0x20
    .globl alpha_buffer
alpha_buffer:                           # room for code that is none
    .skip 256
