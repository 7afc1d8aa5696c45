#include "attach/bpf_object.hpp"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>
#include <linux/membarrier.h>
#include <linux/perf_event.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <mutex>
#include <numeric>
#include <thread>

#include "jemtrace.skel.h"
#include "ledger/histogram.hpp"
#include "util/clock.hpp"

namespace jemtrace::attach {
namespace {

constexpr uint32_t trace_uprobe_multi = 48;  // BPF_TRACE_UPROBE_MULTI, Linux 6.6

std::string& log_text() {
  static std::string text;
  return text;
}

int keep_log(libbpf_print_level level, const char* format, va_list args) {
  if (level == LIBBPF_DEBUG) {
    return 0;
  }
  std::array<char, 4096> line{};
  const int n = std::vsnprintf(line.data(), line.size(), format, args);
  std::string& text = log_text();
  if (text.size() < 1 << 20) {
    text += line.data();
  }
  return n;
}

struct CloseRing {
  void operator()(ring_buffer* ring) const { ring_buffer__free(ring); }
};
struct CloseLink {
  void operator()(bpf_link* link) const { bpf_link__destroy(link); }
};
constexpr const char* kernel_types = "/sys/kernel/btf/vmlinux";

struct CloseSkeleton {
  void operator()(jemtrace_bpf* skeleton) const { jemtrace_bpf__destroy(skeleton); }
};
using Skeleton = std::unique_ptr<jemtrace_bpf, CloseSkeleton>;
using Link = std::unique_ptr<bpf_link, CloseLink>;

/// The programs that only do what others were not let to.
std::array<bpf_program*, 4> copies(const jemtrace_bpf& skeleton) {
  const auto& programs = skeleton.progs;
  return {programs.enter_second, programs.enter_third, programs.exit_second, programs.exit_third};
}

/// The programs of attach_context().
std::array<bpf_program*, 6> context_programs(const jemtrace_bpf& skeleton) {
  const auto& programs = skeleton.progs;
  return {programs.lock_begins,    programs.lock_ends,    programs.tlb_flushed,
          programs.reclaim_begins, programs.reclaim_ends, programs.oom_victim};
}

/// What makes a failed load final, in words.
tl::unexpected<Error> load_error(int err) {
  if (err == EPERM) {  // EACCES is the verifier's
    return fail_errno("cannot load BPF programs: bpf(BPF_PROG_LOAD)", err,
                      "run as root, or give the program CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE "
                      "(jemtrace check shows which is missing)");
  }
  if (::access(kernel_types, R_OK) != 0) {
    return fail(
        Errc::unsupported, "this kernel has no BTF: /sys/kernel/btf/vmlinux is missing",
        "a kernel with CONFIG_DEBUG_INFO_BTF is needed (all of Debian 11 and later, Ubuntu 20.10, RHEL 8.2)");
  }
  return tl::unexpected(Error{Errc::unsupported, "cannot load BPF programs", err,
                              "jemtrace check -v prints what the kernel said"});
}

Result<Skeleton> try_load(const LoadOptions& options, const Features& features) {
  // Told where the kernel's types are, libbpf does not look for them in modules as well when this kernel
  // lacks one of ours. Up to libbpf 1.3 that look ends in EPERM for who has CAP_BPF but not CAP_SYS_ADMIN.
  LIBBPF_OPTS(bpf_object_open_opts, open_options);
  open_options.btf_custom_path = ::access(kernel_types, R_OK) == 0 ? kernel_types : nullptr;
  Skeleton skeleton(jemtrace_bpf__open_opts(&open_options));
  if (!skeleton) {
    return load_error(errno);
  }
  auto& knobs = *skeleton->rodata;
  knobs.use_task_storage = features.task_storage;
  knobs.use_cpu_share = features.cpu_share;
  knobs.register_all = options.register_all;
  knobs.times_mmap = options.time_mmap;
  knobs.event_mode = static_cast<uint32_t>(options.events);
  knobs.slow_ns = options.slow_ns;
  knobs.mmap_nr = SYS_mmap;
  knobs.munmap_nr = SYS_munmap;
  knobs.madvise_nr = SYS_madvise;
  knobs.mremap_nr = SYS_mremap;
  knobs.process_madvise_nr = SYS_process_madvise;
  std::fill(std::begin(knobs.hist_bounds), std::end(knobs.hist_bounds), ~uint64_t{0} >> 1);
  for (unsigned i = 0; i < JT_HIST_FINITE; ++i) {
    knobs.hist_bounds[i] = ledger::Histogram::upper_bound_ns(i);
  }
  for (bpf_program* copy : copies(*skeleton)) {
    bpf_program__set_autoload(copy, features.preemptible);
  }
  const uint32_t chunks = std::max<uint32_t>(options.chunks, JT_CHUNK_WAYS);
  knobs.last_chunk_set = chunks / JT_CHUNK_WAYS - 1;
  bpf_program__set_autoload(skeleton->progs.page_fault, options.chunks > 0);
  bpf_program__set_autoload(skeleton->progs.follow_call, options.chunks > 0);
  bpf_program__set_autoload(skeleton->progs.mallctl_probe, features.sessions);
  bpf_program__set_expected_attach_type(skeleton->progs.mallctl_probe,
                                        static_cast<bpf_attach_type>(trace_uprobe_session));
  for (bpf_program* program : context_programs(*skeleton)) {
    bpf_program__set_autoload(program, options.context);
  }
  auto& maps = skeleton->maps;
  bpf_map__set_autocreate(maps.asking, features.sessions);
  bpf_map__set_autocreate(maps.waiting_threads, options.context);
  bpf_map__set_autocreate(maps.waits_by_target, options.context);
  bpf_map__set_autocreate(features.task_storage ? maps.threads_by_tid : maps.threads, false);
  bpf_map__set_max_entries(maps.targets, options.max_targets);
  bpf_map__set_max_entries(maps.counters, options.max_targets);
  bpf_map__set_max_entries(maps.hists, std::min(8192U, options.max_targets * 8));
  bpf_map__set_max_entries(maps.chunk_sets, chunks / JT_CHUNK_WAYS);
  bpf_map__set_max_entries(maps.chunk_pages, chunks);
  bpf_map__set_max_entries(maps.events, options.events == Events::none ? 4096 : options.event_ring_bytes);
  if (features.uprobe_multi) {
    bpf_program__set_expected_attach_type(skeleton->progs.decay_probe,
                                          static_cast<bpf_attach_type>(trace_uprobe_multi));
  }
  if (const int err = jemtrace_bpf__load(skeleton.get()); err != 0) {
    return load_error(-err);
  }
  return skeleton;
}

/// While bpf(2) works on a map, the kernel runs no tracing program on that CPU. Should a target preempt us in
/// there, its calls would be skipped (seen: 30 of 800 on a busy CPU). A real-time thread is not preempted by
/// an ordinary one, and each of these calls takes a few microseconds. Without CAP_SYS_NICE it stays as it is,
/// and what is skipped is counted.
class Undisturbed {
 public:
  Undisturbed() {
    const sched_param first{.sched_priority = 1};
    raised_ = ::sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &first) == 0;
  }
  ~Undisturbed() {
    if (raised_) {
      const sched_param ordinary{.sched_priority = 0};
      ::sched_setscheduler(0, SCHED_OTHER, &ordinary);
    }
  }
  Undisturbed(const Undisturbed&) = delete;
  Undisturbed& operator=(const Undisturbed&) = delete;

 private:
  bool raised_ = false;
};

int lookup(int fd, const void* key, void* value) {
  const Undisturbed here;
  return bpf_map_lookup_elem(fd, key, value);
}

int update(int fd, const void* key, const void* value, uint64_t flags) {
  const Undisturbed here;
  return bpf_map_update_elem(fd, key, value, flags);
}

int remove(int fd, const void* key) {
  const Undisturbed here;
  return bpf_map_delete_elem(fd, key);
}

int next_key(int fd, const void* key, void* next) {
  const Undisturbed here;
  return bpf_map_get_next_key(fd, key, next);
}

/// One by one, where many at a time are not to be had.
template <typename Key, typename Value, typename Visit>
void each_by_key(int fd, Visit visit) {
  Key key{};
  Key next{};
  Value value{};
  for (int more = next_key(fd, nullptr, &next); more == 0; more = next_key(fd, &key, &next)) {
    key = next;
    if (lookup(fd, &key, &value) == 0) {
      visit(key, value);
    }
  }
}

/// All elements of a hash, some at a time: the kernel goes from bucket to bucket, so that none that stays in
/// the map is left out or comes twice. A batch has to hold the fullest bucket.
template <typename Key, typename Value, typename Visit>
void each_element(int fd, Visit visit) {
  constexpr uint32_t at_a_time = 64;
  std::vector<Key> keys(at_a_time);
  std::vector<Value> values(at_a_time);
  uint32_t position = 0;  // of the next bucket
  bool first = true;
  for (bool more = true; more; first = false) {
    uint32_t count = at_a_time;
    int status = 0;
    {
      const Undisturbed here;
      status = bpf_map_lookup_batch(fd, first ? nullptr : &position, &position, keys.data(), values.data(),
                                    &count, nullptr);
    }
    more = status == 0;
    if (!more && errno != ENOENT) {  // that is the end
      if (first) {
        each_by_key<Key, Value>(fd, visit);
      }
      return;
    }
    for (uint32_t i = 0; i < count; ++i) {
      visit(keys[i], values[i]);
    }
  }
}

template <typename Key, typename Value>
std::vector<std::pair<Key, Value>> read_all_elements(int fd) {
  std::vector<std::pair<Key, Value>> out;
  each_element<Key, Value>(fd, [&](const Key& key, const Value& value) { out.emplace_back(key, value); });
  return out;
}

/// nullopt: a kernel before 5.12, whose bpf_prog_info ends before the field.
std::optional<uint64_t> recursion_misses(int prog_fd) {
  constexpr size_t end = offsetof(bpf_prog_info, recursion_misses) + sizeof(bpf_prog_info::recursion_misses);
  bpf_prog_info info{};
  uint32_t size = sizeof info;
  if (bpf_obj_get_info_by_fd(prog_fd, &info, &size) != 0 || size < end) {
    return std::nullopt;
  }
  return info.recursion_misses;
}

/// Since 7.x the programs of syscall tracepoints run preemptibly; this function runs them. To look for it in
/// the BTF takes 10 ms, which older kernels need not spend.
bool has_preemptible_syscall_programs() {
  utsname kernel_name{};
  if (::uname(&kernel_name) == 0 && std::atoi(kernel_name.release) < 7) {
    return false;
  }
  const std::unique_ptr<btf, void (*)(btf*)> kernel(btf__load_vmlinux_btf(), btf__free);
  return kernel != nullptr &&
         btf__find_by_name_kind(kernel.get(), "trace_call_bpf_faultable", BTF_KIND_FUNC) > 0;
}

/// Up to 6.10 a return probe truncates backtraces only; in 6.11 to 6.13 it kills programs under seccomp. A
/// session, which probes the return only of calls that are wanted, is there since 6.13.
bool has_safe_sessions() {
  utsname kernel_name{};
  int major = 0;
  int minor = 0;
  return ::uname(&kernel_name) == 0 && std::sscanf(kernel_name.release, "%d.%d", &major, &minor) == 2 &&
         std::make_pair(major, minor) >= std::make_pair(6, 14);
}

/// The kernel side's table of chunks, mapped: bpf(2) would keep it from running on this CPU at each look.
class ChunkSets {
 public:
  ChunkSets() = default;
  ~ChunkSets() {
    if (sets_ != nullptr) {
      ::munmap(sets_, bytes_);
    }
  }
  ChunkSets(const ChunkSets&) = delete;
  ChunkSets& operator=(const ChunkSets&) = delete;

  Status map(const bpf_map* map) {
    const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    count_ = bpf_map__max_entries(map);
    bytes_ = (count_ * sizeof(jt_chunk_set) + page - 1) / page * page;
    void* sets = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);
    if (sets == MAP_FAILED) {
      return fail_errno("cannot map the table of purged pages");
    }
    sets_ = static_cast<jt_chunk_set*>(sets);
    return {};
  }

  /// Calls `use(slot, set, way)` for each chunk of this target.
  template <typename Use>
  void for_each_of(const jt_target_id& id, Use use) const {
    for (uint32_t i = 0; sets_ != nullptr && i < count_; ++i) {
      for (uint32_t way = 0; way < JT_CHUNK_WAYS; ++way) {
        if (sets_[i].born_ns[way] == id.born_ns && (sets_[i].key[way] & JT_TGID_MASK) == id.tgid) {
          use(i * JT_CHUNK_WAYS + way, sets_[i], way);
        }
      }
    }
  }

 private:
  jt_chunk_set* sets_ = nullptr;
  size_t count_ = 0;
  size_t bytes_ = 0;
};

bool same(const jt_target_id& a, const jt_target_id& b) {
  return a.born_ns == b.born_ns && a.tgid == b.tgid;
}

}  // namespace

struct BpfObject::Impl {
  Skeleton skeleton;
  std::vector<Link> links;
  std::unique_ptr<ring_buffer, CloseRing> rings;
  std::optional<Tracefs> tracefs;
  const Handler* handler = nullptr;
  ChunkSets chunk_sets;

  static int on_event(void* context, void* data, size_t size) {
    auto* self = static_cast<Impl*>(context);
    if (size >= sizeof(jt_event_header)) {
      (*self->handler)(*static_cast<const jt_event_header*>(data));
    }
    return 0;
  }

  Status attach_tracepoint(bpf_program* program, const char* name);
  Status attach_raw(bpf_program* program, const char* name);
};

Status BpfObject::Impl::attach_tracepoint(bpf_program* program, const char* name) {
  if (!tracefs) {
    ASSIGN_OR_RETURN(tracefs, Tracefs::open());
  }
  ASSIGN_OR_RETURN(const int id, tracefs->tracepoint_id("syscalls", name));
  perf_event_attr attr{};
  attr.size = sizeof attr;
  attr.type = PERF_TYPE_TRACEPOINT;
  attr.config = static_cast<uint64_t>(id);
  // One event on one CPU: its BPF programs run on all of them.
  Fd event(static_cast<int>(::syscall(SYS_perf_event_open, &attr, -1, 0, -1, PERF_FLAG_FD_CLOEXEC)));
  if (!event) {
    return fail_errno(fmt::format("cannot open the tracepoint syscalls:{}: perf_event_open", name), errno,
                      "run as root, or give the program CAP_PERFMON");
  }
  Link link(bpf_program__attach_perf_event(program, event.get()));
  if (!link) {
    return fail_errno(fmt::format("cannot attach to the tracepoint syscalls:{}", name));
  }
  event.release();  // the link owns it now
  links.push_back(std::move(link));
  return {};
}

Status BpfObject::Impl::attach_raw(bpf_program* program, const char* name) {
  Link link(bpf_program__attach_raw_tracepoint(program, name));
  if (!link) {
    return fail_errno(fmt::format("cannot attach to the tracepoint {}", name));
  }
  links.push_back(std::move(link));
  return {};
}

BpfObject::BpfObject(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
BpfObject::~BpfObject() = default;

std::string BpfObject::log() {
  return log_text();
}

Result<std::unique_ptr<BpfObject>> BpfObject::load(const LoadOptions& options) {
  libbpf_set_print(keep_log);
  const bool multi = has_uprobe_multi();
  const bool preemptible = has_preemptible_syscall_programs();
  // Best first; each step gives up what an older kernel may lack.
  const std::array<Features, 4> attempts = {
      Features{true, true, multi, preemptible}, Features{false, true, multi, preemptible},
      Features{true, false, multi, preemptible}, Features{false, false, multi, preemptible}};
  const bool sessions = options.mallctl && has_safe_sessions();
  Result<Skeleton> skeleton = fail(Errc::unsupported, "not tried");
  Features features;
  for (Features attempt : attempts) {
    log_text().clear();
    attempt.sessions = sessions;
    skeleton = try_load(options, attempt);
    features = attempt;
    if (skeleton || skeleton.error().code == Errc::denied) {
      break;
    }
  }
  if (!skeleton && options.context && skeleton.error().code != Errc::denied) {
    LoadOptions less = options;  // rather without that than not at all: what was waited for is unknown then
    less.context = false;
    return load(less);
  }
  if (!skeleton) {
    return tl::unexpected(std::move(skeleton).error());
  }
  auto impl = std::make_unique<Impl>();
  impl->skeleton = std::move(*skeleton);
  auto& maps = impl->skeleton->maps;
  impl->rings.reset(ring_buffer__new(bpf_map__fd(maps.lifecycle), Impl::on_event, impl.get(), nullptr));
  if (!impl->rings ||
      ring_buffer__add(impl->rings.get(), bpf_map__fd(maps.events), Impl::on_event, impl.get()) != 0) {
    return fail_errno("cannot map the event rings");
  }
  auto object = std::unique_ptr<BpfObject>(new BpfObject(std::move(impl)));
  object->features_ = features;
  return object;
}

Status BpfObject::attach_lifecycle() {
  auto& programs = impl_->skeleton->progs;
  TRY(impl_->attach_raw(programs.on_fork, "sched_process_fork"));
  TRY(impl_->attach_raw(programs.on_exec, "sched_process_exec"));
  TRY(impl_->attach_raw(programs.on_exit, "sched_process_exit"));
  TRY(attach_exit("mmap"));
  return impl_->skeleton->rodata->times_mmap ? attach_enter("mmap") : Status();
}

// Each tracepoint costs ~30 ms to leave, as the kernel waits for a grace period: only those that can matter
// are taken. Copies behind the first: they do what is left to do.
Status BpfObject::attach_exit(const char* syscall) {
  auto& programs = impl_->skeleton->progs;
  const std::string exit = std::string("sys_exit_") + syscall;
  TRY(impl_->attach_tracepoint(programs.exit_call, exit.c_str()));
  if (features_.preemptible) {
    TRY(impl_->attach_tracepoint(programs.exit_second, exit.c_str()));
    TRY(impl_->attach_tracepoint(programs.exit_third, exit.c_str()));
  }
  if (features_.page_faults) {
    TRY(impl_->attach_tracepoint(programs.follow_call, exit.c_str()));
  }
  return {};
}

Status BpfObject::attach_enter(const char* syscall) {
  auto& programs = impl_->skeleton->progs;
  const std::string enter = std::string("sys_enter_") + syscall;
  TRY(impl_->attach_tracepoint(programs.enter_call, enter.c_str()));
  if (features_.preemptible) {
    TRY(impl_->attach_tracepoint(programs.enter_second, enter.c_str()));
    TRY(impl_->attach_tracepoint(programs.enter_third, enter.c_str()));
  }
  return {};
}

// Exits first: an enter without its exit would be a call that never ends.
Status BpfObject::attach_call(const char* syscall) {
  TRY(attach_exit(syscall));
  return attach_enter(syscall);
}

Status BpfObject::attach_syscalls() {
  TRY(attach_call("madvise"));
  return attach_call("munmap");
}

Status BpfObject::attach_mremap() {
  return attach_call("mremap");
}

Status BpfObject::attach_process_madvise() {
  return attach_call("process_madvise");
}

Status BpfObject::attach_page_faults() {
  bpf_program* program = impl_->skeleton->progs.page_fault;
  if (!bpf_program__autoload(program)) {
    return fail(Errc::unsupported, "page faults are not followed");
  }
  TRY(impl_->attach_raw(program, "page_fault_user"));
  // A system call that writes to the page first, as read(2) does.
  TRY(impl_->attach_raw(program, "page_fault_kernel"));
  TRY(impl_->chunk_sets.map(impl_->skeleton->maps.chunk_sets));
  impl_->skeleton->bss->follow_purges = 1;
  features_.page_faults = true;
  return {};
}

Status BpfObject::attach_collapses() {
  auto& programs = impl_->skeleton->progs;
  // Behind the first, as it would be nothing without it.
  TRY(impl_->attach_raw(programs.on_collapse, "mm_collapse_huge_page"));
  TRY(impl_->attach_raw(programs.on_isolate, "mm_collapse_huge_page_isolate"));
  features_.collapses = true;
  return {};
}

bool BpfObject::knows_collapses() const {
  return features_.collapses && impl_->skeleton->bss->mm_without_owner == 0;
}

uint64_t BpfObject::skipped_mallctls() const {
  return impl_->skeleton->bss->mallctl_skipped;
}

BpfObject::Context BpfObject::attach_context() {
  auto& programs = impl_->skeleton->progs;
  if (!bpf_program__autoload(programs.lock_begins)) {
    return {};
  }
  const auto both = [this](bpf_program* end, const char* end_name, bpf_program* begin,
                           const char* begin_name) {
    return impl_->attach_raw(end, end_name) && impl_->attach_raw(begin, begin_name);
  };
  Context on;
  on.lock =
      both(programs.lock_ends, "mmap_lock_acquire_returned", programs.lock_begins, "mmap_lock_start_locking");
  on.flushes = impl_->attach_raw(programs.tlb_flushed, "tlb_flush").has_value();
  on.reclaim = both(programs.reclaim_ends, "mm_vmscan_direct_reclaim_end", programs.reclaim_begins,
                    "mm_vmscan_direct_reclaim_begin");
  // For a cgroup's limit there are tracepoints of their own.
  (void)both(programs.reclaim_ends, "mm_vmscan_memcg_reclaim_end", programs.reclaim_begins,
             "mm_vmscan_memcg_reclaim_begin");
  on.oom = impl_->attach_raw(programs.oom_victim, "mark_victim").has_value();
  return on;
}

Result<Uprobes> BpfObject::attach_probes(int file, const std::vector<uint64_t>& offsets) {
  return Uprobes::attach(bpf_program__fd(impl_->skeleton->progs.decay_probe), file, offsets,
                         features_.uprobe_multi);
}

Result<Uprobes> BpfObject::attach_mallctl(int file,
                                          const std::vector<std::pair<uint64_t, jt_api>>& functions) {
  if (!features_.sessions) {
    return fail(Errc::unsupported, "what programs ask their jemalloc can be seen from Linux 6.14 on");
  }
  std::vector<uint64_t> offsets;
  std::vector<uint64_t> cookies;
  for (const auto& [offset, api] : functions) {
    offsets.push_back(offset);
    cookies.push_back(api);
  }
  return Uprobes::attach_session(bpf_program__fd(impl_->skeleton->progs.mallctl_probe), file, offsets,
                                 cookies);
}

void BpfObject::stop_counting() {
  impl_->skeleton->bss->stopped = 1;
}

void BpfObject::wait_for_running() {
  // What it asks of all CPUs is what the kernel calls a grace period, in which no program runs from before to
  // after. Where a kernel has none of it, what is in flight has ended long before the maps are read.
  ::syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
}

void BpfObject::detach() {
  // Each waits for the kernel's grace periods: together they take as long as one.
  std::vector<std::thread> closers;
  closers.reserve(impl_->links.size());
  for (Link& link : impl_->links) {
    closers.emplace_back([&link] { link.reset(); });
  }
  for (std::thread& closer : closers) {
    closer.join();
  }
  impl_->links.clear();
}

Status BpfObject::set_file(const jt_file& file, const jt_file_info& info) {
  if (update(bpf_map__fd(impl_->skeleton->maps.files), &file, &info, BPF_ANY) != 0) {
    return fail_errno("cannot tell the kernel side about a file");
  }
  return {};
}

Status BpfObject::set_image(uint32_t index, const jt_image& image,
                            const std::vector<std::pair<uint64_t, jt_site>>& sites) {
  if (!sites.empty()) {
    const Fd inner(bpf_map_create(BPF_MAP_TYPE_HASH, "jt_image_sites", sizeof(uint64_t), sizeof(jt_site),
                                  static_cast<uint32_t>(sites.size()), nullptr));
    if (!inner) {
      return fail_errno("cannot create the map of an image's call sites");
    }
    for (const auto& [offset, site] : sites) {
      if (update(inner.get(), &offset, &site, BPF_ANY) != 0) {
        return fail_errno("cannot fill the map of an image's call sites");
      }
    }
    const int fd = inner.get();
    if (update(bpf_map__fd(impl_->skeleton->maps.sites), &index, &fd, BPF_ANY) != 0) {
      return fail_errno("cannot install the map of an image's call sites");
    }
  }
  if (update(bpf_map__fd(impl_->skeleton->maps.images), &index, &image, BPF_ANY) != 0) {
    return fail_errno("cannot tell the kernel side about an image");
  }
  return {};
}

Result<bool> BpfObject::add_target(const jt_target& target) {
  if (update(bpf_map__fd(impl_->skeleton->maps.targets), &target.id.tgid, &target, BPF_NOEXIST) == 0) {
    return true;
  }
  if (errno == EEXIST) {
    return false;
  }
  return fail_errno(fmt::format("cannot add pid {} to the targets", target.id.tgid));
}

Status BpfObject::replace_target(const jt_target& target) {
  if (update(bpf_map__fd(impl_->skeleton->maps.targets), &target.id.tgid, &target, BPF_EXIST) != 0) {
    return fail_errno(fmt::format("cannot change the target with pid {}", target.id.tgid));
  }
  return {};
}

void BpfObject::remove_target(uint32_t tgid) {
  remove(bpf_map__fd(impl_->skeleton->maps.targets), &tgid);
}

std::optional<jt_target> BpfObject::target(uint32_t tgid) const {
  jt_target target{};
  if (lookup(bpf_map__fd(impl_->skeleton->maps.targets), &tgid, &target) != 0) {
    return std::nullopt;
  }
  return target;
}

std::optional<jt_counters> BpfObject::counters(const jt_target_id& id) const {
  jt_counters counters{};
  if (lookup(bpf_map__fd(impl_->skeleton->maps.counters), &id, &counters) != 0) {
    return std::nullopt;
  }
  return counters;
}

std::optional<jt_hist> BpfObject::histogram(const jt_target_id& id, uint8_t transition, uint8_t payer) const {
  const jt_hist_key key{.id = id, .transition = transition, .payer = payer, .pad = {}};
  jt_hist hist{};
  if (lookup(bpf_map__fd(impl_->skeleton->maps.hists), &key, &hist) != 0) {
    return std::nullopt;
  }
  return hist;
}

std::optional<jt_waits> BpfObject::waits(const jt_target_id& id) const {
  jt_waits waits{};
  const int map = bpf_map__fd(impl_->skeleton->maps.waits_by_target);
  if (map < 0 || lookup(map, &id, &waits) != 0) {
    return std::nullopt;
  }
  return waits;
}

void BpfObject::each_counters(
    const std::function<void(const jt_target_id&, const jt_counters&)>& visit) const {
  each_element<jt_target_id, jt_counters>(bpf_map__fd(impl_->skeleton->maps.counters), visit);
}

void BpfObject::each_histogram(const std::function<void(const jt_hist_key&, const jt_hist&)>& visit) const {
  each_element<jt_hist_key, jt_hist>(bpf_map__fd(impl_->skeleton->maps.hists), visit);
}

std::vector<std::pair<jt_payer_key, jt_payer_work>> BpfObject::payers() const {
  return read_all_elements<jt_payer_key, jt_payer_work>(bpf_map__fd(impl_->skeleton->maps.payers));
}

std::vector<std::pair<jt_callsite_key, jt_calls>> BpfObject::callsites() const {
  return read_all_elements<jt_callsite_key, jt_calls>(bpf_map__fd(impl_->skeleton->maps.callsites));
}

std::optional<jt_image_checks> BpfObject::checks(uint32_t image) const {
  jt_image_checks checks{};
  if (lookup(bpf_map__fd(impl_->skeleton->maps.checks), &image, &checks) != 0) {
    return std::nullopt;
  }
  return checks;
}

// With copies a skipped run is no loss yet: what all programs of an enter and of its exit missed is. No more
// than the one that missed the fewest, and no more than the first ones missed and no copy made up for.
std::optional<uint64_t> BpfObject::missed_runs() const {
  const auto& programs = impl_->skeleton->progs;
  const auto after = copies(*impl_->skeleton);
  uint64_t missed = 0;  // by the first ones
  uint64_t least = std::numeric_limits<uint64_t>::max();
  uint64_t others = 0;
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, impl_->skeleton->obj) {
    if (!bpf_program__autoload(program)) {
      continue;
    }
    const auto count = recursion_misses(bpf_program__fd(program));
    if (!count) {
      return std::nullopt;
    }
    const bool first = program == programs.enter_call || program == programs.exit_call;
    if (first || std::find(after.begin(), after.end(), program) != after.end()) {
      missed += first ? *count : 0;
      least = std::min(least, *count);
    } else {
      others += *count;
    }
  }
  const auto rescued = sum_of_cpus(JT_RESCUED_RUN);
  if (!rescued) {
    return std::nullopt;
  }
  missed -= std::min(missed, *rescued);
  return others + (features_.preemptible ? std::min(missed, least) : missed);
}

std::optional<uint64_t> BpfObject::sum_of_cpus(uint32_t slot) const {
  const int cpus = libbpf_num_possible_cpus();
  if (cpus <= 0) {
    return std::nullopt;
  }
  std::vector<uint64_t> per_cpu(static_cast<size_t>(cpus));
  if (lookup(bpf_map__fd(impl_->skeleton->maps.losses), &slot, per_cpu.data()) != 0) {
    return std::nullopt;
  }
  return std::accumulate(per_cpu.begin(), per_cpu.end(), uint64_t{0});
}

std::optional<uint64_t> BpfObject::loss(jt_loss kind) const {
  return kind == JT_LOSS_MISSED_RUN ? missed_runs() : sum_of_cpus(kind);
}

ledger::Waiting BpfObject::waiting_pages(const jt_target_id& id) const {
  constexpr std::array<uint64_t, JT_REFAULT_LATER> limits_ns = {1'000'000'000, 10'000'000'000,
                                                                60'000'000'000};
  const auto now = static_cast<uint32_t>(monotonic_ns() >> JT_STAMP_SHIFT & JT_STAMP_MASK);
  ledger::Waiting waiting;
  jt_chunk_pages chunk{};
  impl_->chunk_sets.for_each_of(id, [&](uint32_t slot, const jt_chunk_set& set, uint32_t way) {
    if (const uint32_t huge = set.huge[way]; huge > 0 && huge <= JT_REFAULT_AGES) {
      waiting.maybe_huge[huge - 1] += 1;
    }
    if (set.marked[way] == 0 || lookup(bpf_map__fd(impl_->skeleton->maps.chunk_pages), &slot, &chunk) != 0) {
      return;
    }
    for (const uint32_t stamp : chunk.stamp) {
      const uint32_t age = (now - (stamp >> 2)) & JT_STAMP_MASK;
      for (size_t i = 0; stamp != 0 && i < limits_ns.size(); ++i) {
        waiting.pages[i] += age <= limits_ns[i] >> JT_STAMP_SHIFT ? 1 : 0;
      }
    }
  });
  return waiting;
}

void BpfObject::set_sampling(uint32_t shift) {
  impl_->skeleton->bss->follow_shift = shift;
}

void BpfObject::forget(const jt_target_id& id) {
  impl_->chunk_sets.for_each_of(
      id, [](uint32_t, jt_chunk_set& set, uint32_t way) { set.key[way] = set.born_ns[way] = 0; });
  auto& maps = impl_->skeleton->maps;
  remove(bpf_map__fd(maps.counters), &id);
  if (const int map = bpf_map__fd(maps.waits_by_target); map >= 0) {
    remove(map, &id);
  }
  for (uint8_t transition = 0; transition < JT_TRANSITIONS; ++transition) {
    for (uint8_t payer = 0; payer < JT_PAYERS; ++payer) {
      const jt_hist_key key{.id = id, .transition = transition, .payer = payer, .pad = {}};
      remove(bpf_map__fd(maps.hists), &key);
    }
  }
  for (const auto& [key, work] : payers()) {
    if (same(key.id, id)) {
      remove(bpf_map__fd(maps.payers), &key);
    }
  }
  for (const auto& [key, calls] : callsites()) {
    if (same(key.id, id)) {
      remove(bpf_map__fd(maps.callsites), &key);
    }
  }
}

Status BpfObject::poll(int timeout_ms, const Handler& handler) {
  impl_->handler = &handler;
  const int n = ring_buffer__poll(impl_->rings.get(), timeout_ms);
  impl_->handler = nullptr;
  if (n < 0 && n != -EINTR) {
    return fail_errno("cannot read the event rings", -n);
  }
  return {};
}

int BpfObject::wait_fd() const {
  return ring_buffer__epoll_fd(impl_->rings.get());
}

}  // namespace jemtrace::attach
