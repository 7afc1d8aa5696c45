#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "jemtrace/abi.h"
#include "ledger/model.hpp"
#include "serve/exposition.hpp"

/// What all processes have done, by name and cgroup: numbers that only grow while processes come and go, and
/// that stay within a bound however many come.
namespace jemtrace::serve {

/// The counters of one process or of many. Holds only what is not empty.
struct Work {
  using Purge = std::pair<jt_transition, jt_payer>;
  std::map<Purge, ledger::Histogram> purges;
  std::array<std::array<uint64_t, JT_CAUSES>, JT_STATES> sweeps{};
  uint64_t followed_pages = 0, refaulted_pages = 0;

  Work() = default;
  explicit Work(const ledger::Totals& totals);
  void add(const jt_counters& counters);
  void add(jt_transition transition, jt_payer payer, const ledger::Histogram& purges);
  void add(const Work& other);
};

/// The work of a process whose image turned out to be misunderstood after `told`: what a counter has said
/// cannot be taken back, but from then on the source of a purge is unknown.
Work work_since_distrust(const ledger::Totals& told, const ledger::Totals& now);

/// The latest reading and sample of one process.
struct Gauges {
  std::optional<uint64_t> rss_bytes, lazyfree_bytes, allocated_bytes;
  std::optional<uint64_t> active_bytes, dirty_bytes, muzzy_bytes, retained_bytes;
};
/// Of jemalloc's numbers only those that are no older than `max_age_ms`.
Gauges gauges_of(const ledger::Sample& sample, const ledger::States& states, uint64_t max_age_ms);

struct Limits {
  size_t max_targets = 500;  // labelled; the processes of all others are one, named "other"
  bool pid_label = false;    // each process by itself
  /// A target without a process keeps its place this long, so that its last numbers are scraped; no longer,
  /// if another wants it, than a fifth of that.
  uint64_t keep_ended_ns = 3600ULL * 1'000'000'000;
};

/// jemtrace's own: cost, losses, and how it is doing. unset: unknown, and not exported.
struct Own {
  std::string version, kernel;
  std::optional<uint64_t> bpf_run_ns;
  uint64_t sampling_ns = 0, cpu_ns = 0, rss_bytes = 0;
  int64_t start_unix_ns = 0;
  bool follows_refaults = false;
  ledger::Losses losses{};
  std::array<uint64_t, 3> scrapes{};  // by Format
  uint64_t rejected_requests = 0, rejected_connections = 0;
  uint64_t snapshot_ns = 0;  // what making the last one took
  struct Push {
    uint64_t sent = 0, failed = 0, dropped = 0;
    uint64_t queued = 0, queue_bytes = 0;  // one of them may be on its way
  };
  std::optional<Push> push;
};

/// Not thread-safe. A process is named by the moment it was born, as jt_target_id does.
class Accounts {
 public:
  explicit Accounts(Limits limits);

  void begin(uint64_t process, const ledger::TargetInfo& info, uint64_t now_ns);
  void measure(uint64_t process, const Gauges& gauges);
  /// Every finding that it ever had, and whether it has it now.
  void set_findings(uint64_t process, const std::map<std::string, bool>& findings);
  /// A slow purge was seen.
  void slow(uint64_t process, jt_transition transition, jt_payer payer, const Exemplar& exemplar,
            uint64_t now_ns);
  /// With all that the process did.
  void end(uint64_t process, const Work& work, uint64_t now_ns);

  /// `live`: what the processes that live have done so far.
  Exposition expose(const std::map<uint64_t, Work>& live, const Own& own, uint64_t now_ns, int64_t unix_ns);

  [[nodiscard]] size_t targets() const { return targets_.size(); }
  [[nodiscard]] size_t processes() const { return processes_.size(); }

 private:
  using Key = std::tuple<std::string, std::string, pid_t>;  // name, cgroup; the pid with a label for it
  using Image = std::tuple<std::string, std::string, std::string>;  // version, tier, linkage

  struct Recent {
    Exemplar exemplar;
    uint64_t seen_ns = 0;
  };
  /// One set of labels.
  struct Target {
    std::shared_ptr<const Labels> labels;
    Labels container;  // and pod, as the cgroup tells; empty: in none
    int64_t start_unix_ns = 0;
    Work ended;
    size_t live = 0;
    uint64_t idle_since_ns = 0;  // when the last process ended
    std::set<Image> images;
    std::map<std::string, size_t> findings;  // how many processes have it now; 0: had it once
    std::map<Work::Purge, Recent> slowest;
  };
  struct Process {
    Target* target = nullptr;
    Gauges gauges;
    std::set<std::string> findings;
  };
  struct Families;

  Target& target_of(const ledger::TargetInfo& info, uint64_t now_ns);
  bool make_room(uint64_t now_ns);
  void expire(uint64_t now_ns);
  void expose_target(Families& families, const Target& target, const Work& work,
                     const std::vector<const Process*>& processes, uint64_t now_ns);
  void expose_own(Families& families, const Own& own);
  double rising(const std::string& name, double value);

  Limits limits_;
  std::map<Key, Target> targets_;  // nodes stay where they are: Process points to them
  Target other_;
  std::map<uint64_t, Process> processes_;
  uint64_t processes_seen_ = 0, expired_ = 0;
  std::map<std::string, double> rising_;
};

}  // namespace jemtrace::serve
