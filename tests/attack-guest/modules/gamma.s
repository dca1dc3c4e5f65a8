# Nothing to relocate: the same bytes wherever it lies. As many pages of each kind as beta, and more.
.include "module.inc"
module gamma

.globl gamma_entry
gamma_entry:
    begin
    mov bl, 0xc
    finish

.section .init.text, "ax"
.globl gamma_init
gamma_init:
    begin
    mov bl, 0xd
    finish
