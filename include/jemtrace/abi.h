/* SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause */
/*
 * The one header that the kernel side (bpf/) and the user side both read: what is in the maps and in the
 * rings. Plain C, fixed-width types, no pointers, no implicit padding. Enum values are persisted in
 * recordings: append only.
 */
#pragma once

#ifdef __cplusplus
#include <cstdint>
extern "C" {
#define JT_STATIC_ASSERT(cond, text) static_assert(cond, text)
#else
#ifndef __VMLINUX_H__
#include <stdint.h>
#else
typedef __u8 uint8_t;
typedef __u16 uint16_t;
typedef __u32 uint32_t;
typedef __u64 uint64_t;
typedef __s32 int32_t;
typedef __s64 int64_t;
#endif
#define JT_STATIC_ASSERT(cond, text) _Static_assert(cond, text)
#endif

#define JT_COMM_LEN 16
#define JT_PAGE_SHIFT 12
#define JT_MAX_TARGET_IMAGES 4 /* images with a jemalloc that one process may hold */
#define JT_MAX_IMAGES 256      /* images known at a time */
#define JT_MAX_IOVEC 128       /* jemalloc's process_madvise_max_batch is at most 128 */

/*
 * Exponential buckets, 8 per power of two of a *second*, as in Prometheus native histograms of schema 3 and
 * OpenTelemetry scale 3: bucket i covers (2^((i-1)/8 - 24), 2^(i/8 - 24)] seconds, upper bound inclusive.
 * Bucket 0 takes all up to 2^-24 s (59.6 ns); the last one takes all beyond 2^4 s. A quantile read from it is
 * wrong by at most 4.5 %.
 */
#define JT_HIST_SCHEMA 3
#define JT_HIST_MIN_EXP (-24)
#define JT_HIST_MAX_EXP 4
#define JT_HIST_FINITE ((JT_HIST_MAX_EXP - JT_HIST_MIN_EXP) * 8 + 1) /* 225 */
#define JT_HIST_BUCKETS (JT_HIST_FINITE + 1)

/* jemalloc's extent_state_t for the states that a purge can leave (same values from 5.0.1 to dev). */
enum jt_state {
  JT_STATE_UNKNOWN = 0, /* jemalloc's 0 is "active": never the source of a purge */
  JT_STATE_DIRTY = 1,
  JT_STATE_MUZZY = 2,
  JT_STATE_RETAINED = 3,
  JT_STATES = 4,
};

/* A page range moving between states. UNKNOWN_*: only the syscall is known, not the cache it came from. */
enum jt_transition {
  JT_DIRTY_MUZZY = 0,
  JT_DIRTY_RETAINED = 1,
  JT_MUZZY_RETAINED = 2,
  JT_DIRTY_RETURNED = 3,
  JT_MUZZY_RETURNED = 4,
  JT_RETAINED_RETURNED = 5,
  JT_UNKNOWN_RETAINED = 6,
  JT_UNKNOWN_RETURNED = 7,
  JT_TRANSITIONS = 8,
};

enum jt_payer {
  JT_PAYER_APP = 0,
  JT_PAYER_BACKGROUND = 1, /* the thread is named jemalloc_bg_thd */
  JT_PAYERS = 2,
};

enum jt_cause {
  JT_CAUSE_UNKNOWN = 0,
  JT_CAUSE_TICK = 1,
  JT_CAUSE_BACKGROUND = 2,
  JT_CAUSE_CTL_DECAY = 3,
  JT_CAUSE_CTL_PURGE = 4,
  JT_CAUSE_ZERO_DECAY = 5,
  JT_CAUSE_OVERSIZE = 6,
  JT_CAUSE_THREAD_EXIT = 7,
  JT_CAUSES = 8,
};

enum jt_syscall {
  JT_SYS_NONE = 0,
  JT_SYS_MADVISE = 1,
  JT_SYS_PROCESS_MADVISE = 2,
  JT_SYS_MUNMAP = 3,
  JT_SYS_MMAP = 4,
  JT_SYS_MREMAP = 5,
  JT_SYSCALLS = 6,
};

/*
 * What a memory syscall of a target was for. The walk up the stack ends at the first call site whose function
 * settles it; JT_PASS sites (wrappers) are walked through.
 */
enum jt_purpose {
  JT_PASS = 0,
  JT_PURGE_SWEEP = 1,     /* a decay pass: pac_decay_to_limit, arena_decay_to_limit */
  JT_PURGE_OVERSIZE = 2,  /* extent_record's shortcut: a coalesced extent >= oversize_threshold */
  JT_DESTROY = 3,         /* arena.<i>.destroy unmaps what was retained */
  JT_ZERO_FILL = 4,       /* MADV_DONTNEED to zero an *active* extent */
  JT_BOOT_PROBE = 5,      /* pages_boot tries the advice on a page of its own */
  JT_METADATA = 6,        /* base allocator */
  JT_HPA = 7,             /* huge page allocator */
  JT_TRIM = 8,            /* alignment trim or growth of mappings */
  JT_ABANDON = 9,         /* extents_abandon_vm: out of metadata memory */
  JT_OTHER_ADVICE = 10,   /* MADV_HUGEPAGE, MADV_DONTDUMP, ...: no pages given back */
  JT_THREAD_STACK = 11,   /* the C library trims the stack of an exiting thread */
  JT_FOREIGN = 12,        /* the program's own call: the caller is not in a jemalloc */
  JT_UNCLASSIFIED = 13,   /* the caller is in a jemalloc, in no known function */
  JT_PURGE_UNPROVEN = 14, /* tier syscall: from within a jemalloc, advice of a purge; may be a zero fill */
  JT_PURPOSES = 15,
};

#define JT_PURPOSE_SLOTS 16 /* a power of two */

/* How long a purged page stayed away, up to and including. */
enum jt_refault_age {
  JT_REFAULT_1S = 0,
  JT_REFAULT_10S = 1,
  JT_REFAULT_60S = 2,
  JT_REFAULT_LATER = 3,
  JT_REFAULT_AGES = 4,
};

enum jt_loss {
  JT_LOSS_RING = 0,           /* event ring full */
  JT_LOSS_LIFECYCLE = 1,      /* lifecycle ring full: /proc is scanned again */
  JT_LOSS_MAP_FULL = 2,       /* no room for a counter, histogram or thread */
  JT_LOSS_NO_STORAGE = 3,     /* no memory for a thread's call in flight */
  JT_LOSS_UNMATCHED_EXIT = 4, /* the enter is not known, and could not be made up for */
  JT_LOSS_UNREAD_STACK = 5,   /* the user stack could not be read: purpose unknown */
  JT_LOSS_UNREAD_IOVEC = 6,
  JT_LOSS_UNREAD_CACHE = 7, /* the cache behind a sweep could not be read or made no sense */
  JT_LOSS_UNREAD_RSS = 8,
  JT_LOSS_TARGET_FULL = 9, /* more processes or images per process than there is room for */
  JT_LOSS_MISSED_RUN = 10, /* the kernel skipped a program: bpf_prog_info.recursion_misses, since 5.12 */
  JT_LOSSES = 11,
  JT_RESCUED_RUN = JT_LOSSES, /* no loss, but counted beside them: another program did a skipped one's work */
  JT_TOUCHED_PAGE = 12,       /* nor these, which set the sampling of purged pages */
  JT_EVICTED_CHUNK = 13,
  JT_LOSS_SLOTS = 14,
};

/* ---- identity
 * ---------------------------------------------------------------------------------------------- */

/* One life of a process under one program: a pid comes again after exit, and exec starts jemalloc's counters
 * anew. */
struct jt_target_id {
  uint64_t born_ns; /* CLOCK_MONOTONIC when it was registered: fork, exec or attach */
  uint32_t tgid;    /* in the initial pid namespace */
  uint32_t pad;
};

/* As the kernel names a file: super_block.s_dev (major << 20 | minor) and i_ino. */
struct jt_file {
  uint64_t ino;
  uint32_t dev;
  uint32_t pad;
};

/* ---- maps: user space -> kernel
 * ---------------------------------------------------------------------------- */

/* `files`: what user space knows about a file that may be mapped executable. */
struct jt_file_info {
  uint32_t image;          /* index into `images`; JT_NO_IMAGE: looked at, holds no jemalloc */
  uint32_t wrapper_words;  /* see jt_target_image */
  uint64_t size;           /* st_size when it was looked at: another one means another file on this inode */
  uint64_t exe_code_vaddr; /* lowest p_vaddr of an executable PT_LOAD: mm->start_code minus the load bias */
  uint64_t text_vaddr;     /* the executable PT_LOAD that holds jemalloc */
  uint64_t text_offset;
  uint64_t text_len;
};
#define JT_NO_IMAGE 0xffffffffu

/* `images`: how this image's structures are read. Offsets are 0 when unknown. */
struct jt_image {
  uint32_t cache_state_offset; /* ecache_t.state, extents_t.state */
  uint32_t cache_ind_offset;   /* ecache_t.ind: the arena; 0 before 5.3.0 */
  uint8_t tier;                /* enum jt_tier */
  uint8_t pad[7];
};

/* What the probes of an image said, against what the purges that followed showed. */
struct jt_image_checks {
  uint64_t hits;          /* of a probe */
  uint64_t bad_arguments; /* of hits: no argument was a cache */
  uint64_t agreed;        /* sweeps whose first purge can come from the cache that the probe saw */
  uint64_t disagreed;     /* purges that cannot: MADV_FREE is never done to what is muzzy */
  uint64_t unannounced;   /* purges of a sweep on a thread that no probe ever hit on */
};

enum jt_tier { JT_TIER_SYMBOLS = 0, JT_TIER_RECOVERED = 1, JT_TIER_CALLSITE = 2, JT_TIER_SYSCALL = 3 };

/* What is at a file offset: a return address with its frame, or a probed instruction with its role. */
struct jt_site {
  int32_t cfa_offset;   /* canonical frame address minus the register, at this call */
  int32_t saved_bp;     /* where the caller's frame pointer was saved, minus the CFA; 0: not saved */
  uint8_t cfa_register; /* enum jt_cfa */
  uint8_t purpose;      /* enum jt_purpose; JT_PASS: walk on */
  uint8_t cause;        /* enum jt_cause that passing here proves, else 0 */
  uint8_t role;         /* enum jt_role of a probe; 0 for call sites */
  uint8_t cache_arg[2]; /* probes: arguments (1..6) that may hold the cache, best first; 0: none */
  uint8_t pad[2];
};
/* What the program of a probe has to know of its site, in one word that comes with each hit; never 0. */
static inline uint64_t jt_probe_cookie(uint32_t image, const struct jt_site* site) {
  return (uint64_t)image << 32 | (uint32_t)site->role << 16 | (uint32_t)site->cache_arg[0] << 8 |
         site->cache_arg[1];
}
enum jt_cfa { JT_CFA_SP = 0, JT_CFA_BP = 1, JT_CFA_NONE = 2 };
enum jt_role {
  JT_ROLE_NONE = 0,
  JT_ROLE_SWEEP = 1, /* pac_decay_to_limit, arena_decay_to_limit: once per pass */
  JT_ROLE_EVICT = 2, /* ecache_evict, extents_evict: once per extent, and once more at the end */
};

/* `targets`: a process that is traced, or whose descendants are (then n_images may be 0). Key: tgid. */
struct jt_target_image {
  uint64_t start; /* [start, end): the executable mapping */
  uint64_t end;
  uint64_t file_offset;
  uint32_t image;
  uint32_t wrapper_words; /* stack words between the C library's syscall and its caller: glibc 0, musl 1 */
};
struct jt_target {
  struct jt_target_id id;
  uint32_t n_images;
  uint32_t flags; /* enum jt_target_flags */
  struct jt_target_image images[JT_MAX_TARGET_IMAGES];
};
enum jt_target_flags {
  JT_TARGET_TREE = 1,   /* children are targets too */
  JT_TARGET_HOLD = 2,   /* stop it (SIGSTOP) when it maps an unknown program, until user space has looked */
  JT_TARGET_PINNED = 4, /* chosen by pid: stays a target across exec */
};

/* ---- maps: kernel -> user space
 * ---------------------------------------------------------------------------- */

/* jemalloc's own counters (stats.arenas.<i>.dirty_npurge, ...), counted again from outside. */
struct jt_decay_counters {
  uint64_t npurge;   /* sweeps that purged something */
  uint64_t nmadvise; /* extents */
  uint64_t purged;   /* pages */
};

struct jt_calls {
  uint64_t calls;
  uint64_t bytes;
  uint64_t total_ns;
  uint64_t failed; /* of `calls` */
};

/* Purged pages that were touched again: only of purges after which the next touch raises a fault, not of
 * MADV_FREE. */
struct jt_refaults {
  uint64_t followed_pages[JT_STATES];                 /* by source state */
  uint64_t unfollowed_pages;                          /* sampled out, or beyond what is followed of a range */
  uint64_t touched_pages[JT_STATES][JT_REFAULT_AGES]; /* of them, by a fault */
  uint64_t
      maybe_huge[JT_REFAULT_AGES]; /* such faults that may have brought a huge page: 511 pages more each */
  uint64_t evicted_chunks;         /* within a minute of their purge: no room to follow them */
  uint64_t evicted_pages;          /* their pages that had not been touched until then */
};

/* `counters`: per target. Purges are not in the map: they are in `works`, and user space adds them up from
 * there. */
struct jt_counters {
  struct jt_decay_counters decay[JT_STATES]; /* by source state; [0] = source unknown */
  uint64_t sweeps[JT_STATES][JT_CAUSES];     /* that purged something, by source state and cause */
  struct jt_calls by_purpose[JT_PURPOSE_SLOTS];
  uint64_t oversize_extents;
  int64_t rss_delta_bytes; /* summed over purge calls; error: docs/limits.md */
  uint64_t has_rss_delta;  /* 1: it was read before and after some call */
  uint64_t failed_errno_inval;
  uint64_t failed_errno_other;
  uint64_t bpf_samples; /* calls of which the programs at enter and exit were timed (1 in 64) ... */
  uint64_t bpf_sampled_ns;
  uint64_t probe_hits;      /* of each thread, up to its last purge */
  uint64_t untimed_calls;   /* of all calls: only their enter or only their exit was seen */
  uint64_t collapses;       /* huge pages that the kernel made of small ones */
  uint64_t collapse_filled; /* pages of theirs that were not there before */
  struct jt_refaults refaults;
};

struct jt_hist {
  uint64_t extents; /* process_madvise advises many in one call; in `works`: beyond one for each timed call */
  uint64_t bytes;
  uint64_t count; /* timed calls; in `works` 0: the buckets have them */
  uint64_t sum_ns;
  uint64_t min_ns;
  uint64_t max_ns;
  uint64_t buckets[JT_HIST_BUCKETS];
};

/* `chunk_sets`, `chunk_pages`: the purged pages of 2 MiB of address space, and when each was purged. */
#define JT_CHUNK_PAGES 512
#define JT_CHUNK_WAYS 4
#define JT_TGID_BITS 22 /* PID_MAX_LIMIT is 2^22 */
#define JT_TGID_MASK ((1 << JT_TGID_BITS) - 1)
#define JT_STAMP_SHIFT 20 /* from nanoseconds to the unit of a stamp's time, 1.05 ms */
#define JT_STAMP_MASK 0x3fffffff
struct jt_chunk_set {
  uint64_t key[JT_CHUNK_WAYS]; /* address >> 21 << JT_TGID_BITS | tgid; 0: free */
  uint64_t born_ns[JT_CHUNK_WAYS];
  uint32_t newest[JT_CHUNK_WAYS]; /* time of the last purge */
  uint32_t marked[JT_CHUNK_WAYS]; /* pages with a stamp */
  uint32_t huge[JT_CHUNK_WAYS];   /* 1 + enum jt_refault_age of a fault that may have brought a huge page */
  uint32_t pad[JT_CHUNK_WAYS];
};
struct jt_chunk_pages {
  uint32_t stamp[JT_CHUNK_PAGES]; /* time << 2 | where from, never 0; 0: not purged, or touched since */
};

/*
 * `works`: what one thread purged, or destroyed, in one way. Nobody else writes there, so that it takes no
 * atomic operation. Threads for which there is no room, or whose names nobody wants to know, share one.
 */
struct jt_work_key {
  uint64_t born_ns; /* the target's */
  uint32_t who;     /* tid; or JT_SHARED_WORK and the target's tgid */
  uint8_t transition;
  uint8_t payer;
  uint8_t purpose;
  uint8_t pad;
};
#define JT_SHARED_WORK 0x80000000u
#define JT_MAX_WORKS 8192 /* places; a thread keeps their numbers in 15 bits */

/* What each purge changes lies together: each line of the CPU's cache that it touches costs it some 5 ns. */
struct jt_work {
  char comm[JT_COMM_LEN];
  uint64_t failed; /* calls, and theirs, which are not in `done` */
  uint64_t failed_extents;
  uint64_t failed_bytes;
  uint64_t failed_ns;
  uint64_t again_extents; /* of all those: that had failed before, and that jemalloc counted then */
  uint64_t again_bytes;
  uint64_t sweeps[JT_CAUSES]; /* whose first purge is here */
  uint64_t probe_hits;
  int64_t rss_delta_bytes;
  struct jt_hist done;
  uint64_t untimed; /* calls of `done` of which only one end was seen: their extents and bytes are in there */
  uint64_t unread_rss;  /* calls, of all, that are not in rss_delta_bytes */
  uint64_t early_pages; /* of `done`, that came before the page faults: whether they come back is not seen */
  uint64_t pad[3];
};

/* `callsites`: where purge-like calls came from; innermost first, file offsets of return addresses, 0 = none.
 */
struct jt_callsite_key {
  struct jt_target_id id;
  uint32_t image;
  uint8_t syscall;
  uint8_t advice;
  uint8_t purpose;
  uint8_t pad;
  uint64_t frames[3];
};

/* `waits_by_target`: what purge calls waited for, and all threads of the process. Only with context. */
struct jt_waits {
  uint64_t lock_ns;        /* for the mmap lock, inside purge calls ... */
  uint64_t locks;          /* ... and how often, waited or not */
  uint64_t remote_flushes; /* interrupts to other CPUs, inside purge calls */
  uint64_t reclaim_ns;     /* direct reclaim, on any thread */
  uint64_t reclaims;
};

/* ---- rings
 * ------------------------------------------------------------------------------------------------- */

enum jt_event_type {
  JT_EV_CALL = 1, /* struct jt_call_event */
  JT_EV_FORK = 2, /* the rest: struct jt_lifecycle_event */
  JT_EV_EXEC = 3,
  JT_EV_EXIT = 4,
  JT_EV_NEW_FILE = 5,  /* a file that user space has not looked at was mapped executable */
  JT_EV_NEW_IMAGE = 6, /* a known image was mapped: the target is registered already */
  JT_EV_OOM = 7,       /* `parent` is killed for want of memory, h.comm is its name; h.id is empty */
  JT_EV_MALLCTL = 8,   /* struct jt_mallctl_event */
};

struct jt_event_header {
  uint32_t type; /* enum jt_event_type */
  uint32_t size;
  uint64_t ts_ns; /* CLOCK_MONOTONIC; a call's is its start, or its end where that was not seen */
  struct jt_target_id id;
  uint32_t tid;
  uint32_t cpu;
  char comm[JT_COMM_LEN];
};

/* One purge, or destruction, by a memory syscall of a target. */
struct jt_call_event {
  struct jt_event_header h;
  uint64_t addr;
  uint64_t len;
  uint64_t latency_ns;
  int64_t rss_delta_bytes;
  int32_t ret;    /* 0, or -errno */
  uint32_t arena; /* JT_NO_ARENA when unknown */
  uint32_t image; /* JT_NO_IMAGE: the caller is in none */
  uint8_t syscall;
  uint8_t advice;
  uint8_t purpose;
  uint8_t from; /* enum jt_state */
  uint8_t cause;
  uint8_t payer;
  uint8_t transition; /* JT_TRANSITIONS: none */
  uint8_t has_rss_delta;
  uint32_t sweep; /* counts the sweeps of this thread; 0: not in one */
  uint64_t frames[3];
};
#define JT_NO_ARENA 0xffffffffu

struct jt_lifecycle_event {
  struct jt_event_header h;
  struct jt_file file;
  uint64_t addr; /* NEW_*: start of the mapping; EXEC: born_ns of the life that ended, 0 if none */
  uint64_t len;
  uint64_t file_offset;
  uint64_t file_size; /* NEW_* */
  uint32_t parent;    /* FORK: the parent's tgid */
  uint32_t image;     /* NEW_IMAGE */
  uint8_t held;       /* it is stopped (SIGSTOP) and waits for user space */
  uint8_t pad[7];
};

/* The public functions of jemalloc's in which the program asks it something; the cookie of their probes. */
enum jt_api { JT_API_MALLCTL = 1, JT_API_BYMIB = 2, JT_API_NAMETOMIB = 3, JT_API_STATS_PRINT = 4 };
#define JT_MALLCTL_NAME_LEN 64
#define JT_MIB_LEN 7 /* CTL_MAX_DEPTH */

/* Such a call that has returned 0, or malloc_stats_print. ts_ns is when it returned. */
struct jt_mallctl_event {
  struct jt_event_header h;
  uint64_t value;           /* of *oldp, when value_bytes is not 0 */
  uint64_t mib[JT_MIB_LEN]; /* BYMIB, NAMETOMIB */
  uint32_t mib_len;
  uint8_t api;         /* enum jt_api */
  uint8_t value_bytes; /* 8; 0: none was asked for, or one of another size */
  uint8_t wrote;       /* it also gave a new value */
  uint8_t pad;
  char name[JT_MALLCTL_NAME_LEN]; /* MALLCTL, NAMETOMIB; NUL-terminated */
};

JT_STATIC_ASSERT(sizeof(struct jt_target_id) == 16, "");
JT_STATIC_ASSERT(sizeof(struct jt_site) == 16, "");
JT_STATIC_ASSERT(sizeof(struct jt_image) == 16, "");
JT_STATIC_ASSERT(sizeof(struct jt_work_key) == 16, "");
JT_STATIC_ASSERT(sizeof(struct jt_work) % 64 == 0 && __builtin_offsetof(struct jt_work, sweeps) == 64, "");
JT_STATIC_ASSERT(sizeof(struct jt_hist) == 8 * (6 + JT_HIST_BUCKETS), "");
JT_STATIC_ASSERT(sizeof(struct jt_chunk_set) == 128, "");
JT_STATIC_ASSERT(sizeof(struct jt_chunk_pages) == 2048, "");
JT_STATIC_ASSERT(sizeof(struct jt_event_header) == 56, "");
JT_STATIC_ASSERT(sizeof(struct jt_call_event) == 136, "");
JT_STATIC_ASSERT(sizeof(struct jt_lifecycle_event) == 120, "");
JT_STATIC_ASSERT(sizeof(struct jt_mallctl_event) == 192, "");

#ifdef __cplusplus
}
#endif
