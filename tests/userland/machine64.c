// SPDX-License-Identifier: MIT OR Apache-2.0
/* Checks of the workload that only 64-bit programs have. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "workload.h"

static void more_exceptions(void)
{
	unsigned long bad = 0x8000000000000000ul;
	int eax;

	check("#GP, address not canonical",
	      raises(SIGSEGV, (void)*(volatile char *)bad));
	asm volatile("int $0x80" : "=a" (eax) : "0" (20) : "r8", "r9", "r10", "r11");
	check("int $0x80 from 64-bit code", eax == getpid());
	sig_no = 0;
	handle(SIGSEGV, on_fault);
	handle(SIGILL, on_fault);
	if (!sigsetjmp(back, 1))
		asm volatile("sysenter" : : : "rcx", "rdx", "memory");
	check("sysenter refused", sig_no == SIGSEGV || sig_no == SIGILL);
	signal(SIGSEGV, SIG_DFL);
	signal(SIGILL, SIG_DFL);
	check("#PF of a fetch says so", raises(SIGSEGV, ((void (*)(void))0x10)()) &&
	      (sig_err & 0x15) == 0x14);
}

static void syscall_registers(void)
{
	unsigned long rcx, r11, rax, next, rdx = 5, r8 = 6;

	asm volatile("lea 1f(%%rip), %2\n"
		     "syscall\n"
		     "1: mov %%r11, %3\n"
		     : "=a" (rax), "=c" (rcx), "=&r" (next), "=&r" (r11)
		     : "0" (SYS_getppid) : "r11", "memory");
	check("syscall leaves rcx and r11", rcx == next && (r11 & 0x200) &&
	      (pid_t)rax == getppid());
	asm volatile("mov %1, %%r8\nsyscall\nmov %%r8, %1"
		     : "=a" (rax), "+r" (r8), "+d" (rdx)
		     : "0" (SYS_getppid) : "rcx", "r11", "r8", "memory");
	check("syscall keeps the others", rdx == 5 && r8 == 6);
}

static void processor_number(void)
{
	unsigned int cpu = 9, node = 9;
	int i, ok = 1;

	for (i = 0; i < 1000; i++) {
		cpu = node = 9;
		ok &= !getcpu(&cpu, &node) && node == 0 &&
		      cpu < (unsigned int)sysconf(_SC_NPROCESSORS_CONF);
	}
	check("getcpu by the vDSO", ok);
	check("getcpu by the kernel", !syscall(SYS_getcpu, &cpu, &node, NULL) &&
	      node == 0 && (int)cpu == sched_getcpu());
}

static int has_avx(void)
{
	unsigned int a, b, c, d, lo;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) ||
	    !(c & bit_AVX))
		return 0;
	asm volatile("xgetbv" : "=a" (lo), "=d" (d) : "c" (0));
	return (lo & 6) == 6;
}

/* a pattern in the registers must survive the others' turns and signals */
#define HOLD(avx_load, avx_store)					\
	asm volatile("fildll %2\n"					\
		     "movups (%4), %%xmm3\n"				\
		     "movups 16(%4), %%xmm12\n"				\
		     avx_load						\
		     "syscall\n"					\
		     avx_store						\
		     "movups %%xmm3, (%3)\n"				\
		     "movups %%xmm12, 16(%3)\n"				\
		     "fistpll %1"					\
		     : "=a" (rax), "=m" (x87)				\
		     : "m" (st), "r" (out), "r" (in), "0" (SYS_sched_yield) \
		     : "rcx", "r11", "xmm3", "xmm7", "xmm12", "memory")

void *hold(void *arg)
{
	uint64_t seed = (uintptr_t)arg * 0x9e3779b97f4a7c15ul;
	uint64_t st, x87, rax, in[8], out[8];
	int i, j, bad = 0, avx = has_avx();

	for (i = 0; i < 300; i++) {
		for (j = 0; j < 8; j++)
			in[j] = out[j] = seed + i * 8 + j;
		st = (seed >> 3) + i;
		memset(out, 0, avx ? 64 : 32);
		if (avx)
			HOLD("vmovups 32(%4), %%ymm7\n", "vmovups %%ymm7, 32(%3)\n");
		else
			HOLD("", "");
		bad |= rax != 0 || x87 != st || memcmp(in, out, sizeof(in));
	}
	return (void *)(intptr_t)bad;
}

void machine(void)
{
	more_exceptions();
	syscall_registers();
	processor_number();
	segments();
	local_descriptors();
}
