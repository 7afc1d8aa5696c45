#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "attach/bpf_object.hpp"
#include "cli/run.hpp"
#include "util/file.hpp"
#include "util/say.hpp"

namespace jemtrace::cli {
namespace {

using render::CheckItem;
using render::CheckStatus;

struct Capability {
  int bit;
  const char* name;
  const char* use;
};
// include/uapi/linux/capability.h; CAP_BPF and CAP_PERFMON since 5.8, before that CAP_SYS_ADMIN stood for
// both.
constexpr Capability wanted_capabilities[] = {
    {39, "CAP_BPF", "loads the programs"},
    {38, "CAP_PERFMON", "attaches them"},
    {19, "CAP_SYS_PTRACE", "reads /proc/PID of other users"},
    {2, "CAP_DAC_READ_SEARCH", "reads their files, and tracefs"},
    {40, "CAP_CHECKPOINT_RESTORE", "opens /proc/PID/map_files"},
};

uint64_t effective_capabilities() {
  const auto status = read_file("/proc/self/status", 65536);
  const size_t at = status ? status->find("\nCapEff:") : std::string::npos;
  return at == std::string::npos ? 0 : std::strtoull(status->c_str() + at + 8, nullptr, 16);
}

CheckItem check_capabilities() {
  uint64_t mine = effective_capabilities();
  constexpr int sys_admin = 21;
  for (const int part_of_it : {38, 39, 40}) {
    mine |= (mine >> sys_admin & 1) << part_of_it;
  }
  CheckItem item{
      .name = "capabilities", .status = CheckStatus::ok, .detail = "all that are needed", .hint = {}};
  std::string missing;
  for (const Capability& capability : wanted_capabilities) {
    if ((mine >> capability.bit & 1) == 0) {
      missing += fmt::format("{}{} ({})", missing.empty() ? "" : ", ", capability.name, capability.use);
    }
  }
  if (!missing.empty()) {
    item = {"capabilities", CheckStatus::fail, "missing: " + missing,
            "run as root, or give it these: packaging/systemd/jemtrace.service shows how"};
  }
  return item;
}

CheckItem check_btf() {
  if (::access("/sys/kernel/btf/vmlinux", R_OK) == 0) {
    return {"BTF", CheckStatus::ok, "/sys/kernel/btf/vmlinux", {}};
  }
  return {"BTF", CheckStatus::fail, "/sys/kernel/btf/vmlinux is missing",
          "a kernel with CONFIG_DEBUG_INFO_BTF: Debian 11, Ubuntu 20.10, RHEL 8.2 or later"};
}

CheckItem check_tracefs() {
  if (!attach::needs_tracefs()) {
    return {"tracefs", CheckStatus::ok, "not needed before Linux 7.0", {}};
  }
  const auto tracefs = attach::Tracefs::open();
  if (!tracefs) {
    return {"tracefs", CheckStatus::fail, tracefs.error().message(), tracefs.error().hint};
  }
  return {"tracefs", CheckStatus::ok, tracefs->origin(), {}};
}

/// The pids of /proc must be the kernel's own, as the kernel side names processes by those.
CheckItem check_pid_namespace() {
  std::array<char, 64> link{};
  const ssize_t n = ::readlink("/proc/self/ns/pid", link.data(), link.size() - 1);
  if (n > 0 && std::string_view(link.data(), static_cast<size_t>(n)) == "pid:[4026531836]") {
    return {"pid namespace", CheckStatus::ok, "the host's", {}};
  }
  return {"pid namespace", CheckStatus::fail,
          "not the host's: pids here are not those that the kernel reports",
          "run on the host, or in a container with --pid=host"};
}

CheckItem check_lockdown() {
  const auto text = read_file("/sys/kernel/security/lockdown", 256);
  if (!text) {
    return {"lockdown", CheckStatus::ok, "not in this kernel, or not readable", {}};
  }
  const size_t open = text->find('[');
  const size_t close = text->find(']');
  const std::string mode =
      open < close && close != std::string::npos ? text->substr(open + 1, close - open - 1) : "?";
  if (mode == "confidentiality") {
    return {"lockdown", CheckStatus::fail, mode + ": BPF programs may not read memory",
            "boot with lockdown=integrity or none"};
  }
  return {"lockdown", CheckStatus::ok, mode, {}};
}

void check_bpf(std::vector<CheckItem>& items) {
  attach::LoadOptions options;
  options.max_targets = 64;
  options.chunks = 64;
  auto bpf = attach::BpfObject::load(options);
  if (!bpf) {
    items.push_back({"BPF programs", CheckStatus::fail, bpf.error().message(), bpf.error().hint});
    return;
  }
  items.push_back({"BPF programs", CheckStatus::ok, "accepted by this kernel", {}});
  const attach::Features& features = (*bpf)->features();
  items.push_back(
      features.task_storage
          ? CheckItem{"task storage", CheckStatus::ok, "yes", {}}
          : CheckItem{
                "task storage", CheckStatus::warn, "no (5.12): a hash instead, ~0.1 us more per call", {}});
  items.push_back(features.uprobe_multi
                      ? CheckItem{"uprobe_multi", CheckStatus::ok, "yes", {}}
                      : CheckItem{"uprobe_multi",
                                  CheckStatus::warn,
                                  "no (6.6): perf uprobes instead, ~0.1 s per image to leave",
                                  {}});
  items.push_back(features.cpu_share ? CheckItem{"RSS per CPU", CheckStatus::ok, "yes", {}}
                                     : CheckItem{"RSS per CPU",
                                                 CheckStatus::warn,
                                                 "no: the RSS effect of single purges has a larger error",
                                                 {}});
  const auto faults = (*bpf)->attach_page_faults();
  items.push_back(faults
                      ? CheckItem{"page faults", CheckStatus::ok, "yes", {}}
                      : CheckItem{"page faults", CheckStatus::warn,
                                  "no: which purged pages are touched again is not known",
                                  "a kernel with the tracepoint exceptions:page_fault_user: every x86 one"});
  if (auto status = (*bpf)->attach_syscalls(); !status) {
    items.push_back({"tracepoints", CheckStatus::fail, status.error().message(), status.error().hint});
    return;
  }
  const auto batched = (*bpf)->attach_process_madvise();
  items.push_back(batched ? CheckItem{"tracepoints", CheckStatus::ok, "all", {}}
                          : CheckItem{"tracepoints",
                                      CheckStatus::warn,
                                      "no process_madvise: batched purges of jemalloc 5.3.1 are not seen",
                                      {}});
  (*bpf)->detach();
}

}  // namespace

Result<int> check(const Options& options) {
  utsname host{};
  ::uname(&host);
  std::vector<CheckItem> items{
      {"kernel", CheckStatus::ok, fmt::format("{} {}", host.release, host.machine), {}},
      check_capabilities(),
      check_btf(),
      check_lockdown(),
      check_tracefs(),
      check_pid_namespace()};
  check_bpf(items);
  ASSIGN_OR_RETURN(const std::unique_ptr<Results> results, Results::open(options, false));
  results->out().check(items);
  TRY(results->finish());
  if (options.verbose) {
    tell(attach::BpfObject::log());
  }
  const bool failed = std::any_of(items.begin(), items.end(),
                                  [](const CheckItem& item) { return item.status == CheckStatus::fail; });
  return failed ? exit_status::cannot_trace : exit_status::ok;
}

}  // namespace jemtrace::cli
