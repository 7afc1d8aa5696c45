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
#define STAMPS_AT_ONCE 16
#define GATE_SLOTS 65536
#define MAX_USER_ADDRESS ((1ULL << 57) - 1)

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
	return chunk << JT_TGID_BITS | tgid;
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

/*
 * Stamps of up to STAMPS_AT_ONCE pages of a chunk, from `first` on, before `end`. Returns how many had one. Global, and
 * few at a time: the verifier goes through each round of a loop.
 */
__noinline int stamp_some(__u32 slot, __u32 first, __u32 end, __u32 stamp)
{
	struct jt_chunk_pages *pages = bpf_map_lookup_elem(&chunk_pages, &slot);
	__u32 had = 0, i;

	if (!pages)
		return 0;
	for (i = 0; i < STAMPS_AT_ONCE; i++) {
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

/* Stamps of the pages [first, end) of a chunk; 0 takes them away. Returns how many had one. */
__noinline int stamp_pages(__u32 slot, __u32 first, __u32 end, __u32 stamp)
{
	__u32 had = 0, i;

	for (i = 0; i < JT_CHUNK_PAGES / STAMPS_AT_ONCE; i++) {
		if (first >= end)
			break;
		had += stamp_some(slot, first, end, stamp);
		first += STAMPS_AT_ONCE;
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
static __noinline int settle_huge_page(struct jt_chunk_set *set, __u32 way)
{
	__u32 age = set->huge[way] - 1;
	struct jt_counters *owner;

	set->huge[way] = 0;
	owner = owner_of(set, way);
	if (owner)
		__sync_fetch_and_add(&owner->refaults.maybe_huge[within(age, JT_REFAULT_AGES)], 1);
	return 0;
}

static __always_inline void settle_huge(struct jt_chunk_set *set, __u32 way)
{
	if (unlikely(set->huge[way]))
		settle_huge_page(set, way);
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
	count_loss(JT_EVICTED_CHUNK);
	__sync_fetch_and_add(&owner->refaults.evicted_chunks, 1);
	__sync_fetch_and_add(&owner->refaults.evicted_pages, set->marked[way]);
}

/* The way that a new chunk takes: a free one, or the one that was purged longest ago. */
static __noinline int free_way(struct jt_chunk_set *set, __u32 now)
{
	__u32 way = 0, longest = 0, i;

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
	return way;
}

/*
 * Pages from `page` up to `end`, or to the end of its chunk, were purged and get `stamp`; 0: they were unmapped and
 * lose theirs. Returns how many are followed now.
 */
__noinline int mark_chunk(__u64 page, __u64 end, __u32 stamp, __u64 born_ns, __u32 tgid)
{
	__u64 chunk = page / JT_CHUNK_PAGES, key = chunk_key(chunk, tgid), hash = hash_of(key);
	__u32 first = page % JT_CHUNK_PAGES, last, index = set_of(hash), way, had;
	struct jt_chunk_set *set = bpf_map_lookup_elem(&chunk_sets, &index);

	if (!set)
		return 0;
	if (unlikely(!is_followed(hash)))
		stamp = 0; /* what is known of an earlier purge is void */
	end -= chunk * JT_CHUNK_PAGES;
	last = end < JT_CHUNK_PAGES ? end : JT_CHUNK_PAGES;
	way = way_of(set, key);
	if (likely(way < JT_CHUNK_WAYS && set->born_ns[within(way, JT_CHUNK_WAYS)] == born_ns)) {
		way = within(way, JT_CHUNK_WAYS);
		settle_huge(set, way);
	} else if (!stamp) {
		return 0;
	} else {
		way = way < JT_CHUNK_WAYS ? within(way, JT_CHUNK_WAYS) : free_way(set, stamp >> 2);
		set->key[way] = 0; /* not to be found until its stamps are gone */
		stamp_pages(index * JT_CHUNK_WAYS + way, 0, JT_CHUNK_PAGES, 0);
		set->born_ns[way] = born_ns;
		set->marked[way] = 0;
		set->huge[way] = 0;
		set->key[way] = key;
	}
	/* A slab or a small extent, as most are, is spared a call. */
	if (likely(last - first <= STAMPS_AT_ONCE))
		had = stamp_some(index * JT_CHUNK_WAYS + way, first, last, stamp);
	else
		had = stamp_pages(index * JT_CHUNK_WAYS + way, first, last, stamp);
	if (!stamp) {
		__sync_fetch_and_add(&set->marked[way], -had);
		return 0;
	}
	set->newest[way] = stamp >> 2;
	if (had != last - first)
		__sync_fetch_and_add(&set->marked[way], last - first - had);
	return last - first;
}

/*
 * A range was purged, or unmapped (`stamp` 0): whatever is mapped there next is new. What lies beyond the largest range
 * (512 MiB) is not followed. Returns the number of pages followed. All branches are in mark_chunk(): here the verifier
 * goes through each round.
 */
__noinline int mark_range(__u64 addr, __u64 len, __u32 stamp, __u64 born_ns, __u32 tgid)
{
	__u64 page = addr >> JT_PAGE_SHIFT, end = (addr + len) >> JT_PAGE_SHIFT;
	__u32 followed = 0, i;

	for (i = 0; i < MAX_CHUNKS_PER_CALL; i++) {
		if (page >= end)
			break;
		followed += mark_chunk(page, end, stamp, born_ns, tgid);
		page = (page | (JT_CHUNK_PAGES - 1)) + 1;
	}
	return followed;
}

/*
 * The ranges of a process_madvise that has just ended, of `left` bytes: its vector is still there, unless somebody
 * changed it. Global, as mark_range().
 */
__noinline int mark_vector(__u64 left, __u32 stamp, __u64 born_ns, __u32 tgid)
{
	__u64 arg[6], len, i;
	struct iovec one = {};
	__u32 followed = 0;

	read_args(arg);
	for (i = 0; i < JT_MAX_IOVEC; i++) {
		if (i >= arg[2] || bpf_probe_read_user(&one, sizeof(one), (const struct iovec *)arg[1] + i))
			break;
		len = one.iov_len & MAX_USER_ADDRESS;
		len &= -(is_less(left, len) ^ 1); /* no branch: the verifier would follow both sides in each round */
		left -= len;
		followed += mark_range((__u64)one.iov_base, len, stamp, born_ns, tgid);
	}
	return followed;
}

/* MADV_DONTNEED, or mapped over with PROT_NONE. */
static __always_inline bool takes_pages(__u8 transition)
{
	return transition == JT_DIRTY_RETAINED || transition == JT_MUZZY_RETAINED || transition == JT_UNKNOWN_RETAINED;
}

/* end_call() leaves word of what there is to do. */
static __always_inline void request_follow(struct thread *thread, struct jt_work *work)
{
	struct call *call = &thread->call;

	if (!takes_pages(call->transition))
		return;
	if (unlikely(!follow_purges)) {
		add(thread, &work->early_pages, call->len >> JT_PAGE_SHIFT);
		return;
	}
	thread->follow = FOLLOW_RANGE;
	if (call->syscall == JT_SYS_PROCESS_MADVISE)
		thread->follow = FOLLOW_VECTOR;
}

static __always_inline void request_forget(struct thread *thread)
{
	struct call *call = &thread->call;

	if (call->syscall == JT_SYS_MUNMAP && has_purged[within(call->id.tgid, GATE_SLOTS)])
		thread->follow = FORGET_RANGE;
}

static __always_inline void count_unfollowed(const struct thread *thread, __u64 pages)
{
	struct jt_counters *owner = bpf_map_lookup_elem(&counters, &thread->call.id);

	if (!owner)
		return;
	__sync_fetch_and_add(&owner->refaults.followed_pages[within(thread->call.from, JT_STATES)], -pages);
	__sync_fetch_and_add(&owner->refaults.unfollowed_pages, pages);
}

/* The end of the call was not seen: when its pages went is not known. */
static __always_inline void follow_nothing(struct thread *thread)
{
	if (thread->follow == FOLLOW_RANGE || thread->follow == FOLLOW_VECTOR)
		count_unfollowed(thread, thread->call.len >> JT_PAGE_SHIFT);
	thread->follow = FOLLOW_NOTHING;
}

/* A call has ended, and its pages are to be followed, or forgotten. */
static __always_inline void follow_call(struct thread *thread)
{
	__u8 what = thread->follow;
	struct call *call = &thread->call;
	__u64 pages = call->len >> JT_PAGE_SHIFT, first = call->addr >> JT_PAGE_SHIFT;
	__u32 stamp, from, followed;

	thread->follow = FOLLOW_NOTHING;
	if (unlikely(what == FORGET_RANGE)) {
		mark_range(call->addr, call->len, 0, call->id.born_ns, call->id.tgid);
		return;
	}
	from = within(call->from, JT_STATES);
	stamp = stamp_time(call->exit_ns) << 2 | (from == JT_STATE_UNKNOWN ? STAMP_FROM_UNKNOWN : from);
	if (unlikely(what == FOLLOW_VECTOR))
		followed = mark_vector(call->len, stamp, call->id.born_ns, call->id.tgid);
	else if (likely(first / JT_CHUNK_PAGES == (first + pages - 1) / JT_CHUNK_PAGES))
		followed = mark_chunk(first, first + pages, stamp, call->id.born_ns, call->id.tgid);
	else
		followed = mark_range(call->addr, call->len, stamp, call->id.born_ns, call->id.tgid);
	if (unlikely(!thread->has_purged)) { /* each page fault of the host reads there: it is not written each time */
		has_purged[within(call->id.tgid, GATE_SLOTS)] = 1;
		thread->has_purged = true;
	}
	if (unlikely(followed != pages))
		count_unfollowed(thread, pages - followed);
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
	count_loss(JT_TOUCHED_PAGE);
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

	if (!has_purged[within(tgid, GATE_SLOTS)] || stopped)
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
