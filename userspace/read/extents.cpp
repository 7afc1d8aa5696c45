#include "read/extents.hpp"

#include <algorithm>
#include <cstring>
#include <unordered_set>

namespace jemtrace::read {
namespace {

constexpr int attempts = 3;
constexpr uint64_t arena_bits = 12;
constexpr uint64_t max_bytes = uint64_t{1} << 52;
constexpr uint64_t max_address = uint64_t{1} << 57;
constexpr size_t max_blocks = 65536;
constexpr size_t clock_every = 64;

}  // namespace

bool ExtentWalker::refuse(const char* why) {
  why_ = why;
  return false;
}

/// A word of the target. The rest of its page is kept: jemalloc's extents lie side by side.
std::optional<uint64_t> ExtentWalker::word(uint64_t address) {
  if (address % 8 != 0 || address < page || address >= max_address) {
    return std::nullopt;
  }
  const uint64_t start = address & ~(page - 1);
  auto found = pages_.find(start);
  if (found == pages_.end()) {
    if (pages_.size() >= max_pages) {
      pages_.clear();
    }
    found = pages_.try_emplace(start).first;
    Memory::Piece piece{start, found->second};
    if (!memory_.read({&piece, 1}) || !piece.whole) {
      pages_.erase(found);
      return std::nullopt;
    }
  }
  uint64_t value = 0;
  std::memcpy(&value, found->second.data() + (address - start), sizeof value);
  return value;
}

std::optional<ExtentWalker::Head> ExtentWalker::head(uint64_t arena,
                                                     const locate::CacheLayout& layout) const {
  std::vector<uint64_t> words(layout.npages.size() + layout.lru.size());
  std::vector<Memory::Piece> pieces;
  for (size_t i = 0; i < words.size(); ++i) {
    const size_t n = layout.npages.size();
    const uint32_t member = i < n ? layout.npages[i] : layout.lru[i - n];
    pieces.push_back({arena + member, {reinterpret_cast<uint8_t*>(&words[i]), sizeof words[i]}});
  }
  const bool whole = memory_.read(pieces).has_value() &&
                     std::all_of(pieces.begin(), pieces.end(), [](const auto& p) { return p.whole; });
  if (!whole) {
    return std::nullopt;
  }
  Head head;
  for (size_t i = 0; i < words.size(); ++i) {
    if (i < layout.npages.size()) {
      head.pages += words[i];
    } else {
      head.first.push_back(words[i]);
    }
  }
  return head;
}

/// A ring: the last extent leads to the first.
bool ExtentWalker::list(uint64_t first, uint32_t index, uint32_t state, Cache& into, uint64_t pages) {
  const locate::ExtentLayout& layout = structures_.extent;
  const uint64_t page_bytes = uint64_t{1} << structures_.page_shift;
  const uint64_t state_mask = (uint64_t{1} << layout.state_width) - 1;
  uint64_t at = first;
  for (size_t n = 0; at != 0; ++n) {
    if (budget_.extents == 0 || (n % clock_every == 0 && Clock::now() >= budget_.until)) {
      return refuse("more extents than a reading may look at");
    }
    --budget_.extents;
    const auto bits = word(at + *layout.bits);
    const auto address = word(at + *layout.address);
    const auto size_esn = word(at + *layout.size_esn);
    const auto next = word(at + *layout.next);
    if (!bits || !address || !size_esn || !next) {
      return refuse("a list of extents leads nowhere");
    }
    const ledger::Range range{*address & ~(page_bytes - 1), *size_esn & ~(page_bytes - 1)};
    const bool own = (*bits & ((uint64_t{1} << arena_bits) - 1)) == index &&
                     (*bits >> layout.state_shift & state_mask) == state;
    if (!own || range.bytes == 0 || range.bytes >= max_bytes || range.start == 0 ||
        range.start >= max_address) {
      return refuse("a list of extents changed under the walk");
    }
    into.pages += range.bytes / page_bytes;
    if (into.pages > pages) {
      return refuse("a list of extents is longer than its cache");
    }
    into.ranges.push_back(range);
    at = *next == first ? 0 : *next;
  }
  return true;
}

std::optional<ExtentWalker::Cache> ExtentWalker::cache(uint64_t arena, uint32_t index,
                                                       const locate::CacheLayout& layout, uint32_t state) {
  const locate::ExtentLayout& extent = structures_.extent;
  if (!extent.bits || !extent.address || !extent.size_esn || !extent.next || extent.state_width == 0 ||
      layout.lru.empty() || layout.lru.size() != layout.npages.size()) {
    refuse("where an extent keeps its range is unknown");
    return std::nullopt;
  }
  for (int attempt = 0; attempt < attempts; ++attempt) {
    pages_.clear();
    const auto before = head(arena, layout);
    if (!before) {
      refuse("a cache cannot be read");
      return std::nullopt;
    }
    Cache found;
    const bool walked = std::all_of(before->first.begin(), before->first.end(), [&](uint64_t first) {
      return list(first, index, state, found, before->pages);
    });
    const auto after = walked ? head(arena, layout) : std::nullopt;
    if (after && after->pages == before->pages && after->first == before->first &&
        found.pages == before->pages) {
      return found;
    }
    if (walked) {
      refuse("a list of extents changed under the walk");
    }
    ++discarded_;
  }
  return std::nullopt;
}

std::optional<std::vector<ledger::Range>> ExtentWalker::blocks(uint64_t first) {
  std::vector<ledger::Range> found;
  std::unordered_set<uint64_t> seen;
  for (uint64_t at = first; at != 0;) {
    const auto size = word(at);
    const auto next = word(at + 8);
    const bool sound = size && next && at % page == 0 && *size != 0 && *size % page == 0 && *size < max_bytes;
    if (!sound || found.size() >= max_blocks || !seen.insert(at).second || Clock::now() >= budget_.until) {
      refuse("the blocks of metadata make no sense");
      ++discarded_;
      return std::nullopt;
    }
    found.push_back({at, *size});
    at = *next;
  }
  return found;
}

}  // namespace jemtrace::read
