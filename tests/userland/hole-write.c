// SPDX-License-Identifier: MIT OR Apache-2.0
/* hole: approved text is changed, by every mapping that there is or can be made. */
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hole.h"

/* the module's page of text, behind its last instruction */
enum { SLACK = 0xf80 };

static void at_text(u64 where)
{
	aim = where;
	target = witness = physical(where);
	remember(target, 4, 0);
}

static void text(void) { at_text(symbol("secvisor_demo_byte")); }
static void text_slack(void) { at_text(symbol("_etext") - 32); }
static void module_text(void) { at_text(symbol("hole_dev_exit")); }
static void module_slack(void) { at_text((symbol("hole_ioctl") & ~4095ull) + SLACK); }

static void write_to(u64 where)
{
	poke(where, 2);
}

static void by_direct_map(void)
{
	write_to(DIRECT + target);
}

static void by_its_entry(void)
{
	edit(aim, 0, WRITABLE);
	write_to(aim);
}

static void by_alias(void)
{
	write_to(map(target, 0));
}

static void without_protection(void)
{
	ask1(HOLE_WRITE_CR, 0, ask0(HOLE_READ_CR, 0) & ~(u64)WRITE_PROTECT);
	write_to(aim);
}

/* code in the slack, and run there: nothing of the module is changed */
static void code_in_slack(void)
{
	remember(target, MARK, 0);
	put(DIRECT + target, mark, MARK);
	call(aim, DIRECT + target, 0);
}

/* ---- by user mode ---- */

static volatile u8 *window;

static void touch(void)
{
	window[target & 4095] = 2;
}

static void by_user_entry(void)
{
	u64 old;

	window = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	window[0] = 0;
	old = edit_own(window, (target & FRAME) | PRESENT | WRITABLE | USER | ACCESSED);
	guarded(touch);
	edit_own(window, old);
}

static void by_device(void)
{
	int fd = open("/dev/mem", O_RDWR | O_SYNC);

	window = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)(target & FRAME));
	guarded(touch);
}

const struct attack write_attacks[] = {
	{ "write-text-direct-map", text, by_direct_map },
	{ "write-text-entry", text, by_its_entry },
	{ "write-text-alias", text, by_alias },
	{ "write-text-user-alias", text, by_user_entry },
	{ "write-text-wp", text, without_protection },
	{ "write-text-devmem", text, by_device },
	{ "write-text-slack", text_slack, by_direct_map },
	{ "write-module-text", module_text, by_direct_map },
	{ "exec-module-slack", module_slack, code_in_slack },
	{ NULL, NULL, NULL },
};
