#include "read/structures.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>

#include "ledger/smoothstep.hpp"
#include "read/classes.hpp"
#include "read/extents.hpp"
#include "util/clock.hpp"

namespace jemtrace::read {
namespace {

using locate::CacheLayout;
using locate::CounterLayout;
using locate::DecayLayout;
using locate::Global;
using locate::Structures;

constexpr uint64_t max_pages = uint64_t{1} << 40;
constexpr uint64_t max_bytes = uint64_t{1} << 52;
constexpr uint64_t max_threads = uint64_t{1} << 22;  // PID_MAX_LIMIT
constexpr uint64_t max_address = uint64_t{1} << 57;
constexpr uint64_t ns_per_step_ms = 1'000'000 / 200;  // SMOOTHSTEP_NSTEPS
constexpr size_t steps = ledger::decay_steps;
constexpr uint32_t gap = 256;  // bytes read in vain are cheaper than another iovec
constexpr int attempts = 3;
constexpr size_t max_text = 64;
constexpr size_t counters_bytes = 24;

uint64_t word_at(std::span<const uint8_t> bytes, size_t size) {
  uint64_t value = 0;
  std::memcpy(&value, bytes.data(), std::min(size, sizeof value));
  return value;
}

/// Which bytes of each arena are read: the members wanted, with those near them.
class Windows {
 public:
  void want(const std::optional<uint32_t>& offset, uint32_t size) {
    if (offset) {
      members_[*offset] = std::max(members_[*offset], size);
    }
  }
  void settle() {
    for (const auto& [offset, size] : members_) {
      const uint32_t end = offset + size;
      if (!windows_.empty() && offset <= windows_.back().end + gap) {
        windows_.back().end = std::max(windows_.back().end, end);
      } else {
        windows_.push_back({offset, end, 0});
      }
    }
    for (Window& window : windows_) {
      window.at = bytes_;
      bytes_ += window.end - window.start;
    }
  }
  [[nodiscard]] size_t bytes() const { return bytes_; }

  void add_pieces(uint64_t arena, std::span<uint8_t> into, std::vector<Memory::Piece>& pieces) const {
    for (const Window& window : windows_) {
      pieces.push_back({arena + window.start, into.subspan(window.at, window.end - window.start)});
    }
  }
  [[nodiscard]] size_t pieces() const { return windows_.size(); }

  /// The bytes of a member that was wanted; empty for another one.
  [[nodiscard]] std::span<const uint8_t> member(std::span<const uint8_t> all, uint32_t offset,
                                                uint32_t size) const {
    for (const Window& window : windows_) {
      if (offset >= window.start && offset + size <= window.end) {
        return all.subspan(window.at + (offset - window.start), size);
      }
    }
    return {};
  }

 private:
  struct Window {
    uint32_t start = 0, end = 0;
    size_t at = 0;
  };
  std::map<uint32_t, uint32_t> members_;
  std::vector<Window> windows_;
  size_t bytes_ = 0;
};

/// An arena as its bytes.
struct Raw {
  uint32_t index = 0;
  uint64_t address = 0;
  std::vector<uint8_t> bytes;
  bool whole = false;
  uint64_t counters_at = 0;  // 0: unknown
  std::array<uint64_t, 6> counters{};
  bool counted = false;
  uint64_t base = 0;
  std::array<uint64_t, 3> base_words{};  // ind, blocks, allocated
  std::array<bool, 3> base_read{};
};

class Attempt {
 public:
  Attempt(const Memory& memory, const Structures& structures, uint64_t bias, const ReadOptions& options)
      : memory_(memory), s_(structures), bias_(bias), options_(options) {}

  Result<ledger::Reading> read() {
    out_.at_ns = monotonic_ns();
    TRY(check());
    plan();
    ASSIGN_OR_RETURN(const std::vector<Raw> found, find_arenas());
    std::vector<Raw> raws = found;
    for (int attempt = 1; !raws.empty(); ++attempt) {
      TRY(fetch(raws));
      std::vector<Raw> again;
      for (const Raw& raw : raws) {
        // A decay time that is being changed, or an arena that is.
        if (!take(raw, attempt == attempts) && attempt < attempts) {
          again.push_back(raw);
        }
      }
      raws = std::move(again);
    }
    if (understood_ == 0 && !found.empty()) {
      return fail(Errc::unsupported, "the process does not keep its arenas where " + s_.found_by +
                                         " says: " + (out_.reasons.empty() ? "" : out_.reasons.front()));
    }
    std::sort(out_.arenas.begin(), out_.arenas.end(),
              [](const auto& a, const auto& b) { return a.index < b.index; });
    if (s_.stats) {
      TRY(read_classes());
    }
    if (options_.with_ranges) {
      walk({options_.max_extents, started_ + options_.max_time});
    }
    explain();
    out_.cost_ns = monotonic_ns() - out_.at_ns;
    return std::move(out_);
  }

 private:
  Status check() const {
    const bool named = s_.ind || s_.base_layout.ind;
    if (!s_.arenas || !named || !s_.dirty.state || !s_.muzzy.state || !s_.retained.state) {
      return fail(Errc::unsupported, "where this jemalloc keeps its arenas is not known",
                  "jemtrace image shows what was found of it");
    }
    return {};
  }

  void plan() {
    windows_.want(s_.nthreads, 4);
    windows_.want(s_.nactive, 8);
    windows_.want(s_.ind, 4);
    windows_.want(s_.base, 8);
    windows_.want(s_.internal, 8);
    for (const CacheLayout* cache : {&s_.dirty, &s_.muzzy, &s_.retained}) {
      for (const uint32_t npages : cache->npages) {
        windows_.want(npages, 8);
      }
      windows_.want(cache->state, 4);
      windows_.want(cache->ind, 4);
    }
    for (const DecayLayout* decay : {&s_.dirty_decay, &s_.muzzy_decay}) {
      windows_.want(decay->time_ms, 8);
      windows_.want(decay->interval, 8);
      windows_.want(decay->epoch, 8);
      windows_.want(decay->deadline, 8);
      if (options_.with_backlog) {
        windows_.want(decay->nunpurged, 8);
        windows_.want(decay->backlog, 8 * steps);
      }
      if (decay->npages_limit) {
        windows_.want(decay->npages_limit, 8);
      } else {
        windows_.want(decay->backlog, 8 * steps);
      }
    }
    for (const CounterLayout* counters : {&s_.dirty_counters, &s_.muzzy_counters}) {
      if (counters->through) {
        windows_.want(counters->through, 8);
      } else {
        windows_.want(counters->npurge, counters_bytes);
      }
    }
    windows_.settle();
  }

  /// The pointers to arenas and the options, in one call.
  Result<std::vector<Raw>> find_arenas() {
    std::vector<uint64_t> pointers(s_.max_arenas);
    std::vector<Memory::Piece> pieces;
    pieces.push_back({*s_.arenas + bias_, bytes_of(pointers)});
    std::map<std::string, uint64_t> values;
    for (const auto& [name, global] : s_.options) {
      uint64_t& value = values[name];
      const size_t size = std::min<size_t>(global.size, sizeof value);
      pieces.push_back({global.vaddr + bias_, {reinterpret_cast<uint8_t*>(&value), size}});
    }
    TRY(memory_.read(pieces));
    if (!pieces.front().whole) {
      return fail(Errc::unsupported, "the array of arenas is not where the image says");
    }
    size_t next = 1;
    for (const auto& [name, value] : values) {
      if (pieces[next++].whole) {
        add_option(name, s_.options.at(name), value);
      }
    }
    std::vector<Raw> raws;
    for (uint32_t i = 0; i < pointers.size(); ++i) {
      const uint64_t pointer = pointers[i];
      if (pointer == 0) {
        continue;
      }
      if (pointer % 8 != 0 || pointer >= max_address) {
        discard("an arena's address is none");
        out_.arenas.push_back({.index = i});
        continue;
      }
      raws.push_back({.index = i, .address = pointer, .bytes = {}});
    }
    return raws;
  }

  static std::span<uint8_t> bytes_of(std::vector<uint64_t>& words) {
    return {reinterpret_cast<uint8_t*>(words.data()), words.size() * sizeof(uint64_t)};
  }
  static std::span<uint8_t> bytes_of(uint64_t& word, size_t size = sizeof(uint64_t)) {
    return {reinterpret_cast<uint8_t*>(&word), size};
  }

  void add_option(const std::string& name, const Global& global, uint64_t value) {
    const unsigned bits = global.size * 8;
    switch (global.kind) {
      case Global::Kind::boolean:
        if (value <= 1) {
          out_.options[name] = value == 1 ? "true" : "false";
          return;
        }
        break;
      case Global::Kind::choice:
        if (value < global.names.size()) {
          out_.options[name] = global.names[value];
          return;
        }
        break;
      case Global::Kind::text:
        if (const auto text = text_at(value)) {
          out_.options[name] = *text;
          return;
        }
        break;
      case Global::Kind::number:
        if (global.is_signed && bits > 0) {
          const auto shifted = static_cast<int64_t>(value << (64 - bits));
          out_.options[name] = fmt::format("{}", shifted >> (64 - bits));
        } else {
          out_.options[name] = fmt::format("{}", value);
        }
        return;
    }
    discard("an option's value is none that it can have");
  }

  /// A short word of lower case letters, as the options have.
  [[nodiscard]] std::optional<std::string> text_at(uint64_t address) const {
    std::array<uint8_t, max_text> bytes{};
    // It may end just before a page that is not there.
    const size_t in_page = std::min<size_t>(max_text, 4096 - address % 4096);
    std::array<Memory::Piece, 2> pieces = {
        {{address, std::span(bytes).first(in_page)}, {address + in_page, std::span(bytes).subspan(in_page)}}};
    const size_t n = in_page < max_text ? 2 : 1;
    if (address == 0 || address >= max_address || !memory_.read(std::span(pieces).first(n)) ||
        !pieces[0].whole) {
      return std::nullopt;
    }
    const size_t known = n == 2 && !pieces[1].whole ? in_page : max_text;
    const uint8_t* const first = bytes.data();
    const uint8_t* const last = first + known;
    const uint8_t* const end = std::find(first, last, 0);
    const bool plain = end != first && end != last && std::all_of(first, end, [](uint8_t c) {
                         return (c >= 'a' && c <= 'z') || c == '_' || c == ' ';
                       });
    return plain ? std::optional(std::string(first, end)) : std::nullopt;
  }

  /// Two calls for all: the arenas, and what they point to.
  Status fetch(std::vector<Raw>& raws) {
    std::vector<Memory::Piece> pieces;
    for (Raw& raw : raws) {
      raw.bytes.assign(windows_.bytes(), 0);
      windows_.add_pieces(raw.address, raw.bytes, pieces);
    }
    TRY(memory_.read(pieces));
    for (size_t i = 0; i < raws.size(); ++i) {
      const auto own = std::span(pieces).subspan(i * windows_.pieces(), windows_.pieces());
      raws[i].whole = std::all_of(own.begin(), own.end(), [](const auto& p) { return p.whole; });
    }
    return follow(raws);
  }

  Status follow(std::vector<Raw>& raws) {
    struct Ask {
      Raw* raw;
      int what;  // member of base_t, or -1: the counters
    };
    std::vector<Ask> asks;
    std::vector<Memory::Piece> pieces;
    const std::array<std::optional<uint32_t>, 3> members = {s_.base_layout.ind, s_.base_layout.blocks,
                                                            s_.base_layout.allocated};
    for (Raw& raw : raws) {
      raw.base = raw.whole ? word(raw, s_.base).value_or(0) : 0;
      raw.base_read = {};
      raw.counted = false;
      for (size_t i = 0; i < members.size() && raw.base != 0; ++i) {
        if (members[i]) {
          raw.base_words[i] = 0;
          pieces.push_back({raw.base + *members[i], bytes_of(raw.base_words[i], i == 0 ? 4 : 8)});
          asks.push_back({&raw, static_cast<int>(i)});
        }
      }
      const uint64_t through = raw.whole ? word(raw, s_.dirty_counters.through).value_or(0) : 0;
      const bool together = s_.dirty_counters.npurge && s_.muzzy_counters.npurge &&
                            *s_.muzzy_counters.npurge == *s_.dirty_counters.npurge + counters_bytes;
      if (through != 0 && together) {
        pieces.push_back({through + *s_.dirty_counters.npurge,
                          {reinterpret_cast<uint8_t*>(raw.counters.data()), 2 * counters_bytes}});
        asks.push_back({&raw, -1});
      }
    }
    TRY(memory_.read(pieces));
    for (size_t i = 0; i < asks.size(); ++i) {
      if (asks[i].what < 0) {
        asks[i].raw->counted = pieces[i].whole;
      } else {
        asks[i].raw->base_read.at(static_cast<size_t>(asks[i].what)) = pieces[i].whole;
      }
    }
    return {};
  }

  [[nodiscard]] std::optional<uint64_t> word(const Raw& raw, const std::optional<uint32_t>& offset,
                                             uint32_t size = 8) const {
    if (!offset) {
      return std::nullopt;
    }
    const auto bytes = windows_.member(raw.bytes, *offset, size);
    return bytes.empty() ? std::nullopt : std::optional(word_at(bytes, size));
  }

  /// A number below `limit`.
  std::optional<uint64_t> below(std::optional<uint64_t> value, uint64_t limit, const char* why) {
    if (value && *value >= limit) {
      discard(why);
      return std::nullopt;
    }
    return value;
  }

  void discard(const std::string& why) {
    ++out_.discarded;
    because(why);
  }
  void because(const std::string& why) {
    if (std::find(out_.reasons.begin(), out_.reasons.end(), why) == out_.reasons.end()) {
      out_.reasons.push_back(why);
    }
  }

  /// Whether it is the arena that it should be.
  [[nodiscard]] const char* stranger(const Raw& raw) const {
    if (!raw.whole) {
      return "an arena cannot be read";
    }
    const auto ind = s_.ind             ? word(raw, s_.ind, 4)
                     : raw.base_read[0] ? std::optional(raw.base_words[0])
                                        : std::nullopt;
    if (ind != raw.index) {
      return "an arena says another index than its own";
    }
    uint64_t state = 1;
    for (const CacheLayout* cache : {&s_.dirty, &s_.muzzy, &s_.retained}) {
      if (word(raw, cache->state, 4) != state++) {
        return "a cache says another state than its own";
      }
      if (cache->ind && word(raw, cache->ind, 4) != raw.index) {
        return "a cache says another arena than its own";
      }
    }
    return nullptr;
  }

  /// decay_reinit: the interval is a 200th of the time; it stays as it was while the time is 0 or -1.
  [[nodiscard]] bool decay_fits(const Raw& raw, const DecayLayout& layout) const {
    const auto time = word(raw, layout.time_ms);
    const auto interval = word(raw, layout.interval);
    if (!time) {
      return true;
    }
    const auto ms = static_cast<int64_t>(*time);
    constexpr int64_t most_ms = int64_t{1} << 50;
    return ms >= -1 && ms < most_ms && (ms <= 0 || !interval || *interval == *time * ns_per_step_ms);
  }

  /// False: to be read again. The last time what fits is taken.
  bool take(const Raw& raw, bool last) {
    const char* why = stranger(raw);
    const bool decays =
        why != nullptr || (decay_fits(raw, s_.dirty_decay) && decay_fits(raw, s_.muzzy_decay));
    if (why != nullptr || (!decays && !last)) {
      if (last) {
        // It is there, and nothing is known of it: so is no sum over arenas.
        discard(why);
        out_.arenas.push_back({.index = raw.index});
      }
      return false;
    }
    ledger::ArenaReading arena;
    arena.index = raw.index;
    arena.threads =
        below(word(raw, s_.nthreads, 4), max_threads, "an arena has more threads than there can be");
    arena.active_pages = below(word(raw, s_.nactive), max_pages, "more pages than there can be");
    arena.dirty.pages = pages(raw, s_.dirty);
    arena.muzzy.pages = pages(raw, s_.muzzy);
    arena.retained.pages = pages(raw, s_.retained);
    take_decay(raw, s_.dirty_decay, arena.dirty_decay);
    take_decay(raw, s_.muzzy_decay, arena.muzzy_decay);
    take_counters(raw, s_.dirty_counters, 0, arena.dirty_decay);
    take_counters(raw, s_.muzzy_counters, 3, arena.muzzy_decay);
    if (s_.stats) {
      arena.internal_bytes = below(word(raw, s_.internal), max_bytes, "more bytes than there can be");
      if (raw.base_read[2]) {
        arena.base_bytes = below(raw.base_words[2], max_bytes, "more bytes than there can be");
      }
    }
    out_.arenas.push_back(std::move(arena));
    ++understood_;
    kept_.emplace(raw.index,
                  Kept{raw.address, raw.base_read[1] ? std::optional(raw.base_words[1]) : std::nullopt});
    return true;
  }

  std::optional<uint64_t> pages(const Raw& raw, const CacheLayout& cache) {
    std::optional<uint64_t> sum;
    for (const uint32_t npages : cache.npages) {
      const auto one = below(word(raw, npages), max_pages, "more pages than there can be");
      if (!one) {
        return std::nullopt;
      }
      sum = sum.value_or(0) + *one;
    }
    return sum;
  }

  void take_decay(const Raw& raw, const DecayLayout& layout, ledger::DecayReading& decay) {
    if (!decay_fits(raw, layout)) {
      discard("a decay time and its interval do not agree");
      return;
    }
    const auto time = word(raw, layout.time_ms);
    if (!time) {
      return;
    }
    decay.time_ms = static_cast<int64_t>(*time);
    // Without a time that runs the limit is what was left of an earlier one.
    if (*decay.time_ms < 0) {
      return;
    }
    // Where it stays 0 or is of a later time than now, it is no time of this clock.
    const auto epoch = *decay.time_ms > 0 ? word(raw, layout.epoch) : std::nullopt;
    if (epoch && *epoch > 0 && *epoch <= monotonic_ns()) {
      decay.epoch_ns = epoch;
      decay.deadline_ns = word(raw, layout.deadline);
    }
    if (options_.with_backlog) {
      take_backlog(raw, layout, decay);
    }
    const auto limit = layout.npages_limit ? word(raw, layout.npages_limit) : backlog_limit(raw, layout);
    decay.limit_pages = *decay.time_ms == 0 ? std::optional<uint64_t>(0)
                                            : below(limit, max_pages, "a limit higher than there can be");
  }

  void take_backlog(const Raw& raw, const DecayLayout& layout, ledger::DecayReading& decay) {
    decay.nunpurged_pages = below(word(raw, layout.nunpurged), max_pages, "more pages than there can be");
    if (!layout.backlog) {
      return;
    }
    const auto bytes = windows_.member(raw.bytes, *layout.backlog, 8 * steps);
    for (size_t at = 0; at < bytes.size(); at += 8) {
      const uint64_t pages = word_at(bytes.subspan(at), 8);
      if (pages >= max_pages) {
        discard("more pages than there can be");
        decay.backlog_pages.clear();
        return;
      }
      decay.backlog_pages.push_back(pages);
    }
  }

  /// arena_decay_backlog_npages_limit, of which up to 5.2 only the outcome of a pass is left.
  [[nodiscard]] std::optional<uint64_t> backlog_limit(const Raw& raw, const DecayLayout& layout) const {
    const auto backlog =
        layout.backlog ? windows_.member(raw.bytes, *layout.backlog, 8 * steps) : std::span<const uint8_t>{};
    if (backlog.empty()) {
      return std::nullopt;
    }
    uint64_t sum = 0;
    for (size_t i = 0; i < steps; ++i) {
      sum += word_at(backlog.subspan(8 * i), 8) * ledger::smoothstep(i);
    }
    return sum >> ledger::decay_fixed_point;
  }

  void take_counters(const Raw& raw, const CounterLayout& layout, size_t first, ledger::DecayReading& decay) {
    if (!s_.stats || !layout.npurge) {
      return;
    }
    if (layout.through) {
      if (raw.counted) {
        decay.npurge = raw.counters.at(first);
        decay.nmadvise = raw.counters.at(first + 1);
        decay.purged_pages = raw.counters.at(first + 2);
      }
      return;
    }
    decay.npurge = word(raw, layout.npurge);
    decay.nmadvise = word(raw, layout.nmadvise);
    decay.purged_pages = word(raw, layout.purged);
  }

  /// What is allocated, by size class.
  Status read_classes() {
    ClassReader reader(memory_, s_, bias_);
    if (!reader.open()) {
      because("allocated: " + reader.why());
      return {};
    }
    std::vector<ClassReader::Arena> arenas;
    for (const auto& [index, kept] : kept_) {
      arenas.push_back(
          {.address = kept.address, .allocated_bytes = {}, .tcache_bytes = {}, .taken = {}, .blocks = {}});
    }
    TRY(reader.read(arenas));
    if (!reader.why().empty()) {
      because("allocated: " + reader.why());
    }
    if (options_.with_ranges) {
      TRY(reader.read_tcaches(arenas, started_ + options_.max_time));
      if (!reader.why().empty()) {
        because("thread caches: " + reader.why());
      }
    }
    size_t next = 0;
    for (const auto& [index, kept] : kept_) {
      const ClassReader::Arena& one = arenas[next++];
      const auto arena = std::find_if(out_.arenas.begin(), out_.arenas.end(),
                                      [wanted = index](const auto& a) { return a.index == wanted; });
      if (arena != out_.arenas.end()) {
        arena->allocated_bytes = one.allocated_bytes;
        arena->tcache_bytes = one.tcache_bytes;
        arena->taken = one.taken;
      }
    }
    // An arena that could not be read has blocks, too.
    if (out_.arenas.size() == arenas.size()) {
      out_.classes = reader.sum(arenas);
    }
    out_.discarded += reader.discarded();
    return {};
  }

  void walk(ExtentWalker::Budget budget) {
    ExtentWalker walker(memory_, s_, budget);
    for (ledger::ArenaReading& arena : out_.arenas) {
      const auto found = kept_.find(arena.index);
      if (found == kept_.end()) {
        continue;
      }
      const Kept& kept = found->second;
      struct Step {
        const CacheLayout* layout;
        ledger::CacheReading* into;
      };
      uint32_t state = 1;
      for (const Step& step : {Step{&s_.dirty, &arena.dirty}, Step{&s_.muzzy, &arena.muzzy},
                               Step{&s_.retained, &arena.retained}}) {
        if (auto cache = walker.cache(kept.address, arena.index, *step.layout, state++)) {
          step.into->pages = cache->pages;
          step.into->ranges = std::move(cache->ranges);
        } else {
          because("ranges: " + walker.why());
        }
      }
      if (kept.blocks) {
        arena.metadata = walker.blocks(*kept.blocks);
        if (!arena.metadata) {
          because("metadata: " + walker.why());
        }
      }
    }
    out_.discarded += walker.discarded();
  }

  void explain() {
    if (!s_.stats) {
      because("counters, allocated: built without statistics");
    }
    const auto hpa = out_.options.find("hpa");
    if (hpa != out_.options.end() && hpa->second == "true") {
      because("pages of the huge page allocator are not among those of the caches");
    }
  }

  struct Kept {
    uint64_t address = 0;
    std::optional<uint64_t> blocks;
  };

  const Memory& memory_;
  const Structures& s_;
  uint64_t bias_;
  const ReadOptions& options_;
  Windows windows_;
  std::map<uint32_t, Kept> kept_;
  size_t understood_ = 0;  // arenas
  ledger::Reading out_;
  const ExtentWalker::Clock::time_point started_ = ExtentWalker::Clock::now();
};

}  // namespace

uint64_t load_bias(const locate::Image& image, uint64_t mapping_start, uint64_t mapping_file_offset) {
  return mapping_start - (image.text.vaddr + mapping_file_offset - image.text.offset);
}

Result<ledger::Reading> Reader::read(const ReadOptions& options) const {
  return Attempt(memory_, structures_, bias_, options).read();
}

}  // namespace jemtrace::read
