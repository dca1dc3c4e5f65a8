# Needs the module alpha: its code and its data.
.include "module.inc"
module beta, alpha

.globl beta_entry
beta_entry:
    begin
    call alpha_far                      # 600000
    movabs rcx, offset alpha_data
    add rbx, [rcx]                      # 1
    mov rcx, offset beta_data
    add rbx, [rcx]                      # b0
    finish

.data
.globl beta_data
beta_data:
    .quad 0xb0
