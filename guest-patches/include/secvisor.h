/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * SecVisor guest interface, version 1: CPUID leaves and hypercalls.
 *
 * The one statement of the layout, for every guest. The including code has
 * u32, u64 and memcmp().
 *
 * Calls: VMMCALL with RAX = number, RBX, RCX, RDX = arguments; RAX returns 0 or
 * a negative Linux errno, every other register is kept. Only at CPL 0, at CPL 3
 * the instruction raises #UD. Every address is a guest virtual address.
 */
#ifndef _SECVISOR_H
#define _SECVISOR_H

#define SECVISOR_INTERFACE		1

/* EAX = highest leaf of the range; EBX, ECX, EDX = the signature */
#define SECVISOR_CPUID_SIGNATURE	0x40000000
#define SECVISOR_SIGNATURE		"SecVisorRust"
/* EAX = SECVISOR_INTERFACE; EBX = SECVISOR_INFO_*; ECX = violations so far */
#define SECVISOR_CPUID_INFO		0x40000001
#define SECVISOR_INFO_LOCKED		(1u << 0)

/* RBX = SECVISOR_OP_*; RCX = struct secvisor_unit; RDX = its size */
#define SECVISOR_APPROVE_CODE		0x5EC00001
#define SECVISOR_OP_APPROVE		1
#define SECVISOR_OP_RELEASE		2
/* No arguments; once. Control registers and entry pointers are pinned. */
#define SECVISOR_SET_KERNEL_MODE	0x5EC00002

#define SECVISOR_KERNEL_INIT		0	/* the kernel's init text */
#define SECVISOR_MODULE_CORE		1
#define SECVISOR_MODULE_INIT		2

/*
 * A unit of kernel code; the kind says which of the two regions is meant.
 * Sizes are those of the executable part, whole pages; 0 where a region holds no
 * code. Little endian, naturally aligned, 128 bytes.
 *
 * Releasing a module's memory, where only its base is known: kind
 * SECVISOR_MODULE_CORE, core_base = init_base = that base, sizes 0, no name.
 * What is meant is the approved module unit that begins there, core or init;
 * without one the call returns an error and changes nothing.
 */
struct secvisor_unit {
	u32 version;		/* SECVISOR_INTERFACE */
	u32 kind;
	u64 core_base;
	u64 core_size;
	u64 init_base;
	u64 init_size;
	u64 reserved[3];	/* 0 */
	char name[64];		/* module name or "kernel", padded with NUL */
} __attribute__((aligned(8)));	/* which i386 would not give it */

static inline long secvisor_call(unsigned long nr, unsigned long rbx,
				 const void *rcx, unsigned long rdx)
{
	long ret = nr;

	__asm__ __volatile__("vmmcall" : "+a" (ret)
			     : "b" (rbx), "c" (rcx), "d" (rdx) : "memory");
	return ret;
}

static inline int secvisor_present(void)
{
	u32 eax = SECVISOR_CPUID_SIGNATURE;
	u32 sig[3];

	__asm__ __volatile__("cpuid" : "+a" (eax), "=b" (sig[0]),
			     "=c" (sig[1]), "=d" (sig[2]));
	return !memcmp(sig, SECVISOR_SIGNATURE, sizeof(sig));
}

/* The rest does nothing, successfully, where there is no SecVisor. */

static inline long secvisor_code(unsigned long op, u32 kind, const char *name,
				 unsigned long core, unsigned long core_size,
				 unsigned long init, unsigned long init_size)
{
	struct secvisor_unit unit = {
		.version	= SECVISOR_INTERFACE,
		.kind		= kind,
		.core_base	= core,
		.core_size	= core_size,
		.init_base	= init,
		.init_size	= init_size,
	};
	unsigned int i;

	if (!secvisor_present())
		return 0;
	for (i = 0; name[i] && i < sizeof(unit.name) - 1; i++)
		unit.name[i] = name[i];
	return secvisor_call(SECVISOR_APPROVE_CODE, op, &unit, sizeof(unit));
}

static inline long secvisor_approve_module(const char *name,
					   void *core, unsigned long core_size,
					   void *init, unsigned long init_size)
{
	long err = 0;

	if (core_size)
		err = secvisor_code(SECVISOR_OP_APPROVE, SECVISOR_MODULE_CORE,
				    name, (unsigned long)core, core_size,
				    (unsigned long)init, init_size);
	if (init_size && !err)
		err = secvisor_code(SECVISOR_OP_APPROVE, SECVISOR_MODULE_INIT,
				    name, (unsigned long)core, core_size,
				    (unsigned long)init, init_size);
	return err;
}

/* Before module memory is freed, whether it was approved or not. */
static inline void secvisor_release_module(void *base)
{
	if (base)
		secvisor_code(SECVISOR_OP_RELEASE, SECVISOR_MODULE_CORE, "",
			      (unsigned long)base, 0, (unsigned long)base, 0);
}

/* Before the kernel's init text is freed; both ends at page borders. */
static inline void secvisor_release_init(void *start, void *end)
{
	secvisor_code(SECVISOR_OP_RELEASE, SECVISOR_KERNEL_INIT, "kernel", 0, 0,
		      (unsigned long)start, (char *)end - (char *)start);
}

static inline void secvisor_set_kernel_mode(void)
{
	if (secvisor_present())
		secvisor_call(SECVISOR_SET_KERNEL_MODE, 0, 0, 0);
}

#endif
