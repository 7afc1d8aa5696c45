#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "collect/tracer.hpp"
#include "explain/alerts.hpp"
#include "serve/accounts.hpp"

namespace jemtrace::cli {

/// The tracer's side of serve: traces, samples in turn, and makes expositions. For one thread.
class ServeWatch {
 public:
  struct Options {
    collect::TracerOptions tracing;
    serve::Limits limits;
    std::string version, kernel;
    uint64_t sample_every_ns = 10'000'000'000;
    /// What the server and the pusher have counted.
    std::function<void(serve::Own&)> add_counts;
  };
  static Result<std::unique_ptr<ServeWatch>> start(Options options);

  [[nodiscard]] int wait_fd() const { return tracer_->wait_fd(); }
  Status poll() { return tracer_->poll(); }
  /// Samples those whose turn it is, for some milliseconds at most. Returns when it wants to be called again.
  uint64_t sample_some(uint64_t now_ns);
  serve::Exposition expose();
  void stop() { tracer_->stop(); }
  [[nodiscard]] size_t targets() const { return watched_.size(); }

 private:
  /// What is remembered of a target that lives.
  struct Watched {
    uint64_t sample_at_ns = 0;
    std::optional<ledger::Totals> told;  // when its image lost our trust
    /// The moment before, for findings. Only for as many targets as have series: it is large.
    struct Before {
      ledger::Totals totals;
      ledger::Sample sample;
      ledger::States states;
      uint64_t at_ns = 0;
    };
    std::unique_ptr<Before> before;
    explain::Alerts alerts;
  };

  explicit ServeWatch(Options options);
  void begin(collect::Target& target);
  void end(collect::Target& target);
  void slow(const collect::Target& target, const jt_call_event& event);
  void sample(collect::Target& target, Watched& watched, uint64_t now_ns);
  void look_for_findings(const collect::Target& target, Watched& watched, const ledger::Totals& totals,
                         uint64_t now_ns);
  static serve::Work work_of(const Watched& watched, const ledger::Totals& totals);
  static void add_cost(serve::Own& own, const jt_counters& counters, uint64_t sampling_ns);

  Options options_;
  serve::Accounts accounts_;
  std::map<uint64_t, Watched> watched_;  // by born_ns
  std::map<uint64_t, uint64_t> due_;     // when to sample, and whom
  size_t with_before_ = 0;
  serve::Own ended_;  // cost of those that have ended
  uint64_t snapshot_ns_ = 0;
  int64_t start_unix_ns_;
  std::unique_ptr<collect::Tracer> tracer_;  // last: its end calls end()
};

}  // namespace jemtrace::cli
