# Page tables, descriptors and stacks, ready-made where the boot stub needs them.

# ---- data -------------------------------------------------------------------------------------
.data
.balign 4096
.globl pml4, pdpt_low, pdpt_window, pd_low, pt_image, pd_window, pt_window
pml4:
    .quad pdpt_low + 7, pdpt_window + 7
    .fill 510, 8, 0
pdpt_low:
    .quad pd_low + 7, pd_low + 0x1007, pd_low + 0x2007, pd_low + 0x3007
    .fill 508, 8, 0
pdpt_window:
    .quad pd_window + 7
    .fill 511, 8, 0
pd_low:                             # 4 GiB, identity, 2 MiB pages for the kernel
.set at, 0
.rept 2048
    .if at == 8
    .quad pt_image + 7
    .else
    .quad at * 0x200000 + 0x83
    .endif
    .set at, at + 1
.endr
pt_image:                           # 16 to 18 MiB in 4 KiB pages; refined at start
.set at, 0
.rept 512
    .quad 0x1000000 + at * 0x1000 + 3
    .set at, at + 1
.endr
pd_window:
    .quad pt_window + 7
    .fill 511, 8, 0
pt_window:
    .fill 512, 8, 0

.balign 16
.globl gdt, gdt_pointer
gdt:                                # what the boot stub needs; the rest is written at start
    .quad 0, 0
    .quad 0x00af9b000000ffff        # 0x10 kernel code
    .quad 0x00cf93000000ffff        # 0x18 kernel data
    .fill 28, 8, 0
gdt_pointer:
    .short 255
    .quad gdt

.balign 8
.globl boot_magic, recover_rsp, user_rsp, mod_kernel_word, passed
boot_magic:  .quad 0
passed:      .quad 0                # changes that a processor took before they were undone
mod_kernel_word: .quad 0x50000      # what modules may read
recover_rsp: .quad 0
user_rsp:    .quad 0

.balign 4096
.globl data_payload
data_payload: .fill 4096, 1, 0

.bss
.balign 4096
.globl idt, tss, ldt, last_frame, user_frame, witness, bss_payload, scratch_tables
idt:          .skip 4096
idt_copy:     .skip 4096
witness:      .skip 4096
bss_payload:  .skip 4096
scratch_tables: .skip 8 * 4096
tss:          .skip 256
ldt:          .skip 256
last_frame:   .skip 256
              .skip 1024            # room for a fault that IRETQ raises
user_frame:   .skip 256
.balign 4096
boot_stack:   .skip 0x8000
.globl boot_stack_top, trap_stack_top, gp_stack_top, df_stack_top, nmi_stack_top, low_cpl_stack_top
boot_stack_top:
.globl trap_stack_guard
trap_stack_guard:                   # never mapped: a handler that faults for ever ends in #DF
              .skip 0x1000
              .skip 0x2000
trap_stack_top:
              .skip 0x4000
gp_stack_top:
              .skip 0x4000
df_stack_top:
              .skip 0x4000
nmi_stack_top:
              .skip 0x4000
low_cpl_stack_top:
