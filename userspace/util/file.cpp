#include "util/file.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <memory>

namespace jemtrace {

Result<Fd> open_file(const std::string& path, int flags) {
  Fd fd(::open(path.c_str(), flags | O_CLOEXEC));
  if (!fd) {
    return fail_errno("cannot open " + path);
  }
  return fd;
}

Result<std::string> read_all(int fd, const std::string& path, size_t limit) {
  std::string out;
  char buffer[16384];
  for (;;) {
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      return fail_errno("cannot read " + path);
    }
    if (n == 0) {
      return out;
    }
    if (out.size() + static_cast<size_t>(n) > limit) {
      return fail(Errc::too_large, path + " is larger than " + std::to_string(limit) + " bytes");
    }
    out.append(buffer, static_cast<size_t>(n));
  }
}

Result<std::string> read_file(const std::string& path, size_t limit) {
  ASSIGN_OR_RETURN(const Fd fd, open_file(path, O_RDONLY));
  return read_all(fd.get(), path, limit);
}

Status read_at(int fd, uint64_t offset, void* buffer, size_t size) {
  auto* out = static_cast<char*>(buffer);
  size_t done = 0;
  while (done < size) {
    const ssize_t n = ::pread(fd, out + done, size - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      return fail_errno("cannot read");
    }
    if (n == 0) {
      return fail(Errc::malformed, "the file is shorter than its headers say");
    }
    done += static_cast<size_t>(n);
  }
  return {};
}

std::string ProcRoot::of(pid_t pid, const std::string& name) const {
  return path_ + "/" + std::to_string(pid) + (name.empty() ? "" : "/" + name);
}

Result<std::vector<pid_t>> ProcRoot::pids() const {
  struct CloseDir {
    void operator()(DIR* dir) const { ::closedir(dir); }
  };
  const std::unique_ptr<DIR, CloseDir> dir(::opendir(path_.c_str()));
  if (!dir) {
    return fail_errno("cannot open " + path_);
  }
  std::vector<pid_t> pids;
  while (const dirent* entry = ::readdir(dir.get())) {
    const std::string_view name = entry->d_name;
    pid_t pid = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (error == std::errc{} && end == name.data() + name.size() && pid > 0) {
      pids.push_back(pid);
    }
  }
  std::sort(pids.begin(), pids.end());
  return pids;
}

Result<std::string> ProcRoot::read(pid_t pid, const std::string& name, size_t limit) const {
  auto text = read_file(of(pid, name), limit);
  if (!text && text.error().code == Errc::denied && text.error().hint.empty()) {
    text.error().hint =
        "this needs root or CAP_SYS_PTRACE in the process's user namespace, and no security module that "
        "forbids it";
  }
  return text;
}

Result<std::string> ProcRoot::link(pid_t pid, const std::string& name) const {
  const std::string path = of(pid, name);
  std::string target(PATH_MAX, '\0');
  const ssize_t n = ::readlink(path.c_str(), target.data(), target.size());
  if (n < 0) {
    return fail_errno("cannot read " + path);
  }
  target.resize(static_cast<size_t>(n));
  return target;
}

}  // namespace jemtrace
