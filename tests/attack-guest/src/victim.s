# What attacks overwrite, in both guests. All addresses fit into 32 bits.
# A page of its own in the approved text. Offset 0x00 is a function, 0x80 an entry that looks like
# a page table's, from 0x400 on there is room for stacks.
.section .victim, "ax"
.balign 4096
.globl victim
victim:
    mov eax, 0x11111111
    ret
    .balign 16, 0xcc
.globl victim_gate
victim_gate:                        # an honest interrupt handler
    int 0x81
    .org victim + 0x80, 0xcc
.globl victim_entry
victim_entry:
    .long bss_payload + 3, 0        # present, writable, in either format
.globl victim_descriptor, victim_fire
    .balign 16, 0xcc
victim_descriptor:
    .quad 0x00cff2000000ffff        # looks like user data that nobody has loaded yet
    .quad 0x00008900a000ffff        # like a TSS at A000h that is available
    .quad 0
victim_fire:                        # what user mode may run, were the page open to it
    int 0x82
    int 0x81
    .balign 8
.globl victim_user_entry
victim_user_entry:
    .long bss_payload + 7, 0        # the same for user mode
.if BITS == 64
.globl victim_priority
victim_priority:                    # reads the task priority: movabs eax, [fee00080h]
    .byte 0xa1
    .quad 0xfee00080
    ret
.endif
    .org victim + 4096, 0xcc
