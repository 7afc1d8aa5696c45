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
static __always_inline bool read_cache(const struct jt_image *image, __u64 address, struct known_cache *cache)
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
	cache->address = address;
	cache->state = fields.state;
	cache->arena = fields.ind;
	return true;
}

/* The same as at the thread's last hit: that saves a read of user memory, 45 ns. */
static __always_inline bool is_known_cache(const struct thread *thread, __u64 address)
{
	return thread->cache.version == thread->target.version && thread->cache.address == address;
}

/* False: no argument is one. */
static __always_inline bool find_cache(struct pt_regs *ctx, struct thread *thread, __u64 probe)
{
	struct known_cache *cache = &thread->cache;
	__u64 address = argument(ctx, probe >> 8);
	__u32 index = probe >> 32;
	struct jt_image *image;

	if (likely(is_known_cache(thread, address)))
		return true;
	image = bpf_map_lookup_elem(&images, &index);
	if (!image)
		return false;
	cache->version = thread->target.version;
	if (read_cache(image, address, cache) || read_cache(image, argument(ctx, probe & 0xff), cache))
		return true;
	cache->version = 0;
	cache->state = JT_STATE_UNKNOWN;
	cache->arena = JT_NO_ARENA;
	return false;
}

/* jt_probe_cookie() of the probe that was hit; 0: the target has none there. */
static __always_inline __u64 probe_of(struct pt_regs *ctx)
{
	__u64 ip = PT_REGS_IP(ctx);
	struct jt_target_image *where;
	struct jt_target *target;
	struct jt_site *site;

	if (use_cookies)
		return bpf_get_attach_cookie(ctx);
	target = current_target();
	if (!target)
		return 0;
	where = image_at(target, ip);
	site = where ? site_at(where, ip) : NULL;
	return site ? jt_probe_cookie(where->image, site) : 0;
}

SEC("uprobe")
int decay_probe(struct pt_regs *ctx)
{
	struct thread *thread = stopped ? NULL : target_thread();
	struct known_cache *cache;
	struct sweep *sweep;
	__u64 probe;
	__u8 role;

	if (unlikely(!thread))
		return 0;
	probe = probe_of(ctx);
	if (!probe)
		return 0;
	role = probe >> 16;
	count_hit(thread, probe >> 32);
	if (unlikely(!find_cache(ctx, thread, probe)))
		count_bad_arguments(thread);
	cache = &thread->cache;
	if (unlikely(thread->call.syscall != JT_SYS_NONE))
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
