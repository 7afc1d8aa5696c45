#pragma once

#include <optional>
#include <string>

#include "locate/cache.hpp"
#include "locate/image.hpp"

namespace jemtrace::locate {

struct Located {
  std::optional<Image> image;
  bool cached = false;  // it was looked at before
};

/// How files of targets are looked at: what the cache knows, else a child process without privileges.
class Locator {
 public:
  /// Without a cache.
  explicit Locator(Options options = {}) : options_(std::move(options)) {}
  Locator(Options options, Cache cache) : options_(std::move(options)), cache_(std::move(cache)) {}
  /// With this user's cache, if there can be one; `why_not` tells otherwise.
  static Locator standard(Error* why_not = nullptr);

  /// `rebuild`: looks at it again even if the cache knows it.
  Result<Located> locate(int fd, const std::string& path, bool rebuild = false) const;
  /// What is known of a file that has not changed since, without a look at its content. nullopt: nothing is.
  [[nodiscard]] std::optional<Located> recall(int fd, const std::string& path) const;

 private:
  /// `before`: the file's state when reading it began, at `began_ns`.
  void remember(int fd, const std::string& path, const std::optional<FileState>& before, int64_t began_ns,
                const std::string& name) const;
  [[nodiscard]] Result<Located> look(int fd, const std::string& path) const;

  Options options_;
  std::optional<Cache> cache_;
};

}  // namespace jemtrace::locate
