/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * checks.bpf.h: does what the probes of an image say go with what is done? User space takes a probe off that is wrong
 * too often.
 *
 * Bad news is told at once. Good news comes with every sweep, and an addition to what all CPUs share costs each of them
 * some 15 ns: it is told by the 64, or before the next bad news, so that what is known of it is never less than half.
 */
#pragma once

#include "account.bpf.h"

#define CHECKS_AT_ONCE 64

/* Tells what is pending. */
static __always_inline struct jt_image_checks *tell_checks(struct thread *thread)
{
	struct pending_checks *pending = &thread->checks;
	struct jt_image_checks *check;
	__u32 index = pending->image;

	check = bpf_map_lookup_elem(&checks, &index);
	if (check) {
		__sync_fetch_and_add(&check->hits, pending->hits);
		__sync_fetch_and_add(&check->agreed, pending->agreed);
	}
	pending->hits = pending->agreed = 0;
	return check;
}

static __always_inline void count_hit(struct thread *thread, __u32 image)
{
	struct pending_checks *pending = &thread->checks;

	if (unlikely(pending->image != image)) {
		tell_checks(thread);
		pending->image = image;
		pending->told = 0;
	}
	pending->hits++;
	thread->probe_hits++;
	if (likely(pending->hits < CHECKS_AT_ONCE && pending->told >= CHECKS_AT_ONCE))
		return;
	pending->told += pending->hits;
	tell_checks(thread);
}

/* No argument at the probe that was hit last was a cache. */
static __always_inline void count_bad_arguments(struct thread *thread)
{
	struct jt_image_checks *check = tell_checks(thread);

	if (check)
		__sync_fetch_and_add(&check->bad_arguments, 1);
	count_loss(JT_LOSS_UNREAD_CACHE);
}

static __always_inline void count_unannounced(__u32 image)
{
	struct jt_image_checks *check = bpf_map_lookup_elem(&checks, &image);

	if (check)
		__sync_fetch_and_add(&check->unannounced, 1);
}

/* A purge of a sweep: can it come from the cache that the probe saw? MADV_FREE is never done to what is muzzy. */
static __always_inline void check_sweep(struct thread *thread)
{
	const struct call *call = &thread->call;
	const struct sweep *sweep = &thread->sweep;
	struct jt_image_checks *check;

	if (unlikely(!sweep->number)) {
		count_unannounced(call->image);
	} else if (call->advice == MADV_FREE && call->syscall != JT_SYS_MUNMAP && sweep->state == JT_STATE_MUZZY) {
		check = tell_checks(thread);
		if (check)
			__sync_fetch_and_add(&check->disagreed, 1);
	} else if (sweep->extents == 0 && sweep->state != JT_STATE_UNKNOWN) {
		thread->checks.agreed++;
	}
}

/* Of a process with two: no probe of this one told of a sweep. */
static __always_inline void forget_other_image(struct thread *thread)
{
	if (unlikely(thread->call.image != thread->checks.image))
		forget_sweep(thread);
}
