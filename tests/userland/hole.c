// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * hole: root attacks the kernel through secvisor_demo_hole, an approved module that does in kernel
 * mode whatever it is asked for. Speaks with the judge, tests/src/attack, as the attack guest does:
 * asks which attacks to run, says of each what it aims at, and waits for a byte before it, after it,
 * and when everything is as it was. What came of it, the judge sees for himself.
 *
 * hole alone: those that need no judge, for a machine that nobody looks into. What they change is seen
 * from here. A line before each and one after it, on standard output, as a file safe on its disk at once,
 * and on standard error:
 *   hole: null call exits=N
 *   hole: NAME begins
 *   hole: NAME stopped|succeeded violations=N
 *
 * A new attack is a line in one of the tables and one in the judge's, tests/src/attack/rows/linux.rs.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "hole.h"

u64 target, witness, aim, mark_at, hidden;
u8 *const gadget = (u8 *)0x30000000;

#ifdef __x86_64__
const u8 mark[MARK] = { 0xc7, 0x07, 1, 0, 0, 0, 0xc3 };	/* movl $1,(%rdi); ret */
#else
const u8 mark[MARK] = { 0xc7, 0x00, 1, 0, 0, 0, 0xc3 };	/* movl $1,(%eax); ret */
#endif

static const struct attack *const tables[] = {
	execute_attacks, write_attacks, enter_attacks, other_attacks,
};

int under_secvisor(void)
{
	u32 eax = 0x40000000, ebx, ecx, edx;

	asm volatile("cpuid" : "+a" (eax), "=b" (ebx), "=c" (ecx), "=d" (edx));
	return !memcmp(&ebx, "SecV", 4) && !memcmp(&ecx, "isor", 4) && !memcmp(&edx, "Rust", 4);
}

static sigjmp_buf back;

static void on_signal(int number)
{
	siglongjmp(back, number);
}

int guarded(void (*access)(void))
{
	signal(SIGSEGV, on_signal);
	signal(SIGILL, on_signal);
	signal(SIGBUS, on_signal);
	if (sigsetjmp(back, 1))
		return 1;
	access();
	return 0;
}

void hide_gadget(void)
{
	int level;
	u64 entry;

	(void)*(volatile u8 *)gadget;
	entry = load(DIRECT + entry_of((unsigned long)gadget, &level));
	edit_own(gadget, entry & ~(u64)USER & ~NO_EXECUTE);
}

void insert_module(void)
{
	char file[200];
	struct utsname system;
	int fd;

	uname(&system);
	snprintf(file, sizeof(file), "/lib/modules/%s/secvisor_demo_module.ko", system.release);
	fd = open(file, O_RDONLY | O_CLOEXEC);
	if (syscall(SYS_finit_module, fd, "", 0))
		perror("hole: secvisor_demo_module");
	close(fd);
	read_symbols();
}

void remove_module(void)
{
	if (syscall(SYS_delete_module, "secvisor_demo_module", O_NONBLOCK))
		perror("hole: secvisor_demo_module");
}

/* ---- the judge ---- */

static void say(const char *name, const char *what)
{
	printf("attack: %s %s\n", name, what);
	fflush(stdout);
	tcdrain(1);
}

/* a line, or with no room for one a byte */
static void hear(char *line, size_t size)
{
	char byte;

	do {
		if (read(0, &byte, 1) != 1)
			exit(1);
		if (size > 1 && byte != '\n') {
			*line++ = byte;
			size--;
		}
	} while (size && byte != '\n');
	if (size)
		*line = 0;
}

static void pause_for(const char *name, const char *what)
{
	say(name, what);
	hear(NULL, 0);
}

static int in_child(void (*act)(void))
{
	pid_t pid = fork();
	int status = 0;

	if (!pid) {
		act();
		fflush(stdout);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	return status;
}

/* work that shows a system in good health: processes, time, system calls, calls into text */
static void work(void)
{
	struct timespec tick = { 0, 5000000 };
	int i;

	for (i = 0; i < 1000; i++)
		syscall(SYS_getppid);
	for (i = 0; i < 3; i++)
		if (nanosleep(&tick, NULL))
			_exit(1);
	if (call(symbol("secvisor_demo_victim"), 0, 0) != 1)
		_exit(1);
}

static void stage(const struct attack *attack)
{
	const char *name = attack->name;
	char line[120];
	int status, health;
	u64 own = witness;

	memset((void *)(gadget + PAGE), 0, PAGE);
	target = 0;
	attack->prepare();
	snprintf(line, sizeof(line), "attempt target=0x%llx witness=0x%llx",
		 (unsigned long long)target, (unsigned long long)witness);
	say(name, line);
	pause_for(name, "pause before");
	status = in_child(attack->act);
	snprintf(line, sizeof(line), "done status=%#x", status);
	say(name, line);
	pause_for(name, "pause after");
	undo();
	witness = own;
	health = in_child(work);
	say(name, health ? "ill" : "survived");
	if (health)
		exit(1);
	pause_for(name, "pause over");
}

static void run(const char *name)
{
	const struct attack *attack;
	size_t i;

	for (i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
		for (attack = tables[i]; attack->name; attack++)
			if (!strcmp(attack->name, name)) {
				stage(attack);
				return;
			}
	printf("hole: no attack %s\n", name);
}

/* ---- no judge ---- */

/* SecVisor's leaves; nothing without it */
static u64 leaf(u32 number, int high)
{
	u32 eax = number, ebx, ecx = 0, edx;

	if (!under_secvisor())
		return 0;
	asm volatile("cpuid" : "+a" (eax), "=b" (ebx), "+c" (ecx), "=d" (edx));
	return high ? ecx : (u64)ebx << 32 | eax;
}

static u32 violations(void) { return leaf(0x40000001, 1); }
static u64 exits(void) { return leaf(0x40000002, 0); }

enum { CALLS = 20 };

/* of many rounds the one that nothing interrupted */
static u64 least_exits(int calls)
{
	u64 least = ~0ull, before, now;
	int round, i;

	for (round = 0; round < 200; round++) {
		before = exits();
		for (i = 0; i < calls; i++)
			syscall(SYS_getppid);
		now = exits() - before;
		least = now < least ? now : least;
	}
	return least;
}

static void tell(const char *name, const char *what, const char *more)
{
	dprintf(1, "hole: %s%s%s\n", name, what, more);
	fsync(1);
	dprintf(2, "hole: %s%s%s\n", name, what, more);
}

static void stage_alone(const struct attack *attack)
{
	u64 own = witness, before;
	u32 records;
	int changed;
	char line[40];

	memset((void *)(gadget + PAGE), 0, PAGE);
	tell(attack->name, " begins", "");
	attack->prepare();
	before = load(DIRECT + witness);
	records = violations();
	in_child(attack->act);
	changed = load(DIRECT + witness) != before;
	snprintf(line, sizeof(line), " violations=%u", violations() - records);
	undo();
	witness = own;
	tell(attack->name, changed ? " succeeded" : " stopped", line);
	if (in_child(work)) {
		tell(attack->name, " left the machine ill", "");
		exit(1);
	}
}

static void all_alone(void)
{
	const struct attack *attack;
	char line[40];
	size_t i;

	snprintf(line, sizeof(line), "%.2f", (double)(least_exits(CALLS) - least_exits(0)) / CALLS);
	tell("null call exits=", line, "");
	/* but the last table's, which need what only a judge knows, or end the machine */
	for (i = 0; i < sizeof(tables) / sizeof(tables[0]) - 1; i++)
		for (attack = tables[i]; attack->name; attack++)
			stage_alone(attack);
	tell("all", " done", "");
}

int main(int argc, char *argv[])
{
	static char line[4096];
	static const u32 silence = 0;
	struct termios terminal, raw;
	char *word, *names = NULL;

	open_hole();
	/* the kernel's remarks must not land inside the lines, not even those on a task that dies */
	put(symbol("console_printk"), &silence, sizeof(silence));
	/* shared, and in memory before anybody needs it: the gadget, and the witness behind it */
	if (mmap(gadget, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
		 MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != gadget)
		return 1;
	memset((void *)gadget, 0, 2 * PAGE);
	witness = physical((unsigned long)gadget + PAGE);
	mark_at = DIRECT + witness;
	hidden = new_page() - DIRECT;
	if (argc > 1 && !strcmp(argv[1], "alone")) {
		all_alone();
		return 0;
	}
	tcgetattr(0, &terminal);
	raw = terminal;
	raw.c_lflag &= ~(ICANON | ECHO);
	tcsetattr(0, TCSANOW, &raw);
	puts("guest: ask");
	fflush(stdout);
	hear(line, sizeof(line));
	for (word = strtok(line, " "); word; word = strtok(NULL, " ")) {
		if (!strncmp(word, "run=", 4))
			names = word + 4;
		else if (!strncmp(word, "hidden=", 7))
			hidden = strtoull(word + 7, NULL, 16);
	}
	for (word = strtok(names, ","); word; word = strtok(NULL, ","))
		run(word);
	tcsetattr(0, TCSANOW, &terminal);
	return 0;
}
