#include "collect/flush.hpp"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "sample/memory.hpp"
#include "sample/pages.hpp"
#include "util/clock.hpp"
#include "util/fd.hpp"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

namespace jemtrace::collect {
namespace {

constexpr auto look_limit = std::chrono::seconds(30);
constexpr size_t most_ranges_per_call = 1024;       // UIO_MAXIOV
constexpr uint64_t most_bytes_per_call = 64 << 20;  // the mmap lock is held for a call: 20 ms

tl::unexpected<Error> refused(int err) {
  if (err == EPERM || err == EACCES) {
    return fail_errno("cannot advise the process's memory: process_madvise", err,
                      "run as root, or give the program CAP_SYS_NICE and CAP_SYS_PTRACE");
  }
  if (err == ENOSYS || err == EINVAL) {
    return tl::unexpected(Error{Errc::unsupported, "this kernel has no process_madvise(MADV_PAGEOUT)", err,
                                "it is there since Linux 5.10, with CONFIG_ADVISE_SYSCALLS"});
  }
  return fail_errno("process_madvise", err);
}

Result<std::vector<ledger::Range>> muzzy_ranges(const ledger::Reading& reading) {
  std::vector<ledger::Range> out;
  for (const ledger::ArenaReading& arena : reading.arenas) {
    if (!arena.muzzy.ranges) {
      return fail(Errc::unsupported,
                  fmt::format("where the muzzy memory of arena {} is could not be read", arena.index),
                  "the process may have been busy: try again");
    }
    out.insert(out.end(), arena.muzzy.ranges->begin(), arena.muzzy.ranges->end());
  }
  std::sort(out.begin(), out.end(),
            [](const ledger::Range& a, const ledger::Range& b) { return a.start < b.start; });
  return out;
}

/// Cuts what is too long to be done under one hold of the lock.
std::vector<ledger::Range> in_pieces(const std::vector<ledger::Range>& ranges) {
  std::vector<ledger::Range> out;
  for (ledger::Range range : ranges) {
    while (range.bytes > 0) {
      const uint64_t bytes = std::min(range.bytes, most_bytes_per_call);
      out.push_back({range.start, bytes});
      range = {range.start + bytes, range.bytes - bytes};
    }
  }
  return out;
}

/// The address space may change meanwhile: a range that is gone (ENOMEM) is none of ours any more.
Result<uint64_t> page_out(int pidfd, const std::vector<ledger::Range>& ranges) {
  uint64_t advised = 0;
  for (size_t at = 0; at < ranges.size();) {
    std::vector<iovec> batch;
    uint64_t bytes = 0;
    for (size_t i = at; i < ranges.size() && batch.size() < most_ranges_per_call; ++i) {
      if (!batch.empty() && bytes + ranges[i].bytes > most_bytes_per_call) {
        break;
      }
      // NOLINTNEXTLINE(performance-no-int-to-ptr): an address in another process
      batch.push_back({reinterpret_cast<void*>(ranges[i].start), ranges[i].bytes});
      bytes += ranges[i].bytes;
    }
    const long done = ::syscall(SYS_process_madvise, pidfd, batch.data(), batch.size(), MADV_PAGEOUT, 0);
    if (done < 0 && errno != ENOMEM) {
      return refused(errno);
    }
    advised += done > 0 ? static_cast<uint64_t>(done) : 0;
    // Less than asked: it stopped at a range; that one is left out.
    uint64_t rest = done > 0 ? static_cast<uint64_t>(done) : 0;
    size_t whole = 0;
    while (whole < batch.size() && rest >= batch[whole].iov_len) {
      rest -= batch[whole++].iov_len;
    }
    at += std::max<size_t>(1, whole < batch.size() ? whole + 1 : whole);
  }
  return advised;
}

}  // namespace

Result<Flushed> flush_lazyfree(const ProcRoot& proc, pid_t pid, const ReadJemalloc& read) {
  // First of all, so that the pid cannot be another process's by the time of the call.
  const Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd) {
    return fail_errno(fmt::format("cannot open pid {}: pidfd_open", pid));
  }
  auto reading = read(true);
  if (!reading) {
    return fail(Errc::unsupported, "jemalloc's muzzy memory could not be read: " + reading.error().message(),
                "without its ranges nothing is flushed: other memory might be");
  }
  ASSIGN_OR_RETURN(const auto muzzy, muzzy_ranges(*reading));
  Flushed out;
  ASSIGN_OR_RETURN(const sample::Memory before, sample::memory_now(proc, pid));
  ASSIGN_OR_RETURN(const auto lazy, sample::lazy_ranges(proc, pid, muzzy, look_limit));
  const uint64_t begin = monotonic_ns();
  ASSIGN_OR_RETURN(out.advised, page_out(pidfd.get(), in_pieces(lazy)));
  out.took_ns = monotonic_ns() - begin;
  ASSIGN_OR_RETURN(const sample::Memory after, sample::memory_now(proc, pid));
  out.ranges = lazy.size();
  out.lazyfree_before = before.lazyfree_bytes;
  out.lazyfree_after = after.lazyfree_bytes;
  out.rss_before = before.rss_bytes;
  out.rss_after = after.rss_bytes;
  return out;
}

}  // namespace jemtrace::collect
