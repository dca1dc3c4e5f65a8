# Every type of relocation, between all kinds of places; each adds a digit of its own to the result.
.include "module.inc"
module alpha

.globl alpha_entry
alpha_entry:
    begin
    movabs rcx, offset alpha_data       # R_X86_64_64, to data of the core region
    add rbx, [rcx]                      # 1
    add rbx, [rip + alpha_data + 8]     # R_X86_64_PC32: 20
    call mod_kernel_add                 # R_X86_64_PLT32, to the kernel: 300
    xor ecx, ecx
    add rbx, [rcx + alpha_table]        # R_X86_64_32S, to constants: 4000
    mov ecx, offset mod_kernel_word     # R_X86_64_32
    add rbx, [rcx]                      # 50000
    call alpha_far                      # 600000
    call alpha_cold                     # 7000000
    call alpha_exit                     # 10000000
    lea rcx, [rip + alpha_init]         # to the init region, twice
    cmp rcx, offset alpha_init
    jne 1f
    bts rbx, 32                         # 100000000
1:  jmp 2f
    .org 4093, 0xcc
2:  mov ecx, offset mod_kernel_word     # its field lies across the page border
    add rbx, [rcx]                      # 50000
    finish
export alpha_far
alpha_far:
    add rbx, 0x600000
    ret
    .org 5000, 0x90                     # more of the second page

.section .text.unlikely, "ax"
    .p2align 8                          # a gap before it
.globl alpha_cold
alpha_cold:
    add rbx, 0x7000000
    ret

.section .exit.text, "ax"
    .p2align 9
.globl alpha_exit
alpha_exit:
    add rbx, 0x10000000
    ret

.section .init.text, "ax"
.globl alpha_init
alpha_init:
    begin
    call alpha_far                      # to the core region: 600000
    add rbx, [rip + alpha_init_data]    # a
    mov rcx, offset alpha_data
    add rbx, [rcx]                      # 1
    finish

.section .init.text.more, "ax"
    .p2align 5
.globl alpha_more
alpha_more:
    ret

.section .init.data, "aw"
.globl alpha_init_data
alpha_init_data:
    .quad 0xa

.section .rodata, "a"
.globl alpha_table
alpha_table:
    .quad 0x4000

.data
export alpha_data
alpha_data:
    .quad 0x1, 0x20
    .globl alpha_buffer
alpha_buffer:                           # room for code that is none
    .skip 256
