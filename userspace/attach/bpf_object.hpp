#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "attach/tracefs.hpp"
#include "attach/uprobes.hpp"
#include "jemtrace/abi.h"
#include "ledger/model.hpp"
#include "util/result.hpp"

struct jemtrace_bpf;

/// The kernel side: loaded, attached, and its maps as typed values. No policy.
namespace jemtrace::attach {

enum class Events : uint32_t { none = 0, slow = 1, all = 2 };

struct LoadOptions {
  bool register_all = true;  // processes that map a known image become targets by themselves
  bool time_mmap = false;    // jemalloc gives pages back by mmap (vm.overcommit_memory 2): how long it takes
  bool details = true;       // work by thread, and callsites()
  bool mremap = false;       // jemalloc 5 never calls it: counted as the program's own
  Events events = Events::none;
  uint64_t slow_ns = ~uint64_t{0};
  uint32_t max_targets = 16384;
  uint32_t max_images = JT_MAX_IMAGES;  // at most
  uint32_t event_ring_bytes = 1 << 20;  // power of two
  bool mallctl = false;                 // what programs ask their jemalloc is seen
  bool context = false;                 // attach_context() is to work
  uint32_t chunks = 0;  // of 2 MiB whose purged pages are followed, 2 KiB each: a power of two; 0: none
};

/// Whether this kernel tells of system calls by perf events, whose numbers are in tracefs.
bool needs_tracefs();

/// What this kernel has, found by trying.
struct Features {
  bool task_storage = false;  // 5.12; else a hash, which costs 110 ns more per call
  bool cpu_share = false;     // exact anonymous RSS of the current CPU
  bool uprobe_multi = false;  // 6.6; else perf events, slow to detach
  bool preemptible = false;   // 7.x may preempt syscall programs: two copies of each make up for skipped runs
  bool page_faults = false;   // attached: which purged pages are touched again
  bool collapses = false;     // attached: huge pages that khugepaged makes
  bool sessions = false;      // loaded: the program on mallctl
};

class BpfObject {
 public:
  /// Loads the programs; tries with everything, then without what this kernel lacks.
  /// Errc::denied or unsupported: this host cannot trace (exit status 77).
  static Result<std::unique_ptr<BpfObject>> load(const LoadOptions& options);
  ~BpfObject();
  BpfObject(const BpfObject&) = delete;
  BpfObject& operator=(const BpfObject&) = delete;

  /// Fork, exec, exit and new mappings. Before the scan of /proc, so that nothing slips between the two.
  Status attach_lifecycle();
  /// madvise and munmap: what every jemalloc uses to give pages back.
  Status attach_syscalls();
  /// process_madvise: jemalloc 5.3.1 and later. Errc::unsupported when this kernel has no such tracepoint.
  Status attach_process_madvise();
  /// Page faults, and the purges attached after this call. Errc::unsupported when this kernel has no such
  /// tracepoints; what comes back is not known then.
  Status attach_page_faults();
  /// Huge pages that the kernel makes of small ones. Errc::unsupported where it has none.
  Status attach_collapses();
  /// False: this kernel does not say whose memory it collapsed.
  [[nodiscard]] bool knows_collapses() const;
  /// Functions of jemalloc's, as (offset in the file, enum jt_api). Errc::unsupported: not on this kernel.
  Result<Uprobes> attach_mallctl(int file, const std::vector<std::pair<uint64_t, jt_api>>& functions);
  /// Calls and answers that were not looked at, as there were too many.
  [[nodiscard]] uint64_t skipped_mallctls() const;
  /// Locks, TLB flushes, reclaim and OOM kills: each where this kernel has its tracepoints.
  struct Context {
    bool lock = false, flushes = false, reclaim = false, oom = false;
  };
  Context attach_context();
  /// `probes`: as (offset in the file, what is there).
  Result<Uprobes> attach_probes(int file, uint32_t image,
                                const std::vector<std::pair<uint64_t, jt_site>>& probes);
  /// What begins from here on is not counted.
  void stop_counting();
  /// After stop_counting(): until the programs that were running then have ended, and the maps stand still,
  /// one grace period. Since Linux 7.x one that is preempted in the middle may still finish its call.
  static void wait_for_running();
  /// Takes all programs off their hooks; the maps stay readable. Since 7.0 it takes a grace period per system
  /// call's tracepoint.
  void detach();

  [[nodiscard]] const Features& features() const { return features_; }

  // user space -> kernel
  void forget_file(const jt_file& file);
  Status set_file(const jt_file& file, const jt_file_info& info);
  /// How many there is room for.
  [[nodiscard]] uint32_t max_images() const;
  /// By index: some target has it.
  [[nodiscard]] std::vector<bool> mapped_images() const;
  void forget_image(uint32_t index);
  Status set_image(uint32_t index, const jt_image& image,
                   const std::vector<std::pair<uint64_t, jt_site>>& sites);
  /// False: the kernel side was first, its entry stands.
  Result<bool> add_target(const jt_target& target);
  Status replace_target(const jt_target& target);
  void remove_target(uint32_t tgid);
  [[nodiscard]] std::optional<jt_target> target(uint32_t tgid) const;

  // kernel -> user space
  [[nodiscard]] std::optional<jt_counters> counters(const jt_target_id& id) const;
  using WorkVisit = std::function<void(const jt_work_key&, const jt_work&)>;
  /// Of one target.
  void each_work(const jt_target_id& id, const WorkVisit& visit) const;
  /// Of all targets, some at a time: 0.3 us each where one by one they take 3 us.
  void each_counters(const std::function<void(const jt_target_id&, const jt_counters&)>& visit) const;
  void each_work(const WorkVisit& visit) const;
  [[nodiscard]] std::vector<std::pair<jt_callsite_key, jt_calls>> callsites() const;
  /// What it waited for, as far as attach_context() could see; nullopt: nothing yet.
  [[nodiscard]] std::optional<jt_waits> waits(const jt_target_id& id) const;
  /// How often it happened; nullopt when this kernel does not count it, or the map could not be read.
  [[nodiscard]] std::optional<uint64_t> loss(jt_loss kind) const;
  /// nullopt: unreadable.
  [[nodiscard]] std::optional<jt_image_checks> checks(uint32_t image) const;
  /// The purged pages that are still followed, as of now.
  [[nodiscard]] ledger::Waiting waiting_pages(const jt_target_id& id) const;
  /// Of all targets: faults on followed pages, and chunks for which there was no room.
  /// Forks, execs and exits that went unheard, as the kernel skipped the program. From Linux 7.0 on.
  [[nodiscard]] uint64_t skipped_lifecycles() const;
  [[nodiscard]] std::optional<uint64_t> touched_pages() const { return sum_of_cpus(JT_TOUCHED_PAGE); }
  [[nodiscard]] std::optional<uint64_t> evicted_chunks() const { return sum_of_cpus(JT_EVICTED_CHUNK); }
  /// Only one chunk in 2^shift is followed from now on.
  void set_sampling(uint32_t shift);
  /// Frees what the maps hold of a target that is gone.
  void forget(const jt_target_id& id);
  /// The same of one that never used jemalloc.
  void forget_counters(const jt_target_id& id);

  using Handler = std::function<void(const jt_event_header&)>;
  enum class Ring : uint8_t { lifecycle, calls };
  /// Calls `handler` for what is in a ring, `most` events of it. True: there may be more. From within, the
  /// other ring may be taken from.
  Result<bool> take(Ring which, size_t most, const Handler& handler);
  /// A descriptor that is readable when there is something to poll for.
  [[nodiscard]] int wait_fd() const;

  /// What libbpf and the verifier last said, for -v and for bug reports.
  static std::string log();

 private:
  struct Impl;
  void tell_threads();
  Status attach_call(const char* syscall);
  Status attach_exit(const char* syscall);
  Status attach_enter(const char* syscall);
  [[nodiscard]] std::optional<uint64_t> missed_runs() const;
  [[nodiscard]] std::optional<uint64_t> sum_of_cpus(uint32_t slot) const;
  explicit BpfObject(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
  Features features_;
};

}  // namespace jemtrace::attach
