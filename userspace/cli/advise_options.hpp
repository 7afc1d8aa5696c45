#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "util/result.hpp"

namespace jemtrace::cli {

/// Of advise and sweep.
struct AdviseOptions {
  std::vector<std::string> files;  // advise: instead of processes
  std::string grid;                // the settings to try, as typed; empty: the usual ones
  bool series = false;             // also write what was recorded
  unsigned repeat = 2;             // sweep: runs of each setting
  std::string conf_var;            // sweep: empty: by the image's prefix
};

void add_advise_options(CLI::App& app, AdviseOptions& options);
void add_sweep_options(CLI::App& app, AdviseOptions& options);
Status check_advise(const AdviseOptions& options, bool with_selection, bool json);

}  // namespace jemtrace::cli
