// SPDX-License-Identifier: MIT OR Apache-2.0
/* What the parts of the 32-bit workload share; they have no C library. */
#ifndef WORKLOAD32_H
#define WORKLOAD32_H

typedef unsigned int u32;

enum { SYS_EXIT = 1, SYS_FORK, SYS_WRITE = 4, SYS_WAITPID = 7, SYS_GETPID = 20, SYS_KILL = 37,
       SYS_GETPPID = 64, SYS_MUNMAP = 91, SYS_MODIFY_LDT = 123, SYS_YIELD = 158, SYS_VM86 = 166,
       SYS_SIGACTION = 174, SYS_MMAP2 = 192, SYS_SET_THREAD_AREA = 243, SYS_GET_THREAD_AREA };
enum { SIGILL = 4, SIGTRAP, SIGBUS = 7, SIGFPE, SIGUSR1 = 10, SIGSEGV };
enum { AT_SYSINFO = 32 };

typedef int call(int nr, u32 a, u32 b, u32 c, u32 d, u32 e, u32 f);

extern call by_int;
#define sys(nr, a, b, c) by_int(nr, (u32)(a), (u32)(b), (u32)(c), 0, 0, 0)

/* print one check's line and count it */
void check(const char *name, int ok);
/* catch the signal; `sig` is the last one that came */
void handle(int no);
extern volatile u32 sig;
int child_ended(int pid);

/* ---- vm86.c ---- */

void virtual_8086(void);

#endif
