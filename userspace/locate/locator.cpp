#include "locate/locator.hpp"

#include "locate/isolated.hpp"
#include "util/clock.hpp"

namespace jemtrace::locate {
namespace {

/// Beyond it, hashing and copying is not worth its time and disk space: such a file is looked at each time.
constexpr uint64_t max_cached_file = uint64_t{256} << 20;

}  // namespace

Locator Locator::standard(Error* why_not) {
  auto cache = Cache::open(Cache::default_folder());
  if (cache) {
    return Locator(Options{}, std::move(*cache));
  }
  if (why_not != nullptr) {
    *why_not = std::move(cache).error();
  }
  return Locator();
}

Result<Located> Locator::look(int fd, const std::string& path) const {
  ASSIGN_OR_RETURN(auto image, analyse_isolated(fd, path, options_));
  return Located{std::move(image), false};
}

std::optional<Located> Locator::recall(int fd, const std::string& path) const {
  const auto state = cache_ ? FileState::of(fd) : std::nullopt;
  const auto key = state ? state_key(*state, path, options_) : fail(Errc::gone, "no state");
  const auto name = key ? cache_->recall(*key) : std::nullopt;
  auto known = name ? cache_->find(*name) : std::nullopt;
  if (!known) {
    return std::nullopt;
  }
  return Located{std::move(known->image), true};
}

void Locator::remember(int fd, const std::string& path, const std::optional<FileState>& before,
                       int64_t began_ns, const std::string& name) const {
  // What was read is what the state stands for, and what comes later has another.
  if (!before || !before->settled(began_ns) || FileState::of(fd) != before) {
    return;
  }
  if (const auto key = state_key(*before, path, options_)) {
    (void)cache_->remember(*key, name);
  }
}

Result<Located> Locator::locate(int fd, const std::string& path, bool rebuild) const {
  if (!cache_) {
    return look(fd, path);
  }
  if (!rebuild) {
    if (auto known = recall(fd, path)) {
      return std::move(*known);
    }
  }
  const auto began_ns = unix_ns();
  const auto before = FileState::of(fd);
  if (!rebuild) {
    const auto name = cache_name(fd, path, options_, max_cached_file);
    auto known = name ? cache_->find(*name) : std::nullopt;
    if (known) {
      remember(fd, path, before, began_ns, *name);
      return Located{std::move(known->image), true};
    }
    if (!name) {
      return look(fd, path);
    }
  }
  // Its owner may change the file while it is looked at, so that the table of one content would be kept under
  // the name of another: a copy is looked at, and named.
  const auto copy = cache_->scratch();
  const auto name = copy ? cache_name(fd, path, options_, max_cached_file, copy->get())
                         : Result<std::string>(tl::unexpected(copy.error()));
  if (!name) {
    return look(fd, path);
  }
  Entry entry;
  ASSIGN_OR_RETURN(entry.image,
                   analyse_isolated(copy->get(), path, options_, [&](const std::string& beside, const auto&) {
                     entry.besides.push_back(Beside::of(beside));
                   }));
  // A full disk costs time at the next start, no more.
  if (cache_->store(*name, entry)) {
    remember(fd, path, before, began_ns, *name);
  }
  return Located{std::move(entry.image), false};
}

}  // namespace jemtrace::locate
