// SPDX-License-Identifier: MIT OR Apache-2.0
/* hole: code that nobody approved, run by the kernel. */
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hole.h"

static void jump(void)
{
	call(aim, mark_at, 0);
}

/* code at a kernel address, by a mapping that executes */
static void at_address(u64 where)
{
	aim = where;
	target = physical(where);
	store(target, mark, MARK);
	edit(where, NO_EXECUTE, 0);
}

/* the same by the mapping of all memory */
static void at_frame(u64 frame)
{
	at_address(DIRECT + frame);
}

static void heap(void) { at_address(new_page()); }
static void vmalloc(void) { at_address(call(symbol("vmalloc"), PAGE, 0)); }
static void module_data(void) { at_address(symbol("hole_data")); }
static void module_bss(void) { at_address(symbol("hole_bss")); }
static void data(void) { at_address(symbol("data_page")); }
static void bss(void) { at_address(symbol("kernfs_pr_cont_buf")); }
static void boot_params(void) { at_address(symbol("boot_params") + 0xf00); }
static void init_text(void) { at_address(symbol("_sinittext") + 0x100); }

/* the low end of a stack that the double fault would use */
static void per_cpu(void)
{
	at_address(symbol(sizeof(long) == 8 ? "exception_stacks" : "doublefault_stack") + 0x40);
}

/* the far end of this process's own stack */
static void stack(void) { at_address((ask0(HOLE_STACK, 0) & ~0x1fffull) + 0x100); }

static void vdso(void)
{
	u64 image = symbol(sizeof(long) == 8 ? "vdso_image_64" : "vdso_image_32");
	unsigned long part[2];	/* where it is, and its size */

	fetch(image, part, sizeof(part));
	at_address(part[0] + part[1] - 16);
}

/* what the boot loader left of the initial RAM disk, kept by retain_initrd */
static void initrd(void)
{
	u32 where;

	fetch(symbol("boot_params") + 0x218, &where, sizeof(where));
	at_frame(where + 0x100);
}

static void *one_page(int flags, int fd)
{
	volatile u8 *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);

	page[0] = 0x90;
	return (void *)page;
}

static void ret2dir(void)
{
	at_frame(physical((unsigned long)one_page(MAP_PRIVATE | MAP_ANONYMOUS, -1)));
}

static void page_cache(void)
{
	int fd = open("/tmp/page", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (ftruncate(fd, PAGE))
		_exit(1);
	at_frame(physical((unsigned long)one_page(MAP_SHARED, fd)));
}

/* one of this process's own tables, in a part of which nothing is mapped */
static void page_table(void)
{
	int level;

	at_frame((entry_of((unsigned long)gadget, &level) & ~4095ull) + 0x800);
}

/* a page of the module that is approved, loaded and unloaded; taken before anybody else has it */
static void freed_module(void)
{
	u64 frame;
	int tries = 1000;

	insert_module();
	frame = physical(symbol("demo_module_exit")) & FRAME;
	remove_module();
	while (new_page() != DIRECT + frame && --tries)
		;
	at_frame(frame + 0x100);
}

/* ---- user memory ---- */

static void user_page(void)
{
	memcpy(gadget, mark, MARK);
	aim = (unsigned long)gadget;
	target = physical(aim);
}

static void without_smep(void)
{
	(void)*(volatile u8 *)gadget;	/* or it is not mapped in this process */
	ask1(HOLE_WRITE_CR, 4, ask0(HOLE_READ_CR, 4) & ~(u64)SMEP);
	jump();
}

static void as_supervisor(void)
{
	hide_gadget();
	jump();
}

/* ---- other memory where approved text was ---- */

/* text that is not in use while the attack is under way */
#define QUIET "acpi_ex_load_op"

static void copy_of_text(void)
{
	impersonate(symbol(QUIET), mark, MARK);
}

static void repointed(void)
{
	repoint();
	jump();
}

static void own_root(void)
{
	u64 old = ask0(HOLE_READ_CR, 3);

	ask1(HOLE_WRITE_CR, 3, own_tables(aim, target));
	ask0(HOLE_INVLPG, aim);
	jump();
	ask1(HOLE_WRITE_CR, 3, old);
	ask0(HOLE_INVLPG, aim);
}

/* the table that maps the text becomes user memory, and user mode writes to it */
static u64 slot, entry;

static void table_of_text(void)
{
	copy_of_text();
	slot = split(aim);
	entry = (load(DIRECT + slot) & ~FRAME) | target;
	remember(slot, 8, aim);
}

static void by_user(void)
{
	volatile u64 *page = one_page(MAP_PRIVATE | MAP_ANONYMOUS, -1);
	u64 old = edit_own(page, (slot & FRAME) | PRESENT | WRITABLE | USER | ACCESSED);

	page[(slot & 4095) / 8] = entry;
	edit_own(page, old);
	ask0(HOLE_INVLPG, aim);
	jump();
}

const struct attack execute_attacks[] = {
	{ "exec-heap", heap, jump },
	{ "exec-vmalloc", vmalloc, jump },
	{ "exec-module-data", module_data, jump },
	{ "exec-module-bss", module_bss, jump },
	{ "exec-data", data, jump },
	{ "exec-bss", bss, jump },
	{ "exec-stack", stack, jump },
	{ "exec-per-cpu", per_cpu, jump },
	{ "exec-boot-params", boot_params, jump },
	{ "exec-initrd", initrd, jump },
	{ "exec-vdso", vdso, jump },
	{ "exec-init-text", init_text, jump },
	{ "exec-page-table", page_table, jump },
	{ "exec-freed-module", freed_module, jump },
	{ "ret2dir", ret2dir, jump },
	{ "ret2dir-page-cache", page_cache, jump },
	{ "ret2user", user_page, without_smep },
	{ "ret2user-supervisor-page", user_page, as_supervisor },
	{ "exec-repointed-text", copy_of_text, repointed },
	{ "exec-own-cr3", copy_of_text, own_root },
	{ "exec-table-of-user", table_of_text, by_user },
	{ NULL, NULL, NULL },
};
