#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "attach/bpf_object.hpp"
#include "collect/images.hpp"
#include "collect/target.hpp"
#include "discover/selection.hpp"
#include "ledger/model.hpp"
#include "util/file.hpp"

/// Brings kernel side and /proc together: which processes are targets, and what each of them has done.
namespace jemtrace::collect {

struct TracerOptions {
  discover::Selection selection;
  bool every_event = false;         // --events: each call is handed on, not only counted
  std::optional<uint64_t> slow_ns;  // calls that take at least this long are handed on
  bool context = false;             // what purges wait for, and OOM kills: Tracer::waits, Listener::on_oom
  bool refaults = true;             // which purged pages are touched again
  bool passive = false;             // what the targets ask their own jemalloc
  bool details = true;              // payers and call sites of each target, read when it ends
  bool time_mmap = false;           // how long mmap takes by which jemalloc gives pages back
  std::optional<pid_t> launch;      // a process about to exec: it and its descendants are the targets
};

/// How long the parts of starting and stopping took, for -v and the benchmarks.
struct Timings {
  uint64_t load_ns = 0, scan_ns = 0, attach_ns = 0;
  uint64_t stop_ns = 0;    // until the last numbers are there
  uint64_t detach_ns = 0;  // until nothing is left in the kernel; begins with that
};

/// Not thread-safe. Errors about one target are kept as that target's caveats; only what stops the whole is
/// returned.
class Tracer {
 public:
  struct Listener {
    std::function<void(Target&)> on_target;  // a target is complete: its images are known
    std::function<void(Target&)> on_end;     // it has ended; its final numbers are in place
    std::function<void(Target&, const jt_call_event&)> on_call;  // with every_event or slow_ns
    std::function<void(const ledger::OomKill&)> on_oom;          // with context: any process of the host
  };

  static Result<std::unique_ptr<Tracer>> start(TracerOptions options, Listener listener,
                                               ProcRoot proc = ProcRoot());
  ~Tracer();
  Tracer(const Tracer&) = delete;
  Tracer& operator=(const Tracer&) = delete;

  /// How long purges by mmap take is known (vm.overcommit_memory 2).
  [[nodiscard]] bool times_mmap() const { return options_.time_mmap || !bpf_->features().preemptible; }

  /// poll() has checks of its own, and wants to be called that often.
  static constexpr uint64_t check_every_ns = 200'000'000;

  /// Handles what happened since; in pieces where that is much: then wait_fd() is readable again at once.
  Status poll();
  [[nodiscard]] int wait_fd() const { return bpf_->wait_fd(); }

  /// Targets that live, by pid.
  [[nodiscard]] std::vector<Target*> live() const;
  /// All that a live target has done so far, or an ended one did.
  [[nodiscard]] ledger::Totals totals(const Target& target) const;
  /// Of all live targets that have done something, by their birth.
  [[nodiscard]] std::map<uint64_t, ledger::Totals> totals_of_live() const;
  /// The same of all live targets at once, in pieces, for who looks at many: what is empty is left out.
  struct Visitor {
    std::function<void(const Target&, const jt_counters&)> counters;
    std::function<void(const Target&, jt_transition, jt_payer, const jt_hist&)> histogram;
  };
  void visit(const Visitor& visitor) const;
  /// Takes statm and jemalloc's own numbers, and smaps_rollup when it may have changed; what costs has a
  /// budget.
  void sample(Target& target, const ledger::Totals& now);
  /// With context: what it has waited for; what this kernel has no tracepoint for is unknown.
  [[nodiscard]] ledger::Waits waits(const Target& target) const;
  [[nodiscard]] ledger::Summary summary(const Target& target) const;
  [[nodiscard]] ledger::Losses losses() const;
  /// For who knows the sum of untimed_calls over all live targets already.
  [[nodiscard]] ledger::Losses losses(uint64_t untimed_of_live) const;

  /// Ends tracing: nothing is counted any more, the last numbers of all live targets are taken. The kernel's
  /// hooks are still being left when this returns, which takes longer.
  void stop();
  /// Returns when nothing of us is left in the kernel.
  void wait_until_detached();

  [[nodiscard]] const attach::Features& features() const { return bpf_->features(); }
  [[nodiscard]] const Timings& timings() const { return timings_; }
  [[nodiscard]] const std::vector<std::string>& notes() const { return notes_; }
  /// Files that seem to hold a jemalloc and could not be looked at: one sentence each, fit to print.
  [[nodiscard]] const std::vector<std::string>& refused() const { return images_.refused(); }
  /// Processes that may use jemalloc and could not be looked at: permission denied.
  [[nodiscard]] size_t unreadable() const { return unreadable_; }

 private:
  Tracer(TracerOptions options, Listener listener, ProcRoot proc, std::unique_ptr<attach::BpfObject> bpf);

  Status scan();
  Status scan_process(pid_t pid, bool required);

  Status take_lifecycle();
  Result<bool> take_events();
  void handle(const jt_event_header& event);
  void on_new_file(const jt_lifecycle_event& event);
  void on_fork(const jt_lifecycle_event& event);
  void on_call(const jt_call_event& event);
  void on_mallctl(const jt_mallctl_event& event);
  void look_at_mapping(const jt_lifecycle_event& event);

  /// The kernel side has this process among its targets, with images: makes or completes our record of it.
  /// `event`: how it was heard of: of one that is gone already it is all that tells its name.
  void adopt(const jt_target& target, bool from_its_start, const jt_event_header* event = nullptr);
  void end(const jt_target_id& id, bool by_exec);
  void end_those_told(size_t all_told);
  bool read_states(Target& target);
  static void sample_overhead(Target& target);
  /// `takes_sample`: not after an exec, when what could be read is the next program's.
  void finish(Target& target, bool takes_sample);
  void rescan_after_loss();
  void set_sampling(uint64_t now_ns);
  Target* find(uint64_t born_ns) const;
  void note(std::string text);
  [[nodiscard]] bool wanted(const discover::Process& process) const;

  TracerOptions options_;
  Listener listener_;
  ProcRoot proc_;
  std::unique_ptr<attach::BpfObject> bpf_;
  Images images_;
  std::map<uint64_t, std::unique_ptr<Target>> targets_;  // live ones, by born_ns
  struct End {
    jt_target_id id;
    bool by_exec;
    uint64_t taken_calls;  // when it was heard of
  };
  std::deque<End> ends_;      // whose last calls may not have been told yet
  uint64_t taken_calls_ = 0;  // from the ring
  sample::CgroupMounts cgroup_mounts_{proc_};
  uint64_t lifecycle_losses_ = 0;
  uint64_t untimed_of_ended_ = 0;
  uint64_t probes_checked_ns_ = 0;
  struct {
    uint64_t set_ns = 0, touched_pages = 0, evicted_chunks = 0;  // at that time
    uint32_t shift = 0;                                          // one chunk in 2^shift is followed
  } sampling_;
  size_t unreadable_ = 0;
  bool stopping_ = false, stopped_ = false;
  std::thread detaching_;
  attach::BpfObject::Context context_;
  Timings timings_;
  std::vector<std::string> notes_;
};

}  // namespace jemtrace::collect
