/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* hole: attacks through the module secvisor_demo_hole, see hole.c. */
#ifndef HOLE_H
#define HOLE_H

#include <stdint.h>

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

enum { PAGE = 4096 };

/* ---- what the module does for us, as secvisor_demo_hole.c has it ---- */

enum {
	HOLE_READ = 0x5ec0de00, HOLE_WRITE, HOLE_STORE, HOLE_CALL, HOLE_RDMSR, HOLE_WRMSR,
	HOLE_READ_CR, HOLE_WRITE_CR, HOLE_LIDT, HOLE_INVLPG, HOLE_OUT, HOLE_VMMCALL,
	HOLE_STACK,
};

void open_hole(void);
u64 ask(unsigned int op, u64 at, u64 a, u64 b, u64 c, u64 d);
#define ask0(op, at) ask(op, at, 0, 0, 0, 0)
#define ask1(op, at, a) ask(op, at, a, 0, 0, 0)
#define ask2(op, at, a, b) ask(op, at, a, b, 0, 0)

/* kernel addresses, by names of functions and variables; there must be one */
u64 symbol(const char *name);
void read_symbols(void);	/* anew, after modules came or went */
u64 call(u64 function, u64 a, u64 b);

/* ---- memory: what is not named own or put is undone when the attack is over ---- */

enum { PRESENT = 1, WRITABLE = 2, USER = 4, ACCESSED = 0x60, UNCACHED = 0x18, LARGE = 0x80 };
enum { WRITE_PROTECT = 1 << 16, SMEP = 1 << 20 };	/* of CR0 and CR4 */
#define NO_EXECUTE (1ull << 63)
#define FRAME 0x000ffffffffff000ull

/* where the kernel maps all memory */
#ifdef __x86_64__
#define DIRECT 0xffff888000000000ull
#else
#define DIRECT 0xc0000000ull
#endif

u64 load(u64 at);
void put(u64 at, const void *data, unsigned int size);
void poke(u64 at, u32 value);	/* by one instruction */
int fetch(u64 at, void *data, unsigned int size);	/* not 0 if it was refused */
/* remembers what is there, for undo(), and makes it writable in the direct map; then writes there */
void remember(u64 physical, unsigned int size, u64 flush);
void store(u64 physical, const void *data, unsigned int size);
u64 physical(u64 at);	/* 0 if nothing is mapped there */
/* the physical address of the entry that maps it, with its level: 0 is the last one */
u64 entry_of(u64 at, int *level);
void edit(u64 at, u64 clear, u64 set);
/* of this process: the entry that maps a page, and the one above it; gives what was there */
u64 edit_own(const volatile void *at, u64 entry);
u64 table_own(const volatile void *at, u64 entry);
u64 new_page(void);	/* of the kernel, by its address in the direct map */
u64 map(u64 frame, u64 flags);	/* a kernel address of its own for a frame */
u64 split(u64 at);	/* the physical address of the 4 KiB entry, made if there is none */
/* the target becomes a copy of the page of approved text at an address, with other code there */
void impersonate(u64 where, const void *code, unsigned int size);
void repoint(void);	/* the address that is aimed at becomes the target */
u64 own_tables(u64 at, u64 frame);	/* a root where `at` is `frame`, all else as it is */
void undo(void);

/* ---- the attacks ---- */

struct attack {
	const char *name;
	void (*prepare)(void);	/* mere data; says what the target is */
	void (*act)(void);	/* in a process of its own */
};

/* of the attack that is under way: the frames that the judge looks at, and the address that it uses */
extern u64 target, witness, aim;
/* the witness by a kernel address */
extern u64 mark_at;
/* a frame of SecVisor's; an ordinary one where there is no SecVisor */
extern u64 hidden;

int under_secvisor(void);
/* loads the approved module of the demonstration, which has no hole */
void insert_module(void);
void remove_module(void);

/* a page that is writable and executable for user mode, below 1 GiB */
extern u8 *const gadget;

/* writes to the address that is its argument, as the kernel passes it, and returns */
extern const u8 mark[];
enum { MARK = 7 };

/* runs a user access that may be refused */
int guarded(void (*access)(void));
/* the gadget page becomes the kernel's alone, in this process */
void hide_gadget(void);

extern const struct attack execute_attacks[], write_attacks[], enter_attacks[], other_attacks[];

#endif
