# Page tables, descriptors and stacks.

.data
.balign 16
.globl gdt, gdt_pointer
gdt:                                # what the boot stub needs; the rest is written at start
    .quad 0, 0
    .quad 0x00cf9b000000ffff        # 0x10 kernel code
    .quad 0x00cf93000000ffff        # 0x18 kernel data
    .fill 28, 8, 0
gdt_pointer:
    .short 255
    .long gdt

.balign 8
.globl boot_magic, recover_rsp, user_sp, mod_kernel_word, passed
boot_magic:  .quad 0
passed:      .quad 0                # changes that a processor took before they were undone
mod_kernel_word: .quad 0x50000      # what modules may read
recover_rsp: .quad 0
user_sp:     .quad 0

.balign 4096
.globl data_payload
data_payload: .fill 4096, 1, 0

.bss
.balign 4096
.globl page_root, page_directories, pt_image, pt_window
page_root:    .skip 4096
page_directories: .skip 4 * 4096    # only with PAE
pt_image:     .skip 4096
pt_window:    .skip 4096
.globl idt, tss, fault_tss, other_tss, ldt, last_frame, user_frame, witness, bss_payload
.globl scratch_tables
idt:          .skip 4096
witness:      .skip 4096
bss_payload:  .skip 4096
scratch_tables: .skip 8 * 4096
tss:          .skip 256
fault_tss:    .skip 128
other_tss:    .skip 128
ldt:          .skip 256
last_frame:   .skip 256
              .skip 4096            # room for an NMI, or a fault that IRET raises
user_frame:   .skip 256
.balign 4096
boot_stack:   .skip 0x8000
.globl boot_stack_top, trap_stack_top, df_stack_top, low_cpl_stack_top
boot_stack_top:
.globl trap_stack_guard
trap_stack_guard:                   # never mapped: a handler that faults for ever ends in #DF
              .skip 0x1000
              .skip 0x3000
trap_stack_top:
              .skip 0x4000
df_stack_top:
              .skip 0x4000
low_cpl_stack_top:
