#include "attach/bpf_object.hpp"

#include <bpf/libbpf.h>
#include <fmt/format.h>
#include <linux/membarrier.h>
#include <linux/perf_event.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "attach/bpf_impl.hpp"
#include "util/parallel.hpp"

namespace jemtrace::attach {

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
  const bool typed = bpf_program__type(program) == BPF_PROG_TYPE_TRACING;  // it knows its name since the load
  Link link(typed ? bpf_program__attach_trace(program) : bpf_program__attach_raw_tracepoint(program, name));
  if (!link) {
    return fail_errno(fmt::format("cannot attach to the tracepoint {}", name));
  }
  links.push_back(std::move(link));
  return {};
}

BpfObject::BpfObject(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
BpfObject::~BpfObject() = default;

std::string BpfObject::log() {
  return load_log();
}

Result<std::unique_ptr<BpfObject>> BpfObject::load(const LoadOptions& options) {
  auto impl = std::make_unique<Impl>();
  Features features;
  ASSIGN_OR_RETURN(impl->skeleton, load_skeleton(options, features));
  TRY(impl->works.open(*impl->skeleton));
  auto& maps = impl->skeleton->maps;
  impl->wait = Fd(::epoll_create1(EPOLL_CLOEXEC));
  TRY(impl->lifecycle.map(bpf_map__fd(maps.lifecycle), impl->wait.get()));
  TRY(impl->calls.map(bpf_map__fd(maps.events), impl->wait.get()));
  auto object = std::unique_ptr<BpfObject>(new BpfObject(std::move(impl)));
  object->features_ = features;
  return object;
}

Status BpfObject::attach_lifecycle() {
  auto& programs = impl_->skeleton->progs;
  TRY(impl_->attach_raw(programs.on_fork, "sched_process_fork"));
  TRY(impl_->attach_raw(programs.on_exec, "sched_process_exec"));
  TRY(impl_->attach_raw(programs.on_exit, "sched_process_exit"));
  if (!features_.preemptible) {
    // All system calls at once: what comes back of executable files is wanted from here on.
    return impl_->attach_raw(programs.syscall_exit, "sys_exit");
  }
  TRY(attach_exit("mmap"));
  return impl_->skeleton->rodata->times_mmap ? attach_enter("mmap") : Status();
}

// Each perf event costs ~50 ms to leave, as the kernel waits for a grace period: only those that can matter
// are taken. Copies behind the first: they do what is left to do.
Status BpfObject::attach_exit(const char* syscall) {
  auto& programs = impl_->skeleton->progs;
  const std::string exit = std::string("sys_exit_") + syscall;
  TRY(impl_->attach_tracepoint(programs.exit_first, exit.c_str()));
  TRY(impl_->attach_tracepoint(programs.exit_second, exit.c_str()));
  return impl_->attach_tracepoint(programs.exit_third, exit.c_str());
}

Status BpfObject::attach_enter(const char* syscall) {
  auto& programs = impl_->skeleton->progs;
  const std::string enter = std::string("sys_enter_") + syscall;
  TRY(impl_->attach_tracepoint(programs.enter_first, enter.c_str()));
  TRY(impl_->attach_tracepoint(programs.enter_second, enter.c_str()));
  return impl_->attach_tracepoint(programs.enter_third, enter.c_str());
}

// Exits first: an enter without its exit would be a call that never ends.
Status BpfObject::attach_call(const char* syscall) {
  TRY(attach_exit(syscall));
  return attach_enter(syscall);
}

Status BpfObject::attach_syscalls() {
  if (!features_.preemptible) {
    return impl_->attach_raw(impl_->skeleton->progs.syscall_enter, "sys_enter");
  }
  TRY(attach_call("madvise"));
  TRY(attach_call("munmap"));
  return impl_->skeleton->rodata->traces_mremap ? attach_call("mremap") : Status();
}

Status BpfObject::attach_process_madvise() {
  return features_.preemptible ? attach_call("process_madvise") : Status();
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

Result<Uprobes> BpfObject::attach_probes(int file, uint32_t image,
                                         const std::vector<std::pair<uint64_t, jt_site>>& probes) {
  std::vector<uint64_t> offsets;
  std::vector<uint64_t> cookies;
  for (const auto& [offset, site] : probes) {
    offsets.push_back(offset);
    cookies.push_back(jt_probe_cookie(image, &site));
  }
  return Uprobes::attach(bpf_program__fd(impl_->skeleton->progs.decay_probe), file, offsets, cookies,
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
  auto& links = impl_->links;
  in_parallel(links.size(), links.size(), [&](size_t i) { links[i].reset(); });
  impl_->links.clear();
}

Status BpfObject::Impl::Ring::map(int map_fd, int wait_fd) {
  ring.reset(ring_buffer__new(map_fd, on_event, this, nullptr));
  if (!ring) {
    return fail_errno("cannot map an event ring");
  }
  epoll_event event{.events = EPOLLIN, .data = {}};
  if (::epoll_ctl(wait_fd, EPOLL_CTL_ADD, ring_buffer__epoll_fd(ring.get()), &event) != 0) {
    return fail_errno("cannot wait for an event ring");
  }
  return {};
}

/// libbpf goes on for as long as there is something, which under load is for ever: an error makes it return.
/// What was handed over is consumed all the same.
int BpfObject::Impl::Ring::on_event(void* context, void* data, size_t size) {
  auto* self = static_cast<Ring*>(context);
  if (size >= sizeof(jt_event_header)) {
    (*self->handler)(*static_cast<const jt_event_header*>(data));
  }
  return --self->left == 0 ? -ECANCELED : 0;
}

Result<bool> BpfObject::take(Ring which, size_t most, const Handler& handler) {
  Impl::Ring& from = which == Ring::lifecycle ? impl_->lifecycle : impl_->calls;
  from.handler = &handler;
  from.left = most;
  const int n = ring_buffer__consume(from.ring.get());
  from.handler = nullptr;
  if (n < 0 && n != -ECANCELED) {
    return fail_errno("cannot read an event ring", -n);
  }
  return from.left == 0;
}

int BpfObject::wait_fd() const {
  return impl_->wait.get();
}

}  // namespace jemtrace::attach
