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

 private:
  [[nodiscard]] Result<Located> look(int fd, const std::string& path) const;

  Options options_;
  std::optional<Cache> cache_;
};

}  // namespace jemtrace::locate
