#include "cli/run.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "util/clock.hpp"
#include "util/text.hpp"

namespace jemtrace::cli {
namespace {

size_t terminal_width() {
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 80) {
    return size.ws_col;
  }
  return 80;
}

int exit_status_of(Errc code) {
  switch (code) {
    case Errc::usage:
      return exit_status::usage;
    case Errc::no_target:
      return exit_status::no_target;
    default:
      return exit_status::failure;
  }
}

Result<int> dispatch(const Options& options) {
  switch (options.verb) {
    case Verb::list:
      return list(options);
    case Verb::image:
      return image(options);
    case Verb::stats:
      return stats(options);
    case Verb::prof:
      return prof(options);
    case Verb::diagnose:
      return diagnose(options);
    case Verb::merge:
      return merge(options);
    case Verb::serve:
      return serve_metrics(options);
    case Verb::check:
      return check(options);
    case Verb::advise:
      return advise_settings(options);
    case Verb::sweep:
      return sweep(options);
    case Verb::json_schema:
      std::fputs(render::json_schema().c_str(), stdout);
      return exit_status::ok;
    case Verb::trace:
      break;
  }
  return trace(options);
}

}  // namespace

ledger::Header make_header(const Options& options) {
  utsname host{};
  ::uname(&host);
  return {.jemtrace_version = JEMTRACE_VERSION,
          .kernel = host.release,
          .host = host.nodename,
          .start_unix_ns = unix_ns(),
          .start_mono_ns = monotonic_ns(),
          .command = options.command};
}

int report(const Error& error) {
  fmt::print(stderr, "jemtrace: {}\n", error.message());
  if (!error.hint.empty()) {
    fmt::print(stderr, "hint: {}\n", error.hint);
  }
  return exit_status_of(error.code);
}

Results::~Results() = default;

Result<std::unique_ptr<Results>> Results::open(const Options& options, bool several_targets) {
  std::unique_ptr<Results> results(new Results);
  std::FILE* file = stdout;
  results->name_ = "standard output";
  if (!options.output.empty() && options.output != "-") {
    results->file_.reset(std::fopen(options.output.c_str(), "we"));
    if (!results->file_) {
      return fail_errno("cannot write " + escape(options.output));
    }
    file = results->file_.get();
    results->name_ = escape(options.output);
  }
  results->sink_ = std::make_unique<render::FileSink>(file);
  if (options.format == Format::json) {
    results->output_ = render::make_ndjson(*results->sink_);
  } else {
    const bool terminal = ::isatty(::fileno(file)) != 0;
    const char* no_colour = std::getenv("NO_COLOR");
    results->output_ = render::make_text(*results->sink_,
                                         {.width = terminal ? terminal_width() : 80,
                                          .colour = terminal && (no_colour == nullptr || *no_colour == '\0'),
                                          .several_targets = several_targets,
                                          .repeat_header = terminal});
  }
  return results;
}

Status Results::finish() {
  sink_->flush();
  if (sink_->failed() && sink_->error() != EPIPE) {
    return fail_errno("cannot write " + name_, sink_->error());
  }
  return {};
}

int run(int argc, const char* const* argv) {
  ::signal(SIGPIPE, SIG_IGN);  // a closed pipe is seen where it is written to
  const Parsed parsed = parse(argc, argv);
  if (!parsed.options) {
    std::fputs(parsed.text.c_str(), parsed.exit_status == 0 ? stdout : stderr);
    return parsed.exit_status;
  }
  const auto status = dispatch(*parsed.options);
  return status ? *status : report(status.error());
}

}  // namespace jemtrace::cli
