/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * sweep.bpf.h: the one thing that a syscall cannot tell: which cache a purged extent came from.
 *
 * One probe at the start of a decay pass (or, where the compiler inlined that function, at each eviction) notes the
 * cache's state for the thread; the purges that follow on this thread are of that pass, as jemalloc evicts all extents
 * of a pass before it purges the first.
 */
#pragma once

#include "syscalls.bpf.h"

/* A copy of a register: the verifier wants each to be loaded from the context at a constant offset. */
#define LOAD(name, value)                                                                                              \
	__u64 name = value;                                                                                            \
	barrier_var(name)

static __always_inline __u64 argument(struct pt_regs *ctx, __u8 number)
{
	LOAD(second, PT_REGS_PARM2(ctx));
	LOAD(third, PT_REGS_PARM3(ctx));
	LOAD(fourth, PT_REGS_PARM4(ctx));
	LOAD(fifth, PT_REGS_PARM5(ctx));

	switch (number) {
	case 2:
		return second;
	case 3:
		return third;
	case 4:
		return fourth;
	case 5:
		return fifth;
	default:
		return 0;
	}
}

/*
 * The cache that an argument points to. A static function may have lost an argument to the optimiser, so each
 * candidate must make sense: a known state, and from 5.3.0 an arena index right behind it.
 */
static __always_inline bool read_cache(const struct jt_image *image, __u64 cache, __u8 *state, __u32 *arena)
{
	struct {
		__u32 state, ind; /* ind: from 5.3.0, right behind the state */
	} fields = {.ind = JT_NO_ARENA};
	bool has_ind = image->cache_ind_offset == image->cache_state_offset + sizeof(fields.state);

	if (cache < 4096 || !image->cache_state_offset)
		return false;
	if (bpf_probe_read_user(&fields, has_ind ? sizeof(fields) : sizeof(fields.state),
				(void *)(cache + image->cache_state_offset)))
		return false;
	if (fields.state < JT_STATE_DIRTY || fields.state > JT_STATE_RETAINED)
		return false;
	if (has_ind && fields.ind > 4096) /* MALLCTL_ARENAS_ALL */
		return false;
	*state = fields.state;
	*arena = fields.ind;
	return true;
}

SEC("uprobe")
int decay_probe(struct pt_regs *ctx)
{
	struct jt_target *target = current_target();
	__u64 ip = PT_REGS_IP(ctx);
	struct jt_target_image *where;
	struct jt_counters *counters;
	struct thread *thread;
	struct jt_image_checks *check;
	struct jt_image *image;
	struct jt_site *site;
	struct sweep *sweep;
	__u8 state = JT_STATE_UNKNOWN;
	__u32 arena = JT_NO_ARENA;
	__u32 index;

	if (!target || stopped)
		return 0;
	where = image_at(target, ip);
	site = where ? site_at(where, ip) : NULL;
	if (!site)
		return 0;
	index = where->image;
	image = bpf_map_lookup_elem(&images, &index);
	check = bpf_map_lookup_elem(&checks, &index);
	thread = make_thread();
	if (!image || !check || !thread)
		return 0;
	__sync_fetch_and_add(&check->hits, 1);
	counters = counters_of(&target->id);
	if (counters)
		__sync_fetch_and_add(&counters->probe_hits, 1);
	if (!read_cache(image, argument(ctx, site->cache_arg[0]), &state, &arena) &&
	    !read_cache(image, argument(ctx, site->cache_arg[1]), &state, &arena)) {
		__sync_fetch_and_add(&check->bad_arguments, 1);
		count_loss(JT_LOSS_UNREAD_CACHE);
	}
	if (thread->call.syscall != JT_SYS_NONE)
		end_unseen(thread); /* it was of the sweep before */
	sweep = &thread->sweep;
	/* Evictions of one pass come in a row: only the first one after a purge begins another. */
	if (site->role == JT_ROLE_EVICT && sweep->number && !sweep->extents && sweep->state == state &&
	    sweep->arena == arena)
		return 0;
	sweep->extents = 0;
	sweep->arena = arena;
	sweep->state = state;
	sweep->number++;
	walk_stack(target, thread, WALK_CAUSE, PT_REGS_SP(ctx) + site->pushed, PT_REGS_FP(ctx));
	sweep->cause = current_walk(thread)->cause;
	return 0;
}
