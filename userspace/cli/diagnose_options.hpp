#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "discover/selection.hpp"
#include "util/result.hpp"

namespace jemtrace::cli {

struct DiagnoseOptions {
  bool call = false;            // --mallctl=call: how much is allocated, with an epoch
  bool since_oom = false;       // the last kill in the kernel's log counts, too
  bool flush_lazyfree = false;  // instead of a diagnosis
};

/// As the user typed them.
struct RawDiagnose {
  std::string mallctl;
  bool since_oom = false, flush_lazyfree = false;
};

void add_diagnose_options(CLI::App& app, RawDiagnose& raw);
Result<DiagnoseOptions> check_diagnose(const RawDiagnose& raw, const discover::Selection& selection);

}  // namespace jemtrace::cli
