//! The first instructions: from GRUB's 32-bit protected mode to Rust in long mode.
//!
//! GRUB honours the relocatable tag, so the 32-bit part does not know its own address and finds it
//! by a call. It maps the first 4 GiB one to one and the image, wherever it is, at the address that
//! it was linked for. (Multiboot2 specification 1.6, 3.1 and 3.3)
#![allow(unsafe_code, reason = "the processor starts here, before there is any Rust to be safe")]

use core::arch::global_asm;

global_asm!(
    r#"
    .section .multiboot2, "a"
    .align 8
multiboot2_header:
    .long 0xE85250D6                    // magic
    .long 0                             // architecture: i386 protected mode
    .long multiboot2_header_end - multiboot2_header
    .long -(0xE85250D6 + (multiboot2_header_end - multiboot2_header))
    // Relocatable: between 1 MiB and 4 GiB, 2 MiB aligned, as high as it goes.
    .align 8
    .short 10, 0
    .long 24, 0x100000, 0xFFFFFFFF, 0x200000, 2
    // Framebuffer, optional: whatever mode the screen is in, tell where it is.
    .align 8
    .short 5, 1
    .long 20, 0, 0, 0
    // End
    .align 8
    .short 0, 0
    .long 8
multiboot2_header_end:

    .section .text.secvisor_start, "ax"
    .code32
    .global secvisor_start
secvisor_start:
    cli
    cld
    cmpl $0x36D76289, %eax              // GRUB's promise that EBX points to its information
    jne 3f
    leal 8(%ebx), %esp                  // the information's reserved word serves as a stack
    call secvisor_here
secvisor_here:
    popl %ebp
    movl %ebx, %esi                     // information

    // Identity map of the first 4 GiB by 2 MiB pages.
    leal (early_directories - secvisor_here)(%ebp), %edi
    movl $0x83, %eax
    xorl %ecx, %ecx
2:  movl %eax, (%edi,%ecx,8)
    movl $0, 4(%edi,%ecx,8)
    addl $0x200000, %eax
    incl %ecx
    cmpl $2048, %ecx
    jne 2b
    leal (early_pointers - secvisor_here)(%ebp), %edx
    leal 3(%edi), %eax
    xorl %ecx, %ecx
4:  movl %eax, (%edx,%ecx,8)
    addl $0x1000, %eax
    incl %ecx
    cmpl $4, %ecx
    jne 4b
    // The image, 2 MiB aligned by GRUB, at the top 2 GiB.
    leal (image_start - secvisor_here)(%ebp), %ebx
    leal (early_image - secvisor_here)(%ebp), %edi
    leal 0x83(%ebx), %eax
    movl %eax, (%edi)
    addl $0x200000, %eax
    movl %eax, 8(%edi)
    leal (early_image_pointers - secvisor_here)(%ebp), %ecx
    leal 3(%edi), %eax
    movl %eax, 510 * 8(%ecx)
    leal 3(%ecx), %edi

    leal (early_root - secvisor_here)(%ebp), %ecx
    leal 3(%edx), %eax
    movl %eax, (%ecx)
    movl %edi, 511 * 8(%ecx)
    movl %ecx, %cr3

    movl $0x20, %eax                    // CR4.PAE
    movl %eax, %cr4
    movl $0xC0000080, %ecx              // EFER.LME, EFER.NXE
    rdmsr
    orl $0x900, %eax
    wrmsr
    movl $0x80010011, %eax              // CR0: PG, WP, ET, PE
    movl %eax, %cr0

    leal (early_stack_end - secvisor_here)(%ebp), %esp
    leal (early_gdt - secvisor_here)(%ebp), %eax
    movl %eax, (early_gdt_pointer + 2 - secvisor_here)(%ebp)
    lgdt (early_gdt_pointer - secvisor_here)(%ebp)
    leal (secvisor_start64 - secvisor_here)(%ebp), %eax
    pushl $8
    pushl %eax
    lretl
3:  hlt
    jmp 3b

    .code64
secvisor_start64:
    movabsq $secvisor_high, %rax
    jmpq *%rax
secvisor_high:
    leaq early_gdt(%rip), %rax
    movq %rax, early_gdt_pointer + 2(%rip)
    lgdt early_gdt_pointer(%rip)
    leaq early_stack_end(%rip), %rsp
    xorl %eax, %eax
    movl %eax, %ss
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %fs
    movl %eax, %gs
    movl %esi, %edi                     // information
    movl %ebx, %esi                     // physical address of the image
    movq %cr3, %rdx                     // page tables
    xorl %ebp, %ebp
    call secvisor_main
    ud2

    .section .data.early, "aw"
    .align 8
early_gdt:
    .quad 0
    .quad 0x00AF9B000000FFFF            // 64-bit code
early_gdt_pointer:
    .short 15
    .quad 0

    .section .bss.early, "aw", @nobits
    .align 4096
early_root:
    .skip 4096
early_pointers:
    .skip 4096
early_directories:
    .skip 4 * 4096
early_image_pointers:
    .skip 4096
early_image:
    .skip 4096
// SecVisor's stack; its own page tables leave the page below it out.
    .global stack_guard
stack_guard:
    .skip 4096
    .skip 65536
    .global early_stack_end
early_stack_end:
"#,
    options(att_syntax)
);
