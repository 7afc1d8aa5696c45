#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace jemtrace::cli {

struct MergeOptions {
  std::vector<std::string> files;  // "-": standard input
  std::string html;                // empty: none
  bool keep_going = false;
};

void add_merge_options(CLI::App& app, MergeOptions& options);

}  // namespace jemtrace::cli
