#include "advise/heap.hpp"

#include <algorithm>
#include <bit>
#include <limits>

namespace jemtrace::advise {
namespace {

constexpr uint64_t large_pages = 4;  // SC_LARGE_MINCLASS: smaller ones are joined when they are evicted
constexpr unsigned lg_max_fit = 6;   // opt.lg_extent_max_active_fit: no dirty extent is cut into more
constexpr uint64_t first_mapping_pages = 512;       // HUGEPAGE: exp_grow_init
constexpr uint64_t most_pages = uint64_t{1} << 40;  // of an extent
constexpr size_t word_bits = 64;

/// Page size classes (sz.c): 1 to 4, then four for each doubling. How many are no larger than `pages`.
size_t classes_up_to(uint64_t pages) {
  if (pages < large_pages) {
    return pages;
  }
  const auto doublings = static_cast<size_t>(std::bit_width(pages)) - 3;
  return 4 * doublings + (pages >> doublings);
}

/// The inverse: classes_up_to(class_pages(i)) is i + 1.
uint64_t class_pages(size_t index) {
  if (index < 4) {
    return index + 1;
  }
  const size_t doublings = (index - 4) / 4;
  return (5 + index % 4) << doublings;
}

/// Bins hold what is large enough for a class and the page more that each large block has
/// (sz_psz_quantize_floor). Bin 0: one page.
size_t bin_of(uint64_t pages) {
  return classes_up_to(pages - 1);
}

/// The first bin in which all are large enough (sz_psz_quantize_ceil).
size_t first_bin(uint64_t pages) {
  return pages <= 1 ? 0 : 1 + classes_up_to(pages - 2);
}

}  // namespace

Heap::Heap(uint64_t oversize_pages)
    : oversize_pages_(oversize_pages), next_mapping_(classes_up_to(first_mapping_pages) - 1) {
  for (Cache& cache : caches_) {
    cache.bins.resize(bin_of(most_pages) + 1);
    cache.filled.resize(cache.bins.size() / word_bits + 1);
  }
}

Heap::Id Heap::make(const Extent& extent) {
  Id id = static_cast<Id>(extents_.size());
  if (unused_.empty()) {
    extents_.push_back(extent);
  } else {
    id = unused_.back();
    unused_.pop_back();
    extents_[id] = extent;
  }
  if (extent.before != none) {
    extents_[extent.before].after = id;
  }
  if (extent.after != none) {
    extents_[extent.after].before = id;
  }
  return id;
}

void Heap::insert(Id id, State state) {
  Extent& extent = extents_[id];
  Cache& cache = caches_[state];
  const size_t bin = bin_of(extent.pages);
  extent.state = state;
  cache.bins[bin].emplace(extent.at, id);
  cache.filled[bin / word_bits] |= uint64_t{1} << bin % word_bits;
  extent.older = cache.newest;
  extent.newer = none;
  (cache.newest == none ? cache.oldest : extents_[cache.newest].newer) = id;
  cache.newest = id;
  pages_[state] += extent.pages;
}

/// Out of its cache; it belongs to who asked for it.
void Heap::remove(Id id) {
  Extent& extent = extents_[id];
  Cache& cache = caches_[extent.state];
  const size_t bin = bin_of(extent.pages);
  cache.bins[bin].erase({extent.at, id});
  if (cache.bins[bin].empty()) {
    cache.filled[bin / word_bits] &= ~(uint64_t{1} << bin % word_bits);
  }
  (extent.older == none ? cache.oldest : extents_[extent.older].newer) = extent.newer;
  (extent.newer == none ? cache.newest : extents_[extent.newer].older) = extent.older;
  pages_[extent.state] -= extent.pages;
  extent.state = active;
}

/// eset_first_fit: of the first ones of all bins whose extents are large enough, the one that is oldest by
/// its mapping, and lowest in it.
Heap::Id Heap::find(State state, uint64_t pages) const {
  const Cache& cache = caches_[state];
  std::pair<uint64_t, Id> best{never, none};
  if (pages_[state] < pages) {
    return none;
  }
  const size_t first = first_bin(pages);
  const size_t last =
      state == dirty ? classes_up_to(((pages + 1) << lg_max_fit) - 1) : std::numeric_limits<size_t>::max();
  for (size_t word = first / word_bits; word < cache.filled.size(); ++word) {
    uint64_t bits = cache.filled[word];
    if (word == first / word_bits) {
      bits &= ~uint64_t{0} << first % word_bits;
    }
    for (; bits != 0; bits &= bits - 1) {
      const size_t bin = word * word_bits + static_cast<size_t>(std::countr_zero(bits));
      if (bin > last) {
        return best.second;
      }
      best = std::min(best, *cache.bins[bin].begin());
    }
  }
  return best.second;
}

/// extent_grow_retained: each mapping is a class larger than the one before. They are never joined.
Heap::Id Heap::grow(uint64_t pages) {
  while (class_pages(next_mapping_) < pages) {
    ++next_mapping_;
  }
  const uint64_t size = std::min(class_pages(next_mapping_++), most_pages);
  const uint64_t at = purged_.size();
  purged_.resize(at + size);
  return make({.at = at, .pages = size});
}

/// Its first `pages` stay, the others go into a cache.
void Heap::cut(Id id, uint64_t pages, State rest) {
  const Extent whole = extents_[id];
  if (whole.pages > pages) {
    const Id other =
        make({.at = whole.at + pages, .pages = whole.pages - pages, .before = id, .after = whole.after});
    extents_[id].pages = pages;
    insert(other, rest);
  }
}

Heap::Id Heap::take(uint64_t pages) {
  Id id = none;
  State from = dirty;
  for (const State state : {dirty, muzzy, retained}) {
    from = state;
    id = find(state, pages);
    if (id != none) {
      remove(id);
      break;
    }
  }
  if (id == none) {
    id = grow(pages);
  }
  cut(id, pages, from);
  if (from == muzzy) {
    reused_ += pages;
  } else if (from == retained) {
    const auto begin = purged_.begin() + static_cast<std::ptrdiff_t>(extents_[id].at);
    const auto end = begin + static_cast<std::ptrdiff_t>(pages);
    returned_ += static_cast<uint64_t>(std::count(begin, end, true));
    std::fill(begin, end, false);
  }
  pages_[active] += pages;
  return id;
}

void Heap::absorb(Id id, Id neighbour) {
  remove(neighbour);
  Extent& extent = extents_[id];
  const Extent& other = extents_[neighbour];
  extent.pages += other.pages;
  if (other.at > extent.at) {
    extent.after = other.after;
    if (extent.after != none) {
      extents_[extent.after].before = id;
    }
  } else {
    extent.at = other.at;
    extent.before = other.before;
    if (extent.before != none) {
      extents_[extent.before].after = id;
    }
  }
  unused_.push_back(neighbour);
}

/// With its neighbours, where they are in that cache. True: with one at least.
bool Heap::join(Id id, State with) {
  bool joined = false;
  for (const bool forwards : {true, false}) {
    const Id neighbour = forwards ? extents_[id].after : extents_[id].before;
    if (neighbour != none && extents_[neighbour].state == with) {
      absorb(id, neighbour);
      joined = true;
    }
  }
  return joined;
}

/// MADV_DONTNEED, and into the retained cache.
void Heap::away(Id id) {
  const auto begin = purged_.begin() + static_cast<std::ptrdiff_t>(extents_[id].at);
  std::fill(begin, begin + static_cast<std::ptrdiff_t>(extents_[id].pages), true);
  join(id, retained);
  insert(id, retained);
}

uint64_t Heap::give(Id id) {
  pages_[active] -= extents_[id].pages;
  if (extents_[id].pages >= large_pages) {
    while (join(id, dirty)) {
    }
    const uint64_t pages = extents_[id].pages;
    if (pages >= oversize_pages_) {
      away(id);
      return pages;
    }
  }
  insert(id, dirty);
  return 0;
}

uint64_t Heap::evict(State from, uint64_t limit, bool lazily) {
  uint64_t went = 0;
  std::vector<Id> out;
  while (pages_[from] > limit) {
    const Id id = caches_[from].oldest;
    remove(id);
    // Small ones were not joined when they were freed. What has just grown is young again.
    if (from == dirty && join(id, dirty)) {
      insert(id, dirty);
      continue;
    }
    went += extents_[id].pages;
    out.push_back(id);
  }
  for (const Id id : out) {
    if (lazily) {
      join(id, muzzy);
      insert(id, muzzy);
    } else {
      away(id);
    }
  }
  return went;
}

}  // namespace jemtrace::advise
