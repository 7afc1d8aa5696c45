#pragma once

#include "util/result.hpp"

namespace jemtrace::sample {

/// What giving a page of 4 kB back, and having it again, costs on this host, in ns a page.
struct PageCosts {
  double lazy_ns = 0, forced_ns = 0;  // MADV_FREE, MADV_DONTNEED
  double fault_ns = 0;                // the touch after MADV_DONTNEED
};

/// Tries it on 16 MB of memory of its own, in calls of `call_pages` pages: takes about 30 ms. The least of a
/// few rounds: a process with threads that fault and map at the same time, or on several CPUs, pays more, as
/// does one in a memory cgroup.
Result<PageCosts> measure_page_costs(unsigned call_pages);

}  // namespace jemtrace::sample
