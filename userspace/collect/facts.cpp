#include "collect/facts.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "discover/process.hpp"
#include "read/conf.hpp"
#include "sample/cgroup.hpp"
#include "sample/fields.hpp"
#include "sample/memory.hpp"
#include "util/clock.hpp"

namespace jemtrace::collect {
namespace {

constexpr size_t most_tasks = 1024;
constexpr uint64_t page_bytes = 4096;

Maybe<double> cgroup_quota(const ProcRoot& proc, pid_t pid) {
  const auto membership = proc.read(pid, "cgroup", size_t{1} << 20);
  const auto mounts = read_file(proc.path() + "/self/mountinfo", size_t{16} << 20);
  if (!membership || !mounts) {
    return std::nullopt;
  }
  for (const int version : {1, 2}) {
    const auto path = sample::find_cgroup_path(*membership, version, "cpu");
    const auto mount = sample::find_cgroup_mount(*mounts, version, "cpu");
    if (!path || !mount || path->find("/..") != std::string_view::npos) {
      continue;
    }
    const std::string folder = mount->point + std::string(*path);
    Maybe<double> quota;
    Maybe<uint64_t> period;
    if (version == 1) {
      const auto text = read_file(folder + "/cpu.cfs_quota_us", 64);
      const auto value = text ? sample::number_at(*text) : std::nullopt;  // -1: none
      quota = value ? Maybe<double>(static_cast<double>(*value)) : std::nullopt;
      const auto period_text = read_file(folder + "/cpu.cfs_period_us", 64);
      period = period_text ? sample::number_at(*period_text) : std::nullopt;
    } else if (const auto text = read_file(folder + "/cpu.max", 64)) {
      const auto value = sample::number_at(*text);  // "max 100000": none
      quota = value ? Maybe<double>(static_cast<double>(*value)) : std::nullopt;
      const size_t blank = text->find(' ');
      period = blank == std::string::npos ? std::nullopt : sample::number_at(text->substr(blank));
    }
    if (quota && period.value_or(0) > 0) {
      return *quota / static_cast<double>(*period);
    }
  }
  return std::nullopt;
}

Maybe<double> affinity(pid_t pid) {
  cpu_set_t set;
  return ::sched_getaffinity(pid, sizeof set, &set) == 0 ? Maybe<double>(CPU_COUNT(&set)) : std::nullopt;
}

/// Fields 26 and 28 of /proc/PID/stat: where code and stack begin. After fork both are the parent's, after
/// exec they are others.
struct Layout {
  uint64_t code = 0, stack = 0;
  bool operator==(const Layout&) const = default;
};

Maybe<Layout> layout_of(const ProcRoot& proc, pid_t pid) {
  const auto text = proc.read(pid, "stat", 4096);
  const size_t behind = text ? text->rfind(')') : std::string::npos;
  if (behind == std::string::npos) {
    return std::nullopt;
  }
  Layout layout;
  const char* at = text->c_str() + behind + 1;
  for (int field = 3; field <= 28; ++field) {
    while (*at == ' ') {
      ++at;
    }
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(at, text->data() + text->size(), value);
    if (field == 26 || field == 28) {
      if (error != std::errc{} || value <= 1) {
        return std::nullopt;  // 1: hidden from us
      }
      (field == 26 ? layout.code : layout.stack) = value;
    }
    while (*at != ' ' && *at != '\0') {
      ++at;
    }
  }
  return layout;
}

Maybe<std::vector<ForkedChild>> forked_children(const ProcRoot& proc, pid_t pid,
                                                const std::vector<pid_t>& threads) {
  const auto own = layout_of(proc, pid);
  if (!own) {
    return std::nullopt;
  }
  const ProcRoot tasks(proc.of(pid, "task"));
  std::vector<ForkedChild> out;
  size_t seen = 0;
  for (const pid_t thread : threads) {
    const auto list = tasks.read(thread, "children", size_t{1} << 20);
    if (!list) {
      continue;  // it has ended, or the kernel was built without (CONFIG_PROC_CHILDREN)
    }
    std::string_view rest = *list;
    while (!rest.empty() && seen < most_tasks) {
      const auto child = sample::number_at(rest);
      rest.remove_prefix(std::min(rest.find(' ', 1), rest.size()));
      if (!child) {
        continue;
      }
      ++seen;
      const auto child_pid = static_cast<pid_t>(*child);
      if (layout_of(proc, child_pid) == own) {
        const auto rss = sample::read_rss(proc, child_pid);
        if (rss && *rss > 0) {
          out.push_back({child_pid, *rss});
        }
      }
    }
  }
  return out;
}

Maybe<std::vector<AskedFor>> asked_for(const ProcRoot& proc, pid_t pid) {
  const auto environ = proc.read(pid, "environ", size_t{4} << 20);
  if (!environ || !read::is_intact(*environ)) {
    return std::nullopt;
  }
  std::vector<AskedFor> out;
  for (const auto& [name, value] : read::conf_variables(*environ)) {
    out.push_back({std::string(name), read::parse_conf(value)});
  }
  return out;
}

}  // namespace

Facts read_facts(const ProcRoot& proc, pid_t pid) {
  Facts out;
  if (const auto status = proc.read(pid, "status", 65536)) {
    out.locked_bytes = sample::field_bytes(*status, "VmLck:");
  }
  const ProcRoot tasks(proc.of(pid, "task"));
  if (auto threads = tasks.pids()) {
    threads->resize(std::min(threads->size(), most_tasks));
    out.background_threads =
        static_cast<uint64_t>(std::count_if(threads->begin(), threads->end(), [&](pid_t thread) {
          const auto comm = tasks.read(thread, "comm", 64);
          return comm && *comm == "jemalloc_bg_thd\n";
        }));
    out.children = forked_children(proc, pid, *threads);
  }
  out.cpus = affinity(pid);
  if (const auto quota = cgroup_quota(proc, pid); quota && *quota < out.cpus.value_or(INFINITY)) {
    out.cpus = quota;
    out.cpu_quota = true;
  }
  if (const auto text = read_file(proc.path() + "/sys/vm/max_map_count", 64)) {
    out.max_map_count = sample::number_at(*text);
  }
  out.asked_for = asked_for(proc, pid);
  return out;
}

Maybe<double> measure_purge_ns_per_page() {
  constexpr size_t bytes = size_t{4} << 20;
  constexpr size_t pages = bytes / page_bytes;
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return std::nullopt;
  }
  ::madvise(memory, bytes, MADV_NOHUGEPAGE);
  Maybe<double> best;
  for (int round = 0; round < 16; ++round) {
    for (size_t at = 0; at < bytes; at += page_bytes) {
      static_cast<volatile char*>(memory)[at] = 1;
    }
    const uint64_t begin = monotonic_ns();
    if (::madvise(memory, bytes, MADV_DONTNEED) != 0) {
      break;
    }
    const double ns = static_cast<double>(monotonic_ns() - begin) / pages;
    best = best ? std::min(*best, ns) : ns;
  }
  ::munmap(memory, bytes);
  return best;
}

Maybe<ledger::OomKill> parse_oom_record(std::string_view record) {
  // "priority,sequence,microseconds,flags;text"
  constexpr std::string_view marker = "Killed process ";
  const size_t semicolon = record.find(';');
  const size_t at = record.find(marker);
  if (semicolon == std::string_view::npos || at == std::string_view::npos || at < semicolon) {
    return std::nullopt;
  }
  ledger::OomKill out{.source = "the kernel's log"};
  std::string_view head = record.substr(0, semicolon);
  for (int commas = 0; commas < 2 && !head.empty(); ++commas) {
    head.remove_prefix(std::min(head.find(',') + 1, head.size()));
  }
  out.at_ns = sample::number_at(head).value_or(0) * 1000;
  std::string_view text = record.substr(at + marker.size());
  const auto pid = sample::number_at(text);
  const size_t open = text.find('(');
  const size_t close = text.find(") total-vm:");  // a comm may hold parentheses
  if (!pid || open == std::string_view::npos || close == std::string_view::npos || close < open) {
    return std::nullopt;
  }
  out.pid = static_cast<pid_t>(*pid);
  out.comm = std::string(text.substr(open + 1, close - open - 1));
  text.remove_prefix(close);
  const auto kilobytes = [&text](std::string_view name) -> Maybe<uint64_t> {
    const size_t found = text.find(name);
    const auto value =
        found == std::string_view::npos ? std::nullopt : sample::number_at(text.substr(found + name.size()));
    return value ? Maybe<uint64_t>(*value * 1024) : std::nullopt;
  };
  out.anon_rss_bytes = kilobytes("anon-rss:");
  out.file_rss_bytes = kilobytes("file-rss:");
  return out;
}

Result<Maybe<ledger::OomKill>> last_oom_kill(const std::string& path) {
  ASSIGN_OR_RETURN(const Fd file, open_file(path, O_RDONLY | O_NONBLOCK));
  Maybe<ledger::OomKill> last;
  std::array<char, 8192> record{};
  for (;;) {
    const ssize_t n = ::read(file.get(), record.data(), record.size());
    if (n < 0 && errno == EPIPE) {
      continue;  // overwritten meanwhile: the next one is there
    }
    if (n <= 0) {
      break;  // EAGAIN: that was all
    }
    if (auto kill = parse_oom_record({record.data(), static_cast<size_t>(n)})) {
      last = std::move(kill);
    }
  }
  return last;
}

}  // namespace jemtrace::collect
