#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "locate/file_state.hpp"
#include "locate/image.hpp"
#include "locate/image_file.hpp"
#include "util/fd.hpp"
#include "util/result.hpp"

namespace jemtrace::locate {

/// A file that was looked for besides the image, and what was there: another one later means that what was
/// found may be out of date.
struct Beside {
  std::string path;
  uint64_t device = 0, inode = 0, size = 0;  // all 0: there was none
  int64_t mtime_ns = 0, ctime_ns = 0;

  static Beside of(const std::string& path);
  bool operator==(const Beside&) const = default;
};

/// What came of looking at a file: an image, or that it holds none.
struct Entry {
  std::optional<Image> image;
  std::vector<Beside> besides;
};

/// What is known of files, on disk: one entry per content, written once and moved into its place.
///
/// An entry's name is a digest of all that its content was made from: every byte of the file, the folder it
/// was in (where debug files are looked for), and the build of the locator. No part of that can be forged. A
/// build-id could: it is a field that any file may carry, so a container could have its own file read under
/// the name of the host's libjemalloc. Inode, size and times could not easily, but whom they can be trusted
/// from depends on the file system: where they can (see FileState), the cache also keeps which name a file
/// had, and no byte of it is read again. Hashing costs ~1 ms for a libjemalloc, and ~0.1 s for 100 MB.
///
/// Only its owner may write to the folder. Even so what is read from it is checked as if anybody might.
class Cache {
 public:
  struct Bounds {
    size_t entries = 256;  // and as many names of files
    uint64_t bytes = uint64_t{64} << 20;
  };

  /// The folder is made (0700) where it is missing. One that is a symbolic link, is another user's or can be
  /// written to by others is refused with Errc::denied.
  static Result<Cache> open(const std::string& folder, const Bounds& bounds = {256, uint64_t{64} << 20});

  /// $CACHE_DIRECTORY, which systemd sets; /var/cache/jemtrace for root, $XDG_CACHE_HOME/jemtrace or
  /// ~/.cache/jemtrace for others. Empty when there is none.
  static std::string default_folder();

  /// nullopt: there is none, it is damaged, or a file beside has changed since.
  [[nodiscard]] std::optional<Entry> find(const std::string& name) const;
  /// Then removes the oldest entries beyond the bounds.
  Status store(const std::string& name, const Entry& entry) const;

  /// The name that a file in this state had when it was hashed; `key` is of state_key(). nullopt: not known.
  [[nodiscard]] std::optional<std::string> recall(const std::string& key) const;
  Status remember(const std::string& key, const std::string& name) const;
  /// An empty file without a name, on the same file system.
  [[nodiscard]] Result<Fd> scratch() const;

 private:
  Cache(std::string folder, Fd fd, const Bounds& bounds)
      : folder_(std::move(folder)), fd_(std::move(fd)), bounds_(bounds) {}
  /// The content of a file of ours, checked against its digest; without magic and digest.
  [[nodiscard]] std::optional<std::string> read(const std::string& file, std::string_view magic,
                                                size_t limit) const;
  [[nodiscard]] Status write(const std::string& file, std::string_view magic, std::string_view body) const;
  [[nodiscard]] Result<Fd> create(const std::string& name) const;
  void prune() const;

  std::string folder_;
  Fd fd_;
  Bounds bounds_;
};

/// Under which a file in this state is recalled, and the circumstances that decide what is found in it.
Result<std::string> state_key(const FileState& state, const std::string& path, const Options& options);

/// Under which name the cache knows the content of `fd`. With `copy`, that content is also written there:
/// what is read from the copy is what the name stands for, whatever becomes of the file meanwhile.
/// Errc::too_large beyond `limit` bytes.
Result<std::string> cache_name(int fd, const std::string& path, const Options& options, uint64_t limit,
                               int copy = -1);

}  // namespace jemtrace::locate
