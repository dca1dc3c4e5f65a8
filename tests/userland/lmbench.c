// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * lmbench [MODULE.ko]: the rows of lmbench's table, INT 0x80, packing files, and loading and
 * unloading that module, counted instead of timed: instructions (the TSC under QEMU's -icount
 * shift=0) and exits to SecVisor (none without it). One line per row:
 *   lmbench: ROW operations=N instructions=I exits=E spread=S
 * Each row is warmed up and run for some rounds, of which the median counts: so timer ticks do
 * not, but where a round is longer than they are apart. The loops' own instructions do. The spread
 * is what lies between the first and the third quartile, in instructions.
 * lmbench null-call: the first row only.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

/* of less than half a million instructions each: most have no timer tick in them */
#define ROUNDS 21
/* more instructions than are between two ticks, with each of which the kernel may change its ways */
#define WARM_UP 10000000
#define FILE_NAME "/tmp/lmbench.file"
#define TREE "/tmp/lmbench.tree"
#define STRIDE (256 << 10)
#define FAULTS 64

struct count {
	int64_t instructions, exits, spread;
};

/* ---- reading the counters ---- */

static int under_secvisor;
static volatile struct count before;
static struct count sum, reading;

static void cpuid(uint32_t leaf, uint32_t r[4])
{
	asm volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
		     : "a"(leaf), "c"(0) : "memory");
}

static int64_t exits(void)
{
	uint32_t r[4];

	if (!under_secvisor)
		return 0;
	cpuid(0x40000002, r);
	return r[0] | (uint64_t)r[1] << 32;
}

static int64_t instructions(void)
{
	uint32_t low, high;

	asm volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return low | (uint64_t)high << 32;
}

/* between the two readings nothing may be stored: after a fork that would be a page fault */
static void begin(void)
{
	before.exits = 0;
	before.exits = exits();
	before.instructions = instructions();
}

/* without what a reading with nothing in between costs */
static void end(void)
{
	int64_t i = instructions(), e = exits();

	sum.instructions += i - before.instructions - reading.instructions;
	sum.exits += e - before.exits - reading.exits;
}

static int compare(const void *a, const void *b)
{
	int64_t x = ((const struct count *)a)->instructions;
	int64_t y = ((const struct count *)b)->instructions;

	return (x > y) - (x < y);
}

static struct count median(void (*body)(int), int operations)
{
	struct count rounds[ROUNDS];
	int64_t start = instructions();
	int i;

	do {
		body(operations);
	} while (instructions() - start < WARM_UP);
	for (i = 0; i < ROUNDS; i++) {
		memset(&sum, 0, sizeof(sum));
		body(operations);
		rounds[i] = sum;
	}
	qsort(rounds, ROUNDS, sizeof(*rounds), compare);
	sum = rounds[ROUNDS / 2];
	sum.spread = rounds[3 * ROUNDS / 4].instructions - rounds[ROUNDS / 4].instructions;
	return sum;
}

static void print(const char *row, int operations, struct count c)
{
	printf("lmbench: %s operations=%d instructions=%lld exits=%lld spread=%lld\n", row, operations,
	       (long long)c.instructions, (long long)c.exits, (long long)c.spread);
	fflush(stdout);
	/* or the serial port's interrupts would fall into the next row */
	tcdrain(1);
}

static void row(const char *name, void (*body)(int), int operations)
{
	print(name, operations, median(body, operations));
}

static struct count minus(struct count a, struct count b)
{
	a.instructions -= b.instructions;
	a.exits -= b.exits;
	a.spread += b.spread;
	return a;
}

static void need(int ok, const char *what)
{
	if (ok)
		return;
	printf("lmbench: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---- the rows ---- */

static void nothing(int n)
{
	(void)n;
	begin();
	end();
}

static inline long int80(long nr)
{
#ifdef __x86_64__
	asm volatile("int $0x80" : "+a"(nr) : : "r8", "r9", "r10", "r11", "memory");
#else
	asm volatile("int $0x80" : "+a"(nr) : : "memory");
#endif
	return nr;
}

/* lat_syscall null, by SYSCALL where there is one */
static void null_call(int n)
{
	begin();
	while (n--) {
#ifdef __x86_64__
		long nr = SYS_getppid;

		asm volatile("syscall" : "+a"(nr) : : "rcx", "r11", "memory");
#else
		int80(SYS_getppid);
#endif
	}
	end();
}

/* into the kernel and back: there is no call of this number */
static void int80_round_trip(int n)
{
	begin();
	while (n--)
		int80(0x7fff);
	end();
}

static int zero;

/* lat_syscall read: a byte of /dev/zero */
static void read_byte(int n)
{
	char byte;

	begin();
	while (n--)
		need(read(zero, &byte, 1) == 1, "/dev/zero");
	end();
}

static void wait_for(pid_t pid)
{
	int status;

	need(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && !WEXITSTATUS(status),
	     "a child");
}

/* lat_proc fork: with the child's exit */
static void fork_exit(int n)
{
	pid_t pid;

	begin();
	while (n--) {
		pid = fork();
		if (!pid)
			_exit(0);
		wait_for(pid);
	}
	end();
}

static void run(const char *path, char *const argv[], int n)
{
	char *none = NULL;
	pid_t pid;

	begin();
	while (n--) {
		pid = fork();
		if (!pid) {
			execve(path, argv, &none);
			_exit(1);
		}
		wait_for(pid);
	}
	end();
}

/* lat_proc exec: fork, exec of this static program, and its exit */
static void fork_exec(int n)
{
	char *argv[] = { "lmbench", "exit", NULL };

	run("/proc/self/exe", argv, n);
}

/* a job: tar and gzip of 64 small files, from a shell */
static void archive(int n)
{
	char *argv[] = { "sh", "-c", "cd " TREE " && tar -cf - . | gzip >" TREE ".tgz", NULL };

	run("/bin/sh", argv, n);
}

static void kill_nothing(int n)
{
	pid_t me = getpid();

	begin();
	while (n--)
		kill(me, 0);
	end();
}

static void catch_nothing(int no)
{
	(void)no;
}

static void kill_and_catch(int n)
{
	pid_t me = getpid();

	signal(SIGUSR1, catch_nothing);
	begin();
	while (n--)
		kill(me, SIGUSR1);
	end();
}

static char *file;
static volatile int caught, wanted;

/* the write faults again at each return, until it may succeed */
static void catch_fault(int no)
{
	(void)no;
	if (!caught++)
		begin();
	else if (caught > wanted) {
		end();
		mprotect(file, 4096, PROT_READ | PROT_WRITE);
	}
}

static void protection_fault(int n)
{
	signal(SIGSEGV, catch_fault);
	mprotect(file, 4096, PROT_READ);
	caught = 0;
	wanted = n;
	*(volatile char *)file = 1;
	signal(SIGSEGV, SIG_DFL);
}

/* lat_pagefault: the first touch of pages of a file that is in memory, so far apart that no fault
   brings two of them */
static void page_fault(int n)
{
	int fd = open(FILE_NAME, O_RDONLY);
	volatile char *p = mmap(NULL, FAULTS * STRIDE, PROT_READ, MAP_SHARED, fd, 0);

	need(p != MAP_FAILED, "mapping " FILE_NAME);
	begin();
	while (n--)
		(void)p[n * STRIDE];
	end();
	munmap((void *)p, FAULTS * STRIDE);
	close(fd);
}

static int there[2], back[2];

static void pass(int from, int to)
{
	char token;

	if (read(from, &token, 1) != 1 || write(to, &token, 1) != 1)
		_exit(0);
}

/* what passing a token twice through a pipe costs without another process */
static void alone(int n)
{
	char token = 0;

	begin();
	while (n--) {
		need(write(there[1], &token, 1) == 1, "a pipe");
		pass(there[0], back[1]);
		need(read(back[0], &token, 1) == 1, "a pipe");
	}
	end();
}

/* lat_pipe: there and back through the other process */
static void ping_pong(int n)
{
	char token = 0;

	begin();
	while (n--)
		need(write(there[1], &token, 1) == 1 && read(back[0], &token, 1) == 1, "a pipe");
	end();
}

static struct count pipes(int n)
{
	struct count c;
	pid_t pid = fork();

	if (!pid) {
		close(there[1]);
		for (;;)
			pass(there[0], back[1]);
	}
	c = median(ping_pong, n);
	close(there[1]);
	wait_for(pid);
	return c;
}

static char image[1 << 20], module[56];
static long size;

static void load_module(int n)
{
	while (n--) {
		begin();
		need(!syscall(SYS_init_module, image, size, ""), module);
		/* new kernels free its init code in a thread of their own */
		sched_yield();
		end();
		need(!syscall(SYS_delete_module, module, O_NONBLOCK), module);
	}
}

static void unload_module(int n)
{
	while (n--) {
		need(!syscall(SYS_init_module, image, size, ""), module);
		begin();
		need(!syscall(SYS_delete_module, module, O_NONBLOCK), module);
		end();
	}
}

static void read_module(const char *path)
{
	const char *name = strrchr(path, '/');
	int fd = open(path, O_RDONLY), i;

	size = read(fd, image, sizeof(image));
	need(size > 0, path);
	close(fd);
	snprintf(module, sizeof(module), "%s", name ? name + 1 : path);
	*strrchr(module, '.') = 0;
	for (i = 0; module[i]; i++)
		if (module[i] == '-')
			module[i] = '_';
}

static void make_file(void)
{
	int fd = open(FILE_NAME, O_RDWR | O_CREAT, 0600), i;

	for (i = 0; i < FAULTS; i++)
		need(pwrite(fd, "x", 1, i * STRIDE) == 1, FILE_NAME);
	file = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	need(file != MAP_FAILED, "mapping " FILE_NAME);
	close(fd);
}

/* 50 KB of numbers, the same each time */
static void make_tree(void)
{
	char name[64];
	unsigned i, line;
	FILE *f;

	mkdir(TREE, 0700);
	for (i = 0; i < 64; i++) {
		snprintf(name, sizeof(name), TREE "/%u", i);
		f = fopen(name, "w");
		need(f != NULL, name);
		for (line = 0; line < 50; line++)
			fprintf(f, "%u %u\n", line, (line * line + i) * 2654435761U);
		fclose(f);
	}
}

int main(int argc, char **argv)
{
	const int n = 500, s = 100, p = 50;
	struct count caught_signals, overhead, trips;
	int priority = 0;
	struct utsname system;
	uint32_t r[4];

	if (argc > 1 && !strcmp(argv[1], "exit"))
		return 0;
	cpuid(0x40000000, r);
	under_secvisor = !memcmp(r + 1, "SecVisorRust", 12);
	/* who is woken waits for its turn, and does not sometimes preempt who woke it */
	need(!syscall(SYS_sched_setscheduler, 0, SCHED_BATCH, &priority), "scheduling");
	reading = median(nothing, 1);
	uname(&system);
	printf("lmbench: runs on release=%s machine=%s\n", system.release, system.machine);
	make_file();

	row("null-call", null_call, n);
	if (argc > 1 && !strcmp(argv[1], "null-call"))
		goto done;
	row("int80", int80_round_trip, n);
	zero = open("/dev/zero", O_RDONLY);
	row("read", read_byte, n);
	row("fork", fork_exit, 4);
	row("exec", fork_exec, 1);
	caught_signals = minus(median(kill_and_catch, s), median(kill_nothing, s));
	print("protection-fault", s, minus(median(protection_fault, s), caught_signals));
	row("page-fault", page_fault, FAULTS);
	need(!pipe(there) && !pipe(back), "a pipe");
	overhead = median(alone, p);
	trips = pipes(p);
	print("context-switch", 2 * p, minus(trips, overhead));
	print("pipe", p, trips);
	make_tree();
	row("archive", archive, 1);
	if (argc > 1) {
		read_module(argv[1]);
		row("module-load", load_module, 2);
		row("module-unload", unload_module, 2);
	}
done:
	printf("lmbench: done\n");
	return 0;
}
