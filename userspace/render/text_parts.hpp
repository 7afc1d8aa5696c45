#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "ledger/model.hpp"
#include "render/output.hpp"
#include "render/reports.hpp"
#include "render/text_table.hpp"

/// The pieces of the text output; each returns whole lines.
namespace jemtrace::render {

constexpr size_t label_width = 11;  // "paid by    "

std::string bold(const std::string& line, const TextOptions& options);
std::string dim(const std::string& line, const TextOptions& options);

/// A header and its rows, fitted to them.
std::string table(std::vector<Column> layout, const std::vector<std::vector<std::string>>& rows,
                  const TextOptions& options);

std::string target_text(const ledger::TargetInfo& target, const TextOptions& options);
std::string summary_text(const ledger::Summary& summary, const TextOptions& options, bool with_legend);

std::string list_text(const std::vector<ListRow>& rows, const TextOptions& options);
std::string image_text(const ImageReport& report, const TextOptions& options);
std::string stats_text(const StatsReport& report, const TextOptions& options);
std::string diagnosis_text(const DiagnosisReport& report, const TextOptions& options);
std::string flush_text(const FlushReport& report, const TextOptions& options);
std::string merged_text(const ledger::Fleet& fleet, const TextOptions& options);
std::string check_text(const std::vector<CheckItem>& items, const TextOptions& options);
std::string advice_text(const advise::Advice& advice, const TextOptions& options);
std::string sweep_text(const advise::SweepReport& report, const TextOptions& options);

/// The lines of the intervals.
class LiveTable {
 public:
  /// `with_states`: whether ACTIVE, DIRTY, MUZZY and RETAINED can be known at all.
  LiveTable(const TextOptions& options, bool with_states);
  [[nodiscard]] std::string header() const { return columns_.header(); }
  [[nodiscard]] std::string row(const ledger::Interval& interval) const;

 private:
  bool several_targets_, with_states_;
  Columns columns_;
};

/// The lines of --events.
class EventTable {
 public:
  EventTable(const TextOptions& options, const ledger::Header& start);
  [[nodiscard]] std::string header() const { return columns_.header(); }
  [[nodiscard]] std::string row(const jt_call_event& event) const;
  [[nodiscard]] std::string row(const ledger::SweepEvent& event) const;

 private:
  [[nodiscard]] std::string time_of(uint64_t ts_ns) const;
  ledger::Maybe<uint64_t> start_mono_ns_;
  int64_t start_unix_ns_;
  Columns columns_;
};

}  // namespace jemtrace::render
