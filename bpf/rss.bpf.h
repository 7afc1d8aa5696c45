/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * rss.bpf.h: the anonymous pages of the current mm, as cheaply as they can be read.
 *
 * Since 6.2 the counter is a percpu_counter: the sum, and on each CPU what has not reached the sum yet (up to
 * max(32, 2 * CPUs) pages). The sum and this CPU's share are read: what *this* thread does in a call is then exact as
 * long as it stays on its CPU. Before 6.2 up to 64 pages are cached in each thread. docs/limits.md gives the bounds.
 */
#pragma once

#include "cpu.bpf.h"

#define MM_ANONPAGES_INDEX 1 /* the same from 2.6.34 to 7.x */

const volatile bool use_cpu_share = true;

/* What this CPU holds back from the sum. */
static __always_inline __s32 cpu_share(__s32 *counters)
{
	__u64 offset = use_cpu_share ? this_cpu_offset() : 0;
	__s32 pages = 0;

	if (offset)
		bpf_probe_read_kernel(&pages, sizeof(pages), (void *)counters + offset);
	return pages;
}

static __always_inline __s64 read_anon_pages_before_6_2(void)
{
	struct task_struct___before_6_2 *task = (void *)bpf_get_current_task();
	struct mm_struct___before_6_2 *mm = (void *)BPF_CORE_READ((struct task_struct *)task, mm);
	__s64 pages = -1;
	int cached = 0;

	if (!mm || bpf_core_read(&pages, sizeof(pages), &mm->rss_stat.count[MM_ANONPAGES_INDEX].counter))
		return -1;
	if (bpf_core_field_exists(task->rss_stat))
		bpf_core_read(&cached, sizeof(cached), &task->rss_stat.count[MM_ANONPAGES_INDEX]);
	return pages + cached;
}

/*
 * Pages, or -1 when they cannot be read. Global, so that the verifier looks at it once: for each load through a typed
 * pointer it searches the kernel's BTF from end to end (seen: 6.18), 0.5 ms each time that it comes along there.
 */
__noinline __s64 read_anon_pages(void)
{
	struct mm_struct *mm;
	__s64 pages;

	if (bpf_core_type_exists(struct mm_rss_stat___before_6_2)) {
		pages = read_anon_pages_before_6_2();
	} else {
		/* Plain loads, 20 ns cheaper each than the helper: such kernels have typed task pointers. */
		mm = bpf_get_current_task_btf()->mm;
		if (!mm)
			return -1;
		pages = mm->rss_stat[MM_ANONPAGES_INDEX].count;
		pages += cpu_share(mm->rss_stat[MM_ANONPAGES_INDEX].counters);
		if (pages < 0)
			pages = 0; /* other CPUs hold the rest */
	}
	return pages;
}
