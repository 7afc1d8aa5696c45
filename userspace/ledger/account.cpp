#include "ledger/account.hpp"

#include <algorithm>
#include <cstdlib>

namespace jemtrace::ledger {
namespace {

using Bytes = std::optional<uint64_t>;

uint64_t difference(uint64_t a, uint64_t b) {
  return a > b ? a - b : b - a;
}
uint64_t minus(uint64_t a, uint64_t b) {
  return a > b ? a - b : 0;
}

/// The sum over arenas of one kind of residency; unknown when any arena's is.
template <typename Get>
std::optional<Residency> sum(const std::vector<ArenaResidency>& all, Get get) {
  Residency total{.freed_lazily_bytes = 0};
  for (const ArenaResidency& arena : all) {
    const std::optional<Residency>& one = get(arena);
    if (!one) {
      return std::nullopt;
    }
    total.present_bytes += one->present_bytes;
    total.swapped_bytes += one->swapped_bytes;
    if (one->freed_lazily_bytes && total.freed_lazily_bytes) {
      *total.freed_lazily_bytes += *one->freed_lazily_bytes;
    } else {
      total.freed_lazily_bytes.reset();
    }
  }
  return total;
}

/// Which mappings hold something that is known to be jemalloc's. Both are in the order of addresses.
class Owned {
 public:
  explicit Owned(const Reading& reading) {
    for (const ArenaReading& arena : reading.arenas) {
      for (const auto* ranges :
           {&arena.dirty.ranges, &arena.muzzy.ranges, &arena.retained.ranges, &arena.metadata}) {
        if (*ranges) {
          ranges_.insert(ranges_.end(), (*ranges)->begin(), (*ranges)->end());
        }
      }
    }
    std::sort(ranges_.begin(), ranges_.end(),
              [](const Range& a, const Range& b) { return a.start < b.start; });
  }

  [[nodiscard]] bool holds(const Vma& vma) const {
    const auto next = std::lower_bound(ranges_.begin(), ranges_.end(), vma.start,
                                       [](const Range& r, uint64_t start) { return r.start < start; });
    if (next != ranges_.end() && next->start < vma.end) {
      return true;
    }
    return next != ranges_.begin() && std::prev(next)->start + std::prev(next)->bytes > vma.start;
  }

 private:
  std::vector<Range> ranges_;
};

/// The kernel's side, by kind of mapping.
struct Mapped {
  uint64_t owned = 0;      // anonymous, in mappings that hold something of jemalloc's
  uint64_t anonymous = 0;  // anonymous, in others
  uint64_t heap = 0, stacks = 0, files = 0;
};

Mapped sort_out(const std::vector<Vma>& vmas, const Owned* owned, Account& account) {
  Mapped out;
  for (const Vma& vma : vmas) {
    account.lazyfree_bytes += vma.lazyfree_bytes;
    account.anon_huge_bytes += vma.anon_huge_bytes;
    account.swap_bytes += vma.swap_bytes;
    const bool may_be = vma.kind == Vma::Kind::anonymous || vma.kind == Vma::Kind::heap;
    if (may_be && owned != nullptr && owned->holds(vma)) {
      out.owned += vma.rss_bytes;
    } else if (vma.kind == Vma::Kind::anonymous && !vma.zero_fill) {
      out.anonymous += vma.rss_bytes;
    } else if (vma.kind == Vma::Kind::heap) {
      out.heap += vma.rss_bytes;
    } else if (vma.kind == Vma::Kind::stack) {
      out.stacks += vma.rss_bytes;
    } else {
      out.files += vma.rss_bytes;
    }
  }
  return out;
}

/// What jemalloc's side moved by while the kernel's side was read.
uint64_t moved(const Reading::Total& a, const Reading::Total& b) {
  uint64_t bytes = 0;
  for (const auto member :
       {&Reading::Total::active, &Reading::Total::dirty, &Reading::Total::muzzy, &Reading::Total::retained}) {
    if (a.*member && b.*member) {
      bytes += difference(*(a.*member), *(b.*member));
    }
  }
  return bytes;
}

class Maker {
 public:
  explicit Maker(const Observation& seen) : seen_(seen) {}

  Account make() {
    out_.rss_bytes = seen_.rss_after_bytes;
    out_.lazyfree_lag_bytes = seen_.lazyfree_lag_bytes;
    out_.bound_bytes = moved_rss() + seen_.rss_lag_bytes;
    if (seen_.before) {
      take_books(*seen_.before);
      take_jemalloc(*seen_.before);
    } else {
      const Mapped mapped = sort_out(seen_.vmas, nullptr, out_);
      set(Part::other_heap, mapped.anonymous + mapped.heap);
      set(Part::stacks, mapped.stacks);
      set(Part::files, mapped.files);
      out_.notes.emplace_back(
          "jemalloc's own numbers could not be read: its memory is in \"heap\", beside what is not its own");
    }
    uint64_t sum = 0;
    for (const Bytes& bytes : out_.resident) {
      sum += bytes.value_or(0);
    }
    out_.unexplained_bytes = static_cast<int64_t>(out_.rss_bytes) - static_cast<int64_t>(sum);
    return std::move(out_);
  }

 private:
  void set(Part part, uint64_t bytes) { out_.resident[static_cast<size_t>(part)] = bytes; }

  /// How far RSS was seen to move: before, in the mappings, and after. Of a process that takes memory and
  /// gives it back in between, the first and the last may be alike.
  [[nodiscard]] uint64_t moved_rss() const {
    uint64_t mapped = 0;
    for (const Vma& vma : seen_.vmas) {
      mapped += vma.rss_bytes;
    }
    const auto [least, most] = std::minmax({seen_.rss_before_bytes, mapped, seen_.rss_after_bytes});
    return most - least;
  }

  void take_books(const Reading& reading) {
    const Reading::Total total = reading.total(seen_.page_bytes);
    out_.active.bytes = total.active;
    out_.dirty.bytes = total.dirty;
    out_.muzzy.bytes = total.muzzy;
    out_.retained.bytes = total.retained;
    out_.metadata.bytes = total.base;
    out_.allocated_bytes = total.allocated;
    out_.tcache_bytes = total.tcache;
    if (total.allocated && total.active && *total.allocated <= *total.active) {
      out_.slack_bytes = *total.active - *total.allocated;
    }
    if (!seen_.after) {
      out_.notes.emplace_back("jemalloc could be read only once: what moved meanwhile is not in the bound");
    } else {
      out_.bound_bytes += moved(total, seen_.after->total(seen_.page_bytes));
    }
  }

  /// What is resident of a state. Where its ranges are not known, `estimate` stands for it.
  uint64_t state(StateAccount& account, const std::optional<Residency>& known, uint64_t estimate,
                 const char* what) {
    if (known) {
      account.resident_bytes = known->present_bytes;
      return known->present_bytes;
    }
    if (!account.bytes) {
      out_.notes.push_back(std::string(what) + " memory is not known: it is in \"active\" or \"other heap\"");
    } else if (*account.bytes > 0) {
      out_.notes.push_back("where " + std::string(what) +
                           " memory is could not be read: what is resident is estimated");
    }
    out_.uncertain_bytes += estimate;
    estimated_ += estimate;
    return estimate;
  }

  void take_jemalloc(const Reading& reading) {
    const Owned owned(reading);
    const Mapped mapped = sort_out(seen_.vmas, &owned, out_);
    const auto& all = seen_.residency;
    const auto muzzy = sum(all, [](const ArenaResidency& a) { return a.muzzy; });
    const uint64_t dirty_bytes = state(out_.dirty, sum(all, [](const ArenaResidency& a) { return a.dirty; }),
                                       out_.dirty.bytes.value_or(0), "dirty");
    const uint64_t muzzy_bytes =
        state(out_.muzzy, muzzy, std::min(out_.lazyfree_bytes, out_.muzzy.bytes.value_or(0)), "muzzy");
    const uint64_t retained_bytes =
        state(out_.retained, sum(all, [](const ArenaResidency& a) { return a.retained; }), 0, "retained");
    const uint64_t metadata_bytes =
        state(out_.metadata, sum(all, [](const ArenaResidency& a) { return a.metadata; }),
              out_.metadata.bytes.value_or(0), "metadata");
    set(Part::dirty, dirty_bytes);
    take_muzzy(muzzy, muzzy_bytes);
    set(Part::retained, retained_bytes);
    set(Part::metadata, metadata_bytes);
    take_active(mapped, dirty_bytes + muzzy_bytes + retained_bytes + metadata_bytes);
    set(Part::stacks, mapped.stacks);
    set(Part::files, mapped.files);
  }

  /// Splits muzzy memory by what the kernel did with it. smaps knows which pages were written to since,
  /// frames know which ranges they are in: together they tell.
  void take_muzzy(const std::optional<Residency>& muzzy, uint64_t present) {
    uint64_t lazy = std::min(present, out_.lazyfree_bytes);
    if (muzzy && muzzy->freed_lazily_bytes) {
      lazy = std::min(lazy, *muzzy->freed_lazily_bytes);
    }
    set(Part::lazyfree, lazy);
    set(Part::redirtied, present - lazy);
    if (muzzy && out_.muzzy.bytes) {
      out_.muzzy_not_resident_bytes = minus(*out_.muzzy.bytes, present + muzzy->swapped_bytes);
    }
  }

  /// What is left in jemalloc's mappings is active, as far as jemalloc has that much; what it has more may be
  /// in mappings of its own, or untouched.
  void take_active(const Mapped& mapped, uint64_t known) {
    const uint64_t rest = minus(mapped.owned, known);
    // Estimates lie anywhere; known ranges lie in owned mappings, which were read a moment later.
    const uint64_t beyond = minus(known, mapped.owned);
    const uint64_t outside = std::min({beyond, estimated_, mapped.anonymous});
    const uint64_t anonymous = mapped.anonymous - outside;
    out_.bound_bytes += beyond - outside;
    const uint64_t most = out_.active.bytes.value_or(rest + anonymous);
    const uint64_t active = std::min(rest, most);
    const uint64_t elsewhere = std::min(most - active, anonymous);
    set(Part::active, active + elsewhere);
    set(Part::other_heap, (rest - active) + (anonymous - elsewhere) + mapped.heap);
    out_.active.resident_bytes = active + elsewhere;
    out_.uncertain_bytes += elsewhere;
  }

  const Observation& seen_;
  uint64_t estimated_ = 0;
  Account out_;
};

}  // namespace

const char* name(Part part) {
  static constexpr std::array<const char*, part_count> names = {
      "active",   "dirty",      "muzzy_lazyfree", "muzzy_redirtied", "retained",
      "metadata", "other_heap", "stacks",         "files",
  };
  return names[static_cast<size_t>(part)];
}

Account make_account(const Observation& seen) {
  return Maker(seen).make();
}

}  // namespace jemtrace::ledger
