#include <fmt/format.h>

#include <array>
#include <cmath>
#include <ctime>

#include "render/text_parts.hpp"
#include "render/words.hpp"
#include "util/text.hpp"

namespace jemtrace::render {
namespace {

constexpr int64_t second = 1'000'000'000;

std::string time_of_day(int64_t unix_ns) {
  const auto when = static_cast<time_t>(unix_ns / second);
  std::tm local{};
  localtime_r(&when, &local);
  return fmt::format("{:02}:{:02}:{:02}", local.tm_hour, local.tm_min, local.tm_sec);
}

double per_second(uint64_t amount, uint64_t window_ns) {
  return window_ns == 0
             ? 0
             : static_cast<double>(amount) * static_cast<double>(second) / static_cast<double>(window_ns);
}

std::string rate(uint64_t amount, uint64_t window_ns) {
  const double value = per_second(amount, window_ns);
  return value > 0 && value < 9.95 ? fmt::format("{:.1f}", value)
                                   : human_count(static_cast<uint64_t>(std::llround(value)));
}

std::vector<Column> live_columns(bool several_targets, bool with_states) {
  std::vector<Column> columns = {{"TIME", 8, true}};
  if (several_targets) {
    columns.push_back({"PID", 7});
    columns.push_back({"NAME", 15, true});
  }
  if (with_states) {
    columns.push_back({"ACTIVE", 7, false, 4});
    columns.push_back({"DIRTY", 7});
    columns.push_back({"MUZZY", 7, false, 1});
    columns.push_back({"RETAINED", 8, false, 3});
  }
  columns.push_back({"RSS", 7});
  columns.push_back({"LAZYFREE", 8});
  columns.push_back({"PURGES/s", 8});
  columns.push_back({"PURGED/s", 8, false, 5});
  columns.push_back({"P99", 6});
  columns.push_back({.header = "APP PAYS", .width = 8, .short_header = "APP", .min_width = 5});
  return columns;
}

const char* arrow_name(unsigned transition) {
  static constexpr std::array<const char*, JT_TRANSITIONS> names = {
      "dirty -> muzzy",    "dirty -> retained",    "muzzy -> retained",   "dirty -> returned",
      "muzzy -> returned", "retained -> returned", "unknown -> retained", "unknown -> returned",
  };
  return transition < JT_TRANSITIONS ? names[transition] : nullptr;
}

/// A purge is named by its states, anything else by its purpose.
std::string what_happened(const jt_call_event& e) {
  const char* arrow = arrow_name(e.transition);
  return arrow != nullptr ? arrow : ledger::name(static_cast<jt_purpose>(e.purpose));
}

const char* short_cause(unsigned cause) {
  static constexpr std::array<const char*, JT_CAUSES> names = {
      "-", "tick", "bg", "decay", "purge", "zero", "oversize", "exit",
  };
  return cause < JT_CAUSES ? names[cause] : "-";
}

std::string arena_or_dash(uint32_t arena) {
  return arena == JT_NO_ARENA ? "-" : fmt::format("{}", arena);
}

}  // namespace

LiveTable::LiveTable(const TextOptions& options, bool with_states)
    : several_targets_(options.several_targets),
      with_states_(with_states),
      columns_(live_columns(options.several_targets, with_states), options.width) {}

std::string LiveTable::row(const ledger::Interval& interval) const {
  std::array<ledger::Histogram, JT_PAYERS> paid;
  for (const ledger::TransitionTotals& totals : interval.delta.transitions) {
    for (unsigned payer = 0; payer < JT_PAYERS; ++payer) {
      paid[payer].merge(totals.by_payer[payer]);
    }
  }
  ledger::Histogram all = paid[JT_PAYER_APP];
  all.merge(paid[JT_PAYER_BACKGROUND]);

  std::vector<std::string> cells = {time_of_day(interval.unix_ns)};
  if (several_targets_) {
    cells.push_back(std::to_string(interval.pid));
    cells.push_back(escape(interval.comm));
  }
  if (with_states_) {
    const ledger::States& states = interval.states;
    for (const auto* bytes :
         {&states.active_bytes, &states.dirty_bytes, &states.muzzy_bytes, &states.retained_bytes}) {
      cells.push_back(bytes_or_dash(*bytes));
    }
  }
  cells.push_back(bytes_or_dash(interval.sample.rss_bytes));
  cells.push_back(bytes_or_dash(interval.sample.lazyfree_bytes));
  cells.push_back(rate(all.count(), interval.window_ns));
  cells.push_back(all.count() == 0
                      ? ""
                      : human_bytes(static_cast<uint64_t>(per_second(all.bytes(), interval.window_ns))));
  cells.push_back(all.count() == 0 ? "" : human_ns(all.quantile_ns(0.99)));
  cells.push_back(all.count() == 0 ? "" : percent(paid[JT_PAYER_APP].sum_ns(), all.sum_ns()));
  return columns_.row(cells);
}

EventTable::EventTable(const TextOptions& options, const ledger::Header& start)
    : start_mono_ns_(start.start_mono_ns),
      start_unix_ns_(start.start_unix_ns),
      columns_({{"TIME", 12, true},
                {"TID", 7},
                {"THREAD", 15, true, 0, "", 9},
                {"WHAT", 17, true},
                {"BYTES", 7},
                {"TOOK", 6},
                {"ARENA", 5},
                {"CAUSE", 8, true}},
               options.width) {
  columns_.fit({});
}

/// Time of day with milliseconds, or the seconds of the monotonic clock when nothing ties the two together.
std::string EventTable::time_of(uint64_t ts_ns) const {
  if (!start_mono_ns_) {
    return fmt::format("{}.{:06}", ts_ns / second, ts_ns % second / 1000);
  }
  const int64_t unix_ns = start_unix_ns_ + static_cast<int64_t>(ts_ns - *start_mono_ns_);
  return fmt::format("{}.{:03}", time_of_day(unix_ns), unix_ns % second / 1'000'000);
}

std::string EventTable::row(const jt_call_event& e) const {
  const std::string comm(e.h.comm, sizeof e.h.comm);
  const std::string cause = e.ret < 0 ? fmt::format("errno {}", -int64_t{e.ret}) : short_cause(e.cause);
  return columns_.row({time_of(e.h.ts_ns), std::to_string(e.h.tid), escape(comm.substr(0, comm.find('\0'))),
                       what_happened(e), human_bytes(e.len), human_ns(e.latency_ns), arena_or_dash(e.arena),
                       cause});
}

std::string EventTable::row(const ledger::SweepEvent& e) const {
  return columns_.row({time_of(e.ts_ns), std::to_string(e.tid), escape(e.comm),
                       fmt::format("{} sweep, {}", ledger::name(e.state), human_count(e.extents)),
                       human_bytes(e.bytes), human_ns(e.latency_ns),
                       arena_or_dash(e.arena.value_or(JT_NO_ARENA)), short_cause(e.cause)});
}

}  // namespace jemtrace::render
