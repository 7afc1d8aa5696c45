#pragma once

#include <memory>

#include "cli/options.hpp"
#include "render/output.hpp"
#include "util/result.hpp"

namespace jemtrace::cli {

/// The exit statuses of the command line's contract.
namespace exit_status {
constexpr int ok = 0, failure = 1, usage = 2, no_target = 3, incomplete = 4, cannot_trace = 77;
}

/// The whole program; its return value is the exit status.
int run(int argc, const char* const* argv);

/// Prints "jemtrace: what" and "hint: what to do" on standard error, and gives the exit status that goes with
/// it.
int report(const Error& error);

/// Who says what follows, where and since when.
ledger::Header make_header(const Options& options);

/// Where results go: a file or standard output, as text or NDJSON.
class Results {
 public:
  static Result<std::unique_ptr<Results>> open(const Options& options, bool several_targets);
  ~Results();
  Results(const Results&) = delete;
  Results& operator=(const Results&) = delete;
  [[nodiscard]] render::Output& out() { return *output_; }
  void print(const std::string& text) { sink_->write(text); }
  /// False once the reader is gone: nobody wants more.
  [[nodiscard]] bool wanted() const { return !sink_->failed(); }
  /// Hands everything over. A full disk is an error; a reader that has gone is none.
  Status finish();

 private:
  Results() = default;
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::unique_ptr<std::FILE, Close> file_;
  std::unique_ptr<render::Sink> sink_;
  std::unique_ptr<render::Output> output_;
  std::string name_;
};

Result<int> trace(const Options& options);
Result<int> list(const Options& options);
Result<int> image(const Options& options);
Result<int> stats(const Options& options);
Result<int> stats_by_call(const Options& options);
Result<int> prof(const Options& options);
Result<int> diagnose(const Options& options);
Result<int> merge(const Options& options);
Result<int> serve_metrics(const Options& options);
Result<int> advise_settings(const Options& options);
Result<int> sweep(const Options& options);
Result<int> check(const Options& options);

}  // namespace jemtrace::cli
