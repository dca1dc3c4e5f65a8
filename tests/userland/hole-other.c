// SPDX-License-Identifier: MIT OR Apache-2.0
/* hole: registers, devices, SecVisor's hypercalls and its memory. */
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hole.h"

static void succeeded(void)
{
	poke(mark_at, 1);
}

/* ---- registers and ports: the target is their number ---- */

static void range(void) { target = 0x200; }

static void set_range(void)
{
	u64 old = ask0(HOLE_RDMSR, target);

	if (!ask1(HOLE_WRMSR, target, old ^ 0x100000) && ask0(HOLE_RDMSR, target) != old) {
		succeeded();
		ask1(HOLE_WRMSR, target, old);
	}
}

/* the root complex block of the LPC bridge, which can be laid over any memory */
enum { PCI_ADDRESS = 0xcf8, PCI_DATA = 0xcfc, LPC_RCBA = 0x8000f8f0 };

static void bridge(void) { target = PCI_DATA; }

static void set_bridge(void)
{
	u32 old;

	ask2(HOLE_OUT, PCI_ADDRESS, LPC_RCBA, 4);
	old = ask0(HOLE_OUT, PCI_DATA);
	if (ask2(HOLE_OUT, PCI_DATA, old ^ 0x10000, 4) != old) {
		succeeded();
		ask2(HOLE_OUT, PCI_DATA, old, 4);
	}
}

/* ---- what ends the machine ---- */

enum { LOCAL_APIC = 0xfee00000, ICR = 0x300, MESSAGES = 0xfeeff000 };
/* INIT, asserted, to all and to oneself */
enum { INIT = 0x500, INIT_ALL = 0x84500 };

static void apic(void) { target = LOCAL_APIC; }
static void messages(void) { target = MESSAGES; }
static void sleep_port(void) { target = 0x604; }

static void init_all(void)
{
	poke(map(target, UNCACHED) + ICR, INIT_ALL);
}

static void init_message(void)
{
	poke(map(target, UNCACHED), INIT);
}

/* sleep type S3, now */
static void sleep_now(void)
{
	ask2(HOLE_OUT, target, 1 << 13 | 1 << 10, 2);
}

/* ---- SecVisor's memory; without it the same access to an ordinary frame ---- */

static void hidden_frame(void) { target = hidden; }
static void witness_hidden(void) { target = witness = hidden; }

static void read_hidden(void)
{
	u64 value;

	if (!fetch(map(hidden, 0), &value, sizeof(value)))
		succeeded();
}

static void write_hidden(void)
{
	poke(map(hidden, 0), 0x5ec0de);
}

static void hidden_code(void)
{
	hidden_frame();
	if (!under_secvisor())
		put(DIRECT + hidden, mark, MARK);
}

static void run_hidden(void)
{
	call(map(hidden, 0), mark_at, 0);
}

static volatile u8 *window;

static void read_window(void)
{
	(void)window[0];
	succeeded();
}

static void write_window(void) { window[0] = 0x5e; }
static void mark_window(void) { window[0] = 1; }

/* a user page whose entry, at a level of the tables, is another one meanwhile */
static void by_user(u64 frame, void (*access)(void))
{
	u64 old;

	window = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	window[0] = 0;
	old = edit_own(window, frame | PRESENT | WRITABLE | USER | ACCESSED);
	guarded(access);
	edit_own(window, old);
}

static void read_by_user(void) { by_user(hidden, read_window); }
static void write_by_user(void) { by_user(hidden, write_window); }

/* a frame full of entries for the witness; SecVisor's are what they are */
static void hidden_table(void)
{
	u64 entries[512];
	int i;

	hidden_frame();
	for (i = 0; i < 512; i++)
		entries[i] = (witness & FRAME) | PRESENT | WRITABLE | USER | ACCESSED;
	if (!under_secvisor())
		put(DIRECT + hidden, entries, sizeof(entries));
}

static void walk_hidden(void)
{
	u64 old;

	window = mmap((void *)0x30400000, PAGE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	window[0] = 0;
	old = table_own(window, hidden | PRESENT | WRITABLE | USER | ACCESSED);
	guarded(mark_window);
	table_own(window, old);
}

/* ---- hypercalls; without SecVisor, what they were for ---- */

enum { APPROVE_CODE = 0x5ec00001, APPROVE = 1, RELEASE = 2, MODULE_CORE = 1 };

static u64 unit;

static void describe(const char *name, u64 base, u64 size)
{
	struct {
		u32 version, kind;
		u64 core_base, core_size, init_base, init_size, reserved[3];
		char name[64];
	} it = { 1, MODULE_CORE, base, size, base, 0, { 0 }, "" };

	strcpy(it.name, name);
	unit = new_page();
	put(unit, &it, sizeof(it));
}

static void hypercall(int operation)
{
	if (under_secvisor())
		printf("call: result=%d\n",
		       (int)ask(HOLE_VMMCALL, unit, APPROVE_CODE, operation, 128, 0));
}

/* code of one's own where modules lie, by the name of a module that is approved */
static void own_module(void)
{
	aim = call(symbol("module_alloc"), PAGE, 0);
	target = physical(aim);
	put(aim, mark, MARK);
	edit(aim, NO_EXECUTE, 0);
	describe("secvisor_demo_module", aim, PAGE);
}

static void approve_own(void)
{
	hypercall(APPROVE);
	call(aim, mark_at, 0);
}

/* the same in a page of user mode */
static void user_module(void)
{
	memcpy(gadget, mark, MARK);
	aim = (unsigned long)gadget;
	target = physical(aim);
	describe("secvisor_demo_module", aim, PAGE);
}

static void approve_user(void)
{
	hypercall(APPROVE);
	hide_gadget();
	call(aim, mark_at, 0);
}

static void kernel_text(void)
{
	target = witness = physical(symbol("secvisor_demo_byte"));
	remember(target, 4, 0);
	describe("", symbol("_text"), 0);
}

static void release_text(void)
{
	hypercall(RELEASE);
	poke(map(target, 0), 2);
}

/* a release that is allowed: from then on it is memory like any other */
static void module(void)
{
	insert_module();
	aim = symbol("demo_module_exit") & ~4095ull;
	target = physical(aim) + 0xf80;
	remember(target, MARK, 0);
	describe("", aim, 0);
	if (under_secvisor())
		ask(HOLE_VMMCALL, unit, APPROVE_CODE, RELEASE, 128, 0);
}

static void run_released(void)
{
	put(DIRECT + target, mark, MARK);
	call(aim + 0xf80, mark_at, 0);
}

const struct attack other_attacks[] = {
	{ "msr-mtrr", range, set_range },
	{ "pci-bridge", bridge, set_bridge },
	{ "init-apic", apic, init_all },
	{ "init-message", messages, init_message },
	{ "sleep-s3", sleep_port, sleep_now },
	{ "hidden-read", hidden_frame, read_hidden },
	{ "hidden-write", witness_hidden, write_hidden },
	{ "hidden-exec", hidden_code, run_hidden },
	{ "hidden-read-user", hidden_frame, read_by_user },
	{ "hidden-write-user", witness_hidden, write_by_user },
	{ "hidden-page-table", hidden_table, walk_hidden },
	{ "approve-own-code", own_module, approve_own },
	{ "approve-user-code", user_module, approve_user },
	{ "release-kernel-text", kernel_text, release_text },
	{ "exec-released-module", module, run_released },
	{ NULL, NULL, NULL },
};
