/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* cpu.bpf.h: what is kept for each CPU. */
#pragma once

#include "thread.bpf.h"

const volatile bool may_be_preempted = true; /* programs on system calls, since 7.0 */

struct cpu {
	__u64 offset; /* what it adds to a per-CPU pointer; 0: not found out yet */
	__u64 stack[STACK_WORDS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cpu);
} cpus SEC(".maps");

static __always_inline struct cpu *this_cpu(void)
{
	__u32 first = 0;

	return bpf_map_lookup_elem(&cpus, &first);
}

struct bpf_array___percpu {
	void *pptrs[0];
} __attribute__((preserve_access_index));

/*
 * this_cpu_off would say it, but only where the kernel lists data symbols; a per-CPU map holds both, the pointer and
 * where it is on this CPU. The verifier forbids arithmetic on either: reading a pointer's own bytes back makes it a
 * plain address.
 */
static __always_inline __u64 plain_address(void *const *pointer)
{
	__u64 address = 0;

	bpf_probe_read_kernel(&address, sizeof(address), pointer);
	return address;
}

static __always_inline __u64 this_cpu_offset(void)
{
	struct bpf_array___percpu *array;
	struct cpu *cpu = this_cpu();
	void *here, *map = &cpus;
	__u64 base = 0;

	if (!cpu || cpu->offset)
		return cpu ? cpu->offset : 0;
	array = (void *)plain_address(&map);
	here = cpu;
	bpf_core_read(&base, sizeof(base), &array->pptrs[0]);
	if (base)
		cpu->offset = plain_address(&here) - base;
	return cpu->offset;
}

/*
 * Where to read the top of the user stack to, for as long as the program runs; NULL: nowhere. The kernel checks each
 * copy into what came from its slab allocator, as threads' memory does, and that takes 25 ns; a CPU's is spared that.
 */
static __always_inline __u64 *stack_buffer(struct thread *thread)
{
	struct cpu *cpu;

	if (may_be_preempted)
		return thread->stack; /* another thread might come in between */
	cpu = this_cpu();
	return cpu ? cpu->stack : NULL;
}
