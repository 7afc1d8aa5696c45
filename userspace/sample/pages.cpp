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
constexpr uint64_t frame_mask = (uint64_t{1} << 55) - 1;
constexpr uint64_t anon_flag = uint64_t{1} << 12, swapbacked_flag = uint64_t{1} << 14;

/// Asks /proc/kpageflags about page frames. Neighbours are read at once: huge pages and fresh heaps are
/// contiguous.
class FrameFlags {
 public:
  explicit FrameFlags(const ProcRoot& proc)
      : file_(open_file(proc.path() + "/kpageflags", O_RDONLY).value_or(Fd())) {}

  /// nullopt when it cannot be read.
  std::optional<bool> freed_lazily(uint64_t frame) {
    if (frame < first_ || frame >= first_ + count_) {
      const ssize_t got = ::pread(file_.get(), flags_.data(), sizeof flags_, static_cast<off_t>(frame * 8));
      if (got < 8) {
        return std::nullopt;
      }
      first_ = frame;
      count_ = static_cast<uint64_t>(got) / 8;
    }
    return (flags_[frame - first_] & (anon_flag | swapbacked_flag)) == anon_flag;
  }

 private:
  Fd file_;
  std::array<uint64_t, 16> flags_{};
  uint64_t first_ = 0, count_ = 0;
};

}  // namespace

Result<ledger::Residency> residency(const ProcRoot& proc, pid_t pid, std::span<const ledger::Range> ranges,
                                    bool lazily, std::chrono::nanoseconds limit) {
  const auto until = std::chrono::steady_clock::now() + limit;
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const std::string path = proc.of(pid, "pagemap");
  ASSIGN_OR_RETURN(const Fd file, open_file(path, O_RDONLY));
  ledger::Residency out;
  FrameFlags flags(proc);
  if (lazily) {
    out.freed_lazily_bytes = 0;
  }
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
        const uint64_t entry = entries[i];
        out.swapped_bytes += (entry & swapped_bit) != 0 ? page : 0;
        if ((entry & present_bit) == 0) {
          continue;
        }
        out.present_bytes += page;
        if (!out.freed_lazily_bytes) {
          continue;
        }
        const uint64_t frame = entry & frame_mask;
        const auto lazy = frame == 0 ? std::nullopt : flags.freed_lazily(frame);
        if (!lazy) {
          out.freed_lazily_bytes.reset();
        } else if (*lazy) {
          *out.freed_lazily_bytes += page;
        }
      }
      at += n;
      if (std::chrono::steady_clock::now() > until) {
        return fail(Errc::too_large, path + " takes too long to read");
      }
    }
  }
  return out;
}

}  // namespace jemtrace::sample
