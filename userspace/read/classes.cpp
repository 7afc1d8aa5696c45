#include "read/classes.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace jemtrace::read {
namespace {

using Bins = locate::ClassLayout::Bins;

constexpr uint64_t page = 4096;
constexpr uint64_t largest_slab_class = 4 * page;
constexpr size_t large_classes = 196;  // SC_NSIZES - SC_NBINS
constexpr size_t info_bytes = 40;      // bin_info_t
constexpr uint32_t most_shards = 64;   // BIN_SHARDS_MAX
constexpr uint32_t most_blocks_of_slab = 1024;
constexpr uint64_t max_bytes = uint64_t{1} << 52;
constexpr uint64_t max_address = uint64_t{1} << 57;
constexpr int attempts = 4;
constexpr size_t most_tcaches = 1 << 16;    // of one arena
constexpr uint64_t most_cached = 16 << 10;  // blocks in one bin of a thread cache
constexpr size_t cache_bin_bytes = 24;

uint64_t word(std::span<const uint8_t> bytes, size_t offset) {
  uint64_t value = 0;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

uint32_t half(std::span<const uint8_t> bytes, size_t offset) {
  uint32_t value = 0;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

/// Of bin_stats_t, the same in all of 5.x.
struct BinStats {
  uint64_t nmalloc, ndalloc, curregs, nslabs, curslabs;

  static constexpr size_t bytes = 72;
  static BinStats at(std::span<const uint8_t> bin) {
    return {word(bin, 0), word(bin, 8), word(bin, 24), word(bin, 48), word(bin, 64)};
  }
};

}  // namespace

SizeClasses size_classes(uint64_t quantum) {
  SizeClasses out;
  std::vector<uint64_t> all;
  if (quantum == 16) {
    all.push_back(8);
  }
  for (uint64_t i = 1; i <= 4; ++i) {
    all.push_back(i * quantum);
  }
  // Four classes to a doubling.
  for (uint64_t base = 4 * quantum; base <= uint64_t{1} << 62; base *= 2) {
    for (uint64_t i = 1; i <= 4 && !(base == uint64_t{1} << 62 && i == 4); ++i) {
      all.push_back(base + i * (base / 4));
    }
  }
  for (const uint64_t bytes : all) {
    (bytes < largest_slab_class ? out.small : out.large).push_back(bytes);
  }
  out.large.resize(large_classes);
  return out;
}

/// One arena's counters as bytes.
struct ClassReader::Raw {
  uint64_t bins_at = 0;  // 0: not known
  std::vector<uint8_t> pointers, bins, large;
  uint64_t active_pages = 0;
  bool whole = false;
  std::vector<uint64_t>
      missing;  // by bin: handed out and in no count of what is in use; of an earlier attempt
};

bool ClassReader::refuse(const char* why) {
  why_ = why;
  return false;
}

bool ClassReader::open() {
  if (!layout_.infos || !layout_.bins || !layout_.large || !nactive_ || layout_.large_bytes < 16 ||
      layout_.bin_bytes < layout_.bin_stats + BinStats::bytes) {
    return refuse("where this jemalloc counts them is not known");
  }
  const auto fits = [&](uint64_t quantum) -> bool {
    SizeClasses classes = size_classes(quantum);
    std::vector<uint8_t> infos(classes.small.size() * info_bytes);
    std::array<Memory::Piece, 1> pieces = {{{*layout_.infos + bias_, infos}}};
    if (!memory_.read(pieces) || !pieces[0].whole) {
      return false;
    }
    shards_.clear();
    blocks_per_slab_.clear();
    pages_per_slab_.clear();
    all_shards_ = 0;
    for (size_t i = 0; i < classes.small.size(); ++i) {
      const auto info = std::span(infos).subspan(i * info_bytes, info_bytes);
      const uint64_t slab = word(info, 8);
      const uint32_t blocks = half(info, 16);
      const uint32_t shards = layout_.kind == Bins::inlined ? 1 : half(info, 20);
      if (word(info, 0) != classes.small[i] || slab == 0 || slab % page != 0 || blocks == 0 ||
          blocks > most_blocks_of_slab || slab / classes.small[i] != blocks || shards == 0 ||
          shards > most_shards) {
        return false;
      }
      shards_.push_back(shards);
      blocks_per_slab_.push_back(blocks);
      pages_per_slab_.push_back(static_cast<uint32_t>(slab / page));
      all_shards_ += shards;
    }
    classes_ = std::move(classes);
    return true;
  };
  if (fits(16) || fits(8)) {
    return true;
  }
  return refuse("its size classes are not those of a jemalloc with pages of 4 kB");
}

Status ClassReader::find_bins(std::span<Raw> raws, std::span<const Arena> arenas) {
  std::vector<Memory::Piece> pieces;
  for (size_t i = 0; i < raws.size(); ++i) {
    if (layout_.kind != Bins::pointers) {
      raws[i].bins_at = arenas[i].address + *layout_.bins;
      continue;
    }
    raws[i].pointers.resize(classes_.small.size() * sizeof(uint64_t));
    pieces.push_back({arenas[i].address + *layout_.bins, raws[i].pointers});
  }
  if (pieces.empty()) {
    return {};
  }
  TRY(memory_.read(pieces));
  for (size_t i = 0; i < raws.size(); ++i) {
    // One allocation holds the shards of all bins, in their order.
    const uint64_t first = word(raws[i].pointers, 0);
    uint64_t next = first;
    bool sound = pieces[i].whole && first != 0 && first % 8 == 0 && first < max_address;
    for (size_t bin = 0; sound && bin < classes_.small.size(); ++bin) {
      sound = word(raws[i].pointers, bin * sizeof(uint64_t)) == next;
      next += uint64_t{shards_[bin]} * layout_.bin_bytes;
    }
    raws[i].bins_at = sound ? first : 0;
  }
  return {};
}

/// A program can have thousands of arenas with 64 shards in each bin: 500 kB each.
Status ClassReader::read(std::span<Arena> arenas) {
  constexpr size_t most_bytes = 16 << 20;
  const size_t bytes = all_shards_ * layout_.bin_bytes + large_classes * layout_.large_bytes;
  const size_t at_once = std::max<size_t>(1, most_bytes / std::max<size_t>(1, bytes));
  for (size_t begin = 0; begin < arenas.size(); begin += at_once) {
    TRY(read_some(arenas.subspan(begin, std::min(at_once, arenas.size() - begin))));
  }
  return {};
}

Status ClassReader::read_some(std::span<Arena> arenas) {
  std::vector<Raw> raws(arenas.size());
  TRY(find_bins(raws, arenas));
  std::vector<size_t> left;
  for (size_t i = 0; i < raws.size(); ++i) {
    if (raws[i].bins_at != 0) {
      left.push_back(i);
    } else {
      ++discarded_;
      why_ = "an arena's bins are not where they should be";
    }
  }
  for (int attempt = 0; attempt < attempts && !left.empty(); ++attempt) {
    std::vector<Memory::Piece> pieces;
    for (const size_t i : left) {
      Raw& raw = raws[i];
      raw.bins.resize(all_shards_ * layout_.bin_bytes);
      raw.large.resize(large_classes * layout_.large_bytes);
      pieces.push_back({raw.bins_at, raw.bins});
      pieces.push_back({arenas[i].address + *layout_.large, raw.large});
      pieces.push_back({arenas[i].address + *nactive_,
                        {reinterpret_cast<uint8_t*>(&raw.active_pages), sizeof raw.active_pages}});
    }
    TRY(memory_.read(pieces));
    std::vector<size_t> again;
    for (size_t n = 0; n < left.size(); ++n) {
      Raw& raw = raws[left[n]];
      raw.whole = pieces[3 * n].whole && pieces[3 * n + 1].whole && pieces[3 * n + 2].whole;
      if (!take(raw, arenas[left[n]])) {
        again.push_back(left[n]);
      }
    }
    left = std::move(again);
  }
  if (!left.empty()) {
    discarded_ += left.size();
    why_ = "what an arena counts of its size classes does not agree";
  }
  return {};
}

bool ClassReader::take(Raw& raw, Arena& arena) {
  arena.blocks.clear();
  arena.taken.emplace();
  uint64_t bytes = 0;
  const bool sound = raw.whole && take_bins(raw, arena, bytes) && take_large(raw, arena, bytes);
  // Active pages hold all of it, unless it grew between the two.
  if (sound && bytes <= raw.active_pages * page) {
    arena.allocated_bytes = bytes;
    return true;
  }
  // What a reset of the arena (arena.<i>.reset) took away is in no count for good: the same twice is no race.
  raw.missing.clear();
  for (size_t i = 0; raw.whole && i < all_shards_; ++i) {
    const auto stats =
        BinStats::at(std::span(raw.bins).subspan(i * layout_.bin_bytes + layout_.bin_stats, BinStats::bytes));
    raw.missing.push_back(stats.nmalloc - stats.ndalloc - stats.curregs);
  }
  arena.blocks.clear();
  arena.taken.reset();
  return false;
}

void ClassReader::add_taken(ledger::Taken& taken, uint64_t pages, uint64_t extents) {
  if (extents > 0) {
    taken.pages += extents * pages;
    taken.sizes.push_back({pages, extents});
  }
}

bool ClassReader::take_bins(const Raw& raw, Arena& arena, uint64_t& bytes) const {
  size_t at = 0;
  for (size_t bin = 0; bin < shards_.size(); ++bin) {
    uint64_t blocks = 0;
    uint64_t slabs = 0;
    for (uint32_t shard = 0; shard < shards_[bin]; ++shard, ++at) {
      const auto stats = BinStats::at(
          std::span(raw.bins).subspan(at * layout_.bin_bytes + layout_.bin_stats, BinStats::bytes));
      const uint64_t missing = stats.nmalloc - stats.ndalloc - stats.curregs;
      const bool as_before = raw.missing.size() > at && raw.missing[at] == missing;
      if (stats.ndalloc > stats.nmalloc || stats.curregs > stats.nmalloc - stats.ndalloc ||
          (missing != 0 && !as_before) || stats.curslabs >= max_bytes / page ||
          stats.curregs > stats.curslabs * blocks_per_slab_[bin]) {
        return false;
      }
      blocks += stats.curregs;
      slabs += stats.nslabs;
    }
    add_taken(*arena.taken, pages_per_slab_[bin], slabs);
    arena.blocks.push_back(blocks);
    bytes += blocks * classes_.small[bin];
  }
  return bytes < max_bytes;
}

bool ClassReader::take_large(const Raw& raw, Arena& arena, uint64_t& bytes) const {
  for (size_t i = 0; i < large_classes; ++i) {
    const auto entry = std::span(raw.large).subspan(i * layout_.large_bytes, layout_.large_bytes);
    const uint64_t nmalloc = word(entry, 0);
    const uint64_t ndalloc = word(entry, 8);
    uint64_t held = 0;
    if (ndalloc > nmalloc || __builtin_mul_overflow(nmalloc - ndalloc, classes_.large[i], &held) ||
        held >= max_bytes) {
      return false;
    }
    // From 5.3.1 bytes are counted beside the blocks, as there may be sizes between the classes.
    if (layout_.large_active && *layout_.large_active + sizeof(uint64_t) <= layout_.large_bytes) {
      const uint64_t active = word(entry, *layout_.large_active);
      if (active > held) {
        return false;
      }
      held = active;
    }
    arena.blocks.push_back(nmalloc - ndalloc);
    // A page more for each, so that blocks begin at random cache lines (opt.cache_oblivious, the default).
    add_taken(*arena.taken, classes_.large[i] / page + 1, nmalloc);
    bytes += held;
  }
  return bytes < max_bytes;
}

std::vector<ledger::SizeClass> ClassReader::sum(std::span<const Arena> arenas) const {
  std::vector<ledger::SizeClass> out;
  for (const uint64_t bytes : classes_.small) {
    out.push_back({bytes, false, 0});
  }
  for (const uint64_t bytes : classes_.large) {
    out.push_back({bytes, true, 0});
  }
  for (const Arena& arena : arenas) {
    for (size_t i = 0; i < out.size(); ++i) {
      if (arena.blocks.size() == out.size() && out[i].blocks) {
        *out[i].blocks += arena.blocks[i];
      } else {
        out[i].blocks.reset();
      }
    }
  }
  return out;
}

Status ClassReader::read_tcaches(std::span<Arena> arenas, Clock::time_point until) {
  why_.clear();
  if (!layout_.tcaches) {
    why_ = "where this jemalloc keeps its thread caches is not known";
    return {};
  }
  for (Arena& arena : arenas) {
    for (int attempt = 0; attempt < attempts && !arena.tcache_bytes && Clock::now() < until; ++attempt) {
      ASSIGN_OR_RETURN(arena.tcache_bytes, tcaches_of(arena.address, until));
    }
    if (!arena.tcache_bytes) {
      ++discarded_;
      why_ = Clock::now() < until ? "the list of an arena's thread caches changed at each look"
                                  : "their lists are too long for the time there is";
    }
  }
  return {};
}

/// cache_bin_array_descriptor_t { next, prev; bins } of a ring; up to 5.2 the bins of small classes and those
/// of large ones are apart. nullopt: it changed meanwhile.
Result<std::optional<uint64_t>> ClassReader::tcaches_of(uint64_t arena, Clock::time_point until) {
  const auto read_words = [&](uint64_t address, std::span<uint64_t> words) -> Result<bool> {
    std::array<Memory::Piece, 1> piece = {
        {{address, {reinterpret_cast<uint8_t*>(words.data()), words.size() * sizeof(uint64_t)}}}};
    TRY(memory_.read(piece));
    return piece[0].whole;
  };
  std::array<uint64_t, 1> head{};
  ASSIGN_OR_RETURN(const bool there, read_words(arena + *layout_.tcaches, head));
  if (!there) {
    return std::nullopt;
  }
  std::optional<uint64_t> bytes = 0;
  uint64_t at = head[0];
  uint64_t before = 0;
  uint64_t last = 0;
  for (size_t n = 0; at != 0 && n < most_tcaches; ++n) {
    std::array<uint64_t, 4> one{};  // next, prev, bins, and up to 5.2 those of large classes
    const size_t words = layout_.kind == Bins::behind ? 3 : 4;
    ASSIGN_OR_RETURN(const bool whole, read_words(at, std::span(one).first(words)));
    if (at % 8 != 0 || !whole || Clock::now() >= until || (before != 0 && one[1] != before)) {
      return std::nullopt;
    }
    last = before == 0 ? one[1] : last;
    TRY(add_tcache(one[2], one[3], bytes));
    if (!bytes) {
      return std::nullopt;
    }
    before = at;
    at = one[0];
    if (at == head[0]) {
      return before == last ? bytes : std::nullopt;
    }
  }
  return at == 0 && before == 0 ? bytes : std::nullopt;
}

/// Adds what the bins of one thread cache hold. Bins that are not used are zero.
Status ClassReader::add_tcache(uint64_t small, uint64_t large, std::optional<uint64_t>& bytes) {
  const bool apart = layout_.kind != Bins::behind;
  // TCACHE_NBINS_MAX: up to 8 MiB in 5.3.0, and from 5.3.1 up to 32 kB in this array.
  const size_t joined = classes_.small.size() + (layout_.large_active ? 5 : 37);
  std::vector<uint8_t> bins((apart ? classes_.small.size() + large_classes : joined) * cache_bin_bytes);
  const size_t first = (apart ? classes_.small.size() : joined) * cache_bin_bytes;
  std::vector<Memory::Piece> pieces = {{small, std::span(bins).first(first)}};
  if (apart) {
    pieces.push_back({large, std::span(bins).subspan(first)});
  }
  TRY(memory_.read(pieces));
  if (!std::all_of(pieces.begin(), pieces.end(), [](const auto& piece) { return piece.whole; })) {
    bytes.reset();
    return {};
  }
  for (size_t i = 0; i * cache_bin_bytes < bins.size(); ++i) {
    const auto bin = std::span(bins).subspan(i * cache_bin_bytes, cache_bin_bytes);
    uint64_t cached = half(bin, 4);
    if (!apart) {
      // The stack grows down to where it is full; both ends are kept as their low 16 bits.
      const auto empty = static_cast<uint16_t>(half(bin, 20));
      cached = static_cast<uint16_t>(empty - static_cast<uint16_t>(word(bin, 0))) / sizeof(uint64_t);
    }
    if (cached > most_cached) {
      bytes.reset();
      return {};
    }
    const size_t n = classes_.small.size();
    *bytes += cached * (i < n ? classes_.small[i] : classes_.large[i - n]);
  }
  return {};
}

}  // namespace jemtrace::read
