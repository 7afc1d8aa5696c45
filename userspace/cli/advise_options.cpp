#include "cli/advise_options.hpp"

#include <algorithm>
#include <cctype>

#include "advise/choose.hpp"
#include "util/text.hpp"

namespace jemtrace::cli {
namespace {

void add_grid(CLI::App& app, AdviseOptions& options) {
  app.add_option("--grid", options.grid, "the settings to try: 'dirty=0,1000,-1 muzzy=0,1000 bg=off,on' (ms)")
      ->type_name("GRID");
  app.add_flag("--series", options.series,
               "with -f json: also write what was recorded, to advise again from it");
}

}  // namespace

void add_advise_options(CLI::App& app, AdviseOptions& options) {
  app.add_option(
         "file", options.files,
         "what was saved with --series, or by jemtrace -f json, instead of a process; further files: of "
         "the same program under other settings")
      ->type_name("FILE");
  add_grid(app, options);
}

void add_sweep_options(CLI::App& app, AdviseOptions& options) {
  add_grid(app, options);
  app.add_option("--repeat", options.repeat, "runs of each setting, in turns")
      ->check(CLI::Range(1U, 100U))
      ->capture_default_str();
  app.add_option("--conf-var", options.conf_var,
                 "the variable that the settings are given in [by the prefix of the image]")
      ->type_name("NAME");
}

Status check_advise(const AdviseOptions& options, bool with_selection, bool json) {
  if (!options.files.empty() && with_selection) {
    return fail(Errc::usage, "a file and a selection of processes exclude each other");
  }
  if (options.series && !json) {
    return fail(Errc::usage, "--series belongs to -f json");
  }
  if (!options.grid.empty()) {
    TRY(advise::parse_grid(options.grid, {}));
  }
  const bool is_name = std::all_of(options.conf_var.begin(), options.conf_var.end(),
                                   [](unsigned char c) { return std::isalnum(c) != 0 || c == '_'; });
  if (!is_name) {
    return fail(Errc::usage, "'" + escape(options.conf_var) + "' is no name of a variable");
  }
  return {};
}

}  // namespace jemtrace::cli
