// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * What honest 32-bit programs do to the CPU, checked from user mode. No C
 * library, so that it compiles where only the 64-bit one is. Ends with 0 if
 * all held.
 */
#include "workload32.h"

call by_int, by_syscall, by_vdso;
u32 lost, sysinfo;

/* a system call with six arguments; `lost` counts those that lost a register */
#define CALL(name, instruction)						\
	asm(".globl " #name "\n" #name ":\n"				\
	    "push %ebp\npush %ebx\npush %esi\npush %edi\n"		\
	    "mov 20(%esp), %eax\n"					\
	    "mov 24(%esp), %ebx\n"					\
	    "mov 28(%esp), %ecx\n"					\
	    "mov 32(%esp), %edx\n"					\
	    "mov 36(%esp), %esi\n"					\
	    "mov 40(%esp), %edi\n"					\
	    "mov 44(%esp), %ebp\n"					\
	    instruction "\n"						\
	    "cmp 24(%esp), %ebx\njne 1f\n"				\
	    "cmp 28(%esp), %ecx\njne 1f\n"				\
	    "cmp 32(%esp), %edx\njne 1f\n"				\
	    "cmp 36(%esp), %esi\njne 1f\n"				\
	    "cmp 40(%esp), %edi\njne 1f\n"				\
	    "cmp 44(%esp), %ebp\nje 2f\n"				\
	    "1: incl lost\n"						\
	    "2: pop %edi\npop %esi\npop %ebx\npop %ebp\n"		\
	    "ret")

CALL(by_int, "int $0x80");
CALL(by_vdso, "call *sysinfo");
/* the kernel returns into its vDSO, which takes these three off the stack */
CALL(by_syscall, "call 3f\njmp 4f\n"
		 "3: push %ecx\npush %edx\npush %ebp\nmov %ecx, %ebp\nsyscall\n"
		 "4:");

static int failed;

void check(const char *name, int ok)
{
	char line[64] = "workload: 32-bit ";
	const char *end = ok ? " ok\n" : " FAILED\n";
	u32 n = 17;

	while (*name)
		line[n++] = *name++;
	while (n < 38)
		line[n++] = ' ';
	while (*end)
		line[n++] = *end++;
	sys(SYS_WRITE, 1, line, n);
	failed += !ok;
}

/* ---- calls ---- */

static void calls(const char *name, call *by)
{
	u32 i, parent = sys(SYS_GETPPID, 0, 0, 0), ok = 1;
	u32 *p;

	lost = 0;
	for (i = 0; i < 2000; i++)
		ok &= by(SYS_GETPPID, i, ~i, 3, 4, 5, 6) == (int)parent;
	ok &= by(99999, 1, 2, 3, 4, 5, 6) == -38;
	/* all six arguments matter here: anonymous memory of the wanted size */
	p = (u32 *)by(SYS_MMAP2, 0x20000000, 8192, 3, 0x32, -1, 0);
	ok &= p == (u32 *)0x20000000;
	if (ok)
		p[2047] = 1;
	check(name, ok && !lost);
}

static int has_syscall(void)
{
	u32 a = 0, b, c, d, cs;

	asm("mov %%cs, %0" : "=r" (cs));
	if (cs != 0x23)		/* a 32-bit kernel, none of which has it */
		return 0;
	asm volatile("cpuid" : "+a" (a), "=b" (b), "=c" (c), "=d" (d));
	if (b != 0x68747541)	/* AuthenticAMD; others have it in 64-bit code only */
		return 0;
	a = 0x80000001;
	asm volatile("cpuid" : "+a" (a), "=b" (b), "=c" (c), "=d" (d));
	return d >> 11 & 1;
}

/* ---- signals and exceptions ---- */

static const int bounds[2] = { 5, 9 };
u32 at, resume;
volatile u32 sig;
static volatile u32 sig_trap, sig_eip, sig_count;

/* edi of the context is its fifth word of registers; see struct sigcontext_32 */
static void on_signal(int no, void *info, u32 *context)
{
	u32 *regs = context + 5;

	(void)info;
	sig = no;
	sig_trap = regs[12];
	sig_eip = regs[14];
	sig_count++;
	if (resume)
		regs[14] = resume;
	resume = 0;
}

void restore(void);
asm("restore:\nmov $173, %eax\nint $0x80");

void handle(int no)
{
	u32 action[5] = { (u32)on_signal, 0x44000004, (u32)restore, 0, 0 };

	by_int(SYS_SIGACTION, no, (u32)action, 0, 8, 0, 0);
}

/* the instruction raises this signal by that exception, `after` bytes on */
#define RAISES(no, trap, after, instruction) ({				\
	sig = 0;							\
	asm volatile("movl $1f, at\nmovl $2f, resume\n1: " instruction	\
		     "\n2:" : : "a" (0), "c" (0), "d" (0), "b" (bounds)	\
		     : "memory", "cc");					\
	resume = 0;							\
	sig == (no) && sig_trap == (trap) && sig_eip == at + (after);	\
})

static void exceptions(void)
{
	static const int signals[] = { SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGUSR1, SIGSEGV };
	u32 i;

	for (i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		handle(signals[i]);
	for (i = 0; i < 100; i++)
		sys(SYS_KILL, sys(SYS_GETPID, 0, 0, 0), SIGUSR1, 0);
	check("signals", sig == SIGUSR1 && sig_count == 100);
	check("int3", RAISES(SIGTRAP, 3, 1, "int3"));
	check("into", RAISES(SIGSEGV, 4, 5, "mov $127, %%al\nadd $1, %%al\ninto"));
	check("into that does nothing", !RAISES(SIGSEGV, 4, 2, "test %%al, %%al\ninto"));
	check("bound", RAISES(SIGSEGV, 5, 0, "bound %%eax, (%%ebx)"));
	check("#DE", RAISES(SIGFPE, 0, 0, "div %%ecx"));
	check("#UD", RAISES(SIGILL, 6, 0, "ud2"));
	check("#GP", RAISES(SIGSEGV, 13, 0, "hlt"));
	check("#PF", RAISES(SIGSEGV, 14, 0, "mov %%eax, (%%ecx)"));
	check("kernel's vector", RAISES(SIGSEGV, 13, 0, "int $0xec"));
	check("bad selector", RAISES(SIGSEGV, 13, 5, "mov $0x1234, %%eax\nmov %%eax, %%es"));
}

/* ---- segments ---- */

/* the 64-bit one's asm/ldt.h is out of reach */
struct user_desc {
	u32 entry_number, base_addr, limit;
	u32 seg_32bit : 1, contents : 2, read_exec_only : 1, limit_in_pages : 1,
	    seg_not_present : 1, useable : 1;
};

static u32 read_gs(u32 selector)
{
	u32 value;

	asm volatile("mov %1, %%gs\nmov %%gs:0, %0" : "=r" (value) : "r" (selector));
	return value;
}

int child_ended(int pid)
{
	u32 status = 1;

	return sys(SYS_WAITPID, pid, &status, 0) == pid && !status;
}

static void thread_area(void)
{
	static u32 one = 1111, two = 2222;
	struct user_desc area = { .entry_number = -1, .base_addr = (u32)&one, .limit = 0xfffff,
				  .seg_32bit = 1, .limit_in_pages = 1, .useable = 1 };
	struct user_desc found = { 0 };
	u32 selector, i, ok;
	int pid;

	ok = !sys(SYS_SET_THREAD_AREA, &area, 0, 0);
	selector = area.entry_number << 3 | 3;
	check("set_thread_area", ok && read_gs(selector) == 1111);
	found.entry_number = area.entry_number;
	check("get_thread_area", !sys(SYS_GET_THREAD_AREA, &found, 0, 0) &&
	      found.base_addr == (u32)&one);
	pid = sys(SYS_FORK, 0, 0, 0);
	if (!pid) {
		area.base_addr = (u32)&two;
		ok = !sys(SYS_SET_THREAD_AREA, &area, 0, 0) && read_gs(selector) == 2222;
	}
	for (i = 0; i < 200; i++) {
		u32 value;

		sys(SYS_YIELD, 0, 0, 0);
		asm volatile("mov %%gs:0, %0" : "=r" (value));
		ok &= value == (pid ? 1111 : 2222);
	}
	if (!pid)
		sys(SYS_EXIT, !ok, 0, 0);
	check("tasks' areas", child_ended(pid) && ok);
}

static u32 local(u32 number, u32 base, u32 limit, int code, int wide)
{
	struct user_desc desc = { .entry_number = number, .base_addr = base, .limit = limit,
				  .seg_32bit = wide, .contents = code ? 2 : 0, .useable = 1,
				  .limit_in_pages = limit == 0xfffff };

	return sys(SYS_MODIFY_LDT, 0x11, &desc, sizeof(desc)) ? 0 : number << 3 | 7;
}

void far_code(void);
asm("far_code:\nmov $0x5ec, %eax\nlret");

/* code of 16 bits, which goes on in a wide segment, whose return is the first caller's */
void narrow_code(void);
u32 onward[2];
asm("narrow_code:\n.code16\nmov $7, %ecx\n1: loop 1b\nmov $onward, %ebx\nljmpl *(%ebx)\n.code32");

static void local_descriptors(void)
{
	static u32 value = 3333;
	struct { u32 offset, selector; } far = { (u32)far_code, local(0, 0, 0xfffff, 1, 1) };
	u32 i, base, before, after, ss, eax = SYS_GETPPID, gs = local(1, (u32)&value, 3, 0, 1);

	check("modify_ldt", gs && read_gs(gs) == 3333);
	asm volatile("lcall *%1" : "=a" (eax) : "m" (far) : "memory");
	check("local code segment", far.selector && eax == 0x5ec);
	onward[0] = far.offset;
	onward[1] = far.selector;
	far.offset = 0;
	far.selector = local(3, (u32)narrow_code, 0xff, 1, 0);
	for (i = 0, base = 0; i < 200; i++) {
		eax = i;
		asm volatile("lcall *%1" : "+a" (eax) : "m" (far) : "ebx", "ecx", "memory");
		base += eax;
	}
	check("16-bit code and back", far.selector && base == 200 * 0x5ec);

	/* a stack of 16 bits: IRET leaves half of ESP to the kernel's care */
	asm("mov %%esp, %0" : "=r" (base));
	base &= ~0xffffu;
	asm("mov %%ss, %0" : "=r" (ss));
	eax = SYS_GETPPID;
	asm volatile("mov %%esp, %1\n"
		     "mov %4, %%ss\n"
		     "int $0x80\n"
		     "mov $3000000, %%ecx\n"	/* the timer comes meanwhile */
		     "3: loop 3b\n"
		     "mov %%esp, %2\n"
		     "mov %5, %%ss\n"
		     "mov %1, %%esp"
		     : "+a" (eax), "=&S" (before), "=&D" (after), "=&c" (gs)
		     : "d" (local(2, base, 0xffff, 0, 0)), "b" (ss) : "memory");
	check("stack of 16 bits", before == after && (int)eax == sys(SYS_GETPPID, 0, 0, 0));
}

void begin(u32 *stack)
{
	u32 *word = stack + 1 + stack[0] + 1;

	while (*word++)
		;
	while (word[0] && word[0] != AT_SYSINFO)
		word += 2;
	sysinfo = word[1];
	calls("int $0x80", by_int);
	calls("calls by the vDSO", sysinfo ? by_vdso : by_int);
	calls("syscall", sysinfo && has_syscall() ? by_syscall : by_int);
	exceptions();
	thread_area();
	local_descriptors();
	virtual_8086();
	sys(SYS_EXIT, failed, 0, 0);
}

asm(".globl _start\n_start:\nmov %esp, %eax\nand $-16, %esp\nsub $12, %esp\npush %eax\ncall begin");
