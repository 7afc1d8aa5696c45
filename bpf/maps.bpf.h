/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/* maps.bpf.h: what the two sides share, and the knobs that user space sets before loading. */
#pragma once

#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "jemtrace/abi.h"
#include "jemtrace/bucket.h"

/* What is rare shall not lie in the way of what is not: a purge's code and ours share the CPU's instruction cache. */
#define likely(condition) __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)

/*
 * Nor are stack frames of 64 bytes or more in its way: since 6.13 they lie in memory of their own, which is no longer
 * in the CPU's first cache when the next purge comes. What needs that much is kept out of line (__noinline).
 */

enum event_mode { EVENTS_NONE, EVENTS_SLOW, EVENTS_ALL };

const volatile bool use_task_storage = true; /* since 5.12 for tracing programs; else the hash below */
const volatile bool register_all = false;    /* every process that maps a known image becomes a target */
const volatile bool keeps_details = true;    /* work by thread, and call sites */
const volatile bool times_mmap = false;	     /* the enter of mmap is traced, too */
const volatile bool traces_mremap = false;
const volatile bool use_cookies = false; /* since 6.6; else a probe looks its site up, which takes 50 ns */
const volatile __u32 event_mode = EVENTS_NONE;
const volatile __u64 slow_ns = ~0ULL;
volatile __u64 targets_version = 0; /* from 1 on; goes up with each change of a target that is known already */
volatile __s32 own_works = 0;	    /* how many more of `works` may be of one thread; the rest is kept to be shared */
volatile __u32 stopped = 0;	    /* nothing is counted any more, and nobody is held: tracing ends */
/* System call numbers, of x86_64 unless user space says otherwise. */
const volatile __s32 mmap_nr = 9, munmap_nr = 11, mremap_nr = 25, madvise_nr = 28, process_madvise_nr = 440;

/* Maps are preallocated: allocating from a tracing program warns on kernels before 6.1. User space sets the sizes. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32); /* tgid */
	__type(value, struct jt_target);
} targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct jt_file);
	__type(value, struct jt_file_info);
} files SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, JT_MAX_IMAGES);
	__type(key, __u32);
	__type(value, struct jt_image);
} images SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, JT_MAX_IMAGES);
	__type(key, __u32);
	__type(value, struct jt_image_checks);
} checks SEC(".maps");

/* Per image: file offset of a return address or a probed instruction -> what is there. */
struct image_sites {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u64));
	__uint(value_size, sizeof(struct jt_site)); /* clang leaves no full type behind for an inner map */
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, JT_MAX_IMAGES);
	__type(key, __u32);
	__array(values, struct image_sites);
} sites SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct jt_target_id);
	__type(value, struct jt_counters);
} counters SEC(".maps");

/*
 * `works` and `work_keys`, whose work it is, by number. A thread remembers its numbers: an array takes a purge 25 ns
 * less than a hash does. User space reads both where they are mapped, and gives the numbers out: 0 is nobody's.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, JT_MAX_WORKS);
	__type(key, __u32);
	__type(value, struct jt_work);
} works SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, JT_MAX_WORKS);
	__type(key, __u32);
	__type(value, struct jt_work_key);
} work_keys SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK);
	__uint(max_entries, JT_MAX_WORKS);
	__type(value, __u32);
} free_works SEC(".maps");

/* The numbers of those that threads share. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, JT_MAX_WORKS);
	__type(key, struct jt_work_key);
	__type(value, __u32);
} shared_works SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct jt_callsite_key);
	__type(value, struct jt_calls);
} callsites SEC(".maps");

/* Zeroes to insert from: the values above are larger than a BPF stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct jt_work);
} zeroes SEC(".maps");
_Static_assert(sizeof(struct jt_counters) <= sizeof(struct jt_work), "zeroes must cover both");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, JT_LOSS_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} losses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

/* Apart from the events, so that a flood of purges cannot push out a fork or an exit. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} lifecycle SEC(".maps");

static __always_inline void count_loss(enum jt_loss kind)
{
	__u32 key = kind;
	__u64 *lost = bpf_map_lookup_elem(&losses, &key);

	if (lost)
		*lost += 1;
}

/* Looks an element up, and inserts a zeroed one when there is none. NULL is counted as a loss. */
static __always_inline void *lookup_or_zero(void *map, const void *key)
{
	__u32 first = 0;
	void *value, *zero;

	value = bpf_map_lookup_elem(map, key);
	if (value)
		return value;
	zero = bpf_map_lookup_elem(&zeroes, &first);
	if (!zero)
		return NULL;
	bpf_map_update_elem(map, key, zero, BPF_NOEXIST); /* another CPU may have been first: look again */
	value = bpf_map_lookup_elem(map, key);
	if (!value)
		count_loss(JT_LOSS_MAP_FULL);
	return value;
}

/* An index that the verifier, too, knows to be smaller than `size`, a power of two. */
static __always_inline __u32 within(__u32 index, __u32 size)
{
	barrier_var(index);
	return index & (size - 1);
}

/* 1: a < b, for numbers that are less than 2^63 apart. No branch: the verifier would follow both sides of each. */
static __always_inline __u64 is_less(__u64 a, __u64 b)
{
	__u64 difference = a - b;

	barrier_var(difference); /* or the compiler makes a branch of it */
	return difference >> 63;
}

static __always_inline struct jt_target *current_target(void)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;

	return bpf_map_lookup_elem(&targets, &tgid);
}
