#include "cli/merge_options.hpp"

namespace jemtrace::cli {

void add_merge_options(CLI::App& app, MergeOptions& options) {
  app.add_option("files", options.files,
                 "what jemtrace -f json or jemtrace merge -f json wrote; - is standard input")
      ->required()
      ->type_name("FILE");
  app.add_option("--html", options.html, "also write one HTML file, which needs nothing else")
      ->type_name("FILE");
  app.add_flag("--keep-going", options.keep_going,
               "leave out, with a warning, a file that cannot be read or whose run was counted already");
}

}  // namespace jemtrace::cli
