#include "sample/pages.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <vector>

namespace jemtrace::sample {
namespace {

// Documentation/admin-guide/mm/pagemap.rst
constexpr uint64_t present_bit = uint64_t{1} << 63, swapped_bit = uint64_t{1} << 62;
constexpr uint64_t exclusive_bit = uint64_t{1} << 56;  // since 4.2: mapped once
constexpr uint64_t frame_mask = (uint64_t{1} << 55) - 1;
constexpr uint64_t anon_flag = uint64_t{1} << 12, swapbacked_flag = uint64_t{1} << 14;
constexpr uint64_t zero_flag = uint64_t{1} << 24;

/// Asks /proc/kpageflags about page frames. Neighbours are read at once: huge pages and fresh heaps are
/// contiguous.
class FrameFlags {
 public:
  explicit FrameFlags(const ProcRoot& proc)
      : file_(open_file(proc.path() + "/kpageflags", O_RDONLY).value_or(Fd())) {}

  /// nullopt when it cannot be read.
  std::optional<bool> freed_lazily(uint64_t frame) {
    const auto flags = of(frame);
    return flags ? std::optional((*flags & (anon_flag | swapbacked_flag)) == anon_flag) : std::nullopt;
  }
  /// The page of zeros that is mapped where memory was read and never written. It is in no RSS.
  bool is_zero_page(uint64_t frame) { return (of(frame).value_or(0) & zero_flag) != 0; }

 private:
  std::optional<uint64_t> of(uint64_t frame) {
    if (frame < first_ || frame >= first_ + count_) {
      const ssize_t got = ::pread(file_.get(), flags_.data(), sizeof flags_, static_cast<off_t>(frame * 8));
      if (got < 8) {
        return std::nullopt;
      }
      first_ = frame;
      count_ = static_cast<uint64_t>(got) / 8;
    }
    return flags_[frame - first_];
  }

  Fd file_;
  std::array<uint64_t, 16> flags_{};
  uint64_t first_ = 0, count_ = 0;
};

}  // namespace

namespace {

/// Calls `use(page number, entry of pagemap)` for each page of the ranges, until it returns false.
template <typename Use>
Status for_each_page(const ProcRoot& proc, pid_t pid, std::span<const ledger::Range> ranges,
                     std::chrono::nanoseconds limit, Use use) {
  const auto until = std::chrono::steady_clock::now() + limit;
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const std::string path = proc.of(pid, "pagemap");
  ASSIGN_OR_RETURN(const Fd file, open_file(path, O_RDONLY));
  std::vector<uint64_t> entries(8192);  // 32 MB of addresses at a time
  for (const ledger::Range& range : ranges) {
    const uint64_t end = (range.start + range.bytes) / page;
    for (uint64_t at = range.start / page; at < end;) {
      const uint64_t want = std::min<uint64_t>(entries.size(), end - at);
      const ssize_t got = ::pread(file.get(), entries.data(), want * 8, static_cast<off_t>(at * 8));
      if (got < 0) {
        return fail_errno("cannot read " + path);
      }
      if (got < 8) {
        break;  // it has ended, or its address space has no such page
      }
      const size_t n = static_cast<size_t>(got) / 8;
      for (size_t i = 0; i < n; ++i) {
        if (!use(at + i, entries[i])) {
          return {};
        }
      }
      at += n;
      if (std::chrono::steady_clock::now() > until) {
        return fail(Errc::too_large, path + " takes too long to read");
      }
    }
  }
  return {};
}

}  // namespace

Result<ledger::Residency> residency(const ProcRoot& proc, pid_t pid, std::span<const ledger::Range> ranges,
                                    bool lazily, std::chrono::nanoseconds limit) {
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  ledger::Residency out;
  FrameFlags flags(proc);
  if (lazily) {
    out.freed_lazily_bytes = 0;
  }
  TRY(for_each_page(proc, pid, ranges, limit, [&](uint64_t, uint64_t entry) {
    out.swapped_bytes += (entry & swapped_bit) != 0 ? page : 0;
    if ((entry & present_bit) == 0) {
      return true;
    }
    const uint64_t frame = entry & frame_mask;
    if ((entry & exclusive_bit) == 0 && frame != 0 && flags.is_zero_page(frame)) {
      return true;
    }
    out.present_bytes += page;
    if (!out.freed_lazily_bytes) {
      return true;
    }
    const auto lazy = frame == 0 ? std::nullopt : flags.freed_lazily(frame);
    if (!lazy) {
      out.freed_lazily_bytes.reset();
    } else if (*lazy) {
      *out.freed_lazily_bytes += page;
    }
    return true;
  }));
  return out;
}

Result<std::vector<ledger::Range>> lazy_ranges(const ProcRoot& proc, pid_t pid,
                                               std::span<const ledger::Range> ranges,
                                               std::chrono::nanoseconds limit) {
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  std::vector<ledger::Range> out;
  FrameFlags flags(proc);
  bool hidden = false;
  TRY(for_each_page(proc, pid, ranges, limit, [&](uint64_t number, uint64_t entry) {
    if ((entry & present_bit) == 0) {
      return true;
    }
    const uint64_t frame = entry & frame_mask;
    const auto lazy = frame == 0 ? std::nullopt : flags.freed_lazily(frame);
    hidden = !lazy;
    if (lazy.value_or(false)) {
      if (!out.empty() && out.back().start + out.back().bytes == number * page) {
        out.back().bytes += page;
      } else {
        out.push_back({number * page, page});
      }
    }
    return !hidden;
  }));
  if (hidden) {
    return fail(Errc::denied, "which pages are freed lazily is hidden: page frames or /proc/kpageflags",
                "run as root, or give the program CAP_SYS_ADMIN");
  }
  return out;
}

}  // namespace jemtrace::sample
