// SPDX-License-Identifier: MIT OR Apache-2.0
/* hole: the kernel's memory, through the module. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hole.h"

static int device = -1;
static char *names;

static void die(const char *why, const char *what)
{
	fprintf(stderr, "hole: %s %s\n", why, what);
	_exit(1);
}

/* What must be undone outlives the process that did it. */
static struct {
	int count;
	struct {
		u64 physical, flush;
		u8 size, old[16];
	} past[256];
	u64 cr0, cr4;
} *book;

void read_symbols(void)
{
	FILE *file = fopen("/proc/kallsyms", "r");
	size_t size = 8 << 20, n;

	names = names ? names : malloc(size);
	n = file && names ? fread(names, 1, size - 1, file) : 0;
	if (!n || n == size - 1)
		die("cannot read", "/proc/kallsyms");
	names[n] = 0;
	fclose(file);
}

void open_hole(void)
{
	read_symbols();
	device = open("/dev/secvisor-hole", O_RDWR | O_CLOEXEC);
	if (device < 0)
		die("cannot open", "/dev/secvisor-hole (module secvisor_demo_hole)");
	book = mmap(NULL, sizeof(*book), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	book->cr0 = ask0(HOLE_READ_CR, 0);
	book->cr4 = ask0(HOLE_READ_CR, 4);
}

u64 ask(unsigned int op, u64 where, u64 a, u64 b, u64 c, u64 d)
{
	struct { u64 at, arg[4], result; } hole = { where, { a, b, c, d }, 0 };

	if (ioctl(device, op, &hole))
		die("the module does not answer", "");
	return hole.result;
}

u64 symbol(const char *name)
{
	size_t length = strlen(name);
	char *found;

	for (found = names; (found = strstr(found, name)); found += length)
		if (found[-1] == ' ' && (found[length] == '\n' || found[length] == '\t')) {
			while (found > names && found[-1] != '\n')
				found--;
			return strtoull(found, NULL, 16);
		}
	die("the kernel has no", name);
	return 0;
}

u64 call(u64 function, u64 a, u64 b)
{
	return ask2(HOLE_CALL, function, a, b);
}

int fetch(u64 from, void *data, unsigned int size)
{
	return ask2(HOLE_READ, from, (unsigned long)data, size) != 0;
}

u64 load(u64 from)
{
	u64 value = 0;

	fetch(from, &value, sizeof(value));
	return value;
}

void put(u64 to, const void *data, unsigned int size)
{
	ask2(HOLE_WRITE, to, (unsigned long)data, size);
}

void poke(u64 where, u32 value)
{
	ask1(HOLE_STORE, where, value);
}

/* ---- page tables ---- */

#ifdef __x86_64__
enum { LEVELS = 4 };
#else
enum { LEVELS = 3 };
#endif

static u64 root(void)
{
	return ask0(HOLE_READ_CR, 3) & (LEVELS == 4 ? FRAME : 0xffffffe0ull);
}

static u64 index_of(u64 where, int level)
{
	return where >> (12 + 9 * level) & 511;
}

static u64 entry_above(u64 where, int last, int *level)
{
	u64 table = root(), entry;

	for (*level = LEVELS - 1;; --*level) {
		u64 slot = table + 8 * index_of(LEVELS == 4 ? where : (u32)where, *level);

		entry = load(DIRECT + slot);
		if (!(entry & PRESENT))
			return 0;
		if (*level == last || (*level < 3 && entry & LARGE && (LEVELS == 4 || *level == 1)))
			return slot;
		table = entry & FRAME;
	}
}

u64 entry_of(u64 where, int *level)
{
	return entry_above(where, 0, level);
}

u64 physical(u64 where)
{
	int level;
	u64 slot = entry_of(where, &level), mask;

	if (!slot)
		return 0;
	mask = (1ull << (12 + 9 * level)) - 1;
	return (load(DIRECT + slot) & FRAME & ~mask) | (where & mask);
}

void remember(u64 where, unsigned int size, u64 flush)
{
	int n;

	/* first, for undo() goes backwards */
	edit(DIRECT + where, 0, WRITABLE);
	n = book->count++;
	if (n >= (int)(sizeof(book->past) / sizeof(book->past[0])))
		die("too much", "to undo");
	book->past[n].physical = where;
	book->past[n].flush = flush;
	book->past[n].size = size;
	fetch(DIRECT + where, book->past[n].old, size);
}

static void change(u64 slot, u64 entry, u64 where)
{
	remember(slot, 8, where);
	put(DIRECT + slot, &entry, 8);
	ask0(HOLE_INVLPG, where);
}

void edit(u64 where, u64 clear, u64 set)
{
	int level;
	u64 slot = entry_of(where, &level), entry = load(DIRECT + slot);

	if (((entry & ~clear) | set) != entry)
		change(slot, (entry & ~clear) | set, where);
}

void store(u64 where, const void *data, unsigned int size)
{
	const u8 *from = data;
	unsigned int part;

	for (; size; size -= part, where += part, from += part) {
		part = size < 16 ? size : 16;
		remember(where, part, 0);
		put(DIRECT + where, from, part);
	}
}

static u64 change_own(const volatile void *where, int last, u64 entry)
{
	int level;
	u64 slot = entry_above((unsigned long)where, last, &level), old = load(DIRECT + slot);

	put(DIRECT + slot, &entry, 8);
	ask0(HOLE_INVLPG, (unsigned long)where);
	return old;
}

u64 edit_own(const volatile void *where, u64 entry)
{
	return change_own(where, 0, entry);
}

u64 table_own(const volatile void *where, u64 entry)
{
	return change_own(where, 1, entry);
}

enum { GFP_KERNEL = 0xcc0 };

u64 new_page(void)
{
	u64 page = call(symbol("__get_free_pages"), GFP_KERNEL, 0);

	if (!page)
		die("no memory", "");
	return page;
}

u64 map(u64 frame, u64 flags)
{
	u64 window = call(symbol("vmalloc"), PAGE, 0);

	edit(window, ~0ull, (frame & FRAME) | PRESENT | WRITABLE | ACCESSED | flags);
	return window + (frame & (PAGE - 1));
}

u64 split(u64 where)
{
	u64 entries[512], slot, entry, table;
	int level, i;

	slot = entry_of(where, &level);
	if (level == 0)
		return slot;
	entry = load(DIRECT + slot);
	for (i = 0; i < 512; i++)
		entries[i] = ((entry & ~(u64)LARGE) & ~(0x1ff000ull)) | (u64)i * PAGE;
	table = new_page();
	put(table, entries, sizeof(entries));
	change(slot, (table - DIRECT) | PRESENT | WRITABLE | USER | ACCESSED, where);
	return table - DIRECT + 8 * index_of(where, 0);
}

void impersonate(u64 where, const void *code, unsigned int size)
{
	static u8 page[PAGE];
	u64 impostor = new_page();

	aim = where;
	fetch(where & ~4095ull, page, PAGE);
	memcpy(page + (where & 4095), code, size);
	put(impostor, page, PAGE);
	target = impostor - DIRECT;
}

void repoint(void)
{
	split(aim);
	edit(aim, FRAME, target);
}

u64 own_tables(u64 where, u64 frame)
{
	static u8 copy[PAGE];
	u64 old = root(), first = 0, above = 0, table, entry;
	int level;

	split(where);
	for (level = LEVELS - 1; level >= 0; level--) {
		table = new_page();
		/* the 32-bit root is no page, and what lies beyond it does not count */
		fetch(DIRECT + old, copy, LEVELS == 3 && level == 2 ? 32 : PAGE);
		put(table, copy, PAGE);
		if (above) {
			entry = (load(above) & ~FRAME) | (table - DIRECT);
			put(above, &entry, 8);
		} else {
			first = table - DIRECT;
		}
		above = table + 8 * index_of(LEVELS == 4 ? where : (u32)where, level);
		old = load(above) & FRAME;
	}
	entry = (load(above) & ~FRAME) | frame;
	put(above, &entry, 8);
	return first;
}

void undo(void)
{
	u8 now[16];

	if (!(ask0(HOLE_READ_CR, 0) & WRITE_PROTECT))
		ask1(HOLE_WRITE_CR, 0, book->cr0);
	if (!(ask0(HOLE_READ_CR, 4) & SMEP))
		ask1(HOLE_WRITE_CR, 4, book->cr4);
	while (book->count) {
		int n = --book->count;
		u64 where = DIRECT + book->past[n].physical;

		/* what was refused needs no mending, and would be refused again */
		if (fetch(where, now, book->past[n].size) ||
		    !memcmp(now, book->past[n].old, book->past[n].size))
			continue;
		put(where, book->past[n].old, book->past[n].size);
		if (book->past[n].flush)
			ask0(HOLE_INVLPG, book->past[n].flush);
	}
}
