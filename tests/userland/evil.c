// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * evil [NAME...]: performs the demo kernel's attacks, all of them by default,
 * each in a process of its own, and prints one line per attack:
 *   evil: NAME gpa=0x... outcome=succeeded|stopped
 * gpa is the attack's target, 0 where it has none. Judged by the kernel.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define DEVICE "/dev/secvisor-demo"
#define MODULE "/lib/modules/secvisor_demo_module.ko"

static const char *const all[] = {
	"exec-data", "exec-heap", "write-text", "write-text-alias",
	"devmem", "ret2user", "ret2user-supervisor", "module",
};

/* movl $1,(%rdi); ret: the kernel calls it with a pointer to its own flag */
static const unsigned char shellcode[] = { 0xc7, 0x07, 1, 0, 0, 0, 0xc3 };

static int command(const char *verb, const char *name, const void *user)
{
	char line[80];
	int n = snprintf(line, sizeof(line), "%s %s %lx", verb, name,
			 (unsigned long)user);
	int fd = open(DEVICE, O_WRONLY);
	int ok = fd >= 0 && write(fd, line, n) == n;

	close(fd);
	return ok;
}

static int status(char *line, size_t size)
{
	int fd = open(DEVICE, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, line, size - 1);

	close(fd);
	if (n <= 0)
		return 0;
	line[n] = 0;
	return 1;
}

static unsigned long target(void)
{
	char line[200], *gpa;

	if (!status(line, sizeof(line)) || !(gpa = strstr(line, "gpa=")))
		return 0;
	return strtoul(gpa + 4, NULL, 16);
}

/* user memory becomes a window on the kernel text's own frame */
static void devmem(void)
{
	unsigned long gpa = target();
	int fd = open("/dev/mem", O_RDWR | O_SYNC);
	volatile unsigned char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
					 MAP_SHARED, fd, gpa & ~4095ul);

	if (p == MAP_FAILED)
		_exit(1);
	p[gpa & 4095] = 2;
	_exit(0);
}

static void undo_devmem(void)
{
	unsigned long gpa = target();
	int fd = open("/dev/mem", O_RDWR | O_SYNC);
	volatile unsigned char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
					 MAP_SHARED, fd, gpa & ~4095ul);

	if (p != MAP_FAILED)
		p[gpa & 4095] = 1;
	_exit(0);
}

static void in_child(void (*fn)(void))
{
	pid_t pid = fork();

	if (!pid)
		fn();
	waitpid(pid, NULL, 0);
}

static void insmod(void)
{
	int fd = open(MODULE, O_RDONLY | O_CLOEXEC);
	long err = syscall(SYS_finit_module, fd, "", 0);

	if (err)
		fprintf(stderr, "evil: module refused: %s\n",
			fd < 0 ? "no such file" : strerror(errno));
	_exit(err != 0);
}

static const char *name;
static void *user;

static void by_kernel(void)
{
	_exit(!command("attack", name, user));
}

static void attack(void)
{
	char line[200], gpa[40] = "0x0", outcome[20] = "unknown", *p;

	user = NULL;
	if (!strncmp(name, "ret2user", 8)) {
		user = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		memcpy(user, shellcode, sizeof(shellcode));
	}
	if (!command("target", name, user)) {
		printf("evil: %s gpa=0x0 outcome=unknown\n", name);
		return;
	}
	if (!strcmp(name, "devmem"))
		in_child(devmem);
	else if (!strcmp(name, "module"))
		in_child(insmod);
	else
		in_child(by_kernel);
	if (status(line, sizeof(line))) {
		if ((p = strstr(line, "gpa=")))
			sscanf(p, "gpa=%39s", gpa);
		if ((p = strstr(line, "outcome=")))
			sscanf(p, "outcome=%19s", outcome);
	}
	printf("evil: %s gpa=%s outcome=%s\n", name, gpa, outcome);
	fflush(stdout);
	tcdrain(1);	/* or the kernel's next message lands inside the line */
	if (!strcmp(name, "devmem") && !strcmp(outcome, "succeeded"))
		in_child(undo_devmem);
	if (!strcmp(name, "module") && !strcmp(outcome, "succeeded"))
		syscall(SYS_delete_module, "secvisor_demo_module", 0);
}

int main(int argc, char **argv)
{
	int i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (access(DEVICE, F_OK)) {
		fprintf(stderr, "evil: this kernel has no %s\n", DEVICE);
		return 1;
	}
	if (argc > 1) {
		for (i = 1; i < argc; i++) {
			name = argv[i];
			attack();
		}
		return 0;
	}
	for (i = 0; i < (int)(sizeof(all) / sizeof(all[0])); i++) {
		name = all[i];
		attack();
	}
	return 0;
}
