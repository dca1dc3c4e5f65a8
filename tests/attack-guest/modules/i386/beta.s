# Needs the module alpha: its code and its data.
.include "module.inc"
module beta, alpha

.globl beta_entry
beta_entry:
    begin
    call alpha_far                      # 600000
    mov ecx, offset alpha_data
    add ebx, [ecx]                      # 1
    mov ecx, offset beta_data
    add ebx, [ecx]                      # b0
    finish

.data
.globl beta_data
beta_data:
    .long 0xb0
