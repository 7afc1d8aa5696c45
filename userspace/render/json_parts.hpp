#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "ledger/fleet.hpp"
#include "ledger/model.hpp"
#include "render/diagnosis.hpp"
#include "render/output.hpp"
#include "render/reports.hpp"

/// Pieces that several kinds of NDJSON line share.
namespace jemtrace::render {

using Json = nlohmann::ordered_json;

inline constexpr int schema_version = 1;

/// null when unknown.
template <typename T>
Json maybe(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}
Json sampled_value(const ledger::Maybe<ledger::Sampled>& sampled);
/// Escaped: names and paths of targets are arbitrary bytes.
Json text(const std::string& untrusted);
/// The same, null when empty.
Json text_or_null(const std::string& untrusted);
Json hex(uint64_t value);  // "0x7f12": a number would lose digits in JavaScript

Json latency(const ledger::Histogram& h);
/// With the buckets: what is needed to add it to others.
Json mergeable_latency(const ledger::Histogram& h);
/// {"extents_total", "bytes_total", "calls_total", "latency"}, mergeable.
Json amounts(const ledger::Histogram& h);
Json transitions_total(const ledger::Transitions& transitions);
Json states_object(const ledger::States& states);
Json target_line(const ledger::TargetInfo& target);
Json list_line(const ListRow& row);
Json image_line(const ImageReport& report);
Json stats_line(const StatsReport& report);
Json check_line(const CheckItem& item);
Json finding_line(const ledger::Finding& finding);
Json diagnosis_line(const DiagnosisReport& report);
Json flush_line(const FlushReport& report);
/// One line with the sums, then one per run and one per group. Bounded in length, each of them.
void merged_lines(const ledger::Fleet& fleet, const std::function<void(const Json&)>& put);
Json series_line(const advise::Input& input);
Json advice_line(const advise::Advice& advice);
Json trial_line(const advise::Trial& trial, const advise::SweepReport& report);

/// The settings that are always named, null when unknown; others follow when known.
inline constexpr const char* named_settings[] = {
    "dirty_decay_ms", "muzzy_decay_ms", "background_thread", "retain", "narenas", "oversize_threshold", "thp",
};

}  // namespace jemtrace::render
