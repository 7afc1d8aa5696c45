#pragma once

#include <algorithm>
#include <cstdint>

/// Where a number begins to matter. docs/diagnoses.md says why each is what it is; calibrated on the programs
/// of tests/workloads.
namespace jemtrace::explain {

constexpr uint64_t mib = uint64_t{1} << 20;

// ---- why is RSS high ----
constexpr uint64_t least_bytes = 64 * mib;  // less is not worth anybody's time
constexpr double least_share = 0.10;        // of RSS
/// An amount that matters in a process of this size.
constexpr uint64_t matters(uint64_t rss) {
  return std::max(least_bytes, static_cast<uint64_t>(static_cast<double>(rss) * least_share));
}
constexpr double stuck_decay_times = 2;  // no look at the decay clock for so many decay times
constexpr uint64_t stuck_least_ns = 1'000'000'000;
constexpr double fragmented_share = 0.25;    // of active that is not allocated
constexpr double not_jemalloc_share = 0.20;  // of RSS
constexpr uint64_t virtual_least_bytes = 1024 * mib;
constexpr double virtual_times_rss = 2;
constexpr double virtual_resident_share = 0.05;  // of retained
constexpr double sprawl_arenas_per_cpu = 4;      // jemalloc's own default; more is sprawl
constexpr unsigned sprawl_least_arenas = 8;      // that hold something
constexpr double sprawl_idle_share = 0.5;        // of dirty, in arenas that nobody decays

// ---- LazyFree ----
constexpr double pressed_psi_percent = 1.0;         // "some", avg10
constexpr double taken_share = 0.05;                // of LazyFree that was reclaimed: the kernel does take it
constexpr double limit_share = 0.95;                // of its limit: a cgroup is pressed
constexpr uint64_t starved_cache_bytes = 16 * mib;  // page cache that went instead
constexpr double starved_taken_share = 0.05;        // lazily freed, of all that was taken from the file lists
constexpr double starved_flat_share = 0.10;         // LazyFree moved by no more
constexpr uint64_t cancelled_least_bytes = 32 * mib;
constexpr double cancelled_share = 0.25;      // of LazyFree at the start that is gone
constexpr double cancelled_huge_share = 0.5;  // of that, come as huge pages

// ---- huge pages ----
constexpr double refilled_huge_share = 0.5;  // of what is resident again, in huge pages
constexpr double refill_growth_share = 0.5;  // of RSS growth that khugepaged explains
constexpr uint64_t ghost_least_bytes = 64 * mib;
constexpr double ghost_share = 0.05;  // of the cgroup's usage

// ---- what purging costs ----
constexpr double oversize_share = 0.20;       // of purged bytes
constexpr double app_share = 0.20;            // of purge time
constexpr uint64_t slow_call_ns = 1'000'000;  // p99 of a call that a request waits for
constexpr double slow_window_share = 0.005;   // of the window, spent in purges on application threads
constexpr double lock_share = 0.5;            // of purge time
constexpr double lock_least_share = 0.25;     // of purge time, where the wait is also ...
constexpr double lock_times_work = 10;      // ... so many times what the work takes: the rest waits for a CPU
constexpr double busy_window_share = 0.02;  // of the window, spent in purges: worth explaining
constexpr uint64_t long_call_ns = 5'000'000;  // a call that long is worth explaining, too
constexpr double work_baselines = 3;          // ns per page, against this host's
constexpr double large_call_baselines =
    10;  // the same of calls of 2 MB and more: nothing but work and CPUs delays those
constexpr uint64_t large_call_bytes = 2 * mib;
constexpr double delayed_baselines = 50;  // ns per page beyond which it is no work: no CPU was free
constexpr uint64_t small_call_bytes = 256 * 1024;
constexpr double flushes_per_call = 0.5;
constexpr double thrash_share = 0.40;      // of purged pages, touched again within 10 s
constexpr double fault_ns = 1700;          // measured: docs/limits.md
constexpr double thrash_cpu_share = 0.01;  // of a CPU, spent on bringing pages back

// ---- configuration ----
constexpr double vma_share = 0.5;  // of vm.max_map_count
constexpr double vma_critical_share = 0.8;
constexpr double locked_share = 0.5;  // of RSS

// ---- healthy ----
constexpr double healthy_dirty_share = 0.10;  // of active
constexpr double healthy_refault_share = 0.10;

}  // namespace jemtrace::explain
