#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

/// What the kernel knows about a process's memory, as plain data. optional: nullopt is "unknown", never 0.
namespace jemtrace::ledger {

/// One mapping of /proc/PID/smaps with what of it is resident.
struct Vma {
  enum class Kind {
    anonymous,
    heap,   // [heap]: brk
    stack,  // [stack]: of the first thread
    file,   // of it `anonymous_bytes` are private copies
    other,  // [vdso] and the like
  };
  uint64_t start = 0, end = 0;  // [start, end)
  Kind kind = Kind::other;
  bool zero_fill = false;  // anonymous, right behind a file's mapping: the .bss of that file
  uint64_t rss_bytes = 0, anonymous_bytes = 0, lazyfree_bytes = 0, anon_huge_bytes = 0, swap_bytes = 0;
  uint64_t shared_bytes = 0;  // other processes map these pages, too
};

/// What the pages of some ranges are for the kernel.
struct Residency {
  uint64_t present_bytes = 0;
  uint64_t swapped_bytes = 0;
  /// Of those present: anonymous and not swap-backed, which is what MADV_FREE makes of a page. One that was
  /// written to since still counts until reclaim looks at it. nullopt: page frame numbers or
  /// /proc/kpageflags are hidden from us (CAP_SYS_ADMIN).
  std::optional<uint64_t> freed_lazily_bytes;
};

/// Pressure Stall Information: the share of time that tasks waited for memory.
struct Pressure {
  double some_avg10 = 0, full_avg10 = 0;  // percent
  uint64_t some_total_us = 0, full_total_us = 0;
};

/// The memory controller of a process's cgroup, version 1 or 2.
struct Cgroup {
  std::string path;  // untrusted
  int version = 2;
  std::optional<uint64_t> usage_bytes;
  std::optional<uint64_t> limit_bytes;  // the lowest one from it up to what is mounted
  bool unlimited = false;               // no cgroup up there has a limit; false and no limit_bytes: unknown
  std::optional<uint64_t> anon_bytes, inactive_file_bytes;
  std::optional<uint64_t> file_bytes, kernel_bytes;  // page cache with shared memory; the kernel's own
  std::optional<uint64_t> pglazyfree, pglazyfreed;   // pages, since the cgroup was made
  std::optional<Pressure> pressure;                  // version 2
};

/// What a process waited for in the kernel within some time. nullopt: not traced.
struct Waits {
  std::optional<uint64_t> lock_ns, locks;        // for its mmap lock, inside purge calls; taken how often
  std::optional<uint64_t> remote_flushes;        // TLB flushes on other CPUs, inside purge calls
  std::optional<uint64_t> reclaim_ns, reclaims;  // direct reclaim, on any thread
};

/// A process that the kernel killed for want of memory.
struct OomKill {
  pid_t pid = 0;
  std::string comm;                                        // untrusted
  uint64_t at_ns = 0;                                      // CLOCK_MONOTONIC
  std::optional<uint64_t> anon_rss_bytes, file_rss_bytes;  // as the kernel's log says
  std::string source;                                      // "oom:mark_victim", "the kernel's log"
};

/// The whole host.
struct Host {
  std::optional<uint64_t> pglazyfree, pglazyfreed;  // pages, since boot
  /// Pages reclaimed from the lists of file pages, lazily freed ones among them; looked at; read again.
  std::optional<uint64_t> pgsteal_file, pgscan_kswapd, pgscan_direct, workingset_refault_file;
  std::optional<uint64_t> thp_collapse_alloc, thp_split_page, thp_deferred_split_page;
  std::optional<uint64_t> mem_total_bytes, mem_available_bytes;
  std::optional<Pressure> pressure;
  std::string thp;  // transparent_hugepage/enabled: "always", "madvise", "never"; empty: unknown
  /// Huge pages of which a part was given back; since Linux 6.12.
  std::optional<uint64_t> nr_anon_partially_mapped;
};

}  // namespace jemtrace::ledger
