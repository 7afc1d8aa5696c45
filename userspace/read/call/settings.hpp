#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "read/call/caller.hpp"

/// What mallctl can change in a process that runs.
namespace jemtrace::read {

/// NAME=VALUE, checked: dirty_decay_ms, muzzy_decay_ms, background_thread.
struct NewSetting {
  std::string name;
  int64_t value = 0;  // background_thread: 0 or 1
  [[nodiscard]] bool per_arena() const { return name != "background_thread"; }
};
Result<NewSetting> parse_setting(std::string_view text);

/// One value that was set; `after` is read back.
struct Change {
  std::string name;  // of mallctl: "arena.0.dirty_decay_ms"
  std::optional<int64_t> before, after;
  int error = 0;  // of the write, errno
  int64_t wanted = 0;
  [[nodiscard]] bool confirmed() const { return error == 0 && after == wanted; }
};

/// Sets it for one arena, or for all there are and, as the default, for those to come.
Result<std::vector<Change>> set(Caller& caller, const NewSetting& setting, std::optional<unsigned> arena);

/// Writes arena.<i>.purge (all dirty and muzzy pages) or arena.<i>.decay (what is due), for one or all
/// arenas.
Status purge(Caller& caller, std::optional<unsigned> arena);
Status decay(Caller& caller, std::optional<unsigned> arena);

}  // namespace jemtrace::read
