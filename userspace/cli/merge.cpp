#include <fmt/format.h>

#include <cstdio>
#include <memory>

#include "cli/run.hpp"
#include "record/summaries.hpp"
#include "util/say.hpp"
#include "util/text.hpp"

namespace jemtrace::cli {
namespace {

struct Close {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, Close>;

Result<record::Summaries> read(const std::string& path) {
  if (path == "-") {
    return record::read_summaries(stdin, "standard input");
  }
  const File file(std::fopen(path.c_str(), "re"));
  if (!file) {
    return fail_errno("cannot read " + escape(path));
  }
  return record::read_summaries(file.get(), path);
}

Status add(const std::string& path, ledger::Fleet& fleet) {
  ASSIGN_OR_RETURN(const record::Summaries one, read(path));
  if (auto merged = fleet.merge(one.fleet); !merged) {
    Error error = std::move(merged).error();
    error.what = fmt::format("{}: {}", escape(path), error.what);
    error.hint =
        error.code == Errc::usage
            ? "name each run once; --keep-going leaves out a file with a run that was counted already"
            : "";
    return tl::unexpected<Error>(std::move(error));
  }
  for (const std::string& warning : one.warnings) {
    say("{}", warning);
  }
  return {};
}

void warn_of_overlaps(const ledger::Fleet& fleet) {
  constexpr size_t named = 5;
  for (const auto& [first, second] : fleet.overlaps(named)) {
    say("{}", fmt::format("two runs of {} overlap in time: a process that both traced is counted twice",
                          first->host.empty() ? "an unnamed host" : first->host));
  }
}

Status write_html(const std::string& path, const ledger::Fleet& fleet) {
  File file(std::fopen(path.c_str(), "we"));
  if (!file) {
    return fail_errno("cannot write " + escape(path));
  }
  const std::string page = render::merged_html(fleet);
  const bool written = std::fwrite(page.data(), 1, page.size(), file.get()) == page.size();
  if (std::fclose(file.release()) != 0 || !written) {
    return fail_errno("cannot write " + escape(path));
  }
  return {};
}

}  // namespace

Result<int> merge(const Options& options) {
  ledger::Fleet fleet;
  size_t left_out = 0;
  for (const std::string& path : options.merge.files) {
    if (auto added = add(path, fleet); !added) {
      // With a sum out of range what came before is lost, too.
      const bool ruined =
          added.error().code == Errc::malformed && added.error().what.find("64 bits") != std::string::npos;
      if (!options.merge.keep_going || ruined) {
        Error error = std::move(added).error();
        error.code = error.code == Errc::usage ? Errc::malformed : error.code;  // the command line was right
        return tl::unexpected<Error>(std::move(error));
      }
      say("{}", added.error().message() + "; left out");
      ++left_out;
    }
  }
  if (fleet.runs().empty()) {
    return fail(Errc::malformed, "no file could be read");
  }
  if (left_out > 0) {
    say("{}", fmt::format("{} of {} files were left out", left_out, options.merge.files.size()));
  }
  warn_of_overlaps(fleet);
  if (!options.merge.html.empty()) {
    TRY(write_html(options.merge.html, fleet));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<Results> results, Results::open(options, true));
  results->out().merged(fleet);
  TRY(results->finish());
  return exit_status::ok;
}

}  // namespace jemtrace::cli
