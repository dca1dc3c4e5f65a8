// SPDX-License-Identifier: MIT OR Apache-2.0
/* Checks of the workload: segments of the GDT and of an LDT. */
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workload.h"

/* 32-bit code: movl $0x32,%eax; lret (the caller pushed a far pointer) */
static const uint8_t code32[] = { 0xb8, 0x32, 0, 0, 0, 0xcb };

/* two pages that 32-bit code can reach, that code at their start */
static uint8_t *low_pages(void)
{
	uint8_t *low = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

	memcpy(low, code32, sizeof(code32));
	return low;
}

/* far return to 32-bit code, which comes back by a 64-bit stub in low memory */
static int call32(uint8_t *low, unsigned long selector, unsigned long offset)
{
	uint32_t *stack = (uint32_t *)(low + 2 * PAGE) - 16;
	int eax = 0;

	asm volatile("mov %%rsp, %%rbx\n"
		     "lea 1f(%%rip), %%rdx\n"
		     "movb $0x48, 64(%1)\n"	/* mov %rbx,%rsp */
		     "movw $0xdc89, 65(%1)\n"
		     "movw $0xe2ff, 67(%1)\n"	/* jmp *%rdx */
		     "lea 64(%1), %%rcx\n"
		     "mov %%ecx, (%2)\n"
		     "movl $0x33, 4(%2)\n"
		     "mov %2, %%rsp\n"
		     "push %3\n"
		     "push %4\n"
		     "lretq\n"
		     "1:"
		     : "=&a" (eax)
		     : "r" (low), "r" (stack), "r" (selector), "r" (offset)
		     : "rbx", "rcx", "rdx", "memory", "cc");
	return eax;
}

void segments(void)
{
	unsigned long rip, rsp;
	volatile int ok = 1;
	int eax = 0, i;
	uint8_t *low;

	for (i = 0; i < 100; i++)
		asm volatile("mov %0, %%ds\nmov %0, %%es\nmov %0, %%gs"
			     : : "r" (0x2b));
	check("load of ds, es, gs", ok);
	asm volatile("mov %0, %%ds\nmov %0, %%es\nmov %0, %%gs" : : "r" (0));
	asm volatile("mov %%ss, %0\nmov %0, %%ss\nnop" : "+r" (eax));
	check("load of ss", eax == 0x2b);
	asm volatile("push %%rax\nmov %%ss, %%eax\npush %%rax\npop %%gs\npop %%rax"
		     : : : "rax", "memory");
	asm volatile("mov %%gs, %0" : "=r" (eax));
	check("pop of gs", eax == 0x2b);
	asm volatile("mov %0, %%gs" : : "r" (0));
	check("bad selector in ds", raises(SIGSEGV,
		asm volatile("mov %0, %%ds" : : "r" (0x1234))));
	check("kernel selector in ds", raises(SIGSEGV,
		asm volatile("mov %0, %%ds" : : "r" (0x18))));
	check("null selector in ss", raises(SIGSEGV,
		asm volatile("mov %0, %%ss" : : "r" (0))));
	asm volatile("mov %0, %%ds\nmov %0, %%es\nmov %0, %%gs" : : "r" (0));

	asm volatile("mov %%rsp, %1\n"
		     "pushq $0x2b\n"
		     "push %1\n"
		     "pushfq\n"
		     "pushq $0x33\n"
		     "lea 1f(%%rip), %0\n"
		     "push %0\n"
		     "iretq\n"
		     "1:"
		     : "=&r" (rip), "=&r" (rsp) : : "memory");
	check("iretq in user mode", 1);

	low = low_pages();
	for (ok = 1, i = 0; i < 20; i++)
		ok &= call32(low, 0x23, (uintptr_t)low) == 0x32;
	check("to 32-bit code and back", ok);
	munmap(low, 2 * PAGE);
}

static long set_entry(struct user_desc desc)
{
	return syscall(SYS_modify_ldt, 0x11, &desc, sizeof(desc));
}

static uint32_t read_gs(int selector)
{
	uint32_t value;

	asm volatile("mov %1, %%gs\nmovl %%gs:0, %0" : "=r" (value) : "r" (selector));
	return value;
}

#define SELECTOR(entry) ((entry) << 3 | 7)

void local_descriptors(void)
{
	struct user_desc data = { .entry_number = 3, .limit = PAGE - 1,
				  .seg_32bit = 1, .useable = 1 };
	struct user_desc code = { .entry_number = 1, .limit = 0xfffff, .seg_32bit = 1,
				  .limit_in_pages = 1, .contents = 2 };
	struct user_desc none = { .entry_number = 3, .read_exec_only = 1,
				  .seg_not_present = 1 };
	uint32_t *low = (uint32_t *)low_pages();
	uint8_t *page = (uint8_t *)(low + 256);
	uint64_t entries[8] = { 0 };
	volatile int ok = 1, i;
	int gs = 0;
	pid_t pid;

	check("no local segment at first", raises(SIGSEGV, read_gs(SELECTOR(3))));
	low[8] = 0x1234;
	low[9] = 0x5678;
	data.base_addr = (uintptr_t)(low + 8);
	check("modify_ldt", !set_entry(data));
	check("local segment's base", read_gs(SELECTOR(3)) == 0x1234);
	check("reading it back", syscall(SYS_modify_ldt, 0, entries, sizeof(entries)) ==
	      sizeof(entries) && entries[3] && !entries[4]);
	for (i = 0; i < 100; i++) {
		syscall(SYS_sched_yield);
		asm volatile("mov %%gs, %0" : "=r" (gs));
		ok &= gs == SELECTOR(3) && read_gs(SELECTOR(3)) == 0x1234;
	}
	check("and it stays", ok);
	pid = fork();
	if (!pid) {
		ok = read_gs(SELECTOR(3)) == 0x1234;
		data.base_addr += 4;
		ok &= !set_entry(data) && read_gs(SELECTOR(3)) == 0x5678;
		_exit(ok ? 3 : 4);
	}
	check("a child's own table", wait_code(pid) == 3 && read_gs(SELECTOR(3)) == 0x1234);
	memcpy(page, code32, sizeof(code32));
	code.base_addr = (uintptr_t)page;
	ok = !set_entry(code);
	for (i = 0; i < 20; i++)
		ok &= call32((uint8_t *)low, SELECTOR(1), 0) == 0x32;
	check("local code segment", ok);
	data.entry_number = 4;
	data.seg_not_present = 1;
	ok = !set_entry(data);
	check("segment that is not present", ok && raises(SIGBUS, read_gs(SELECTOR(4))));
	ok = !set_entry(none);
	check("segment taken away", ok && raises(SIGSEGV, read_gs(SELECTOR(3))));
	asm volatile("mov %0, %%gs" : : "r" (0));
	munmap(low, 2 * PAGE);
}
