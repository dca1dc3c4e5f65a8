// SPDX-License-Identifier: MIT OR Apache-2.0
/* Checks of the workload: memory, exceptions, single-stepping and breakpoints. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "workload.h"

static volatile int traps;

static void on_trap(int no, siginfo_t *si, void *uc)
{
	ucontext_t *c = uc;

	(void)no;
	traps++;
	sig_code = si->si_code;
	sig_rip = c->uc_mcontext.gregs[REG_PC];
}

/* movl $value,%eax; ret */
static void emit(uint8_t *p, uint32_t value)
{
	p[0] = 0xb8;
	memcpy(p + 1, &value, 4);
	p[5] = 0xc3;
}

#define run(p) (((int (*)(void))(p))())

/* without PAE there is none, and Linux 6.1 for i386 loses that of user pages: in vm_get_page_prot()
 * it passes through an unsigned long */
enum { USER_NX = sizeof(long) == 8 };

/* ---- memory: every change is seen at once ---- */

void memory(void)
{
	volatile uint8_t *volatile p, *q;
	uint8_t *volatile x, *y;
	volatile int ok = 1;
	int i, fd;
	pid_t pid;

	p = pages(512, PROT_READ | PROT_WRITE);
	for (i = 0; i < 512; i++)
		p[i * PAGE] = i;
	for (i = 0; i < 512; i++)
		ok &= p[i * PAGE] == (uint8_t)i;
	check("mmap", ok);

	mprotect((void *)p, PAGE, PROT_READ);
	check("write to read-only page", raises(SIGSEGV, p[3] = 1) &&
	      sig_addr == p + 3 && sig_code == SEGV_ACCERR && sig_err == 7);
	mprotect((void *)p, PAGE, PROT_READ | PROT_WRITE);
	p[3] = 9;
	check("mprotect gives write back", p[3] == 9);
	mprotect((void *)p, PAGE, PROT_NONE);
	check("read of a closed page", raises(SIGSEGV, (void)p[5]) &&
	      sig_addr == p + 5 && sig_code == SEGV_ACCERR);
	mprotect((void *)p, PAGE, PROT_READ | PROT_WRITE);
	check("and its contents stay", p[3] == 9);
	munmap((void *)(p + PAGE), PAGE);
	check("access after munmap", raises(SIGSEGV, (void)p[PAGE + 7]) &&
	      sig_addr == p + PAGE + 7 && sig_code == SEGV_MAPERR);
	q = mmap((void *)(p + PAGE), PAGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	check("new mapping reads zero", q == p + PAGE && q[0] == 0);

	p[0] = 1;
	pid = fork();
	if (!pid) {
		p[0] = 2;
		_exit(p[0]);
	}
	ok = wait_code(pid) == 2;
	check("copy on write", ok && p[0] == 1);
	munmap((void *)p, 512 * PAGE);

	x = pages(1, PROT_READ | PROT_WRITE | PROT_EXEC);
	for (ok = 1, i = 0; i < 1000; i++) {
		emit(x, i);
		ok &= run(x) == i;
	}
	check("code that changes itself", ok);
	mprotect(x, PAGE, PROT_READ | PROT_WRITE);
	if (USER_NX)
		check("execution taken away", raises(SIGSEGV, run(x)) &&
		      sig_addr == x && sig_rip == (unsigned long)x);
	mprotect(x, PAGE, PROT_READ | PROT_EXEC);
	check("execution given back", run(x) == 999);
	pid = fork();
	if (!pid) {
		mprotect(x, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
		emit(x, 77);
		_exit(run(x));
	}
	ok = wait_code(pid) == 77;
	check("copy on write of code", ok && run(x) == 999);
	munmap(x, PAGE);

	fd = open("/tmp/code", O_RDWR | O_CREAT | O_TRUNC, 0700);
	unlink("/tmp/code");
	ok = fd >= 0 && !ftruncate(fd, PAGE);
	x = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	y = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	for (i = 0; ok && i < 100; i++) {
		emit(x, i * 3);
		ok &= run(y) == i * 3;
	}
	check("code by two mappings", ok);
	pid = fork();
	if (!pid) {
		emit(x, 4711);
		_exit(0);
	}
	ok = wait_code(pid) == 0;
	check("code by another process", ok && run(y) == 4711);
	munmap(x, PAGE);
	munmap(y, PAGE);
	close(fd);

	for (ok = 1, i = 0; i < 200; i++) {
		x = pages(4, PROT_READ | PROT_WRITE | PROT_EXEC);
		ok &= x && !x[0] && !x[3 * PAGE];
		emit(x + 3 * PAGE, i);
		ok &= run(x + 3 * PAGE) == i;
		munmap(x, 4 * PAGE);
	}
	check("pages come and go", ok);
}

/* ---- exceptions and software interrupts ---- */

extern char after_int3[], after_icebp[], after_cd03[], at_div[], at_ud2[];

void exceptions(void)
{
	uint16_t cw = 0x37b;	/* unmask division by zero */
	int zero = 0, eax;

	traps = 0;
	handle(SIGTRAP, on_trap);
	asm volatile("int3\nafter_int3:" : : : "memory");
	check("int3", traps == 1 && sig_rip == (unsigned long)after_int3);
	asm volatile(".byte 0xcd, 3\nafter_cd03:" : : : "memory");
	check("int $3", traps == 2 && sig_rip == (unsigned long)after_cd03);
	asm volatile(".byte 0xf1\nafter_icebp:" : : : "memory");
	check("icebp", traps == 3 && sig_rip == (unsigned long)after_icebp);

	check("#DE", raises(SIGFPE, asm volatile("at_div: divl %1"
		: "=a" (eax) : "r" (zero), "0" (1), "d" (0))) &&
	      sig_code == FPE_INTDIV && sig_addr == at_div);
	check("#UD", raises(SIGILL, asm volatile("at_ud2: ud2")) &&
	      sig_addr == at_ud2);
	check("#GP, privileged instruction",
	      raises(SIGSEGV, asm volatile("hlt")) && sig_code == SI_KERNEL);
	check("#MF", raises(SIGFPE, asm volatile(
		"fninit; fldcw %0; fld1; fldz; fdivrp; fwait" : : "m" (cw))) &&
	      sig_code == FPE_FLTDIV);
	asm volatile("fninit");
	check("#OF by int $4", raises(SIGSEGV, asm volatile("int $4")));
	check("int of a kernel vector",
	      raises(SIGSEGV, asm volatile("int $0xec")));
	check("int $14", raises(SIGSEGV, asm volatile("int $14")));
	check("#PF error code of a fetch",
	      raises(SIGSEGV, run(0x10)) && sig_addr == (void *)0x10 &&
	      (sig_err & 5) == 4);
}

/* ---- single-stepping and breakpoints ---- */

void stepping(void)
{
	traps = 0;
	handle(SIGTRAP, on_trap);
	asm volatile("pushf\n"
		     "orl $0x100, (%%" REG("sp") ")\n"
		     "popf\n"
		     "nop\nnop\nnop\nnop\nnop\n"	/* 5 traps */
		     "mov %0, %%eax\n"			/* 1 */
		     SYSCALL "\n"			/* none, */
		     "pushf\n"				/* 1 */
		     "andl $~0x100, (%%" REG("sp") ")\n"	/* 1 */
		     "popf\n"				/* 1, TF was still set */
		     "nop\n"
		     : : "i" (SYS_getppid) : "eax", SYSCALL_CLOBBERS "memory", "cc");
	check("single step of oneself", traps == 9);
	signal(SIGTRAP, SIG_DFL);
}

static volatile long watched;

void tracing(void)
{
	struct user_regs_struct r;
	long first, last;
	int st, steps = 0, nops = 0;
	long word;
	pid_t pid = fork();

	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		asm volatile("mov $1f, %%ebx\n"
			     "mov $2f, %%ecx\n"
			     "int3\n"
			     "1:\n"
			     ".rept 100\nnop\n.endr\n"
			     "2:\n"
			     : : : REG("bx"), REG("cx"), "memory");
		watched = 5;
		asm volatile("int3");
		_exit(21);
	}
	waitpid(pid, &st, 0);
	ptrace(PTRACE_GETREGS, pid, 0, &r);
	first = r.USER_BX;
	last = r.USER_CX;
	check("ptrace stops at int3", WIFSTOPPED(st) &&
	      WSTOPSIG(st) == SIGTRAP && r.USER_PC == first);
	while (WIFSTOPPED(st) && r.USER_PC != last && steps < 1000) {
		ptrace(PTRACE_SINGLESTEP, pid, 0, 0);
		waitpid(pid, &st, 0);
		ptrace(PTRACE_GETREGS, pid, 0, &r);
		steps++;
		nops += r.USER_PC == first + steps;
	}
	check("ptrace single step", steps == 100 && nops == 100);
	/* back to the nops, with a breakpoint in the middle of them */
	word = ptrace(PTRACE_PEEKTEXT, pid, first + 50, 0);
	ptrace(PTRACE_POKETEXT, pid, first + 50, (word & ~0xfful) | 0xcc);
	r.USER_PC = first;
	ptrace(PTRACE_SETREGS, pid, 0, &r);
	ptrace(PTRACE_CONT, pid, 0, 0);
	waitpid(pid, &st, 0);
	ptrace(PTRACE_GETREGS, pid, 0, &r);
	check("ptrace breakpoint", WIFSTOPPED(st) && r.USER_PC == first + 51);
	ptrace(PTRACE_POKETEXT, pid, first + 50, word);
	st = ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, u_debugreg[0]),
		    &watched) ||
	     ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, u_debugreg[7]),
		    WATCH_WRITE);
	ptrace(PTRACE_CONT, pid, 0, 0);
	waitpid(pid, &st, 0);
	word = ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, u_debugreg[6]), 0);
	check("ptrace watchpoint", WIFSTOPPED(st) && (word & 1) &&
	      ptrace(PTRACE_PEEKDATA, pid, &watched, 0) == 5);
	ptrace(PTRACE_CONT, pid, 0, 0);
	waitpid(pid, &st, 0);
	ptrace(PTRACE_CONT, pid, 0, 0);
	check("ptrace lets it end", wait_code(pid) == 21);
}
