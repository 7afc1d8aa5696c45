#include "sample/cgroup.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>

#include "sample/fields.hpp"

namespace jemtrace::sample {
namespace {

using ledger::Cgroup;
using ledger::Pressure;

constexpr size_t file_limit = size_t{1} << 20;

/// The blank-separated fields of a line; at most 16.
std::array<std::string_view, 16> fields_of(std::string_view line) {
  std::array<std::string_view, 16> out;
  for (size_t i = 0; i < out.size() && !line.empty(); ++i) {
    const size_t blank = std::min(line.find(' '), line.size());
    out[i] = line.substr(0, blank);
    line.remove_prefix(std::min(blank + 1, line.size()));
  }
  return out;
}

bool has_word(std::string_view list, std::string_view word) {
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    if (list.substr(0, comma) == word) {
      return true;
    }
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return false;
}

std::optional<double> decimal_behind(std::string_view line, std::string_view key) {
  const size_t at = line.find(key);
  return at == std::string_view::npos
             ? std::nullopt
             : std::optional(std::strtod(std::string(line.substr(at + key.size(), 16)).c_str(), nullptr));
}

std::optional<uint64_t> number_in(const std::string& file) {
  const auto text = read_file(file, 64);
  return text ? number_at(*text) : std::nullopt;
}

constexpr uint64_t no_limit = uint64_t{1} << 62;

/// Version 1 writes "no limit" as the largest multiple of a page.
void fill_limit_1(Cgroup& out, std::string_view stat) {
  const auto limit = counter(stat, "hierarchical_memory_limit");
  out.unlimited = limit && *limit >= no_limit;
  if (limit && !out.unlimited) {
    out.limit_bytes = limit;
  }
}

/// Version 2: a cgroup may have none ("max"), and one above it may. The root has no such file.
void fill_limit_2(Cgroup& out, const std::string& mount, std::string below) {
  out.unlimited = true;
  while (below.size() > 1 && below.front() == '/') {
    const auto text = read_file(mount + below + "/memory.max", 64);
    const auto limit = text ? number_at(*text) : std::nullopt;
    if (limit) {
      out.limit_bytes = std::min(*limit, out.limit_bytes.value_or(no_limit));
    }
    out.unlimited = out.unlimited && text && !limit;
    below.erase(below.rfind('/'));
  }
}

void fill(Cgroup& out, const std::string& mount, const std::string& below) {
  const std::string folder = mount + below;
  const auto stat = read_file(folder + "/memory.stat", file_limit);
  const std::string_view text = stat ? std::string_view(*stat) : std::string_view();
  out.inactive_file_bytes = counter(text, out.version == 1 ? "total_inactive_file" : "inactive_file");
  out.anon_bytes = counter(text, out.version == 1 ? "total_rss" : "anon");
  out.file_bytes = counter(text, out.version == 1 ? "total_cache" : "file");
  out.kernel_bytes =
      out.version == 1 ? number_in(folder + "/memory.kmem.usage_in_bytes") : counter(text, "kernel");
  out.pglazyfree = counter(text, "pglazyfree");
  out.pglazyfreed = counter(text, "pglazyfreed");
  out.usage_bytes = number_in(folder + (out.version == 1 ? "/memory.usage_in_bytes" : "/memory.current"));
  if (out.version == 1) {
    fill_limit_1(out, text);
  } else {
    fill_limit_2(out, mount, below);
  }
  if (const auto pressure = read_file(folder + "/memory.pressure", 4096)) {
    out.pressure = parse_pressure(*pressure);
  }
}

}  // namespace

std::optional<ledger::Pressure> parse_pressure(std::string_view text) {
  Pressure out;
  bool some = false;
  while (!text.empty()) {
    const std::string_view line = take_line(text);
    const size_t at = line.find("total=");
    const auto total_us = at == std::string_view::npos ? std::nullopt : number_at(line.substr(at + 6));
    const auto avg10 = decimal_behind(line, "avg10=");
    if (!total_us || !avg10) {
      continue;
    }
    if (line.substr(0, 5) == "some ") {
      some = true;
      out.some_avg10 = *avg10;
      out.some_total_us = *total_us;
    } else if (line.substr(0, 5) == "full ") {
      out.full_avg10 = *avg10;
      out.full_total_us = *total_us;
    }
  }
  return some ? std::optional(out) : std::nullopt;
}

std::optional<CgroupMount> find_cgroup_mount(std::string_view mountinfo, int version,
                                             std::string_view controller) {
  while (!mountinfo.empty()) {
    const std::string_view line = take_line(mountinfo);
    const size_t dash = line.find(" - ");
    if (dash == std::string_view::npos) {
      continue;
    }
    const auto head = fields_of(line);                   // id parent major:minor root point ...
    const auto tail = fields_of(line.substr(dash + 3));  // type source options
    const bool fits =
        version == 2 ? tail[0] == "cgroup2" : tail[0] == "cgroup" && has_word(tail[2], controller);
    if (fits) {
      return CgroupMount{std::string(head[4]), std::string(head[3])};
    }
  }
  return std::nullopt;
}

std::optional<std::string_view> find_cgroup_path(std::string_view text, int version,
                                                 std::string_view controller) {
  while (!text.empty()) {
    const std::string_view line = take_line(text);
    const size_t first = line.find(':');
    const size_t second = first == std::string_view::npos ? first : line.find(':', first + 1);
    if (second == std::string_view::npos) {
      continue;
    }
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    if (version == 2 ? controllers.empty() && line.substr(0, first) == "0"
                     : has_word(controllers, controller)) {
      return line.substr(second + 1);
    }
  }
  return std::nullopt;
}

CgroupMounts::CgroupMounts(const ProcRoot& proc) {
  if (const auto text = read_file(proc.path() + "/self/mountinfo", size_t{16} << 20)) {
    first_ = find_cgroup_mount(*text, 1);
    second_ = find_cgroup_mount(*text, 2);
  }
}

Result<ledger::Cgroup> read_cgroup(const ProcRoot& proc, pid_t pid, const CgroupMounts& mounts) {
  ASSIGN_OR_RETURN(const std::string membership, proc.read(pid, "cgroup", file_limit));
  for (const int version : {1, 2}) {
    const auto path = find_cgroup_path(membership, version);
    const auto& mount = mounts.of(version);
    // A path that climbs is outside of what is mounted here (another cgroup namespace).
    if (!path || !mount || path->find("/..") != std::string_view::npos) {
      continue;
    }
    Cgroup out{.path = std::string(*path), .version = version};
    std::string below = out.path;
    const size_t root = mount->root.size();
    if (mount->root != "/" && below.compare(0, root, mount->root) == 0 &&
        (below.size() == root || below[root] == '/')) {
      below.erase(0, root);
    }
    fill(out, mount->point, below);
    if (out.usage_bytes || out.anon_bytes) {
      return out;
    }
  }
  return fail(Errc::unsupported, "no cgroup with a memory controller can be read for it");
}

}  // namespace jemtrace::sample
