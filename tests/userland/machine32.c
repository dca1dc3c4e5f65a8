// SPDX-License-Identifier: MIT OR Apache-2.0
/* Checks of the workload for programs built for i386; workload32.c has the others, for both. */
#define _GNU_SOURCE
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "workload.h"

/* the whole stack of the x87 must survive the others' turns and signals: old kernels switch it
 * lazily, by #NM */
void *hold(void *arg)
{
	uint64_t in[8], out[8], seed = (uintptr_t)arg * 0x9e3779b97f4a7c15ull >> 3;
	int i, j, eax, bad = 0;

	for (i = 0; i < 300; i++) {
		for (j = 0; j < 8; j++)
			in[j] = seed + i * 8 + j;
		memset(out, 0, sizeof(out));
		asm volatile("fninit\n"
			     ".irp n, 0, 8, 16, 24, 32, 40, 48, 56\n"
			     "fildll \\n(%2)\n"
			     ".endr\n"
			     "int $0x80\n"
			     ".irp n, 56, 48, 40, 32, 24, 16, 8, 0\n"
			     "fistpll \\n(%3)\n"
			     ".endr"
			     : "=a" (eax) : "0" (SYS_sched_yield), "r" (in), "r" (out)
			     : "memory");
		bad |= eax != 0 || memcmp(in, out, sizeof(in));
	}
	return (void *)(intptr_t)bad;
}

void machine(void)
{
	int eax;

	asm volatile("int $0x80" : "=a" (eax) : "0" (SYS_getpid));
	check("int $0x80", eax == getpid());
}
