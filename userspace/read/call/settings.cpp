#include "read/call/settings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "util/text.hpp"

namespace jemtrace::read {
namespace {

constexpr unsigned all_arenas = 4096;  // MALLCTL_ARENAS_ALL
constexpr uint64_t most_arenas = 4095;
/// jemalloc refuses more: NSTIME_SEC_MAX seconds are beyond what 64 bits of milliseconds hold on the way.
constexpr int64_t most_ms = int64_t{1} << 53;

/// The names under which mallctl keeps a setting.
Result<std::vector<std::string>> names_of(Caller& caller, const NewSetting& setting,
                                          std::optional<unsigned> arena) {
  if (!setting.per_arena()) {
    return std::vector<std::string>{setting.name};
  }
  if (arena) {
    return std::vector<std::string>{fmt::format("arena.{}.{}", *arena, setting.name)};
  }
  ASSIGN_OR_RETURN(const auto counted, caller.run({Request::read("arenas.narenas", sizeof(unsigned))}));
  const uint64_t count = counted.front().error == 0 ? std::min(counted.front().value, most_arenas) : 0;
  std::vector<Request> asked;
  for (uint64_t i = 0; i < count; ++i) {
    asked.push_back(Request::read(fmt::format("arena.{}.initialized", i), sizeof(bool)));
  }
  ASSIGN_OR_RETURN(const auto answers, caller.run(asked));
  std::vector<std::string> names = {"arenas." + setting.name};
  for (uint64_t i = 0; i < count; ++i) {
    if (answers[i].error == 0 && answers[i].value != 0) {
      names.push_back(fmt::format("arena.{}.{}", i, setting.name));
    }
  }
  return names;
}

Status invoke(Caller& caller, const char* action, std::optional<unsigned> arena) {
  const std::string name = fmt::format("arena.{}.{}", arena.value_or(all_arenas), action);
  ASSIGN_OR_RETURN(const auto answers, caller.run({Request::invoke(name)}));
  if (const int error = answers.front().error; error != 0) {
    return fail_errno("mallctl " + name, error, arena ? "is there such an arena?" : "");
  }
  return {};
}

}  // namespace

Result<NewSetting> parse_setting(std::string_view text) {
  const size_t equals = text.find('=');
  const auto wrong = [&](const char* why) {
    return fail(Errc::usage, fmt::format("--set {}: {}", escape(text), why),
                "--set dirty_decay_ms=MS, --set muzzy_decay_ms=MS or --set background_thread=true|false");
  };
  if (equals == std::string_view::npos) {
    return wrong("a setting is NAME=VALUE");
  }
  NewSetting setting{.name = std::string(text.substr(0, equals))};
  const std::string_view value = text.substr(equals + 1);
  if (setting.name == "background_thread") {
    if (value != "true" && value != "false") {
      return wrong("background_thread is true or false");
    }
    setting.value = value == "true" ? 1 : 0;
    return setting;
  }
  if (setting.name != "dirty_decay_ms" && setting.name != "muzzy_decay_ms") {
    return wrong("no such setting can be changed");
  }
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), setting.value);
  if (error != std::errc{} || end != value.data() + value.size() || setting.value < -1 ||
      setting.value > most_ms) {
    return wrong("a decay time is a number of milliseconds, 0 for at once, -1 for never");
  }
  return setting;
}

Result<std::vector<Change>> set(Caller& caller, const NewSetting& setting, std::optional<unsigned> arena) {
  const size_t size = setting.per_arena() ? sizeof(ssize_t) : sizeof(bool);
  ASSIGN_OR_RETURN(const std::vector<std::string> names, names_of(caller, setting, arena));
  std::vector<Request> requests;
  for (const std::string& name : names) {
    requests.push_back(Request::read(name, size));
    requests.push_back(Request::write(name, static_cast<uint64_t>(setting.value), size));
    requests.push_back(Request::read(name, size));
  }
  ASSIGN_OR_RETURN(const auto answers, caller.run(requests));
  const auto value = [](const Answer& answer) {
    return answer.error == 0 ? std::optional(static_cast<int64_t>(answer.value)) : std::nullopt;
  };
  std::vector<Change> changes;
  for (size_t i = 0; i < names.size(); ++i) {
    changes.push_back({.name = names[i],
                       .before = value(answers[3 * i]),
                       .after = value(answers[3 * i + 2]),
                       .error = answers[3 * i + 1].error,
                       .wanted = setting.value});
  }
  return changes;
}

Status purge(Caller& caller, std::optional<unsigned> arena) {
  return invoke(caller, "purge", arena);
}

Status decay(Caller& caller, std::optional<unsigned> arena) {
  return invoke(caller, "decay", arena);
}

}  // namespace jemtrace::read
