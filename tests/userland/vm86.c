// SPDX-License-Identifier: MIT OR Apache-2.0
/* Checks of the 32-bit workload: programs in virtual-8086 mode, where the kernel has it. */
#include <asm/vm86.h>

#include "workload32.h"

enum { VM86_IF = 0x200, VM86_TF = 0x100, CODE = 0x20000, STACK = 0x30000, SIZE = 0x20000,
       ENOSYS = 38 };

/* up to each hlt and revectored interrupt, where the kernel takes over */
extern const char real_code[], real_end[], at_int[], at_divide[], at_far[], handler[], divided[];
asm("real_code:\n.code16\n"
    "mov $0x1234, %ax\npush %ax\npop %bx\n"
    "cli\npushf\npop %cx\n"
    "sti\npushf\npop %si\n"
    "hlt\n"
    "at_int:\nxor %dx, %dx\nmov $100, %cx\n1: int $0x40\nloop 1b\n"
    "int $0x21\n"
    "int3\n"
    "hlt\n"
    "handler:\ninc %dx\niret\n"
    "at_divide:\nmov $5, %ax\nxor %cl, %cl\ndiv %cl\nhlt\n"
    "divided:\nmov %sp, %bp\naddw $2, (%bp)\nmov $0xd1, %ax\niret\n"
    "at_far:\nmov $0x3000, %ax\nmov %ax, %ds\nmov %ax, %es\nmov %ax, %gs\nmov %ax, %ss\n"
    "movw $77, 0x100\nmov %es:0x100, %dx\n"
    "lcall $0x2000, $2f - real_code\n"
    "movw $1, 0x102\n"
    "3: jmp 3b\n"
    "2: mov %cs, %bx\nlret\n"
    ".code32\nreal_end:");

static struct vm86plus_struct v;

/* runs from this label on until the kernel takes over; why it did */
static int enter(const char *label)
{
	if (label)
		v.regs.eip = label - real_code;
	return sys(SYS_VM86, VM86_ENTER, &v, 0);
}

static void vector(int number, const char *to)
{
	volatile u32 *table;

	asm("xor %0, %0" : "=r" (table));	/* at 0, which no compiler would touch */
	table[number] = CODE / 16 << 16 | (to - real_code);
}

/* shared with children */
static void *map(u32 at, u32 size)
{
	return (void *)by_int(SYS_MMAP2, at, size, 7, 0x31, -1, 0);
}

void virtual_8086(void)
{
	volatile char *code = (volatile char *)CODE;
	int why, pid, me = sys(SYS_GETPID, 0, 0, 0);
	const char *p;

	if (sys(SYS_VM86, VM86_PLUS_INSTALL_CHECK, 0, 0) == -ENOSYS)
		return;
	if (map(0, 4096) || map(CODE, SIZE) != (void *)CODE)
		return check("memory for vm86", 0);
	for (p = real_code; p < real_end; p++)
		*code++ = *p;
	vector(0, divided);
	vector(0x40, handler);
	v.cpu_type = CPU_386;
	v.int_revectored.__map[0x21 / 32] |= 1u << 0x21 % 32;
	v.regs.cs = CODE / 16;
	v.regs.ss = STACK / 16;
	v.regs.esp = 0x8000;
	v.regs.eflags = VM86_IF;

	why = enter(real_code);
	check("vm86", VM86_TYPE(why) == VM86_UNKNOWN && (v.regs.ebx & 0xffff) == 0x1234);
	check("vm86 cli and sti", !(v.regs.ecx & VM86_IF) && (v.regs.esi & VM86_IF));
	why = enter(at_int);
	check("vm86 int and iret", why == (VM86_INTx | 0x21 << 8) && (v.regs.edx & 0xffff) == 100);
	why = enter(0);
	check("vm86 int3", why == (VM86_TRAP | 3 << 8));
	why = enter(at_divide);
	check("vm86 #DE", VM86_TYPE(why) == VM86_UNKNOWN && (v.regs.eax & 0xffff) == 0xd1);
	v.regs.eflags |= VM86_TF;
	why = enter(real_code);
	check("vm86 single step", why == (VM86_TRAP | 1 << 8) && v.regs.eip == 3 &&
	      (v.regs.eax & 0xffff) == 0x1234);
	v.regs.eflags &= ~VM86_TF;
	handle(SIGUSR1);
	sig = 0;
	pid = sys(SYS_FORK, 0, 0, 0);
	if (!pid) {
		while (!*(volatile char *)(STACK + 0x102))
			sys(SYS_YIELD, 0, 0, 0);
		sys(SYS_KILL, me, SIGUSR1, 0);
		sys(SYS_EXIT, 0, 0, 0);
	}
	why = enter(at_far);
	check("vm86 and a signal", VM86_TYPE(why) == VM86_SIGNAL && sig == SIGUSR1 && child_ended(pid));
	check("vm86 segments and lcall", (v.regs.edx & 0xffff) == 77 && (v.regs.ebx & 0xffff) == 0x2000);
	sys(SYS_MUNMAP, 0, 4096, 0);
	sys(SYS_MUNMAP, CODE, SIZE, 0);
}
