/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * account.bpf.h: one finished memory syscall goes into the counters.
 *
 * jemalloc counts extents in stats.arenas.<i>.{dirty,muzzy}_{npurge,nmadvise,purged}, whether or not the kernel did
 * what was asked. The transitions are what the kernel did. So both what was done and what failed is counted.
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

static __always_inline bool is_purge(__u8 purpose)
{
	return purpose == JT_PURGE_SWEEP || purpose == JT_PURGE_OVERSIZE || purpose == JT_PURGE_UNPROVEN;
}

static __always_inline bool is_counted_as_work(__u8 purpose)
{
	return is_purge(purpose) || purpose == JT_DESTROY;
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

static __always_inline __u8 transition_of(const struct call *call)
{
	__u8 from = call->from;

	if (!is_counted_as_work(call->purpose))
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

static __always_inline void count_errno(const struct call *call, __s64 ret)
{
	struct jt_counters *owner = counters_of(&call->id);

	if (owner && ret == -EINVAL)
		__sync_fetch_and_add(&owner->failed_errno_inval, 1);
	else if (owner)
		__sync_fetch_and_add(&owner->failed_errno_other, 1);
}

static __always_inline bool has_own_work(const struct thread *thread)
{
	return keeps_details && !thread->shares_work;
}

static __always_inline __u16 *number_of_work(struct thread *thread)
{
	const struct call *call = &thread->call;

	return &thread->works[within(call->transition, JT_TRANSITIONS)][within(call->purpose, PURPOSES_OF_WORK)];
}

/* Takes a free place for this work. 0 is counted as a loss. */
static __always_inline __u32 take_place(const struct jt_work_key *key)
{
	struct jt_work_key *place;
	__u32 number = 0;

	if (bpf_map_pop_elem(&free_works, &number)) {
		count_loss(JT_LOSS_MAP_FULL);
		return 0;
	}
	place = bpf_map_lookup_elem(&work_keys, &number);
	if (!place)
		return 0;
	place->who = key->who;
	place->transition = key->transition;
	place->payer = key->payer;
	place->purpose = key->purpose;
	barrier(); /* user space may look at any time: this says that it is taken */
	place->born_ns = key->born_ns;
	return number;
}

static __always_inline __u32 own_place(const struct jt_work_key *key)
{
	__u32 number = take_place(key);
	struct jt_work *work = bpf_map_lookup_elem(&works, &number);

	if (!number || !work)
		return 0;
	__sync_fetch_and_add(&own_works, -1);
	bpf_get_current_comm(work->comm, sizeof(work->comm));
	return number;
}

static __always_inline __u32 shared_place(const struct jt_work_key *key)
{
	__u32 *shared = bpf_map_lookup_elem(&shared_works, key), number;
	struct jt_work_key *place;

	if (shared)
		return *shared;
	number = take_place(key);
	if (!number || !bpf_map_update_elem(&shared_works, key, &number, BPF_NOEXIST))
		return number;
	/* Another CPU was first. */
	place = bpf_map_lookup_elem(&work_keys, &number);
	if (place)
		place->born_ns = 0;
	bpf_map_push_elem(&free_works, &number, 0);
	shared = bpf_map_lookup_elem(&shared_works, key);
	if (shared)
		return *shared;
	count_loss(JT_LOSS_MAP_FULL);
	return 0;
}

/* Is this place still of that work? A place that was given back may be another's by now. */
static __always_inline bool is_place_of(__u32 number, const struct jt_work_key *key)
{
	const struct jt_work_key *place = bpf_map_lookup_elem(&work_keys, &number);

	return place && place->born_ns == key->born_ns && place->who == key->who &&
	       place->transition == key->transition && place->payer == key->payer && place->purpose == key->purpose;
}

/* Global: the verifier would go on from here by itself. */
__noinline int find_work(void)
{
	struct thread *thread = find_thread();
	struct jt_work_key key = {};
	const struct call *call;
	__u16 *number;

	if (!thread)
		return 0;
	call = &thread->call;
	counters_of(&call->id); /* for the pages that come back */
	key.born_ns = call->id.born_ns;
	key.transition = call->transition;
	key.payer = call->payer;
	key.purpose = call->purpose;
	key.who = (__u32)bpf_get_current_pid_tgid();
	number = number_of_work(thread);
	*number &= ~DOUBTED_WORK;
	if (*number && is_place_of(*number, &key))
		return 0;
	if (has_own_work(thread) && own_works > 0) {
		*number = own_place(&key);
	} else {
		thread->shares_work = true;
		key.who = JT_SHARED_WORK | call->id.tgid;
		*number = shared_place(&key);
	}
	return 0;
}

/* Where this thread's work of that kind is counted. NULL is counted as a loss. */
static __always_inline struct jt_work *work_of(struct thread *thread)
{
	__u32 number = *number_of_work(thread);

	if (unlikely(!number || number & DOUBTED_WORK))
		find_work();
	barrier(); /* from memory: what find_work() found is any number to the verifier */
	number = *number_of_work(thread);
	return likely(number) ? bpf_map_lookup_elem(&works, &number) : NULL;
}

/*
 * An atomic addition costs 6 ns, and much more where CPUs take turns: where only this thread adds it takes none. Asked
 * each time, as what is known of it would double all that the verifier has to go through.
 */
static __always_inline void add(const struct thread *thread, __u64 *to, __u64 amount)
{
	if (likely(has_own_work(thread)))
		*to += amount;
	else
		__sync_fetch_and_add(to, amount);
}

/* Counts an extent once, as jemalloc does, even when the kernel refuses and jemalloc tries it in another way. */
static __always_inline void count_extents(struct thread *thread, struct jt_work *work, bool failed)
{
	struct call *call = &thread->call;
	struct sweep *sweep = &thread->sweep;
	bool again = call->addr == thread->failed_addr && call->len == thread->failed_len;

	thread->failed_addr = failed ? call->addr : 0;
	thread->failed_len = failed ? call->len : 0;
	if (unlikely(again)) {
		add(thread, &work->again_extents, call->ranges);
		add(thread, &work->again_bytes, call->len);
		return;
	}
	if (call->purpose == JT_PURGE_OVERSIZE)
		return;
	if (call->purpose == JT_PURGE_SWEEP && sweep->extents == 0)
		add(thread, &work->sweeps[within(sweep->cause, JT_CAUSES)], 1);
	sweep->extents += call->ranges;
}

/* Global, as it branches. */
__noinline int bucket_of(__u64 ns)
{
	return jt_bucket_of(ns);
}

static __always_inline void count_done(const struct thread *thread, struct jt_work *work, __u64 latency_ns)
{
	const struct call *call = &thread->call;
	struct jt_hist *hist = &work->done;
	__u32 bucket;

	add(thread, &hist->bytes, call->len);
	if (unlikely(!call->start_ns)) {
		add(thread, &hist->extents, call->ranges);
		add(thread, &work->untimed, 1);
		return;
	}
	if (unlikely(call->ranges != 1))
		add(thread, &hist->extents, call->ranges - 1);
	add(thread, &hist->sum_ns, latency_ns);
	bucket = bucket_of(latency_ns);
	if (bucket < JT_HIST_BUCKETS)
		add(thread, &hist->buckets[bucket], 1);
	/* Two CPUs may race here (no atomic maximum before 5.12): user space checks both against the buckets. */
	if (unlikely(!hist->max_ns || latency_ns < hist->min_ns))
		hist->min_ns = latency_ns;
	if (unlikely(latency_ns > hist->max_ns))
		hist->max_ns = latency_ns;
}

static __always_inline void count_failed(const struct thread *thread, struct jt_work *work, __u64 latency_ns)
{
	const struct call *call = &thread->call;

	add(thread, &work->failed, 1);
	add(thread, &work->failed_extents, call->ranges);
	add(thread, &work->failed_bytes, call->len);
	add(thread, &work->failed_ns, latency_ns);
}

/* Of a call that gives nothing back. */
static __always_inline void count_call(struct jt_counters *counters, const struct call *call, bool failed,
				       __u64 latency_ns)
{
	struct jt_calls *calls = &counters->by_purpose[within(call->purpose, JT_PURPOSE_SLOTS)];

	__sync_fetch_and_add(&calls->calls, 1);
	__sync_fetch_and_add(&calls->bytes, call->len);
	__sync_fetch_and_add(&calls->total_ns, latency_ns);
	if (failed)
		__sync_fetch_and_add(&calls->failed, 1);
}

/* Not in line, for the sake of its caller's stack frame: see maps.bpf.h. */
static __noinline int count_callsite(struct thread *thread, bool failed, __u64 latency_ns)
{
	const struct known_walk *walk = current_walk(thread);
	const struct call *call = &thread->call;
	struct jt_callsite_key key = {
		.id = call->id,
		.image = call->image,
		.syscall = call->syscall,
		.advice = call->advice,
		.purpose = call->purpose,
		.frames = {walk->frames[0], walk->frames[1], walk->frames[2]},
	};
	struct jt_calls *calls = lookup_or_zero(&callsites, &key);

	if (!calls)
		return 0;
	__sync_fetch_and_add(&calls->calls, 1);
	__sync_fetch_and_add(&calls->bytes, call->len);
	__sync_fetch_and_add(&calls->total_ns, latency_ns);
	if (failed)
		__sync_fetch_and_add(&calls->failed, 1);
	return 0;
}

static __always_inline void send_call(struct thread *thread, __u64 latency_ns, __s64 ret, __s64 rss_delta_bytes,
				      bool has_rss_delta)
{
	const struct call *call = &thread->call;
	const struct known_walk *walk;
	struct jt_call_event *event;

	if (likely(event_mode == EVENTS_NONE) || (event_mode == EVENTS_SLOW && latency_ns < slow_ns))
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
	event->from = call->from;
	event->cause = JT_CAUSE_UNKNOWN;
	if (call->purpose == JT_PURGE_SWEEP)
		event->cause = thread->sweep.cause;
	else if (call->purpose == JT_PURGE_OVERSIZE)
		event->cause = JT_CAUSE_OVERSIZE;
	event->payer = call->payer;
	event->transition = call->transition;
	event->has_rss_delta = has_rss_delta;
	event->sweep = call->purpose == JT_PURGE_SWEEP ? thread->sweep.number : 0;
	walk = current_walk(thread);
	event->frames[0] = walk->frames[0];
	event->frames[1] = walk->frames[1];
	event->frames[2] = walk->frames[2];
	bpf_ringbuf_submit(event, 0);
}
