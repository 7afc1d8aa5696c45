#include "read/call/prof.hpp"

#include <fmt/format.h>

#include <cstdio>

#include "cli/run.hpp"
#include "cli/stats_call.hpp"
#include "util/text.hpp"

namespace jemtrace::cli {
namespace {

Status write_file(const std::string& path, const std::string& text) {
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  const std::unique_ptr<std::FILE, Close> file(std::fopen(path.c_str(), "we"));
  if (!file || std::fwrite(text.data(), 1, text.size(), file.get()) != text.size() ||
      std::fflush(file.get()) != 0) {
    return fail_errno("cannot write " + escape(path));
  }
  return {};
}

}  // namespace

Result<int> prof(const Options& options) {
  const ProfOptions& asked = options.prof;
  ASSIGN_OR_RETURN(const std::unique_ptr<Results> results, Results::open(options, false));
  ASSIGN_OR_RETURN(const auto callee, Callee::open(options.selection.pids.front()));
  read::Caller& caller = callee->caller();
  if (!asked.dump.empty()) {
    TRY(read::prof_dump(caller, asked.dump));
    results->print(fmt::format("the process wrote its heap profile to {}, in its own mount namespace\n",
                               escape(asked.dump)));
  } else if (!asked.recent.empty()) {
    ASSIGN_OR_RETURN(const std::string text, read::prof_recent(caller));
    TRY(write_file(asked.recent, text));
    results->print(fmt::format("wrote {} bytes to {}\n", text.size(), escape(asked.recent)));
  } else {
    ASSIGN_OR_RETURN(const bool before, read::prof_activate(caller, asked.activate));
    results->print(fmt::format("prof.active: {} -> {}\n", before, asked.activate));
  }
  results->print(describe_pause(caller) + "\n");
  TRY(results->finish());
  return exit_status::ok;
}

}  // namespace jemtrace::cli
