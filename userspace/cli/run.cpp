#include "cli/run.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "util/clock.hpp"
#include "util/say.hpp"
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

int exit_status_of(const Error& error) {
  switch (error.code) {
    case Errc::usage:
      return exit_status::usage;
    case Errc::no_target:
      return exit_status::no_target;
    case Errc::cannot_run:
      return error.sys == ENOENT ? 127 : 126;  // as shells say it
    case Errc::cannot_trace:
      return exit_status::cannot_trace;
    default:
      return exit_status::failure;
  }
}

/// Where one was closed, a file of ours would take its number, and get what is said there. Nobody can write
/// to this one: that is told where it matters.
void occupy_standard_files() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (::fcntl(fd, F_GETFD) < 0 && errno == EBADF) {
      (void)::open("/dev/null", O_RDONLY);  // takes the lowest number that is free
    }
  }
}

Result<int> print(const Options& options, const std::string& text) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Results> results, Results::open(options, false));
  results->print(text);
  TRY(results->finish());
  return exit_status::ok;
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
      return print(options, render::json_schema());
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
  say("{}", error.message());
  if (!error.hint.empty()) {
    tell("hint: " + error.hint + "\n");
  }
  return exit_status_of(error);
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
  occupy_standard_files();
  const Parsed parsed = parse(argc, argv);
  if (!parsed.options && parsed.exit_status != exit_status::ok) {
    tell(parsed.text);
    return parsed.exit_status;
  }
  const auto status = parsed.options ? dispatch(*parsed.options) : print(Options(), parsed.text);
  return status ? *status : report(status.error());
}

}  // namespace jemtrace::cli
