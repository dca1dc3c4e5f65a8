// SPDX-License-Identifier: MIT OR Apache-2.0
/* What the parts of the workload share: checks, and faults that are caught. */
#ifndef WORKLOAD_H
#define WORKLOAD_H
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>

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

/* ---- segments.c ---- */

void segments(void);
void local_descriptors(void);

#endif
