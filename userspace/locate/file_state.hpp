#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace jemtrace::locate {

/// What a file system says of an open file, where that is enough to know its content again without reading
/// it: whoever writes to the file, or replaces it, changes these numbers.
///
/// The one that counts is the ctime. No system call sets it, only the clock does, at each change of content,
/// size, owner or other times; utimensat(2) moves it on, too. That is so for the file systems that are
/// believed:
///
/// - ext2, ext3, ext4, XFS, Btrfs: they lie on a disk, and only the host can mount them.
/// - not FUSE, 9p, NFS, CIFS: somebody else answers, what he likes.
/// - not overlayfs: a container may lay one over a FUSE of its own, and its device number is one that another
///   container's overlay had before, so that it could speak for files of others.
/// - not tmpfs, ramfs: memory that is mapped is written to without any time changing.
///
/// What is left: a file that was mapped for writing before, and whose page is still dirty, can be written to
/// once more without a change of its ctime; so can one whose disk somebody writes to past the file system, or
/// while he sets the host's clock back. All of them own the file, or the host. What they gain is wrong
/// numbers of processes that run this very file, as inode and device are part of it.
struct FileState {
  uint64_t device = 0, inode = 0, size = 0;
  int64_t mtime_ns = 0, ctime_ns = 0;
  uint64_t file_system = 0;  // its id; the device number may be another's after a reboot or a mount
  std::string boot;          // of this boot only: another system may write to the disk in between

  /// nullopt: a file system whose word is not enough, or no regular file.
  static std::optional<FileState> of(int fd);
  /// Nothing that happens from `now_ns` (CLOCK_REALTIME) on can leave this ctime: it is older than the clocks
  /// of file systems are coarse, the coarsest of them one second.
  [[nodiscard]] bool settled(int64_t now_ns) const;
  /// All of it in one line.
  [[nodiscard]] std::string text() const;

  bool operator==(const FileState&) const = default;
};

/// statfs(2)'s f_type.
bool is_believed(uint64_t file_system_type);

}  // namespace jemtrace::locate
