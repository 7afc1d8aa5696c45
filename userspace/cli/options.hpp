#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "cli/advise_options.hpp"
#include "cli/call_options.hpp"
#include "cli/diagnose_options.hpp"
#include "cli/merge_options.hpp"
#include "cli/serve_options.hpp"
#include "discover/selection.hpp"
#include "util/result.hpp"

namespace jemtrace::cli {

enum class Verb {
  trace,
  list,
  image,
  stats,
  prof,
  diagnose,
  advise,
  sweep,
  serve,
  merge,
  check,
  json_schema
};
enum class Format { text, json };

/// The command line, checked.
struct Options {
  Verb verb = Verb::trace;
  discover::Selection selection;
  std::vector<std::string> command;  // behind "--"
  std::optional<std::chrono::milliseconds> duration;
  std::chrono::milliseconds interval{1000};
  Format format = Format::text;
  std::string output;  // empty: stdout
  bool events = false;
  bool refaults = true;
  bool passive = false;
  bool strict = false;
  bool verbose = false;
  std::string image;  // a file or a pid
  bool rebuild = false;
  bool arenas = false;  // of stats
  CallOptions call;     // of stats
  ProfOptions prof;
  DiagnoseOptions diagnose;
  MergeOptions merge;
  ServeOptions serve;
  AdviseOptions advise;  // and of sweep
};

/// What to do, or what to print and leave with: help and version are no errors.
struct Parsed {
  std::optional<Options> options;
  std::string text;  // for stdout when exit_status is 0, else for stderr
  int exit_status = 0;
};

Parsed parse(int argc, const char* const* argv);

}  // namespace jemtrace::cli
