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
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define DEVICE "/dev/secvisor-demo"
#define UNAPPROVED "/lib/unapproved/secvisor_demo_unapproved.ko"

static const char *const all[] = {
	"clear-wp", "exec-data", "exec-heap", "write-text", "write-text-alias",
	"devmem", "ret2user", "ret2user-supervisor", "module", "module-bit",
};

/* movl $1,(%rax); ret, or the same with %eax: a pointer to the kernel's own flag */
static const unsigned char shellcode[] = { 0xc7, 0x00, 1, 0, 0, 0, 0xc3 };

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

/* load a module from memory; its bytes, changed or not, are the caller's */
static void insmod(const void *image, size_t size)
{
	long err = syscall(SYS_init_module, image, size, "");

	if (err)
		fprintf(stderr, "evil: module refused: %s\n", strerror(errno));
	_exit(err != 0);
}

static size_t load(const char *file, unsigned char *image, size_t size)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, image, size);

	close(fd);
	if (n <= 0)
		fprintf(stderr, "evil: cannot read %s\n", file);
	return n < 0 ? 0 : n;
}

static unsigned char image[1 << 20];

static void unapproved(void)
{
	insmod(image, load(UNAPPROVED, image, sizeof(image)));
}

static size_t approved(void)
{
	char file[200];
	struct utsname system;

	uname(&system);
	snprintf(file, sizeof(file), "/lib/modules/%s/secvisor_demo_module.ko", system.release);
	return load(file, image, sizeof(image));
}

static void genuine(void)
{
	insmod(image, approved());
}

/* the same module, one bit of a number in its code changed */
static void one_bit(void)
{
	static const unsigned char number[] = { 0x00, 0xde, 0xc0, 0x5e };
	size_t size = approved();
	unsigned char *at = memmem(image, size, number, sizeof(number));

	if (!at)
		_exit(1);
	*at ^= 1;
	insmod(image, size);
}

static void unload(const char *module)
{
	syscall(SYS_delete_module, module, O_NONBLOCK);
}

static const char *name;
static void *user;

/* before and after it the genuine module, which must work */
static void beside_the_approved(void)
{
	in_child(genuine);
	unload("secvisor_demo_module");
	in_child(one_bit);
	unload("secvisor_demo_module");
	in_child(genuine);
	unload("secvisor_demo_module");
}

static void by_kernel(void)
{
	_exit(!command("attack", name, user));
}

static void attack(void)
{
	char line[200], gpa[40] = "0x0", outcome[20] = "unknown", worked[20] = "0", *p;

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
		in_child(unapproved);
	else if (!strcmp(name, "module-bit"))
		beside_the_approved();
	else
		in_child(by_kernel);
	if (status(line, sizeof(line))) {
		if ((p = strstr(line, "gpa=")))
			sscanf(p, "gpa=%39s", gpa);
		if ((p = strstr(line, "outcome=")))
			sscanf(p, "outcome=%19s worked=%19s", outcome, worked);
	}
	printf("evil: %s gpa=%s outcome=%s\n", name, gpa, outcome);
	if (!strcmp(name, "module-bit"))
		printf("evil: the approved module worked=%s\n", worked);
	fflush(stdout);
	tcdrain(1);	/* or the kernel's next message lands inside the line */
	if (!strcmp(name, "devmem") && !strcmp(outcome, "succeeded"))
		in_child(undo_devmem);
	if (!strcmp(name, "module"))
		unload("secvisor_demo_unapproved");
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
