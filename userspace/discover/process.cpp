#include "discover/process.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <charconv>

namespace jemtrace::discover {
namespace {

constexpr size_t small_file = 65536;

template <typename T>
std::optional<T> to_number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end != text.data() ? std::optional(value) : std::nullopt;
}

}  // namespace

std::optional<Stat> parse_stat(std::string_view text) {
  const size_t open = text.find('(');
  const size_t close = text.rfind(')');  // comm may hold parentheses itself
  if (open == std::string_view::npos || close == std::string_view::npos || close < open) {
    return std::nullopt;
  }
  Stat stat{.comm = text.substr(open + 1, close - open - 1)};
  std::string_view rest = text.substr(close + 1);
  // Behind the comm comes field 3; the start time is field 22.
  for (int field = 3; field <= 22; ++field) {
    const size_t begin = rest.find_first_not_of(' ');
    if (begin == std::string_view::npos) {
      return std::nullopt;
    }
    rest.remove_prefix(begin);
    if (field == 3 && !rest.empty()) {
      stat.state = rest.front();
    }
    if (field < 22) {
      rest.remove_prefix(std::min(rest.find(' '), rest.size()));
    }
  }
  const auto ticks = to_number<uint64_t>(rest);
  if (!ticks) {
    return std::nullopt;
  }
  stat.start_ticks = *ticks;
  return stat;
}

std::string_view parse_cgroup(std::string_view text) {
  std::string_view v2;
  while (!text.empty()) {
    const size_t newline = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, newline);
    text.remove_prefix(std::min(newline + 1, text.size()));
    // hierarchy-id:controllers:path
    const size_t first = line.find(':');
    const size_t second = first == std::string_view::npos ? first : line.find(':', first + 1);
    if (second == std::string_view::npos) {
      continue;
    }
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    const std::string_view path = line.substr(second + 1);
    if (("," + std::string(controllers) + ",").find(",memory,") != std::string::npos) {
      return path;
    }
    if (controllers.empty()) {
      v2 = path;
    }
  }
  return v2;
}

std::optional<uid_t> parse_uid(std::string_view status) {
  const size_t at = status.find("\nUid:");
  if (at == std::string_view::npos) {
    return std::nullopt;
  }
  std::string_view rest = status.substr(at + 5);
  rest.remove_prefix(std::min(rest.find_first_not_of(" \t"), rest.size()));
  return to_number<uid_t>(rest);
}

bool has_ended(const ProcRoot& proc, const Process& process) {
  const auto now = read_process(proc, process.pid);
  // A zombie has no program any more; kernel threads never had one.
  return !now || now->start_time_ns != process.start_time_ns || (!process.exe.empty() && now->exe.empty());
}

std::optional<bool> is_stopped(const ProcRoot& proc, pid_t pid) {
  const auto text = proc.read(pid, "stat", small_file);
  const auto stat = text ? parse_stat(*text) : std::nullopt;
  if (!stat || stat->state == 'Z' || stat->state == 'X') {
    return std::nullopt;
  }
  return stat->state == 'T';
}

Result<Process> read_process(const ProcRoot& proc, pid_t pid) {
  Process process{.pid = pid};
  auto text = proc.read(pid, "stat", small_file);
  if (!text) {
    Error error = std::move(text).error();
    if (error.code == Errc::gone) {
      error = {Errc::gone, fmt::format("no process has pid {}", pid), 0,
               "jemtrace list shows those that use jemalloc"};
    }
    return tl::unexpected(std::move(error));
  }
  const auto stat = parse_stat(*text);
  if (!stat) {
    return fail(Errc::malformed, proc.of(pid, "stat") + " makes no sense");
  }
  static const auto ticks_per_second = static_cast<uint64_t>(::sysconf(_SC_CLK_TCK));
  process.comm = stat->comm;
  process.start_time_ns = stat->start_ticks * (1'000'000'000 / ticks_per_second);
  process.exe = proc.link(pid, "exe").value_or("");
  process.cgroup = parse_cgroup(proc.read(pid, "cgroup", small_file).value_or(""));
  process.uid = parse_uid(proc.read(pid, "status", small_file).value_or(""));
  return process;
}

}  // namespace jemtrace::discover
