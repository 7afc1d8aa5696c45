#include "attach/load.hpp"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "attach/works.hpp"

namespace jemtrace::attach {
namespace {

std::string& log_text() {
  static std::string text;
  return text;
}

int keep_log(libbpf_print_level level, const char* format, va_list args) {
  if (level == LIBBPF_DEBUG) {
    return 0;
  }
  constexpr size_t most = 8192;  // of one message: why the verifier refuses is in its last lines
  char* message = nullptr;
  const int n = ::vasprintf(&message, format, args);
  if (n < 0) {
    return n;
  }
  const std::unique_ptr<char, void (*)(void*)> owner(message, std::free);
  const std::string_view all(message, static_cast<size_t>(n));
  std::string& text = log_text();
  if (text.size() < 1 << 20) {
    text += all.size() <= most ? all : all.substr(all.size() - most);
  }
  return n;
}

constexpr const char* kernel_types = "/sys/kernel/btf/vmlinux";

/// Which of the two ways to hear of system calls this kernel is for: bpf/hooks.bpf.h.
void choose_hooks(const jemtrace_bpf& skeleton, bool preemptible) {
  const auto& programs = skeleton.progs;
  bpf_program__set_autoload(programs.syscall_enter, !preemptible);
  bpf_program__set_autoload(programs.syscall_exit, !preemptible);
  bpf_program__set_autoload(programs.enter_first, preemptible);
  bpf_program__set_autoload(programs.exit_first, preemptible);
  for (bpf_program* copy : copies(skeleton)) {
    bpf_program__set_autoload(copy, preemptible);
  }
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

/// Major and minor; zeroes when it does not say.
std::pair<int, int> kernel_version() {
  utsname kernel{};
  int major = 0;
  int minor = 0;
  if (::uname(&kernel) != 0 || std::sscanf(kernel.release, "%d.%d", &major, &minor) != 2) {
    return {0, 0};
  }
  return {major, minor};
}

/// Or says what no kernel that can load us is (setarch --uname-2.6): being careful for nothing is only
/// slower.
bool may_be_7_or_later() {
  const auto version = kernel_version();
  return version >= std::make_pair(7, 0) || version < std::make_pair(5, 0);
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
  knobs.may_be_preempted = may_be_7_or_later();
  knobs.register_all = options.register_all;
  knobs.keeps_details = options.details;
  knobs.times_mmap = options.time_mmap || !features.preemptible;
  knobs.traces_mremap = options.mremap;
  knobs.use_cookies = features.uprobe_multi;
  knobs.event_mode = static_cast<uint32_t>(options.events);
  knobs.slow_ns = options.slow_ns;
  knobs.mmap_nr = SYS_mmap;
  knobs.munmap_nr = SYS_munmap;
  knobs.madvise_nr = SYS_madvise;
  knobs.mremap_nr = SYS_mremap;
  knobs.process_madvise_nr = SYS_process_madvise;
  choose_hooks(*skeleton, features.preemptible);
  const uint32_t chunks = std::max<uint32_t>(options.chunks, JT_CHUNK_WAYS);
  knobs.last_chunk_set = chunks / JT_CHUNK_WAYS - 1;
  bpf_program__set_autoload(skeleton->progs.page_fault, options.chunks > 0);
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
  for (bpf_map* by_image : {maps.images, maps.checks, maps.sites}) {
    bpf_map__set_max_entries(by_image, options.max_images);
  }
  const uint32_t works =
      std::clamp<uint32_t>(options.max_targets * 8, options.details ? JT_MAX_WORKS / 2 : 0, JT_MAX_WORKS);
  Works::set_size(*skeleton, works, options.details);
  skeleton->bss->targets_version = 1;
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

/// Since 7.x the programs of syscall tracepoints run preemptibly; this function runs them. To look for it in
/// the BTF takes 10 ms, which older kernels need not spend.
bool has_preemptible_syscall_programs() {
  if (!may_be_7_or_later()) {
    return false;
  }
  const std::unique_ptr<btf, void (*)(btf*)> kernel(btf__load_vmlinux_btf(), btf__free);
  return kernel != nullptr &&
         btf__find_by_name_kind(kernel.get(), "trace_call_bpf_faultable", BTF_KIND_FUNC) > 0;
}

/// Up to 6.10 a return probe truncates backtraces only; in 6.11 to 6.13 it kills programs under seccomp. A
/// session, which probes the return only of calls that are wanted, is there since 6.13.
bool has_safe_sessions() {
  return kernel_version() >= std::make_pair(6, 14);
}

}  // namespace

std::array<bpf_program*, 4> copies(const jemtrace_bpf& skeleton) {
  const auto& programs = skeleton.progs;
  return {programs.enter_second, programs.enter_third, programs.exit_second, programs.exit_third};
}

const std::string& load_log() {
  return log_text();
}

bool needs_tracefs() {
  return has_preemptible_syscall_programs();
}

Result<Skeleton> load_skeleton(LoadOptions options, Features& features) {
  libbpf_set_print(keep_log);
  const bool multi = has_uprobe_multi();
  const bool preemptible = has_preemptible_syscall_programs();
  // Best first; each step gives up what an older kernel may lack.
  const std::array<Features, 4> attempts = {
      Features{true, true, multi, preemptible}, Features{false, true, multi, preemptible},
      Features{true, false, multi, preemptible}, Features{false, false, multi, preemptible}};
  const bool sessions = options.mallctl && has_safe_sessions();
  Result<Skeleton> skeleton = fail(Errc::unsupported, "not tried");
  for (Features attempt : attempts) {
    log_text().clear();
    attempt.sessions = sessions;
    skeleton = try_load(options, attempt);
    features = attempt;
    if (skeleton || skeleton.error().code == Errc::denied) {
      return skeleton;
    }
  }
  if (options.context) {
    options.context = false;  // rather without that than not at all: what was waited for is unknown then
    return load_skeleton(options, features);
  }
  return skeleton;
}

}  // namespace jemtrace::attach
