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
static __always_inline bool read_cache(const struct jt_target *target, const struct jt_image *image, __u64 address,
				       struct known_cache *cache)
{
	struct {
		__u32 state, ind; /* ind: from 5.3.0, right behind the state */
	} fields = {.ind = JT_NO_ARENA};
	bool has_ind = image->cache_ind_offset == image->cache_state_offset + sizeof(fields.state);

	if (address < 4096 || !image->cache_state_offset)
		return false;
	if (bpf_probe_read_user(&fields, has_ind ? sizeof(fields) : sizeof(fields.state),
				(void *)(address + image->cache_state_offset)))
		return false;
	if (fields.state < JT_STATE_DIRTY || fields.state > JT_STATE_RETAINED)
		return false;
	if (has_ind && fields.ind > 4096) /* MALLCTL_ARENAS_ALL */
		return false;
	cache->born_ns = target->id.born_ns;
	cache->address = address;
	cache->state = fields.state;
	cache->arena = fields.ind;
	return true;
}

/* The same as at the thread's last hit: that saves a read of user memory, 45 ns. */
static __always_inline bool is_cache(const struct jt_target *target, const struct known_cache *cache, __u64 address)
{
	return cache->born_ns == target->id.born_ns && cache->address == address;
}

/* jt_probe_cookie() of the probe that was hit; 0: the target has none there. */
static __always_inline __u64 probe_of(struct pt_regs *ctx, struct jt_target *target)
{
	__u64 ip = PT_REGS_IP(ctx);
	struct jt_target_image *where;
	struct jt_site *site;

	if (use_cookies)
		return bpf_get_attach_cookie(ctx);
	where = image_at(target, ip);
	site = where ? site_at(where, ip) : NULL;
	return site ? jt_probe_cookie(where->image, site) : 0;
}

SEC("uprobe")
int decay_probe(struct pt_regs *ctx)
{
	struct jt_target *target = current_target();
	struct thread *thread;
	struct jt_image_checks *check;
	struct jt_image *image;
	struct sweep *sweep;
	struct known_cache *cache;
	__u64 probe;
	__u32 index;
	__u8 role;

	if (!target || stopped)
		return 0;
	probe = probe_of(ctx, target);
	if (!probe)
		return 0;
	index = probe >> 32;
	role = probe >> 16;
	image = bpf_map_lookup_elem(&images, &index);
	check = bpf_map_lookup_elem(&checks, &index);
	thread = make_thread();
	if (!image || !check || !thread)
		return 0;
	__sync_fetch_and_add(&check->hits, 1);
	thread->probe_hits++;
	cache = &thread->cache;
	if (!is_cache(target, cache, argument(ctx, probe >> 8)) &&
	    !read_cache(target, image, argument(ctx, probe >> 8), cache) &&
	    !read_cache(target, image, argument(ctx, probe & 0xff), cache)) {
		__sync_fetch_and_add(&check->bad_arguments, 1);
		count_loss(JT_LOSS_UNREAD_CACHE);
		cache->born_ns = 0;
		cache->state = JT_STATE_UNKNOWN;
		cache->arena = JT_NO_ARENA;
	}
	if (thread->call.syscall != JT_SYS_NONE)
		end_unseen(thread); /* it was of the sweep before */
	sweep = &thread->sweep;
	/* Evictions of one pass come in a row: only the first one after a purge begins another. */
	if (role == JT_ROLE_EVICT && sweep->number && !sweep->extents && sweep->state == cache->state &&
	    sweep->arena == cache->arena)
		return 0;
	thread->failed_addr = thread->failed_len = 0; /* what is tried again is tried within a sweep */
	sweep->extents = 0;
	sweep->arena = cache->arena;
	sweep->state = cache->state;
	sweep->number++;
	sweep->cause = JT_CAUSE_UNKNOWN;
	sweep->by_eviction = role == JT_ROLE_EVICT;
	return 0;
}
