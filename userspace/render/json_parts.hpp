#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "ledger/model.hpp"
#include "render/reports.hpp"

/// Pieces that several kinds of NDJSON line share.
namespace jemtrace::render {

using Json = nlohmann::ordered_json;

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

Json states_object(const ledger::States& states);
Json target_line(const ledger::TargetInfo& target);
Json list_line(const ListRow& row);
Json image_line(const ImageReport& report);
Json stats_line(const StatsReport& report);
Json check_line(const CheckItem& item);

/// The settings that are always named, null when unknown; others follow when known.
inline constexpr const char* named_settings[] = {
    "dirty_decay_ms", "muzzy_decay_ms", "background_thread", "retain", "narenas", "oversize_threshold", "thp",
};

}  // namespace jemtrace::render
