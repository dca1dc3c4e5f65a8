// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * What honest programs do to the CPU, checked from user mode. The output is
 * the same on every run and every machine: no addresses, ids or times.
 */
#define _GNU_SOURCE
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
#include <sys/syscall.h>
#include <sys/time.h>
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
void *volatile sig_addr;
volatile unsigned long sig_rip, sig_err;

void on_fault(int no, siginfo_t *si, void *uc)
{
	ucontext_t *c = uc;

	sig_no = no;
	sig_code = si->si_code;
	sig_addr = si->si_addr;
	sig_rip = c->uc_mcontext.gregs[REG_PC];
	sig_err = c->uc_mcontext.gregs[REG_ERR];
	siglongjmp(back, 1);
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

static void syscalls(void)
{
	int i, ok = 1;

	check("unknown syscall", syscall(99999) == -1 && errno == ENOSYS);
	for (i = 0; i < 10000; i++)
		ok &= syscall(SYS_getppid) == (long)getppid();
	check("20000 syscalls", ok);
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
	check("nanosleep sleeps", (b.tv_sec - a.tv_sec) * 1000000000ll +
	      b.tv_nsec - a.tv_nsec >= d.tv_nsec);
	check("gettimeofday", !gettimeofday(&tv, NULL) && tv.tv_usec < 1000000);
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
		pthread_create(&t[i], NULL, hold, (void *)(i + 1));
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
	machine();
	compat();
	timing();
	fpu();
	printf("workload: %d checks passed, %d failed\n", passed, failed);
	return failed != 0;
}
