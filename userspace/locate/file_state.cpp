#include "locate/file_state.hpp"

#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <cstring>

#include "util/file.hpp"

namespace jemtrace::locate {
namespace {

constexpr uint64_t xfs_magic = 0x58465342;  // "XFSB"; not in the kernel's headers for programs
constexpr int64_t second_ns = 1'000'000'000;
constexpr int64_t settled_after_ns = 2 * second_ns;

int64_t nanoseconds(const timespec& time) {
  return time.tv_sec * second_ns + time.tv_nsec;
}

}  // namespace

bool is_believed(uint64_t file_system_type) {
  switch (file_system_type) {
    case EXT4_SUPER_MAGIC:  // and ext2, ext3
    case xfs_magic:
    case BTRFS_SUPER_MAGIC:
      return true;
    default:
      return false;
  }
}

std::optional<FileState> FileState::of(int fd) {
  struct statfs host {};
  struct stat st {};
  if (::fstatfs(fd, &host) != 0 || ::fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) ||
      !is_believed(static_cast<uint64_t>(host.f_type))) {
    return std::nullopt;
  }
  auto boot = read_file("/proc/sys/kernel/random/boot_id", 64);
  if (!boot || boot->empty()) {
    return std::nullopt;
  }
  boot->erase(boot->find_last_not_of('\n') + 1);
  FileState state{.device = st.st_dev,
                  .inode = st.st_ino,
                  .size = static_cast<uint64_t>(st.st_size),
                  .mtime_ns = nanoseconds(st.st_mtim),
                  .ctime_ns = nanoseconds(st.st_ctim),
                  .boot = std::move(*boot)};
  static_assert(sizeof host.f_fsid == sizeof state.file_system);
  std::memcpy(&state.file_system, &host.f_fsid, sizeof state.file_system);
  return state;
}

bool FileState::settled(int64_t now_ns) const {
  return ctime_ns < now_ns - settled_after_ns;
}

std::string FileState::text() const {
  return fmt::format("{} {} {} {} {} {} {}", device, inode, size, mtime_ns, ctime_ns, file_system, boot);
}

}  // namespace jemtrace::locate
