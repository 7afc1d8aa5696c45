#include "attach/tracefs.hpp"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <charconv>

#include "util/file.hpp"

namespace jemtrace::attach {
namespace {

Fd open_mounted(const char* path) {
  Fd fd(::open(path, O_PATH | O_DIRECTORY | O_CLOEXEC));
  struct statfs info {};
  if (fd && ::fstatfs(fd.get(), &info) == 0 && info.f_type == TRACEFS_MAGIC) {
    return fd;
  }
  return {};
}

Result<Fd> open_own() {
  const Fd context(::fsopen("tracefs", FSOPEN_CLOEXEC));
  if (!context || ::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    return fail_errno("cannot open tracefs", errno,
                      "run as root, or mount it: mount -t tracefs tracefs /sys/kernel/tracing");
  }
  Fd root(::fsmount(context.get(), FSMOUNT_CLOEXEC, 0));
  if (!root) {
    return fail_errno(
        "cannot open tracefs", errno,
        "mount it: mount -t tracefs tracefs /sys/kernel/tracing; a locked-down kernel forbids it");
  }
  return root;
}

}  // namespace

Result<Tracefs> Tracefs::open() {
  for (const char* path : {"/sys/kernel/tracing", "/sys/kernel/debug/tracing"}) {
    if (Fd fd = open_mounted(path)) {
      return Tracefs(std::move(fd), std::string("mounted at ") + path);
    }
  }
  ASSIGN_OR_RETURN(Fd own, open_own());
  return Tracefs(std::move(own), "an own instance, as the host has not mounted it");
}

Result<int> Tracefs::tracepoint_id(const std::string& category, const std::string& name) const {
  const std::string path = "events/" + category + "/" + name + "/id";
  const Fd fd(::openat(root_.get(), path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) {
    if (errno == ENOENT) {
      return fail(Errc::unsupported, "this kernel has no tracepoint " + category + ":" + name,
                  "it needs CONFIG_FTRACE_SYSCALLS");
    }
    return fail_errno("cannot read the tracepoint " + category + ":" + name, errno, "run as root");
  }
  ASSIGN_OR_RETURN(const std::string text, read_all(fd.get(), path, 64));
  int id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (error != std::errc{}) {
    return fail(Errc::malformed, "tracefs gives no number for " + category + ":" + name);
  }
  return id;
}

}  // namespace jemtrace::attach
