// SPDX-License-Identifier: MIT OR Apache-2.0
/* What the parts of the workload share: checks, and faults that are caught. */
#ifndef WORKLOAD_H
#define WORKLOAD_H
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>

/* registers by their common names, and the native way into the kernel */
#ifdef __x86_64__
#define REG(name) "r" name
#define REG_PC REG_RIP
#define USER_PC rip
#define USER_BX rbx
#define USER_CX rcx
#define SYSCALL "syscall"
#define SYSCALL_CLOBBERS "rcx", "r11",
#define WATCH_WRITE 0x90001ul	/* slot 0, write, 8 bytes */
#else
#define REG(name) "e" name
#define REG_PC REG_EIP
#define USER_PC eip
#define USER_BX ebx
#define USER_CX ecx
#define SYSCALL "int $0x80"
#define SYSCALL_CLOBBERS
#define WATCH_WRITE 0xd0001ul	/* slot 0, write, 4 bytes */
#endif

#define PAGE 4096ul

/* print one check's line and count it */
void check(const char *name, int ok);

/* what the handler of the last fault saw */
extern sigjmp_buf back;
extern volatile int sig_no, sig_code;
extern void *volatile sig_addr;
extern volatile unsigned long sig_rip, sig_err;

void handle(int no, void (*fn)(int, siginfo_t *, void *));
void on_fault(int no, siginfo_t *si, void *uc);

/* run the statement; true if it raised that signal */
#define raises(no, statement) ({			\
	sig_no = 0;					\
	handle(no, on_fault);				\
	if (!sigsetjmp(back, 1)) {			\
		statement;				\
	}						\
	signal(no, SIG_DFL);				\
	sig_no == (no);					\
})

/* anonymous memory, NULL if there is none */
void *pages(size_t n, int prot);
int wait_code(pid_t pid);

/* ---- processor.c ---- */

void memory(void);
void exceptions(void);
void stepping(void);
void tracing(void);

/* ---- machine64.c or machine32.c ---- */

void machine(void);
/* holds a pattern in the FPU's registers many times; not NULL if it once got lost */
void *hold(void *arg);

/* ---- segments.c ---- */

void segments(void);
void local_descriptors(void);

#endif
