#include "read/call/reading.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "util/clock.hpp"

namespace jemtrace::read {
namespace {

constexpr uint64_t most_arenas = 4095;
constexpr uint64_t most_classes = 4096;
constexpr unsigned merged = 4096;  // MALLCTL_ARENAS_ALL

/// Requests, and where their answers go.
class Batch {
 public:
  void add(Request request, std::function<void(const Answer&)> take) {
    requests_.push_back(std::move(request));
    takers_.push_back(std::move(take));
  }
  void number(std::string name, std::optional<uint64_t>& to, size_t size = sizeof(size_t)) {
    add(Request::read(std::move(name), size), [&to](const Answer& answer) { to = answer.value; });
  }
  void number(std::string name, std::optional<int64_t>& to) {
    add(Request::read(std::move(name), sizeof(int64_t)),
        [&to](const Answer& answer) { to = static_cast<int64_t>(answer.value); });
  }
  /// A name that the build does not have leaves its target unknown.
  Status run(Caller& caller) {
    ASSIGN_OR_RETURN(const auto answers, caller.run(requests_));
    for (size_t i = 0; i < answers.size(); ++i) {
      if (answers[i].error == 0) {
        takers_[i](answers[i]);
      }
    }
    return {};
  }

 private:
  std::vector<Request> requests_;
  std::vector<std::function<void(const Answer&)>> takers_;
};

struct Start {
  std::optional<uint64_t> arenas, page, stats, epoch_before;
};

Status read_start(Caller& caller, const CallOptions& options, Start& start, ledger::Reading& reading) {
  Batch batch;
  if (options.epoch) {
    batch.add(Request::write("epoch", 1, sizeof(uint64_t)), [](const Answer&) {});
  }
  batch.number("epoch", reading.epoch);
  batch.number("arenas.narenas", start.arenas, sizeof(unsigned));
  batch.number("arenas.page", start.page);
  batch.number("config.stats", start.stats, sizeof(bool));
  const auto option = [&](const char* name, size_t size, auto to_text) {
    batch.add(Request::read(std::string("opt.") + name, size),
              [&reading, name, to_text](const Answer& a) { reading.options[name] = to_text(a.value); });
  };
  const auto number = [](uint64_t value) { return std::to_string(static_cast<int64_t>(value)); };
  const auto yes_no = [](uint64_t value) { return std::string(value != 0 ? "true" : "false"); };
  for (const char* name : {"dirty_decay_ms", "muzzy_decay_ms", "oversize_threshold"}) {
    option(name, sizeof(size_t), number);
  }
  option("narenas", sizeof(unsigned), number);
  for (const char* name : {"background_thread", "retain", "prof"}) {
    option(name, sizeof(bool), yes_no);
  }
  for (const char* name : {"thp", "metadata_thp", "percpu_arena"}) {
    batch.add(Request::read_text(std::string("opt.") + name),
              [&reading, name](const Answer& a) { reading.options[name] = a.text; });
  }
  return batch.run(caller);
}

/// What one arena has beside plain fields of its ArenaReading.
struct ArenaExtra {
  std::optional<uint64_t> initialized, retained_bytes, small, large;
};

void add_arena(Batch& batch, ledger::ArenaReading& arena, ArenaExtra& extra) {
  const std::string stats = fmt::format("stats.arenas.{}.", arena.index);
  const std::string live = fmt::format("arena.{}.", arena.index);
  batch.number(stats + "nthreads", arena.threads, sizeof(unsigned));
  batch.number(stats + "pactive", arena.active_pages);
  batch.number(stats + "pdirty", arena.dirty.pages);
  batch.number(stats + "pmuzzy", arena.muzzy.pages);
  batch.number(stats + "retained", extra.retained_bytes);
  batch.number(stats + "base", arena.base_bytes);
  batch.number(stats + "internal", arena.internal_bytes);
  batch.number(stats + "tcache_bytes", arena.tcache_bytes);
  batch.number(stats + "small.allocated", extra.small);
  batch.number(stats + "large.allocated", extra.large);
  batch.number(live + "dirty_decay_ms", arena.dirty_decay.time_ms);
  batch.number(live + "muzzy_decay_ms", arena.muzzy_decay.time_ms);
  batch.number(stats + "dirty_npurge", arena.dirty_decay.npurge);
  batch.number(stats + "dirty_nmadvise", arena.dirty_decay.nmadvise);
  batch.number(stats + "dirty_purged", arena.dirty_decay.purged_pages);
  batch.number(stats + "muzzy_npurge", arena.muzzy_decay.npurge);
  batch.number(stats + "muzzy_nmadvise", arena.muzzy_decay.nmadvise);
  batch.number(stats + "muzzy_purged", arena.muzzy_decay.purged_pages);
}

Status read_arenas(Caller& caller, const Start& start, ledger::Reading& reading) {
  const uint64_t count = std::min(start.arenas.value_or(0), most_arenas);
  std::vector<std::optional<uint64_t>> initialized(count);
  Batch which;
  for (uint64_t i = 0; i < count; ++i) {
    which.number(fmt::format("arena.{}.initialized", i), initialized[i], sizeof(bool));
  }
  TRY(which.run(caller));
  for (uint64_t i = 0; i < count; ++i) {
    if (initialized[i].value_or(1) != 0) {
      reading.arenas.emplace_back().index = static_cast<uint32_t>(i);
    }
  }
  std::vector<ArenaExtra> extras(reading.arenas.size());
  Batch batch;
  batch.number("stats.allocated", reading.global.allocated);
  batch.number("stats.active", reading.global.active);
  batch.number("stats.metadata", reading.global.metadata);
  batch.number("stats.resident", reading.global.resident);
  batch.number("stats.mapped", reading.global.mapped);
  batch.number("stats.retained", reading.global.retained);
  for (size_t i = 0; i < extras.size(); ++i) {
    add_arena(batch, reading.arenas[i], extras[i]);
  }
  TRY(batch.run(caller));
  for (size_t i = 0; i < extras.size(); ++i) {
    const ArenaExtra& extra = extras[i];
    if (extra.small && extra.large) {
      reading.arenas[i].allocated_bytes = *extra.small + *extra.large;
    }
    if (extra.retained_bytes && start.page.value_or(0) != 0) {
      reading.arenas[i].retained.pages = *extra.retained_bytes / *start.page;
    }
  }
  return {};
}

Status read_classes(Caller& caller, ledger::Reading& reading) {
  std::optional<uint64_t> bins;
  std::optional<uint64_t> extents;
  Batch counts;
  counts.number("arenas.nbins", bins, sizeof(unsigned));
  counts.number("arenas.nlextents", extents, sizeof(unsigned));
  TRY(counts.run(caller));
  const uint64_t small = std::min(bins.value_or(0), most_classes);
  const uint64_t large = std::min(extents.value_or(0), most_classes);
  reading.classes.resize(small + large);
  Batch batch;
  for (uint64_t i = 0; i < small + large; ++i) {
    ledger::SizeClass& one = reading.classes[i];
    one.large = i >= small;
    const uint64_t index = one.large ? i - small : i;
    batch.add(
        Request::read(fmt::format("arenas.{}.{}.size", one.large ? "lextent" : "bin", index), sizeof(size_t)),
        [&one](const Answer& answer) { one.bytes = answer.value; });
    batch.number(fmt::format("stats.arenas.{}.{}.{}.{}", merged, one.large ? "lextents" : "bins", index,
                             one.large ? "curlextents" : "curregs"),
                 one.blocks);
  }
  return batch.run(caller);
}

}  // namespace

Result<ledger::Reading> call(Caller& caller, const CallOptions& options) {
  ledger::Reading reading;
  reading.method = ledger::Method::call;
  const uint64_t begin = monotonic_ns();
  Start start;
  TRY(read_start(caller, options, start, reading));
  reading.at_ns = monotonic_ns();
  TRY(read_arenas(caller, start, reading));
  if (options.classes) {
    TRY(read_classes(caller, reading));
  }
  Batch last;
  std::optional<uint64_t> epoch;
  last.number("epoch", epoch);
  TRY(last.run(caller));
  if (start.stats && *start.stats == 0) {
    reading.reasons.emplace_back("jemalloc was built without statistics");
  }
  if (!options.epoch) {
    reading.reasons.emplace_back(
        "stats.* are of the last time that the program wrote epoch, which --epoch does anew");
  }
  if (epoch && reading.epoch && *epoch != *reading.epoch) {
    reading.reasons.emplace_back("the program wrote epoch meanwhile: the values are of two moments");
  }
  reading.cost_ns = monotonic_ns() - begin;
  return reading;
}

}  // namespace jemtrace::read
