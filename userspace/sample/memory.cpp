#include "sample/memory.hpp"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <limits>

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
  save_for(now, cost);
}

void Budget::save_for(Clock::time_point now, Clock::duration cost) {
  next_ = now + std::chrono::duration_cast<Clock::duration>(cost / share_);
}

Result<uint64_t> read_rss(const ProcRoot& proc, pid_t pid) {
  ASSIGN_OR_RETURN(const std::string text, proc.read(pid, "statm", 4096));
  const auto statm = parse_statm(text);
  if (!statm) {
    return fail(Errc::malformed, proc.of(pid, "statm") + " makes no sense");
  }
  return statm->rss_bytes;
}

namespace {

/// Not fatal: kernels before 4.14 have none, and a process that ends has an empty one.
std::optional<SmapsRollup> read_rollup(const ProcRoot& proc, pid_t pid) {
  const auto text = proc.read(pid, "smaps_rollup", 65536);
  return text ? parse_smaps_rollup(*text) : std::nullopt;
}

/// How long this host takes to walk its page tables, in ns per resident byte, told by a walk over our own.
/// Nothing else is asked for it, and other locks than ours are not taken.
double own_rollup_cost() {
  constexpr int attempts = 3;
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < attempts; ++i) {
    const auto begin = Clock::now();
    const auto rollup = read_rollup(ProcRoot(), ::getpid());
    const std::chrono::duration<double, std::nano> took = Clock::now() - begin;
    if (rollup && rollup->rss_bytes > 0) {
      best = std::min(best, took.count() / static_cast<double>(rollup->rss_bytes));
    }
  }
  return best;
}

}  // namespace

std::chrono::nanoseconds expected_rollup_cost(uint64_t rss_bytes) {
  constexpr double least = 6e6 / static_cast<double>(1U << 30);  // 6 ms per GB
  constexpr double margin = 1.5;                                 // other work takes the CPU, too
  static const double own = own_rollup_cost();
  const double each = std::isfinite(own) ? std::max(least, margin * own) : least;
  return std::chrono::nanoseconds(static_cast<int64_t>(each * static_cast<double>(rss_bytes)));
}

Result<Memory> memory_now(const ProcRoot& proc, pid_t pid) {
  ASSIGN_OR_RETURN(const uint64_t rss, read_rss(proc, pid));
  Memory memory{.rss_bytes = rss};
  if (const auto rollup = read_rollup(proc, pid)) {
    memory.lazyfree_bytes = rollup->lazyfree_bytes;
  }
  return memory;
}

Result<Memory> Sampler::sample(bool lazyfree_may_have_changed) {
  constexpr auto most_in_advance = std::chrono::milliseconds(25);
  ASSIGN_OR_RETURN(const uint64_t rss, read_rss(proc_, pid_));
  const auto begin = Clock::now();
  if (!began_) {
    began_ = true;
    if (const auto expected = expected_rollup_cost(rss); expected > most_in_advance) {
      budget_.save_for(begin, expected);
    }
  }
  if ((!last_ || lazyfree_may_have_changed) && budget_.allows(begin)) {
    if (const auto parsed = read_rollup(proc_, pid_)) {
      last_ = parsed;
      last_at_ = begin;
    }
    const auto end = Clock::now();
    budget_.spent(end, end - begin);
  }
  Memory memory{.rss_bytes = rss};
  if (last_) {
    memory.lazyfree_bytes = last_->lazyfree_bytes;
    memory.lazyfree_age_ms = static_cast<uint64_t>(
        std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - last_at_).count());
  }
  return memory;
}

}  // namespace jemtrace::sample
