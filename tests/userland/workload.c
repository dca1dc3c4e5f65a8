// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * What honest programs do to the CPU, checked from user mode. The output is
 * the same on every run and every machine: no addresses, ids or times.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "workload.h"

static int passed, failed;

void check(const char *name, int ok)
{
	printf("workload: %-28s %s\n", name, ok ? "ok" : "FAILED");
	fflush(stdout);
	if (ok)
		passed++;
	else
		failed++;
}

/* ---- one fault or trap, and what the handler saw ---- */

sigjmp_buf back;
volatile int sig_no, sig_code;
static volatile int traps;
void *volatile sig_addr;
volatile unsigned long sig_rip, sig_err;

void on_fault(int no, siginfo_t *si, void *uc)
{
	ucontext_t *c = uc;

	sig_no = no;
	sig_code = si->si_code;
	sig_addr = si->si_addr;
	sig_rip = c->uc_mcontext.gregs[REG_RIP];
	sig_err = c->uc_mcontext.gregs[REG_ERR];
	siglongjmp(back, 1);
}

static void on_trap(int no, siginfo_t *si, void *uc)
{
	ucontext_t *c = uc;

	(void)no;
	traps++;
	sig_code = si->si_code;
	sig_rip = c->uc_mcontext.gregs[REG_RIP];
}

void handle(int no, void (*fn)(int, siginfo_t *, void *))
{
	struct sigaction sa = { .sa_sigaction = fn,
				.sa_flags = SA_SIGINFO | SA_NODEFER };

	sigaction(no, &sa, NULL);
}

void *pages(size_t n, int prot)
{
	void *p = mmap(NULL, n * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* movl $value,%eax; ret */
static void emit(uint8_t *p, uint32_t value)
{
	p[0] = 0xb8;
	memcpy(p + 1, &value, 4);
	p[5] = 0xc3;
}

#define run(p) (((int (*)(void))(p))())

int wait_code(pid_t pid)
{
	int st;

	if (waitpid(pid, &st, 0) != pid || !WIFEXITED(st))
		return -1;
	return WEXITSTATUS(st);
}

static void raise_fault(void)
{
	asm volatile("movl $0, (%0)" : : "r" (8ul) : "memory");
}

/* ---- processes, signals, pipes, threads ---- */

static void processes(void)
{
	int i, ok = 1, st;
	pid_t pid;

	for (i = 0; i < 50; i++) {
		pid = fork();
		if (!pid)
			_exit(i);
		ok &= wait_code(pid) == i;
	}
	check("fork and wait", ok);

	for (ok = 1, i = 0; i < 10; i++) {
		pid = fork();
		if (!pid) {
			execl("/proc/self/exe", "workload", "exec-child", NULL);
			_exit(1);
		}
		ok &= wait_code(pid) == 42;
	}
	check("fork and exec", ok);

	pid = vfork();
	if (!pid) {
		execl("/proc/self/exe", "workload", "exec-child", NULL);
		_exit(1);
	}
	check("vfork and exec", wait_code(pid) == 42);

	pid = fork();
	if (!pid)
		for (;;)
			pause();
	kill(pid, SIGKILL);
	check("kill", waitpid(pid, &st, 0) == pid && WIFSIGNALED(st) &&
	      WTERMSIG(st) == SIGKILL);

	pid = fork();
	if (!pid) {
		signal(SIGSEGV, SIG_DFL);
		raise_fault();
		_exit(0);
	}
	check("child dies of SIGSEGV", waitpid(pid, &st, 0) == pid &&
	      WIFSIGNALED(st) && WTERMSIG(st) == SIGSEGV);
}

static volatile int usr1, value_seen, on_alt;
static char alt_stack[65536];

static void on_usr1(int no, siginfo_t *si, void *uc)
{
	char here;

	(void)no;
	(void)uc;
	usr1++;
	value_seen = si->si_value.sival_int;
	on_alt = &here >= alt_stack && &here < alt_stack + sizeof(alt_stack);
}

static void signals(void)
{
	union sigval v = { .sival_int = 1234 };
	stack_t ss = { .ss_sp = alt_stack, .ss_size = sizeof(alt_stack) };
	struct sigaction sa = { .sa_sigaction = on_usr1,
				.sa_flags = SA_SIGINFO | SA_ONSTACK };
	sigset_t set;
	int i;

	handle(SIGUSR1, on_usr1);
	for (i = 0; i < 1000; i++)
		raise(SIGUSR1);
	check("1000 signals", usr1 == 1000);
	sigqueue(getpid(), SIGUSR1, v);
	check("signal with a value", value_seen == 1234);
	sigaltstack(&ss, NULL);
	sigaction(SIGUSR1, &sa, NULL);
	raise(SIGUSR1);
	check("signal on its own stack", on_alt);
	ss.ss_flags = SS_DISABLE;
	sigaltstack(&ss, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	usr1 = 0;
	raise(SIGUSR1);
	i = usr1;
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	check("blocked signal waits", i == 0 && usr1 == 1);
	signal(SIGUSR1, SIG_DFL);
}

static void pipes(void)
{
	int a[2], b[2], i, n, ok = 1;
	uint32_t sum = 0, want = 0;
	uint8_t buf[8192];
	pid_t pid;

	if (pipe(a) || pipe(b))
		return check("pipes", 0);
	pid = fork();
	if (!pid) {
		for (i = 0; i < 500; i++)
			if (read(a[0], &n, sizeof(n)) != sizeof(n) || ++n < 0 ||
			    write(b[1], &n, sizeof(n)) != sizeof(n))
				_exit(1);
		_exit(0);
	}
	for (i = 0; i < 500; i++) {
		ok &= write(a[1], &i, sizeof(i)) == sizeof(i);
		ok &= read(b[0], &n, sizeof(n)) == sizeof(n) && n == i + 1;
	}
	check("500 round trips by pipe", ok && wait_code(pid) == 0);

	pid = fork();
	if (!pid) {
		for (i = 0; i < 128; i++) {
			memset(buf, i, sizeof(buf));
			if (write(a[1], buf, sizeof(buf)) != sizeof(buf))
				_exit(1);
		}
		_exit(0);
	}
	for (i = 0; i < 128; i++)
		want += i * sizeof(buf);
	close(a[1]);
	while ((n = read(a[0], buf, sizeof(buf))) > 0)
		for (i = 0; i < n; i++)
			sum += buf[i];
	check("1 MiB by pipe", sum == want && wait_code(pid) == 0);
	close(a[0]);
	close(b[0]);
	close(b[1]);
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int counter, turn;
static __thread int tls;

static void *count_up(void *arg)
{
	int i;

	for (i = 0; i < 20000; i++) {
		pthread_mutex_lock(&lock);
		counter++;
		pthread_mutex_unlock(&lock);
		tls++;
		if (i % 1000 == 0)
			sched_yield();
	}
	*(int *)arg = tls;
	return NULL;
}

static void *take_turns(void *arg)
{
	int i, me = (intptr_t)arg;

	for (i = 0; i < 200; i++) {
		pthread_mutex_lock(&lock);
		while (turn % 2 != me)
			pthread_cond_wait(&cond, &lock);
		turn++;
		pthread_cond_broadcast(&cond);
		pthread_mutex_unlock(&lock);
	}
	return NULL;
}

static void threads(void)
{
	pthread_t t[4];
	int i, own[4], ok = 1;

	for (i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, count_up, &own[i]);
	for (i = 0; i < 4; i++) {
		pthread_join(t[i], NULL);
		ok &= own[i] == 20000;
	}
	check("threads and a mutex", counter == 80000);
	check("thread-local storage", ok && tls == 0);
	for (i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, take_turns, (void *)(intptr_t)i);
	for (i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	check("threads in turns", turn == 400);
}

/* ---- memory: every change is seen at once ---- */

static void memory(void)
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

	fd = syscall(SYS_memfd_create, "code", 0);
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

static void exceptions(void)
{
	uint16_t cw = 0x37b;	/* unmask division by zero */
	unsigned long bad = 0x8000000000000000ul;
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
	check("#GP, address not canonical",
	      raises(SIGSEGV, (void)*(volatile char *)bad));
	check("#MF", raises(SIGFPE, asm volatile(
		"fninit; fldcw %0; fld1; fldz; fdivrp; fwait" : : "m" (cw))) &&
	      sig_code == FPE_FLTDIV);
	asm volatile("fninit");
	check("#OF by int $4", raises(SIGSEGV, asm volatile("int $4")));
	asm volatile("int $0x80" : "=a" (eax) : "0" (20) : "r8", "r9", "r10", "r11");
	check("int $0x80 from 64-bit code", eax == getpid());
	check("int of a kernel vector",
	      raises(SIGSEGV, asm volatile("int $0xec")));
	check("int $14", raises(SIGSEGV, asm volatile("int $14")));
	sig_no = 0;
	handle(SIGSEGV, on_fault);
	handle(SIGILL, on_fault);
	if (!sigsetjmp(back, 1))
		asm volatile("sysenter" : : : "rcx", "rdx", "memory");
	check("sysenter refused", sig_no == SIGSEGV || sig_no == SIGILL);
	signal(SIGSEGV, SIG_DFL);
	signal(SIGILL, SIG_DFL);
	check("#PF error code of a fetch",
	      raises(SIGSEGV, run(0x10)) && sig_addr == (void *)0x10 &&
	      (sig_err & 0x15) == 0x14);
}

static void syscalls(void)
{
	unsigned long rcx, r11, rax, next, rdx = 5, r8 = 6;
	int i, ok = 1;

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
	check("unknown syscall", syscall(99999) == -1 && errno == ENOSYS);
	for (i = 0; i < 10000; i++)
		ok &= syscall(SYS_getppid) == (long)getppid();
	check("20000 syscalls", ok);
}

/* ---- single-stepping and breakpoints ---- */

static void stepping(void)
{
	traps = 0;
	handle(SIGTRAP, on_trap);
	asm volatile("pushfq\n"
		     "orq $0x100, (%%rsp)\n"
		     "popfq\n"
		     "nop\nnop\nnop\nnop\nnop\n"	/* 5 traps */
		     "mov %0, %%eax\n"			/* 1 */
		     "syscall\n"			/* none, */
		     "pushfq\n"				/* 1 */
		     "andq $~0x100, (%%rsp)\n"		/* 1 */
		     "popfq\n"				/* 1, TF was still set */
		     "nop\n"
		     : : "i" (SYS_getppid) : "rax", "rcx", "r11", "memory", "cc");
	check("single step of oneself", traps == 9);
	signal(SIGTRAP, SIG_DFL);
}

static volatile long watched;

static void tracing(void)
{
	struct user_regs_struct r;
	unsigned long first, last;
	int st, steps = 0, nops = 0;
	long word;
	pid_t pid = fork();

	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		asm volatile("lea 1f(%%rip), %%rbx\n"
			     "lea 2f(%%rip), %%rcx\n"
			     "int3\n"
			     "1:\n"
			     ".rept 100\nnop\n.endr\n"
			     "2:\n"
			     : : : "rbx", "rcx", "memory");
		watched = 5;
		asm volatile("int3");
		_exit(21);
	}
	waitpid(pid, &st, 0);
	ptrace(PTRACE_GETREGS, pid, 0, &r);
	first = r.rbx;
	last = r.rcx;
	check("ptrace stops at int3", WIFSTOPPED(st) &&
	      WSTOPSIG(st) == SIGTRAP && r.rip == first);
	while (WIFSTOPPED(st) && r.rip != last && steps < 1000) {
		ptrace(PTRACE_SINGLESTEP, pid, 0, 0);
		waitpid(pid, &st, 0);
		ptrace(PTRACE_GETREGS, pid, 0, &r);
		steps++;
		nops += r.rip == first + steps;
	}
	check("ptrace single step", steps == 100 && nops == 100);
	/* back to the nops, with a breakpoint in the middle of them */
	word = ptrace(PTRACE_PEEKTEXT, pid, first + 50, 0);
	ptrace(PTRACE_POKETEXT, pid, first + 50, (word & ~0xfful) | 0xcc);
	r.rip = first;
	ptrace(PTRACE_SETREGS, pid, 0, &r);
	ptrace(PTRACE_CONT, pid, 0, 0);
	waitpid(pid, &st, 0);
	ptrace(PTRACE_GETREGS, pid, 0, &r);
	check("ptrace breakpoint", WIFSTOPPED(st) && r.rip == first + 51);
	ptrace(PTRACE_POKETEXT, pid, first + 50, word);
	st = ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, u_debugreg[0]),
		    &watched) ||
	     ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, u_debugreg[7]),
		    0x90001ul);	/* slot 0, write, 8 bytes */
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

/* ---- time and the FPU ---- */

static volatile int ticks;

static void on_alarm(int no)
{
	(void)no;
	ticks++;
}

static void timing(void)
{
	struct itimerval it = { { 0, 5000 }, { 0, 5000 } }, off = { 0 };
	struct timespec a, b, d = { 0, 2000000 };
	struct timeval tv;
	unsigned int cpu = 9, node = 9;
	int i, ok = 1;

	signal(SIGALRM, on_alarm);
	setitimer(ITIMER_REAL, &it, NULL);
	while (ticks < 20)
		;
	setitimer(ITIMER_REAL, &off, NULL);
	signal(SIGALRM, SIG_DFL);
	check("timer while spinning", ticks >= 20);
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (i = 0; i < 20000; i++) {
		clock_gettime(CLOCK_MONOTONIC, &b);
		ok &= b.tv_sec > a.tv_sec ||
		      (b.tv_sec == a.tv_sec && b.tv_nsec >= a.tv_nsec);
		a = b;
	}
	check("the clock never goes back", ok);
	nanosleep(&d, NULL);
	clock_gettime(CLOCK_MONOTONIC, &b);
	check("nanosleep sleeps", (b.tv_sec - a.tv_sec) * 1000000000l +
	      b.tv_nsec - a.tv_nsec >= d.tv_nsec);
	check("gettimeofday", !gettimeofday(&tv, NULL) && tv.tv_usec < 1000000);
	for (ok = 1, i = 0; i < 1000; i++) {
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

static void *fpu_user(void *arg)
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

static void fpu(void)
{
	struct itimerval it = { { 0, 1000 }, { 0, 1000 } }, off = { 0 };
	pthread_t t[3];
	intptr_t i, bad = 0;
	void *r;

	signal(SIGALRM, on_alarm);
	setitimer(ITIMER_REAL, &it, NULL);
	for (i = 0; i < 3; i++)
		pthread_create(&t[i], NULL, fpu_user, (void *)(i + 1));
	for (i = 0; i < 3; i++) {
		pthread_join(t[i], &r);
		bad |= (intptr_t)r;
	}
	setitimer(ITIMER_REAL, &off, NULL);
	signal(SIGALRM, SIG_DFL);
	check("FPU registers across switches", !bad);
}

/* 32-bit code, which prints its own lines */
static void compat(void)
{
	pid_t pid = fork();

	if (!pid) {
		execl("/bin/workload32", "workload32", NULL);
		_exit(127);
	}
	check("32-bit program", wait_code(pid) == 0);
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "exec-child"))
		return 42;
	processes();
	signals();
	pipes();
	threads();
	memory();
	exceptions();
	syscalls();
	stepping();
	tracing();
	segments();
	local_descriptors();
	compat();
	timing();
	fpu();
	printf("workload: %d checks passed, %d failed\n", passed, failed);
	return failed != 0;
}
