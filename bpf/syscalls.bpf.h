/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* syscalls.bpf.h: from "the target asks for madvise" to one accounted transition. */
#pragma once

#include "account.bpf.h"
#include "refault.bpf.h"
#include "rss.bpf.h"
#include "walk.bpf.h"

#define PROT_NONE 0
#define PROT_EXEC 4
#define MAP_FIXED 0x10
#define MAP_ANONYMOUS 0x20
#define COST_SAMPLE 64 /* one call in so many times its own BPF work */
#define THREAD_STACK_SLACK 65536

/* Is a thread's so many-th call one whose own work is timed, at its enter and its exit? */
static __always_inline bool is_timed(__u64 calls)
{
	return calls % COST_SAMPLE == 0;
}

/* jemalloc names its background threads so in all of 5.x (pthread_setname_np). */
static __always_inline __u8 current_payer(void)
{
	char comm[JT_COMM_LEN];
	const __u64 *words = (const __u64 *)comm;

	bpf_get_current_comm(comm, sizeof(comm));
	/* "jemalloc" "_bg_thd\0" */
	if (words[0] == 0x636f6c6c616d656aULL && words[1] == 0x006468745f67625fULL)
		return JT_PAYER_BACKGROUND;
	return JT_PAYER_APP;
}

/* The C library advises what lies below the stack pointer of a thread that ends, and nobody else does that. */
static __always_inline bool is_own_stack(const struct call *call, __u64 sp)
{
	__u64 end = call->addr + call->len;

	return call->syscall == JT_SYS_MADVISE && call->advice == MADV_DONTNEED && end <= sp &&
	       sp - end < THREAD_STACK_SLACK;
}

static __always_inline void classify_call(struct jt_target *target, struct thread *thread)
{
	struct call *call = &thread->call;
	__u32 kind = call->advice == MADV_FREE ? WALK_FREE : WALK_OTHER;
	struct user_regs regs = {};
	struct known_walk *walk;

	if (!read_user_regs(&regs)) {
		count_loss(JT_LOSS_UNREAD_STACK);
		call->purpose = JT_UNCLASSIFIED;
		call->image = JT_NO_IMAGE;
		return;
	}
	if (thread->sweep.number && !thread->sweep.extents)
		kind = WALK_FIRST;
	barrier_var(kind); /* any number to the verifier, which would else follow each kind by itself */
	walk_stack(target, thread, kind, regs.sp + 8 * (target->images[0].wrapper_words & 3), regs.bp);
	walk = current_walk(thread);
	barrier(); /* or one load of the kind serves both, whose copy 5.10 does not know to be bounded */
	if (thread->step.kind == WALK_FIRST && walk->purpose == JT_PURGE_SWEEP)
		thread->sweep.cause = walk->cause;
	call->purpose = walk->purpose;
	call->image = walk->image;
	call->frames[0] = walk->frames[0];
	call->frames[1] = walk->frames[1];
	call->frames[2] = walk->frames[2];
	if (call->purpose == JT_FOREIGN && is_own_stack(call, regs.sp))
		call->purpose = JT_THREAD_STACK;
	else if (call->purpose == JT_FOREIGN && call->syscall == JT_SYS_PROCESS_MADVISE && call->image != JT_NO_IMAGE)
		call->purpose = JT_UNCLASSIFIED; /* no program does that to itself: a batch of an unknown function */
	else if (is_purge(call->purpose) && call->syscall <= JT_SYS_PROCESS_MADVISE && call->advice != MADV_FREE &&
		 call->advice != MADV_DONTNEED)
		call->purpose = JT_OTHER_ADVICE;
}

/* Does what the probe said of this sweep go with what is done now? User space drops a probe that is wrong too often. */
static __always_inline void check_sweep(const struct thread *thread)
{
	const struct call *call = &thread->call;
	const struct sweep *sweep = &thread->sweep;
	struct jt_image_checks *check;
	__u32 index = call->image;

	if (call->purpose != JT_PURGE_SWEEP)
		return;
	check = bpf_map_lookup_elem(&checks, &index);
	if (!check)
		return;
	if (!sweep->number)
		__sync_fetch_and_add(&check->unannounced, 1);
	else if (call->advice == MADV_FREE && call->syscall != JT_SYS_MUNMAP && sweep->state == JT_STATE_MUZZY)
		__sync_fetch_and_add(&check->disagreed, 1);
	else if (sweep->extents == 0 && sweep->state != JT_STATE_UNKNOWN)
		__sync_fetch_and_add(&check->agreed, 1);
}

/* User space took a probe off again: what it said last of this thread's sweep is worth nothing. */
static __always_inline void forget_distrusted(struct thread *thread)
{
	__u32 index = thread->call.image;
	struct jt_image *image = bpf_map_lookup_elem(&images, &index);

	if (!image || image->tier != JT_TIER_CALLSITE)
		return;
	thread->sweep.state = JT_STATE_UNKNOWN;
	thread->sweep.cause = JT_CAUSE_UNKNOWN;
	thread->sweep.arena = JT_NO_ARENA;
	thread->sweep.number = 0;
}

static __always_inline void account_purge(struct jt_counters *counters, struct thread *thread, __s64 ret,
					  __u64 latency_ns)
{
	struct call *call = &thread->call;
	bool has_rss_delta = false;
	__s64 rss_pages, delta = 0;
	__u8 from, transition;

	forget_distrusted(thread);
	from = source_state(thread);
	transition = transition_of(call, from);
	check_sweep(thread);
	if (call->purpose != JT_DESTROY)
		count_extents(counters, thread, from, ret < 0);
	if (is_purge(call->purpose)) {
		rss_pages = read_anon_pages();
		has_rss_delta = rss_pages >= 0 && call->rss_pages >= 0;
		if (has_rss_delta) {
			delta = (rss_pages - call->rss_pages) * (1 << JT_PAGE_SHIFT);
			__sync_fetch_and_add(&counters->rss_delta_bytes, delta);
			counters->has_rss_delta = 1;
		} else if (call->start_ns) {
			count_loss(JT_LOSS_UNREAD_RSS);
		}
	}
	if (ret < 0)
		count_failure(counters, ret);
	else if (transition < JT_TRANSITIONS)
		count_latency(call, transition, latency_ns);
	if (ret >= 0)
		request_follow(counters, thread, from, transition);
	if (keeps_details)
		count_payer(call, latency_ns);
	send_call(thread, from, transition, latency_ns, ret, delta, has_rss_delta);
}

/* Less than asked: jemalloc goes through all of it again with madvise, and that is then counted. */
static __always_inline bool is_incomplete(const struct call *call, __s64 ret)
{
	return call->syscall == JT_SYS_PROCESS_MADVISE && (__u64)ret != call->len && is_purge(call->purpose);
}

/*
 * The memory syscall in flight ends. A thread has one at a time, so that all exits share this. Global, as begin_call():
 * the verifier looks at it once and not again wherever it is called, 0.6 s of a start.
 */
__noinline int end_call(__s64 ret)
{
	__u64 now = bpf_ktime_get_ns(), latency_ns = 0;
	struct thread *thread = find_thread();
	struct jt_counters *counters;
	struct jt_calls *calls;
	struct call *call;

	if (!thread)
		return 0;
	call = &thread->call;
	thread->ended = true;
	if (call->start_ns)
		latency_ns = now - call->start_ns;
	if (is_incomplete(call, ret))
		call->purpose = JT_OTHER_ADVICE;
	counters = counters_of(&call->id);
	if (!counters) {
		call->syscall = JT_SYS_NONE;
		return 0;
	}
	if (!call->start_ns && (times_mmap || call->syscall != JT_SYS_MMAP))
		__sync_fetch_and_add(&counters->untimed_calls, 1);
	calls = &counters->by_purpose[within(call->purpose, JT_PURPOSE_SLOTS)];
	__sync_fetch_and_add(&calls->calls, 1);
	__sync_fetch_and_add(&calls->bytes, call->len);
	__sync_fetch_and_add(&calls->total_ns, latency_ns);
	if (ret < 0)
		__sync_fetch_and_add(&calls->failed, 1);
	if (is_purge(call->purpose) || call->purpose == JT_DESTROY)
		account_purge(counters, thread, ret, latency_ns);
	if (thread->probe_hits) {
		__sync_fetch_and_add(&counters->probe_hits, thread->probe_hits);
		thread->probe_hits = 0;
	}
	if (ret >= 0)
		request_forget(thread);
	if (keeps_details && (call->purpose == JT_PURGE_UNPROVEN || call->purpose == JT_UNCLASSIFIED))
		count_callsite(call, ret < 0, latency_ns);
	call->exit_ns = now;
	call->syscall = JT_SYS_NONE;
	thread->calls++;
	return 0;
}

/* Once all is done for a call that was seen from its enter to its exit. */
static __always_inline void count_own_cost(const struct thread *thread)
{
	const struct call *call = &thread->call;
	struct jt_counters *owner;

	if (!is_timed(thread->calls) || !call->enter_ns)
		return;
	owner = bpf_map_lookup_elem(&counters, &call->id);
	if (!owner)
		return;
	__sync_fetch_and_add(&owner->bpf_samples, 1);
	__sync_fetch_and_add(&owner->bpf_sampled_ns, call->enter_ns + bpf_ktime_get_ns() - call->exit_ns);
}

/* The exit of the call in flight was skipped: its pages are gone all the same, how long it took is not known. */
static __always_inline void end_unseen(struct thread *thread)
{
	struct call *call = &thread->call;

	call->start_ns = 0;
	end_call(call->syscall == JT_SYS_PROCESS_MADVISE ? (__s64)call->len : 0);
}

/* A memory syscall of a target begins. `ranges`: see struct call. */
__noinline int begin_call(enum jt_syscall syscall, __u64 addr, __u64 len, __u32 advice, __u32 ranges)
{
	struct jt_target *target = current_target();
	struct thread *thread;
	struct call *call;

	if (!target)
		return 0;
	thread = make_thread();
	if (!thread)
		return 0;
	call = &thread->call;
	if (call->syscall != JT_SYS_NONE)
		end_unseen(thread);
	call->enter_ns = is_timed(thread->calls + 1) ? bpf_ktime_get_ns() : 0;
	thread->ended = false;
	call->syscall = syscall;
	call->addr = addr;
	call->len = len;
	call->advice = advice;
	call->ranges = ranges;
	call->id = target->id;
	classify_call(target, thread);
	call->rss_pages = -1;
	if (is_purge(call->purpose)) {
		/* A thread gets its name once, and before it purges: looking now and then is enough. */
		if (!thread->knows_payer || thread->calls % COST_SAMPLE == 0)
			thread->payer = current_payer();
		thread->knows_payer = true;
		call->payer = thread->payer;
		call->rss_pages = read_anon_pages();
	}
	call->start_ns = bpf_ktime_get_ns();
	if (call->enter_ns)
		call->enter_ns = call->start_ns - call->enter_ns;
	return 0;
}

/* jemalloc 5.3.1 purges up to 128 extents with one call (opt.process_madvise_max_batch). */
static __always_inline void begin_vector(const struct iovec *vec, __u64 count, __u32 advice)
{
	__u64 first = 0, bytes = 0, i;
	struct iovec one = {};

	if (!current_target())
		return;
	for (i = 0; i < JT_MAX_IOVEC; i++) {
		if (i >= count)
			break;
		if (bpf_probe_read_user(&one, sizeof(one), vec + i))
			break;
		if (i == 0)
			first = (__u64)one.iov_base;
		bytes += one.iov_len;
	}
	if (i < count)
		count_loss(JT_LOSS_UNREAD_IOVEC);
	begin_call(JT_SYS_PROCESS_MADVISE, first, bytes, advice, count);
}
