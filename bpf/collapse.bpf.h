/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * collapse.bpf.h: huge pages that the kernel makes of a target's small ones (khugepaged, MADV_COLLAPSE). That fills the
 * holes that purges left with zeroed memory, without a fault and without anybody asking for it.
 *
 * Both tracepoints are in the thread that does it, one after the other: how many pages were missing, then for whom and
 * whether it worked. Their first and last arguments changed with the releases; those read here are where they were in
 * 5.10.
 */
#pragma once

#include "maps.bpf.h"

#define SCAN_SUCCEED 1 /* enum scan_result, never renumbered */

struct mm_struct___owned { /* CONFIG_MEMCG */
	struct task_struct *owner;
} __attribute__((preserve_access_index));

volatile __u32 mm_without_owner = 0; /* this kernel does not know whose memory it is: nothing is counted */

/* By thread: pages missing in the huge page that it is making. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} collapsing SEC(".maps");

SEC("raw_tp/mm_collapse_huge_page_isolate")
int on_isolate(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 tid = bpf_get_current_pid_tgid();
	__u32 missing = ctx->args[1]; /* (page, none_or_zero, ...) */

	bpf_map_update_elem(&collapsing, &tid, &missing, BPF_ANY);
	return 0;
}

SEC("raw_tp/mm_collapse_huge_page")
int on_collapse(struct bpf_raw_tracepoint_args *ctx)
{
	struct mm_struct___owned *mm = (void *)ctx->args[0]; /* (mm, isolated, status, ...) */
	__u32 tid = bpf_get_current_pid_tgid(), tgid, *missing;
	struct jt_counters *owner;
	struct jt_target *target;
	__u32 filled;

	missing = bpf_map_lookup_elem(&collapsing, &tid);
	if (!missing)
		return 0; /* it never came to that */
	filled = *missing;
	bpf_map_delete_elem(&collapsing, &tid);
	if ((__u32)ctx->args[2] != SCAN_SUCCEED)
		return 0;
	if (!bpf_core_field_exists(mm->owner)) {
		mm_without_owner = 1;
		return 0;
	}
	tgid = BPF_CORE_READ(mm, owner, tgid);
	target = bpf_map_lookup_elem(&targets, &tgid);
	if (!target)
		return 0;
	owner = lookup_or_zero(&counters, &target->id);
	if (!owner)
		return 0;
	__sync_fetch_and_add(&owner->collapses, 1);
	__sync_fetch_and_add(&owner->collapse_filled, filled);
	return 0;
}
