/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * account.bpf.h: one finished memory syscall goes into the counters.
 *
 * decay[] counts what jemalloc counts in stats.arenas.<i>.{dirty,muzzy}_{npurge,nmadvise,purged}: extents, whether or
 * not the kernel did what was asked. The transitions count what the kernel did.
 */
#pragma once

#include "thread.bpf.h"

#define MADV_DONTNEED 4
#define MADV_FREE 8
#define EINVAL 22

static __always_inline struct jt_counters *counters_of(const struct jt_target_id *id)
{
	return lookup_or_zero(&counters, id);
}

/* Without a branch, and global: one way through it for the verifier, which goes it once. `ns` below 2^63. */
__noinline __u32 bucket_of(__u64 ns)
{
	__u32 index = 0, step;

#pragma unroll
	for (step = JT_HIST_SLOTS / 2; step; step >>= 1)
		index += step * is_less(hist_bounds[within(index + step - 1, JT_HIST_SLOTS)], ns);
	return index; /* = how many bounds are smaller: bounds are inclusive */
}

static __always_inline bool is_purge(__u8 purpose)
{
	return purpose == JT_PURGE_SWEEP || purpose == JT_PURGE_OVERSIZE || purpose == JT_PURGE_UNPROVEN;
}

/* The state that the pages came from. */
static __always_inline __u8 source_state(const struct thread *thread)
{
	const struct call *call = &thread->call;

	if (call->advice == MADV_FREE && call->syscall != JT_SYS_MUNMAP)
		return JT_STATE_DIRTY; /* muzzy is the only way for it, and only from dirty */
	switch (call->purpose) {
	case JT_PURGE_SWEEP:
		return thread->sweep.state;
	case JT_PURGE_OVERSIZE:
		return JT_STATE_DIRTY;
	case JT_DESTROY:
		return JT_STATE_RETAINED;
	default:
		return JT_STATE_UNKNOWN;
	}
}

static __always_inline __u8 transition_of(const struct call *call, __u8 from)
{
	if (!is_purge(call->purpose) && call->purpose != JT_DESTROY)
		return JT_TRANSITIONS;
	if (call->syscall == JT_SYS_MUNMAP) {
		switch (from) {
		case JT_STATE_DIRTY:
			return JT_DIRTY_RETURNED;
		case JT_STATE_MUZZY:
			return JT_MUZZY_RETURNED;
		case JT_STATE_RETAINED:
			return JT_RETAINED_RETURNED;
		default:
			return JT_UNKNOWN_RETURNED;
		}
	}
	if (call->advice == MADV_FREE)
		return JT_DIRTY_MUZZY;
	switch (from) {
	case JT_STATE_DIRTY:
		return JT_DIRTY_RETAINED;
	case JT_STATE_MUZZY:
		return JT_MUZZY_RETAINED;
	default:
		return JT_UNKNOWN_RETAINED;
	}
}

/* Counts an extent once, as jemalloc does, even when the kernel refuses and jemalloc tries it in another way. */
static __always_inline void count_extents(struct jt_counters *counters, struct thread *thread, __u8 from, bool failed)
{
	struct call *call = &thread->call;
	struct sweep *sweep = &thread->sweep;
	bool again = call->addr == thread->failed_addr && call->len == thread->failed_len;
	struct jt_decay_counters *decay;

	thread->failed_addr = failed ? call->addr : 0;
	thread->failed_len = failed ? call->len : 0;
	if (again || from >= JT_STATES)
		return;
	decay = &counters->decay[within(from, JT_STATES)];
	__sync_fetch_and_add(&decay->nmadvise, call->ranges);
	__sync_fetch_and_add(&decay->purged, call->len >> JT_PAGE_SHIFT);
	if (call->purpose == JT_PURGE_OVERSIZE) {
		__sync_fetch_and_add(&counters->oversize_extents, call->ranges);
		return;
	}
	if (call->purpose == JT_PURGE_SWEEP && sweep->extents == 0) {
		__sync_fetch_and_add(&decay->npurge, 1);
		__sync_fetch_and_add(&counters->sweeps[within(from, JT_STATES)][within(sweep->cause, JT_CAUSES)], 1);
	}
	sweep->extents += call->ranges;
}

static __always_inline void count_failure(struct jt_counters *counters, __s64 ret)
{
	if (ret == -EINVAL)
		__sync_fetch_and_add(&counters->failed_errno_inval, 1);
	else
		__sync_fetch_and_add(&counters->failed_errno_other, 1);
}

static __always_inline void count_latency(const struct call *call, __u8 transition, __u64 latency_ns)
{
	struct jt_hist_key key = {.id = call->id, .transition = transition, .payer = call->payer};
	struct jt_hist *hist = lookup_or_zero(&hists, &key);
	__u32 bucket = bucket_of(latency_ns), extents_beyond = call->ranges - (call->start_ns ? 1 : 0);

	if (!hist)
		return;
	__sync_fetch_and_add(&hist->bytes, call->len);
	if (extents_beyond)
		__sync_fetch_and_add(&hist->extents, extents_beyond);
	if (!call->start_ns)
		return;
	__sync_fetch_and_add(&hist->sum_ns, latency_ns);
	if (bucket < JT_HIST_BUCKETS)
		__sync_fetch_and_add(&hist->buckets[bucket], 1);
	/* Two CPUs may race here (no atomic maximum before 5.12): user space checks both against the buckets. */
	if (!hist->max_ns || latency_ns < hist->min_ns)
		hist->min_ns = latency_ns;
	if (latency_ns > hist->max_ns)
		hist->max_ns = latency_ns;
}

static __always_inline void count_payer(const struct call *call, __u64 latency_ns)
{
	struct jt_payer_key key = {.id = call->id, .tid = (__u32)bpf_get_current_pid_tgid()};
	struct jt_payer_work *work = lookup_or_zero(&payers, &key);

	if (!work)
		return;
	if (!work->calls) {
		bpf_get_current_comm(work->comm, sizeof(work->comm));
		work->payer = call->payer;
	}
	/* Only this thread writes here. */
	work->calls += 1;
	work->total_ns += latency_ns;
	work->bytes += call->len;
}

static __always_inline void count_callsite(const struct call *call, bool failed, __u64 latency_ns)
{
	struct jt_callsite_key key = {
		.id = call->id,
		.image = call->image,
		.syscall = call->syscall,
		.advice = call->advice,
		.purpose = call->purpose,
		.frames = {call->frames[0], call->frames[1], call->frames[2]},
	};
	struct jt_calls *calls = lookup_or_zero(&callsites, &key);

	if (!calls)
		return;
	__sync_fetch_and_add(&calls->calls, 1);
	__sync_fetch_and_add(&calls->bytes, call->len);
	__sync_fetch_and_add(&calls->total_ns, latency_ns);
	if (failed)
		__sync_fetch_and_add(&calls->failed, 1);
}

static __always_inline void send_call(const struct thread *thread, __u8 from, __u8 transition, __u64 latency_ns,
				      __s64 ret, __s64 rss_delta_bytes, bool has_rss_delta)
{
	const struct call *call = &thread->call;
	struct jt_call_event *event;

	if (event_mode == EVENTS_NONE || (event_mode == EVENTS_SLOW && latency_ns < slow_ns))
		return;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		count_loss(JT_LOSS_RING);
		return;
	}
	event->h.type = JT_EV_CALL;
	event->h.size = sizeof(*event);
	event->h.ts_ns = call->start_ns ? call->start_ns : bpf_ktime_get_ns();
	event->h.id = call->id;
	event->h.tid = (__u32)bpf_get_current_pid_tgid();
	event->h.cpu = bpf_get_smp_processor_id();
	bpf_get_current_comm(event->h.comm, sizeof(event->h.comm));
	event->addr = call->addr;
	event->len = call->len;
	event->latency_ns = latency_ns;
	event->rss_delta_bytes = rss_delta_bytes;
	event->ret = ret < 0 ? (__s32)ret : 0;
	event->arena = call->purpose == JT_PURGE_SWEEP ? thread->sweep.arena : JT_NO_ARENA;
	event->image = call->image;
	event->syscall = call->syscall;
	event->advice = call->advice;
	event->purpose = call->purpose;
	event->from = from;
	event->cause = JT_CAUSE_UNKNOWN;
	if (call->purpose == JT_PURGE_SWEEP)
		event->cause = thread->sweep.cause;
	else if (call->purpose == JT_PURGE_OVERSIZE)
		event->cause = JT_CAUSE_OVERSIZE;
	event->payer = call->payer;
	event->transition = transition;
	event->has_rss_delta = has_rss_delta;
	event->sweep = call->purpose == JT_PURGE_SWEEP ? thread->sweep.number : 0;
	event->frames[0] = call->frames[0];
	event->frames[1] = call->frames[1];
	event->frames[2] = call->frames[2];
	bpf_ringbuf_submit(event, 0);
}
