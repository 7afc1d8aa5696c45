#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "read/call/settings.hpp"
#include "util/result.hpp"

namespace jemtrace::cli {

/// What stats may ask of the process itself. Nothing of it is a default.
struct CallOptions {
  bool wanted = false;  // --mallctl=call
  bool epoch = false, purge = false, decay = false, classes = false;
  std::vector<read::NewSetting> sets;
  std::optional<unsigned> arena;
};

/// What prof is asked for; exactly one.
struct ProfOptions {
  std::string dump, recent;  // files
  bool activate = false, deactivate = false;
};

/// As the user typed them.
struct RawCall {
  std::string mallctl, dump, recent;
  std::vector<std::string> sets;
  std::optional<unsigned> arena;
  bool epoch = false, purge = false, decay = false, classes = false, activate = false, deactivate = false;
};

void add_call_options(CLI::App& app, RawCall& raw);
void add_prof_options(CLI::App& app, RawCall& raw);
Result<CallOptions> check_call(const RawCall& raw);
Result<ProfOptions> check_prof(const RawCall& raw);

}  // namespace jemtrace::cli
