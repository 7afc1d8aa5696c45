/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* syscalls.bpf.h: from "the target asks for madvise" to one accounted transition. */
#pragma once

#include "account.bpf.h"
#include "checks.bpf.h"
#include "refault.bpf.h"
#include "rss.bpf.h"
#include "walk.bpf.h"

#define MAX_ERRNO 4095
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

/* Another payer's work is counted in other places. */
static __always_inline void learn_payer(struct thread *thread)
{
	__u8 payer = current_payer();

	if (thread->payer != payer)
		doubt_works(thread);
	thread->payer = payer;
	thread->knows_payer = true;
}

/* The C library advises what lies below the stack pointer of a thread that ends, and nobody else does that. */
static __always_inline bool is_own_stack(const struct call *call, __u64 sp)
{
	__u64 end = call->addr + call->len;

	return call->syscall == JT_SYS_MADVISE && call->advice == MADV_DONTNEED && end <= sp &&
	       sp - end < THREAD_STACK_SLACK;
}

static __always_inline void classify_call(struct thread *thread, __u64 sp)
{
	struct call *call = &thread->call;
	__u32 kind = call->advice == MADV_FREE ? WALK_FREE : WALK_OTHER;
	struct known_walk *walk;

	if (unlikely(!sp)) {
		count_loss(JT_LOSS_UNREAD_STACK);
		call->purpose = JT_UNCLASSIFIED;
		call->image = JT_NO_IMAGE;
		return;
	}
	if (thread->sweep.number && !thread->sweep.extents)
		kind = WALK_FIRST;
	barrier_var(kind); /* any number to the verifier, which would else follow each kind by itself */
	walk_stack(thread, kind, sp + 8 * thread->target.wrapper_words);
	walk = current_walk(thread);
	barrier(); /* or one load of the kind serves both, whose copy 5.10 does not know to be bounded */
	if (thread->step.kind == WALK_FIRST && walk->purpose == JT_PURGE_SWEEP)
		thread->sweep.cause = walk->cause;
	call->purpose = walk->purpose;
	call->image = walk->image;
	if (call->purpose == JT_FOREIGN && is_own_stack(call, sp))
		call->purpose = JT_THREAD_STACK;
	else if (call->purpose == JT_FOREIGN && call->syscall == JT_SYS_PROCESS_MADVISE && call->image != JT_NO_IMAGE)
		call->purpose = JT_UNCLASSIFIED; /* no program does that to itself: a batch of an unknown function */
	else if (is_purge(call->purpose) && call->syscall <= JT_SYS_PROCESS_MADVISE && call->advice != MADV_FREE &&
		 call->advice != MADV_DONTNEED)
		call->purpose = JT_OTHER_ADVICE;
}

/* What RSS lost in the call. False: not known. */
static __always_inline bool read_rss_delta(const struct call *call, __s64 *delta)
{
	__s64 pages = read_anon_pages();

	if (likely(pages >= 0 && call->rss_pages >= 0)) {
		*delta = (pages - call->rss_pages) * (1 << JT_PAGE_SHIFT);
		return true;
	}
	if (call->start_ns)
		count_loss(JT_LOSS_UNREAD_RSS);
	return false;
}

static __always_inline void account_work(struct thread *thread, __s64 ret, __u64 latency_ns)
{
	struct call *call = &thread->call;
	bool has_rss_delta = false;
	struct jt_work *work;
	__s64 delta = 0;

	forget_other_image(thread);
	/* By way of memory: the verifier would go on with each of their values by itself. */
	call->from = source_state(thread);
	call->transition = transition_of(call);
	barrier();
	if (call->purpose == JT_PURGE_SWEEP)
		check_sweep(thread);
	work = work_of(thread);
	if (unlikely(!work))
		return;
	if (call->purpose != JT_DESTROY)
		count_extents(thread, work, ret < 0);
	if (is_purge(call->purpose)) {
		has_rss_delta = read_rss_delta(call, &delta);
		add(thread, (__u64 *)&work->rss_delta_bytes, delta);
		if (unlikely(!has_rss_delta))
			add(thread, &work->unread_rss, 1);
	}
	if (thread->probe_hits) {
		add(thread, &work->probe_hits, thread->probe_hits);
		thread->probe_hits = 0;
	}
	if (unlikely(ret < 0)) {
		count_failed(thread, work, latency_ns);
		count_errno(call, ret);
	} else {
		count_done(thread, work, latency_ns);
		request_follow(thread, work);
	}
	send_call(thread, latency_ns, ret, delta, has_rss_delta);
}

static __always_inline void account_other(const struct call *call, bool failed, __u64 latency_ns)
{
	struct jt_counters *owner = counters_of(&call->id);

	if (owner)
		count_call(owner, call, failed, latency_ns);
}

static __always_inline void count_untimed(const struct call *call)
{
	struct jt_counters *owner = counters_of(&call->id);

	if (owner)
		__sync_fetch_and_add(&owner->untimed_calls, 1);
}

/* Less than asked: jemalloc goes through all of it again with madvise, and that is then counted. */
static __always_inline bool is_incomplete(const struct call *call, __s64 ret)
{
	return call->syscall == JT_SYS_PROCESS_MADVISE && (__u64)ret != call->len && is_purge(call->purpose);
}

/* Once all is done for a call that was seen from its enter to its exit. */
static __always_inline void count_own_cost(struct call *call)
{
	struct jt_counters *owner = counters_of(&call->id);

	if (owner) {
		__sync_fetch_and_add(&owner->bpf_samples, 1);
		__sync_fetch_and_add(&owner->bpf_sampled_ns, call->enter_ns + bpf_ktime_get_ns() - call->exit_ns);
	}
	call->enter_ns = 0;
}

/* mmap and mremap return addresses: only the last page of them are errors. */
static __always_inline __s64 errno_or_zero(__s64 ret)
{
	return ret < 0 && ret >= -MAX_ERRNO ? ret : 0;
}

/*
 * The memory syscall in flight ends. A thread has one at a time, so that all exits share this. Global, as begin_call():
 * the verifier looks at it once and not again wherever it is called, 0.6 s of a start.
 */
__noinline int end_call(__s64 ret)
{
	__u64 now = bpf_ktime_get_ns(), latency_ns = 0;
	struct thread *thread = find_thread();
	struct call *call;

	if (unlikely(!thread || thread->call.syscall == JT_SYS_NONE))
		return 0;
	call = &thread->call;
	thread->ended = true;
	if (call->syscall != JT_SYS_PROCESS_MADVISE)
		ret = errno_or_zero(ret);
	if (likely(call->start_ns))
		latency_ns = now - call->start_ns;
	if (unlikely(is_incomplete(call, ret)))
		call->purpose = JT_OTHER_ADVICE;
	call->exit_ns = now;
	if (likely(is_counted_as_work(call->purpose)))
		account_work(thread, ret, latency_ns);
	else
		account_other(call, ret < 0, latency_ns);
	if (unlikely(!call->start_ns) && (times_mmap || call->syscall != JT_SYS_MMAP))
		count_untimed(call);
	if (ret >= 0)
		request_forget(thread);
	if (keeps_details && unlikely(call->purpose == JT_PURGE_UNPROVEN || call->purpose == JT_UNCLASSIFIED))
		count_callsite(thread, ret < 0, latency_ns);
	call->syscall = JT_SYS_NONE;
	thread->calls++;
	return 1;
}

/* What is left to do of a call that has ended. Not in end_call(), whose callers have too many callers already. */
static __always_inline void finish_call(void)
{
	struct thread *thread = find_thread();

	if (unlikely(!thread))
		return;
	if (thread->follow != FOLLOW_NOTHING)
		follow_call(thread);
	if (unlikely(thread->call.enter_ns))
		count_own_cost(&thread->call);
}

/* The exit of the call in flight was skipped: its pages are gone all the same, how long it took is not known. */
static __always_inline void end_unseen(struct thread *thread)
{
	struct call *call = &thread->call;

	call->start_ns = call->enter_ns = 0;
	end_call(call->syscall == JT_SYS_PROCESS_MADVISE ? (__s64)call->len : 0);
	follow_nothing(thread);
}

/* A system call, its advice and its ranges (see struct call) in one word: a global function takes five. */
static __always_inline __u64 request(enum jt_syscall syscall, __u8 advice, __u32 ranges)
{
	return syscall | (__u64)advice << 8 | (__u64)ranges << 32;
}

/* A memory syscall of a target begins. `sp`: user space's. */
__noinline int begin_call(__u64 request, __u64 addr, __u64 len, __u64 sp)
{
	struct thread *thread = target_thread();
	struct call *call;

	if (unlikely(!thread))
		return 0;
	call = &thread->call;
	if (unlikely(call->syscall != JT_SYS_NONE))
		end_unseen(thread);
	call->enter_ns = is_timed(thread->calls + 1) ? bpf_ktime_get_ns() : 0;
	thread->ended = false;
	call->syscall = request;
	call->advice = request >> 8;
	call->ranges = request >> 32;
	call->addr = addr;
	call->len = len;
	call->id = thread->target.id;
	classify_call(thread, sp);
	/* A thread gets its name once, and before it purges: looking now and then is enough. */
	if (unlikely((!thread->knows_payer || thread->calls % COST_SAMPLE == 0) && is_counted_as_work(call->purpose)))
		learn_payer(thread);
	call->payer = thread->payer;
	call->rss_pages = is_purge(call->purpose) ? read_anon_pages() : -1;
	call->start_ns = bpf_ktime_get_ns();
	if (unlikely(call->enter_ns))
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
	begin_call(request(JT_SYS_PROCESS_MADVISE, advice, count), first, bytes, user_sp());
}
