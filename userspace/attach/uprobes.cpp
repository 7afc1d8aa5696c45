#include "attach/uprobes.hpp"

#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <string>

#include "util/file.hpp"

namespace jemtrace::attach {
namespace {

struct UprobeMultiAttr {
  uint32_t prog_fd, target_fd, attach_type, flags;
  uint64_t path, offsets, ref_ctr_offsets, cookies;
  uint32_t count, link_flags, pid, pad;
};

int create_multi_link(int prog_fd, const char* path, const std::vector<uint64_t>& offsets,
                      const std::vector<uint64_t>& cookies, uint32_t attach_type = trace_uprobe_multi) {
  UprobeMultiAttr attr{};
  attr.prog_fd = static_cast<uint32_t>(prog_fd);
  attr.attach_type = attach_type;
  attr.cookies = cookies.empty() ? 0 : reinterpret_cast<uint64_t>(cookies.data());
  attr.path = reinterpret_cast<uint64_t>(path);
  attr.offsets = reinterpret_cast<uint64_t>(offsets.data());
  attr.count = static_cast<uint32_t>(offsets.size());
  return static_cast<int>(::syscall(SYS_bpf, BPF_LINK_CREATE, &attr, sizeof attr));
}

std::string path_of(int fd) {
  return "/proc/self/fd/" + std::to_string(fd);
}

/// The number of the PMU for uprobes, from sysfs; -1 when there is none.
int uprobe_pmu() {
  static const int type = [] {
    const auto text = read_file("/sys/bus/event_source/devices/uprobe/type", 64);
    return text ? std::atoi(text->c_str()) : -1;
  }();
  return type;
}

Result<Fd> attach_perf(int prog_fd, const std::string& path, uint64_t offset) {
  if (uprobe_pmu() < 0) {
    return fail(Errc::unsupported, "this kernel has no uprobes", "it needs CONFIG_UPROBE_EVENTS");
  }
  perf_event_attr attr{};
  attr.size = sizeof attr;
  attr.type = static_cast<uint32_t>(uprobe_pmu());
  attr.config1 = reinterpret_cast<uint64_t>(path.c_str());
  attr.config2 = offset;
  Fd fd(static_cast<int>(::syscall(SYS_perf_event_open, &attr, -1, 0, -1, PERF_FLAG_FD_CLOEXEC)));
  if (!fd) {
    return fail_errno("cannot create a uprobe");
  }
  if (::ioctl(fd.get(), PERF_EVENT_IOC_SET_BPF, prog_fd) != 0 ||
      ::ioctl(fd.get(), PERF_EVENT_IOC_ENABLE, 0) != 0) {
    return fail_errno("cannot attach to a uprobe");
  }
  return fd;
}

}  // namespace

bool has_uprobe_multi() {
  // mov r0, 0; exit
  const std::array<bpf_insn, 2> program{
      {{.code = BPF_ALU64 | BPF_MOV | BPF_K}, {.code = BPF_JMP | BPF_EXIT}}};
  LIBBPF_OPTS(bpf_prog_load_opts, options);
  options.expected_attach_type = static_cast<bpf_attach_type>(trace_uprobe_multi);
  const Fd prog(
      bpf_prog_load(BPF_PROG_TYPE_KPROBE, "jt_probe_multi", "GPL", program.data(), program.size(), &options));
  if (!prog) {
    return false;
  }
  // A directory cannot be probed: a kernel that knows the link type says EBADF, one that does not says
  // EINVAL.
  const Fd link(create_multi_link(prog.get(), "/", {0}, {}));
  return !link && errno == EBADF;
}

Result<Uprobes> Uprobes::attach(int prog_fd, int file, const std::vector<uint64_t>& offsets,
                                const std::vector<uint64_t>& cookies, bool multi) {
  const std::string path = path_of(file);
  for (const uint64_t offset : offsets) {
    char byte = 0;
    TRY(read_at(file, offset, &byte, 1));
  }
  Uprobes probes;
  if (multi) {
    Fd link(create_multi_link(prog_fd, path.c_str(), offsets, cookies));
    if (!link) {
      return fail_errno("bpf(BPF_LINK_CREATE, uprobe_multi)");
    }
    probes.links_.push_back(std::move(link));
    return probes;
  }
  for (const uint64_t offset : offsets) {
    ASSIGN_OR_RETURN(Fd link, attach_perf(prog_fd, path, offset));
    probes.links_.push_back(std::move(link));
  }
  return probes;
}

Result<Uprobes> Uprobes::attach_session(int prog_fd, int file, const std::vector<uint64_t>& offsets,
                                        const std::vector<uint64_t>& cookies) {
  for (const uint64_t offset : offsets) {
    char byte = 0;
    TRY(read_at(file, offset, &byte, 1));
  }
  Fd link(create_multi_link(prog_fd, path_of(file).c_str(), offsets, cookies, trace_uprobe_session));
  if (!link) {
    return fail_errno("bpf(BPF_LINK_CREATE, uprobe_session)");
  }
  Uprobes probes;
  probes.links_.push_back(std::move(link));
  return probes;
}

}  // namespace jemtrace::attach
