#include "sample/memory.hpp"

#include <unistd.h>

#include <algorithm>

#include "sample/fields.hpp"

namespace jemtrace::sample {
namespace {

using Clock = Budget::Clock;

}  // namespace

std::optional<Statm> parse_statm(std::string_view text) {
  const size_t space = text.find(' ');
  if (space == std::string_view::npos) {
    return std::nullopt;
  }
  const auto pages = number_at(text.substr(space));
  if (!pages) {
    return std::nullopt;
  }
  static const auto page_size = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  return Statm{.rss_bytes = *pages * page_size};
}

std::optional<SmapsRollup> parse_smaps_rollup(std::string_view text) {
  const auto rss = field_bytes(text, "Rss:");
  const auto anonymous = field_bytes(text, "Anonymous:");
  const auto lazyfree = field_bytes(text, "LazyFree:");
  if (!rss || !anonymous || !lazyfree) {
    return std::nullopt;
  }
  return SmapsRollup{.rss_bytes = *rss, .anonymous_bytes = *anonymous, .lazyfree_bytes = *lazyfree};
}

void Budget::spent(Clock::time_point now, Clock::duration cost) {
  total_ += cost;
  next_ = now + std::chrono::duration_cast<Clock::duration>(cost / share_);
}

Result<Memory> Sampler::sample(bool lazyfree_may_have_changed) {
  ASSIGN_OR_RETURN(const std::string text, proc_.read(pid_, "statm", 4096));
  const auto statm = parse_statm(text);
  if (!statm) {
    return fail(Errc::malformed, proc_.of(pid_, "statm") + " makes no sense");
  }
  const auto begin = Clock::now();
  if ((!last_ || lazyfree_may_have_changed) && budget_.allows(begin)) {
    // Not fatal: kernels before 4.14 have none, and a process that ends has an empty one.
    if (const auto rollup = proc_.read(pid_, "smaps_rollup", 65536)) {
      if (const auto parsed = parse_smaps_rollup(*rollup)) {
        last_ = parsed;
        last_at_ = begin;
      }
    }
    const auto end = Clock::now();
    budget_.spent(end, end - begin);
  }
  Memory memory{.rss_bytes = statm->rss_bytes};
  if (last_) {
    memory.lazyfree_bytes = last_->lazyfree_bytes;
    memory.lazyfree_age_ms = static_cast<uint64_t>(
        std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - last_at_).count());
  }
  return memory;
}

}  // namespace jemtrace::sample
