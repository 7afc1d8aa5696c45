#pragma once

#include <sys/types.h>

#include <cstdint>

#include "collect/observe.hpp"
#include "ledger/model.hpp"
#include "util/file.hpp"
#include "util/result.hpp"

namespace jemtrace::collect {

/// What a flush did. Bytes.
struct Flushed {
  ledger::Maybe<uint64_t> lazyfree_before, lazyfree_after;
  uint64_t rss_before = 0, rss_after = 0;
  uint64_t advised = 0;  // in so many the kernel was asked to look
  uint64_t ranges = 0;
  uint64_t took_ns = 0;
};

/// Has the kernel take back what the process freed lazily: process_madvise(MADV_PAGEOUT), from outside, on
/// exactly those pages of jemalloc's muzzy caches that are lazily freed now. Data is never lost: a page that
/// was written to meanwhile is no lazily freed one for the kernel either, and stays (or, where there is swap,
/// may go there). The kernel holds the target's mmap lock for reading meanwhile. Errc::unsupported where the
/// muzzy caches or the pages cannot be read, Errc::denied without CAP_SYS_NICE and CAP_SYS_PTRACE.
Result<Flushed> flush_lazyfree(const ProcRoot& proc, pid_t pid, const ReadJemalloc& read);

}  // namespace jemtrace::collect
