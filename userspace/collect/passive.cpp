#include "collect/passive.hpp"

#include <fmt/format.h>
#include <string.h>

#include <algorithm>

#include "util/text.hpp"

namespace jemtrace::collect {
namespace {

constexpr size_t max_names = 512;
constexpr uint64_t fresh_ns = 100'000'000;

std::vector<uint64_t> mib_of(const jt_mallctl_event& event) {
  return {event.mib, event.mib + std::min<uint32_t>(event.mib_len, JT_MIB_LEN)};
}

std::string text_of(const jt_mallctl_event& event) {
  return {event.name, ::strnlen(event.name, sizeof event.name)};
}

}  // namespace

std::optional<std::string> Passive::name_of(const jt_mallctl_event& event) const {
  if (event.api == JT_API_MALLCTL) {
    return text_of(event);
  }
  const auto known = names_.find(mib_of(event));
  return known == names_.end() ? std::nullopt : std::optional(known->second);
}

void Passive::add(const jt_mallctl_event& event) {
  if (event.api == JT_API_NAMETOMIB) {
    if (names_.size() < max_names) {
      names_[mib_of(event)] = text_of(event);
    }
    return;
  }
  if (event.api != JT_API_MALLCTL && event.api != JT_API_BYMIB) {
    return;
  }
  const auto name = name_of(event);
  if (!name) {
    unnamed_ += 1;
    return;
  }
  if (*name == "epoch") {
    counted_ns_ = event.wrote != 0 ? std::optional(event.h.ts_ns) : counted_ns_;
    return;
  }
  // A pointer, as stats.cactive was, or a text, is no number of bytes.
  if (event.value_bytes == sizeof(uint64_t) && (values_.size() < max_names || values_.contains(*name))) {
    values_[*name] = {event.value, event.h.ts_ns, counted_ns_};
  }
}

const Passive::Value* Passive::find(const std::string& name) const {
  const auto found = values_.find(name);
  return found == values_.end() ? nullptr : &found->second;
}

ledger::States Passive::states(uint64_t now_ns) const {
  ledger::States states;
  std::optional<uint64_t> oldest = now_ns;
  const auto take = [&](const char* name, ledger::Maybe<uint64_t>& into) {
    if (const Value* value = find(name)) {
      into = value->value;
      states.method = ledger::name(ledger::Method::passive);
      oldest =
          oldest && value->counted_ns ? std::optional(std::min(*oldest, *value->counted_ns)) : std::nullopt;
    }
  };
  take("stats.allocated", states.allocated_bytes);
  take("stats.active", states.active_bytes);
  take("stats.retained", states.retained_bytes);
  if (!states.method.empty() && oldest) {
    states.age_ms = (now_ns - std::min(*oldest, now_ns)) / 1'000'000;
  }
  return states;
}

ledger::Asked Passive::asked(uint64_t now_ns) const {
  ledger::Asked out{.values = {}, .compared = compared_, .different = different_, .skipped = 0};
  for (const auto& [name, value] : values_) {
    ledger::Maybe<uint64_t> age_ms;
    if (value.counted_ns) {
      age_ms = (now_ns - std::min(*value.counted_ns, now_ns)) / 1'000'000;
    }
    out.values.push_back({name, value.value, age_ms});
  }
  return out;
}

bool Passive::is_fresh_active(const jt_mallctl_event& event) const {
  return event.value_bytes == sizeof(uint64_t) && counted_ns_ && event.h.ts_ns - *counted_ns_ < fresh_ns &&
         name_of(event) == "stats.active";
}

void Passive::compare(uint64_t passive_bytes, uint64_t structures_bytes) {
  constexpr uint64_t movement = uint64_t{2} << 20;
  compared_ += 1;
  const uint64_t difference =
      std::max(passive_bytes, structures_bytes) - std::min(passive_bytes, structures_bytes);
  if (difference > movement + std::max(passive_bytes, structures_bytes) / 20) {
    different_ += 1;
    difference_ = fmt::format("stats.active was {}, and its structures said {}", human_bytes(passive_bytes),
                              human_bytes(structures_bytes));
  }
}

std::vector<std::string> Passive::caveats() const {
  std::vector<std::string> out;
  if (different_ * 4 > compared_) {
    out.push_back(
        fmt::format("what the process asked its jemalloc differs from its structures, {} of {} times: {}",
                    different_, compared_, difference_));
  }
  if (unnamed_ > 0) {
    out.push_back(fmt::format(
        "{} answers of mallctlbymib could not be used: what they are of was settled before tracing began",
        unnamed_));
  }
  return out;
}

}  // namespace jemtrace::collect
