/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * context.bpf.h: what purges and their process wait for, and who is killed for want of memory. Loaded only when asked
 * for: these tracepoints fire for every process of the host, mmap_lock's at each fault that takes it.
 *
 * No program looks at the tracepoints' own arguments but for the first one: they differ between kernels.
 */
#pragma once

#include "account.bpf.h"
#include "lifecycle.bpf.h"

#define TLB_REMOTE_SEND_IPI 4 /* enum tlb_flush_reason */
#define PID_LIMIT (1 << JT_TGID_BITS)

struct waiting {
	__u64 lock_since;
	__u64 reclaim_since;
};

/* Key: tid. Of threads that wait at this moment. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct waiting);
} waiting_threads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct jt_target_id);
	__type(value, struct jt_waits);
} waits_by_target SEC(".maps");

/* The target whose thread is purging just now; NULL: none is. */
static __always_inline struct jt_waits *waits_of_purge(void)
{
	struct thread *thread = find_thread();

	if (stopped || !thread || thread->call.syscall == JT_SYS_NONE || !is_purge(thread->call.purpose))
		return NULL;
	return lookup_or_zero(&waits_by_target, &thread->call.id);
}

static __always_inline struct waiting *waiting_thread(void)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();

	return bpf_map_lookup_elem(&waiting_threads, &tid);
}

static __always_inline struct waiting *begin_waiting(void)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();

	return lookup_or_zero(&waiting_threads, &tid);
}

/* Leaves no entry behind: threads come and go. */
static __always_inline void end_waiting(struct waiting *waiting)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();

	if (!waiting->lock_since && !waiting->reclaim_since)
		bpf_map_delete_elem(&waiting_threads, &tid);
}

SEC("raw_tp/mmap_lock_start_locking")
int lock_begins(void *ctx)
{
	struct waiting *waiting;

	if (!current_target() || !waits_of_purge())
		return 0;
	waiting = begin_waiting();
	if (waiting)
		waiting->lock_since = bpf_ktime_get_ns();
	return 0;
}

/* munmap gives its lock back in two steps, the first of which comes here without a beginning. */
SEC("raw_tp/mmap_lock_acquire_returned")
int lock_ends(void *ctx)
{
	struct waiting *waiting;
	struct jt_waits *waits;

	if (!current_target())
		return 0;
	waiting = waiting_thread();
	if (!waiting || !waiting->lock_since)
		return 0;
	waits = waits_of_purge();
	if (waits) {
		__sync_fetch_and_add(&waits->lock_ns, bpf_ktime_get_ns() - waiting->lock_since);
		__sync_fetch_and_add(&waits->locks, 1);
	}
	waiting->lock_since = 0;
	end_waiting(waiting);
	return 0;
}

SEC("raw_tp/tlb_flush")
int tlb_flushed(struct bpf_raw_tracepoint_args *ctx)
{
	struct jt_waits *waits;

	if ((__u32)ctx->args[0] != TLB_REMOTE_SEND_IPI || !current_target())
		return 0;
	waits = waits_of_purge();
	if (waits)
		__sync_fetch_and_add(&waits->remote_flushes, 1);
	return 0;
}

/* Two hooks: for the host's memory, and for a cgroup's limit. */
SEC("raw_tp/mm_vmscan_direct_reclaim_begin")
int reclaim_begins(void *ctx)
{
	struct waiting *waiting;

	if (!current_target())
		return 0;
	waiting = begin_waiting();
	if (waiting)
		waiting->reclaim_since = bpf_ktime_get_ns();
	return 0;
}

SEC("raw_tp/mm_vmscan_direct_reclaim_end")
int reclaim_ends(void *ctx)
{
	struct jt_target *target = current_target();
	struct waiting *waiting;
	struct jt_waits *waits;

	if (!target)
		return 0;
	waiting = waiting_thread();
	if (!waiting || !waiting->reclaim_since)
		return 0;
	waits = lookup_or_zero(&waits_by_target, &target->id);
	if (waits) {
		__sync_fetch_and_add(&waits->reclaim_ns, bpf_ktime_get_ns() - waiting->reclaim_since);
		__sync_fetch_and_add(&waits->reclaims, 1);
	}
	waiting->reclaim_since = 0;
	end_waiting(waiting);
	return 0;
}

/* The victim: its task since 6.8, before that its pid. */
SEC("raw_tp/mark_victim")
int oom_victim(struct bpf_raw_tracepoint_args *ctx)
{
	const struct jt_target_id nobody = {};
	struct jt_lifecycle_event *event;
	struct task_struct *task;

	event = begin_event(JT_EV_OOM, &nobody);
	if (!event)
		return 0;
	if (ctx->args[0] < PID_LIMIT) {
		event->parent = ctx->args[0];
		event->h.comm[0] = 0;
	} else {
		task = (struct task_struct *)ctx->args[0];
		event->parent = BPF_CORE_READ(task, tgid);
		BPF_CORE_READ_INTO(&event->h.comm, task, comm);
	}
	bpf_ringbuf_submit(event, 0);
	return 0;
}
