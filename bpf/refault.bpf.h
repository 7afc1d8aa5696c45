/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * refault.bpf.h: which purged pages are touched again, and how soon.
 *
 * A page that MADV_DONTNEED took away comes back by a page fault at its next touch. So each purge leaves a stamp (when,
 * and from which cache) for each of its pages, and a fault takes the stamp of its page away and counts its age.
 * MADV_FREE leaves none: until the kernel reclaims such a page, a new write to it raises no fault.
 *
 * The stamps lie in chunks of 2 MiB of address space, in a table of sets of four, as in a CPU's cache: a look-up costs
 * two array accesses, memory is bounded, and what is thrown out is known and counted, none of which holds for
 * BPF_MAP_TYPE_LRU_HASH. A huge page is one chunk.
 *
 * Every page fault of the host runs page_fault(). All but those of targets that have purged leave it after one load.
 *
 * There is no lock, and before 5.12 no compare-and-swap: two CPUs that take the same way of a set, or fault on the same
 * page, within the same nanoseconds may lose a chunk, or count a page twice.
 */
#pragma once

#include "account.bpf.h"
#include "walk.bpf.h"

/* Of a stamp: the cache that the page came from. */
#define STAMP_FROM 3
#define STAMP_FROM_UNKNOWN 3
#define STAMPS_PER_MINUTE ((60000000000ULL) >> JT_STAMP_SHIFT)
#define MAX_CHUNKS_PER_CALL 256
#define GATE_SLOTS 65536

const volatile __u32 last_chunk_set = 0; /* their number, a power of two, less one */
volatile __u32 follow_purges = 0;	 /* user space sets it once page faults arrive */
volatile __u32 follow_shift = 0;	 /* one chunk in 2^shift is followed */

/* By tgid, modulo its size: has it purged? */
__u8 has_purged[GATE_SLOTS];

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct jt_chunk_set);
} chunk_sets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, JT_CHUNK_WAYS);
	__type(key, __u32); /* set * JT_CHUNK_WAYS + way */
	__type(value, struct jt_chunk_pages);
} chunk_pages SEC(".maps");

static __always_inline __u64 chunk_key(__u64 chunk, __u32 tgid)
{
	return chunk << JT_TGID_BITS | tgid; /* user addresses have at most 57 bits */
}

static __always_inline __u64 hash_of(__u64 key)
{
	return key * 0x9e3779b97f4a7c15ULL;
}

static __always_inline __u32 set_of(__u64 hash)
{
	return hash >> 32 & last_chunk_set;
}

/* Other bits of the hash than the set's: the chunks that are followed shall fill all sets. */
static __always_inline bool is_followed(__u64 hash)
{
	return (hash >> 56 & ((1 << (follow_shift & 7)) - 1)) == 0;
}

/* JT_CHUNK_WAYS: it is in none. */
static __always_inline __u32 way_of(const struct jt_chunk_set *set, __u64 key)
{
	__u32 way;

#pragma unroll
	for (way = 0; way < JT_CHUNK_WAYS; way++)
		if (set->key[way] == key)
			return way;
	return JT_CHUNK_WAYS;
}

static __always_inline __u32 stamp_time(__u64 now)
{
	return now >> JT_STAMP_SHIFT & JT_STAMP_MASK;
}

/* Stamps of the pages [first, end) of a chunk; 0 takes them away. Returns how many had one. Global: verified once. */
__noinline int stamp_pages(__u32 slot, __u32 first, __u32 end, __u32 stamp)
{
	struct jt_chunk_pages *pages = bpf_map_lookup_elem(&chunk_pages, &slot);
	__u32 had = 0, i;

	if (!pages)
		return 0;
	for (i = 0; i < JT_CHUNK_PAGES; i++) {
		__u32 page = first + i, old;

		if (page >= end)
			break;
		page = within(page, JT_CHUNK_PAGES);
		old = pages->stamp[page];
		had += (old | -old) >> 31; /* no branch: the verifier would follow both sides of each */
		pages->stamp[page] = stamp;
	}
	return had;
}

static __always_inline struct jt_counters *owner_of(const struct jt_chunk_set *set, __u32 way)
{
	struct jt_target_id id = {.born_ns = set->born_ns[way], .tgid = set->key[way] & JT_TGID_MASK};

	return bpf_map_lookup_elem(&counters, &id); /* NULL: it is gone */
}

/*
 * The first fault on a chunk of which all pages were purged may have brought a huge page, and with it the others. A
 * second fault there proves that it did not; when there was none, it is not known.
 */
static __always_inline void settle_huge(struct jt_chunk_set *set, __u32 way)
{
	__u32 age = set->huge[way] - 1;
	struct jt_counters *owner;

	if (!set->huge[way])
		return;
	set->huge[way] = 0;
	owner = owner_of(set, way);
	if (owner)
		__sync_fetch_and_add(&owner->refaults.maybe_huge[within(age, JT_REFAULT_AGES)], 1);
}

static __always_inline void count_eviction(const struct jt_chunk_set *set, __u32 way, __u32 now)
{
	struct jt_counters *owner;

	/* No loss when all that could be said of it has been said. */
	if (!set->key[way] || !set->marked[way] || ((now - set->newest[way]) & JT_STAMP_MASK) > STAMPS_PER_MINUTE)
		return;
	owner = owner_of(set, way);
	if (!owner)
		return;
	__sync_fetch_and_add(&owner->refaults.evicted_chunks, 1);
	__sync_fetch_and_add(&owner->refaults.evicted_pages, set->marked[way]);
}

/*
 * The slot of a chunk, or -1. When it has none it gets one at time `now`, 0: it does not. Of the four ways the one that
 * was purged longest ago goes.
 */
__noinline int slot_of(__u64 key, __u64 born_ns, __u32 now)
{
	__u32 index = set_of(hash_of(key)), way, i, longest = 0;
	struct jt_chunk_set *set = bpf_map_lookup_elem(&chunk_sets, &index);

	if (!set)
		return -1;
	way = way_of(set, key);
	if (!now && way == JT_CHUNK_WAYS)
		return -1;
	if (way < JT_CHUNK_WAYS && set->born_ns[within(way, JT_CHUNK_WAYS)] == born_ns) {
		way = within(way, JT_CHUNK_WAYS);
		settle_huge(set, way);
		if (now)
			set->newest[way] = now;
		return index * JT_CHUNK_WAYS + way;
	}
	if (way == JT_CHUNK_WAYS) {
#pragma unroll
		for (i = 0; i < JT_CHUNK_WAYS; i++) {
			__u32 age = set->key[i] ? (now - set->newest[i]) & JT_STAMP_MASK : ~0U;

			if (age >= longest) {
				longest = age;
				way = i;
			}
		}
		way = within(way, JT_CHUNK_WAYS);
		count_eviction(set, way, now);
		settle_huge(set, way);
	}
	way = within(way, JT_CHUNK_WAYS);
	set->key[way] = 0; /* not to be found until its stamps are gone */
	stamp_pages(index * JT_CHUNK_WAYS + way, 0, JT_CHUNK_PAGES, 0);
	set->born_ns[way] = born_ns;
	set->newest[way] = now;
	set->marked[way] = 0;
	set->huge[way] = 0;
	set->key[way] = key;
	return index * JT_CHUNK_WAYS + way;
}

/* The pages [first, end) of one chunk get `stamp`; 0: they lose theirs. */
static __always_inline void mark_chunk(__u32 slot, __u32 first, __u32 end, __u32 stamp)
{
	__u32 index = slot / JT_CHUNK_WAYS, way = within(slot, JT_CHUNK_WAYS);
	struct jt_chunk_set *set = bpf_map_lookup_elem(&chunk_sets, &index);
	__u32 had = stamp_pages(slot, first, end, stamp);

	if (set)
		__sync_fetch_and_add(&set->marked[way], (stamp ? end - first : 0) - had);
}

#define UNMAPPED JT_STATES

/*
 * A range was purged from the cache `from`, or it was unmapped: whatever is mapped there next is new. What lies beyond
 * the largest range (512 MiB) is not followed; a purge's share of that shows in the sampling rate.
 */
__noinline int mark_range(__u64 addr, __u64 len, __u32 from, __u64 born_ns, __u32 tgid)
{
	__u64 page = addr >> JT_PAGE_SHIFT, end = (addr + len) >> JT_PAGE_SHIFT, followed = 0;
	struct jt_target_id id = {.born_ns = born_ns, .tgid = tgid};
	__u32 now = stamp_time(bpf_ktime_get_ns()), stamp = 0, i;
	struct jt_counters *owner;

	if (from != UNMAPPED)
		stamp = now << 2 | (from == JT_STATE_UNKNOWN ? STAMP_FROM_UNKNOWN : from & STAMP_FROM);
	else
		now = 0;
	for (i = 0; i < MAX_CHUNKS_PER_CALL; i++) {
		__u64 chunk = page / JT_CHUNK_PAGES, next = (chunk + 1) * JT_CHUNK_PAGES;
		__u64 key = chunk_key(chunk, tgid);
		int slot;

		if (page >= end)
			break;
		if (next > end)
			next = end;
		if (!stamp || is_followed(hash_of(key))) {
			slot = slot_of(key, born_ns, now);
			if (slot >= 0) {
				mark_chunk(slot, page % JT_CHUNK_PAGES, next - chunk * JT_CHUNK_PAGES, stamp);
				followed += next - page;
			}
		}
		page = next;
	}
	if (!stamp)
		return 0;
	has_purged[within(tgid, GATE_SLOTS)] = 1;
	owner = bpf_map_lookup_elem(&counters, &id);
	if (!owner)
		return 0;
	__sync_fetch_and_add(&owner->refaults.purged_pages, len >> JT_PAGE_SHIFT);
	__sync_fetch_and_add(&owner->refaults.followed_pages[within(from, JT_STATES)], followed);
	return 0;
}

/* The ranges of a process_madvise that has just ended: its vector is still there. */
__noinline int mark_vector(__u32 from, __u64 born_ns, __u32 tgid)
{
	struct iovec one = {};
	__u64 arg[6], i;

	read_args(arg);
	for (i = 0; i < JT_MAX_IOVEC; i++) {
		if (i >= arg[2] || bpf_probe_read_user(&one, sizeof(one), (const struct iovec *)arg[1] + i))
			break;
		mark_range((__u64)one.iov_base, one.iov_len, from, born_ns, tgid);
	}
	return 0;
}

static __always_inline bool gives_pages_back(__u8 transition)
{
	return transition == JT_DIRTY_RETAINED || transition == JT_MUZZY_RETAINED || transition == JT_UNKNOWN_RETAINED;
}

static __always_inline void follow_purge(const struct call *call, __u8 from, __u8 transition)
{
	if (!follow_purges || !gives_pages_back(transition))
		return;
	if (call->syscall == JT_SYS_PROCESS_MADVISE)
		mark_vector(from, call->id.born_ns, call->id.tgid);
	else
		mark_range(call->addr, call->len, from, call->id.born_ns, call->id.tgid);
}

static __always_inline void follow_unmap(const struct call *call)
{
	if (follow_purges && call->syscall == JT_SYS_MUNMAP && has_purged[within(call->id.tgid, GATE_SLOTS)])
		mark_range(call->addr, call->len, UNMAPPED, call->id.born_ns, call->id.tgid);
}

static __always_inline __u32 age_class(__u32 age)
{
	if (age <= (1000000000ULL >> JT_STAMP_SHIFT))
		return JT_REFAULT_1S;
	if (age <= (10000000000ULL >> JT_STAMP_SHIFT))
		return JT_REFAULT_10S;
	return age <= STAMPS_PER_MINUTE ? JT_REFAULT_60S : JT_REFAULT_LATER;
}

static __always_inline void count_touch(struct jt_chunk_set *set, __u32 way, __u32 stamp)
{
	__u32 age = age_class((stamp_time(bpf_ktime_get_ns()) - (stamp >> 2)) & JT_STAMP_MASK);
	__u32 from = stamp & STAMP_FROM, marked = set->marked[way];
	struct jt_counters *owner = owner_of(set, way);

	set->huge[way] = marked == JT_CHUNK_PAGES ? age + 1 : 0;
	__sync_fetch_and_add(&set->marked[way], -1);
	if (from == STAMP_FROM_UNKNOWN)
		from = JT_STATE_UNKNOWN;
	if (owner)
		__sync_fetch_and_add(
			&owner->refaults.touched_pages[within(from, JT_STATES)][within(age, JT_REFAULT_AGES)], 1);
}

/* A page fault, before the kernel has dealt with it: by the program itself, or by a system call on its memory. */
SEC("raw_tp/page_fault_user")
int page_fault(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32, index, slot, way, stamp;
	__u64 page = ctx->args[0] >> JT_PAGE_SHIFT, key;
	struct jt_chunk_pages *pages;
	struct jt_chunk_set *set;

	if (!has_purged[within(tgid, GATE_SLOTS)])
		return 0;
	key = chunk_key(page / JT_CHUNK_PAGES, tgid);
	index = set_of(hash_of(key));
	set = bpf_map_lookup_elem(&chunk_sets, &index);
	if (!set)
		return 0;
	way = way_of(set, key);
	if (way == JT_CHUNK_WAYS)
		return 0;
	way = within(way, JT_CHUNK_WAYS);
	slot = index * JT_CHUNK_WAYS + way;
	pages = bpf_map_lookup_elem(&chunk_pages, &slot);
	if (!pages)
		return 0;
	stamp = pages->stamp[page % JT_CHUNK_PAGES];
	if (!stamp)
		return 0;
	pages->stamp[page % JT_CHUNK_PAGES] = 0;
	count_touch(set, way, stamp);
	return 0;
}
