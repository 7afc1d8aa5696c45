/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * rss.bpf.h: the anonymous pages of the current mm, as cheaply as they can be read.
 *
 * Since 6.2 the counter is a percpu_counter: the sum, and on each CPU what has not reached the sum yet (up to
 * max(32, 2 * CPUs) pages). The sum and this CPU's share are read: what *this* thread does in a call is then exact as
 * long as it stays on its CPU. Before 6.2 up to 64 pages are cached in each thread. docs/limits.md gives the bounds.
 */
#pragma once

#include "maps.bpf.h"

#define MM_ANONPAGES_INDEX 1 /* the same from 2.6.34 to 7.x */

const volatile bool use_cpu_share = true;

struct bpf_array___percpu {
	void *pptrs[0];
} __attribute__((preserve_access_index));

/*
 * What this CPU adds to a per-CPU pointer. this_cpu_off would say so, but only where the kernel lists data symbols;
 * a per-CPU map holds both, the pointer and where it is on this CPU. The verifier forbids arithmetic on either:
 * reading a pointer's own bytes back makes it a plain address.
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
	void *here, *map = &losses;
	__u32 first = 0;
	__u64 base = 0;

	here = bpf_map_lookup_elem(&losses, &first);
	if (!here)
		return 0;
	array = (void *)plain_address(&map);
	bpf_core_read(&base, sizeof(base), &array->pptrs[0]);
	return base ? plain_address(&here) - base : 0;
}

/* What the counter's sum does not hold yet, of what this thread or this CPU did. */
static __always_inline __s64 pending_pages_before_6_2(void)
{
	struct task_struct___before_6_2 *task = (void *)bpf_get_current_task();
	int pages = 0;

	if (bpf_core_field_exists(task->rss_stat))
		bpf_core_read(&pages, sizeof(pages), &task->rss_stat.count[MM_ANONPAGES_INDEX]);
	return pages;
}

static __always_inline __s64 pending_pages(struct mm_struct *mm)
{
	__u64 offset;
	__s32 *share, pages = 0;

	if (!use_cpu_share)
		return 0;
	offset = this_cpu_offset();
	bpf_core_read(&share, sizeof(share), &mm->rss_stat[MM_ANONPAGES_INDEX].counters);
	if (offset)
		bpf_probe_read_kernel(&pages, sizeof(pages), (void *)share + offset);
	return pages;
}

/* Pages, or -1 when they cannot be read. */
static __always_inline __s64 read_anon_pages(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct mm_struct *mm = BPF_CORE_READ(task, mm);
	struct mm_struct___before_6_2 *old = (void *)mm;
	__s64 pages = -1;

	if (!mm)
		return -1;
	if (bpf_core_type_exists(struct mm_rss_stat___before_6_2)) {
		if (bpf_core_read(&pages, sizeof(pages), &old->rss_stat.count[MM_ANONPAGES_INDEX].counter))
			return -1;
		pages += pending_pages_before_6_2();
	} else {
		if (bpf_core_read(&pages, sizeof(pages), &mm->rss_stat[MM_ANONPAGES_INDEX].count))
			return -1;
		pages += pending_pages(mm);
	}
	return pages < 0 ? 0 : pages; /* other CPUs' shares may be positive: the sum alone can dip below 0 */
}
