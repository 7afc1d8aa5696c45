/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* thread.bpf.h: what is remembered of a thread between two events. */
#pragma once

#include "maps.bpf.h"

/* A memory syscall in flight. Where it came from is in the walk. */
struct call {
	__u8 syscall; /* enum jt_syscall; NONE: no call in flight */
	__u8 advice;
	__u8 purpose;
	__u8 payer;
	__u8 from;	 /* enum jt_state; once it has ended, as the next */
	__u8 transition; /* JT_TRANSITIONS: none */
	__u8 pad[2];
	__u64 addr;
	__u64 len;
	__u64 start_ns;
	__u64 enter_ns;	 /* what its enter took of us, once that has ended; 0: not timed */
	__u64 exit_ns;	 /* when its exit began, once that has ended */
	__s64 rss_pages; /* before; -1 when unread */
	struct jt_target_id id;
	__u32 image;
	__u32 ranges; /* process_madvise: extents in the iovec; else 1 */
};

/* The decay pass that this thread is in, or was in last. */
struct sweep {
	__u64 extents;
	__u32 arena;
	__u32 number;	  /* counts this thread's sweeps */
	__u8 state;	  /* enum jt_state of the cache */
	__u8 cause;	  /* once its first purge has been seen */
	__u8 by_eviction; /* announced from inside the function whose frame says that it is a sweep */
	__u8 pad[5];
};

/* WALK_FIRST: of a sweep's first call; it goes on to why there is a sweep. */
enum walk_kind { WALK_FREE, WALK_OTHER, WALK_FIRST, WALK_KINDS };

#define MAX_WALK_FRAMES 12 /* two times what the deepest build seen needs: to the sweep, and to its cause */

/* A walk up the stack that was made before: the same words in the same places lead to the same end. */
struct known_walk {
	__u64 version; /* of the target; 0: none */
	__u64 frames[3];
	__u64 word[MAX_WALK_FRAMES]; /* return addresses, ... */
	__u16 slot[MAX_WALK_FRAMES]; /* ... and where they were, in words from the stack pointer */
	__u32 image;
	__u8 depth;
	__u8 words; /* of the stack, up to the last return address */
	__u8 purpose;
	__u8 cause;
};

/* Where the walk that is being made stands. */
struct step {
	__u64 sp;   /* where it began */
	__u64 slot; /* where the next return address is */
	__u64 bp;
	__u64 word;
	__u32 kind;	 /* enum walk_kind */
	__u32 words;	 /* of the stack that `stack` holds */
	__u32 sweep;	 /* 1 + the frame that proves a sweep; 0: none yet */
	__u8 repeatable; /* all that decided is in `stack` and at known distances */
	__u8 pad[3];
};

/* What is left to do with the pages of a call that has ended. */
enum follow { FOLLOW_NOTHING, FOLLOW_RANGE, FOLLOW_VECTOR, FORGET_RANGE };

#define STACK_WORDS 128
#define PURPOSES_OF_WORK 8  /* what is_counted_as_work() differs in these bits */
#define DOUBTED_WORK 0x8000 /* of a number: it may have been given back since, or be another payer's */

/* A cache that a probe has read: which it is does not change. */
struct known_cache {
	__u64 version; /* of the target; 0: none */
	__u64 address;
	__u32 arena;
	__u8 state;
	__u8 pad[3];
};

/* The target that a thread is of, as it stood in `targets` at some version. */
struct own_target {
	__u64 version; /* of targets_version; 0: of none, as far as is known */
	struct jt_target_id id;
	__u32 wrapper_words;
	__u32 pad;
};

/* For jt_image_checks of an image: see checks.bpf.h. */
struct pending_checks {
	__u32 image;
	__u32 hits;
	__u32 agreed;
	__u32 told; /* hits that are not pending any more */
};

/* What one event needs lies together, as in struct jt_work. */
struct thread {
	struct own_target target;
	struct known_cache cache;
	struct sweep sweep;
	struct pending_checks checks;
	__u32 calls;
	__u32 probe_hits; /* that are not in the counters yet */
	struct call call;
	__u64 failed_addr; /* the last purge failed here: jemalloc tries the same extent again in another way */
	__u64 failed_len;
	__u8 payer;
	bool knows_payer;
	bool shares_work; /* there are no more `works` for its own */
	bool ended;	  /* an exit program has seen the end of the call */
	bool has_purged;  /* the gate for its page faults is open */
	__u8 follow;	  /* enum follow: the call's pages, or those of its vector */
	__u8 pad[2];
	__u16 works[JT_TRANSITIONS][PURPOSES_OF_WORK]; /* numbers in `works`, its own or shared; 0: not known */
	struct step step;
	struct known_walk walks[WALK_KINDS];
	__u64 stack[STACK_WORDS]; /* the top of the user stack, read at once */
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct thread);
} threads SEC(".maps");

/* The same for kernels without task storage for tracing (before 5.12). Key: tid. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, __u32);
	__type(value, struct thread);
} threads_by_tid SEC(".maps");
_Static_assert(sizeof(struct thread) <= sizeof(struct jt_work), "zeroes must cover it");

/* NULL when it has none yet. */
static __always_inline struct thread *find_thread(void)
{
	__u32 tid;

	if (use_task_storage)
		return bpf_task_storage_get(&threads, bpf_get_current_task_btf(), 0, 0);
	tid = (__u32)bpf_get_current_pid_tgid();
	return bpf_map_lookup_elem(&threads_by_tid, &tid);
}

static __always_inline struct thread *make_thread(void)
{
	struct thread *thread;
	__u32 tid;

	if (use_task_storage) {
		thread = bpf_task_storage_get(&threads, bpf_get_current_task_btf(), 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	} else {
		tid = (__u32)bpf_get_current_pid_tgid();
		thread = lookup_or_zero(&threads_by_tid, &tid);
	}
	if (!thread)
		count_loss(JT_LOSS_NO_STORAGE);
	return thread;
}

static __always_inline void doubt_works(struct thread *thread)
{
	__u64 *four = (__u64 *)thread->works;
	__u32 i;

	for (i = 0; i < sizeof(thread->works) / sizeof(*four); i++)
		four[i] |= 0x0001000100010001ULL * DOUBTED_WORK;
}

/* User space took the probe off that told of this thread's sweep: what it said is worth nothing. */
static __always_inline void forget_sweep(struct thread *thread)
{
	thread->sweep.state = JT_STATE_UNKNOWN;
	thread->sweep.cause = JT_CAUSE_UNKNOWN;
	thread->sweep.arena = JT_NO_ARENA;
	thread->sweep.number = 0;
}

static __always_inline bool is_distrusted(__u32 index)
{
	struct jt_image *image = bpf_map_lookup_elem(&images, &index);

	return image && image->tier == JT_TIER_CALLSITE;
}

/*
 * A look into `targets`, which the thread is spared from then on until one of them changes. Global: the verifier would
 * go on from here by itself. Returns 1 when the thread is one of a target's.
 */
__noinline int look_up_target(void)
{
	__u64 version = targets_version;
	struct jt_target *target;
	struct thread *thread;

	barrier(); /* a change that comes in between shall be looked up again, not be missed */
	target = current_target();
	thread = target ? make_thread() : find_thread();
	if (!thread)
		return 0;
	thread->target.version = 0;
	thread->has_purged = false;
	doubt_works(thread);
	if (is_distrusted(thread->checks.image))
		forget_sweep(thread);
	if (!target)
		return 0;
	thread->target.id = target->id;
	thread->target.wrapper_words = target->images[0].wrapper_words & 3;
	thread->target.version = version;
	return 1;
}

static __always_inline void forget_target(void)
{
	struct thread *thread = find_thread();

	if (thread)
		thread->target.version = 0;
}

/* The current thread, when it is one of a target's. */
static __always_inline struct thread *target_thread(void)
{
	struct thread *thread = find_thread();

	if (likely(thread && thread->target.version == targets_version))
		return thread;
	return look_up_target() ? find_thread() : NULL;
}

/* The walk of this kind that the thread made last. From memory: the verifier is not to follow each kind by itself. */
static __always_inline struct known_walk *current_walk(struct thread *thread)
{
	__u32 kind;

	barrier();
	kind = thread->step.kind;
	return &thread->walks[kind < WALK_KINDS ? kind : 0];
}

/* Task storage dies with its task; the hash has to be told. */
static __always_inline void forget_thread(void)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();

	if (!use_task_storage)
		bpf_map_delete_elem(&threads_by_tid, &tid);
}
