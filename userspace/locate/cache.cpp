#include "locate/cache.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "locate/digest.hpp"
#include "locate/locator_id.h"
#include "util/file.hpp"
#include "util/text.hpp"
#include "util/wire.hpp"

namespace jemtrace::locate {

static void fields(auto& archive, wire::Is<Beside> auto& it) {
  archive(1, it.path);
  archive(2, it.device);
  archive(3, it.inode);
  archive(4, it.size);
  archive(5, it.mtime_ns);
  archive(6, it.ctime_ns);
}

namespace {

// A file: one of these, a digest of the rest, the rest.
constexpr std::string_view entry_magic = "jtimage1";
constexpr std::string_view known_magic = "jtknown1";
static_assert(entry_magic.size() == known_magic.size());
constexpr size_t head_size = entry_magic.size() + sizeof(Digest::Value);
constexpr size_t max_entry = max_encoded_image + (size_t{1} << 20);
constexpr size_t max_known = head_size + 2 * sizeof(Digest::Value);
constexpr std::string_view known_file = "file-";  // and the key of its state
constexpr std::string_view unfinished = ".new-";
constexpr time_t unfinished_after = 3600;  // seconds: whoever wrote it has died

struct Stored {
  std::string outcome;
  std::vector<Beside> besides;
};

void fields(auto& archive, wire::Is<Stored> auto& it) {
  archive.raw(1, it.outcome);
  archive(2, it.besides);
}

std::string hex(const Digest::Value& value) {
  return fmt::format("{:02x}", fmt::join(value, ""));
}

bool is_entry_name(std::string_view name) {
  return name.size() == 2 * sizeof(Digest::Value) &&
         name.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

std::string_view bytes_of(const Digest::Value& value) {
  return {reinterpret_cast<const char*>(value.data()), value.size()};
}

Result<Digest::Value> digest_of(std::string_view bytes) {
  ASSIGN_OR_RETURN(Digest digest, Digest::start());
  digest.add(bytes);
  return digest.value();
}

Status write_all(int fd, std::string_view bytes, const std::string& name) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      return fail_errno("cannot write " + name);
    }
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return {};
}

/// Makes the last folder of a path, and the one above it: ~/.cache may be missing.
void make_folder(const std::string& folder) {
  if (::mkdir(folder.c_str(), 0700) != 0 && errno == ENOENT) {
    const size_t slash = folder.rfind('/');
    if (slash != 0 && slash != std::string::npos && ::mkdir(folder.substr(0, slash).c_str(), 0700) == 0) {
      ::mkdir(folder.c_str(), 0700);
    }
  }
}

int64_t nanoseconds(const timespec& time) {
  return time.tv_sec * int64_t{1'000'000'000} + time.tv_nsec;
}

struct File {
  int64_t written_ns;
  uint64_t size;
  std::string name;
};

void keep_newest(int folder, std::vector<File> files, const Cache::Bounds& bounds) {
  std::sort(files.begin(), files.end(),
            [](const File& a, const File& b) { return a.written_ns < b.written_ns; });
  size_t left = files.size();
  uint64_t total = 0;
  for (const File& file : files) {
    total += file.size;
  }
  for (const File& oldest : files) {
    if (left <= bounds.entries && total <= bounds.bytes) {
      break;
    }
    ::unlinkat(folder, oldest.name.c_str(), 0);
    total -= oldest.size;
    --left;
  }
}

/// What decides what is found, besides the file's content, as one digest: its length is fixed, so no content
/// can pass for it.
Result<Digest::Value> circumstances(uint64_t size, const std::string& path, const Options& options) {
  const std::string folder = path.substr(0, path.rfind('/') + 1);
  return digest_of(fmt::format("{} {} {}:{} {}:{}", size, JEMTRACE_LOCATOR, folder.size(), folder,
                               options.debug_root.size(), options.debug_root));
}

}  // namespace

Beside Beside::of(const std::string& path) {
  Beside beside;
  beside.path = path;
  struct stat st {};
  if (::stat(path.c_str(), &st) == 0) {
    beside.device = st.st_dev;
    beside.inode = st.st_ino;
    beside.size = static_cast<uint64_t>(st.st_size);
    beside.mtime_ns = nanoseconds(st.st_mtim);
    beside.ctime_ns = nanoseconds(st.st_ctim);
  }
  return beside;
}

std::string Cache::default_folder() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value != nullptr && value[0] == '/' ? value : "");
  };
  if (const std::string given = variable("CACHE_DIRECTORY"); !given.empty()) {
    return given.substr(0, given.find(':'));
  }
  if (::geteuid() == 0) {
    return "/var/cache/jemtrace";
  }
  if (const std::string xdg = variable("XDG_CACHE_HOME"); !xdg.empty()) {
    return xdg + "/jemtrace";
  }
  const std::string home = variable("HOME");
  return home.empty() ? "" : home + "/.cache/jemtrace";
}

Result<Cache> Cache::open(const std::string& folder, const Bounds& bounds) {
  if (folder.empty()) {
    return fail(Errc::gone, "there is no folder for a cache");
  }
  make_folder(folder);
  Fd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) {
    return fail_errno("cannot open the cache " + escape(folder));
  }
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) {
    return fail_errno("cannot stat the cache " + escape(folder));
  }
  if (st.st_uid != ::geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return fail(Errc::denied, fmt::format("the cache {} is not used: others can write to it", escape(folder)),
                fmt::format("it has to be yours, with mode 0700: remove it, and it is made anew"));
  }
  return Cache(folder, std::move(fd), bounds);
}

std::optional<std::string> Cache::read(const std::string& file, std::string_view magic, size_t limit) const {
  const Fd fd(::openat(fd_.get(), file.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  struct stat st {};
  if (!fd || ::fstat(fd.get(), &st) != 0 || !S_ISREG(st.st_mode) || st.st_uid != ::geteuid()) {
    return std::nullopt;
  }
  auto bytes = read_all(fd.get(), file, limit);
  if (!bytes || bytes->size() < head_size || !bytes->starts_with(magic)) {
    return std::nullopt;
  }
  std::string body = bytes->substr(head_size);
  const auto digest = digest_of(body);
  if (!digest || bytes_of(*digest) != std::string_view(*bytes).substr(magic.size(), digest->size())) {
    return std::nullopt;
  }
  return body;
}

std::optional<Entry> Cache::find(const std::string& name) const {
  const auto body = read(name, entry_magic, max_entry);
  Stored stored;
  if (!body || !wire::decode(*body, stored)) {
    return std::nullopt;
  }
  auto outcome = decode(stored.outcome);
  const bool current = std::all_of(stored.besides.begin(), stored.besides.end(),
                                   [](const Beside& then) { return Beside::of(then.path) == then; });
  if (!outcome || !*outcome || !current) {
    return std::nullopt;
  }
  return Entry{std::move(**outcome), std::move(stored.besides)};
}

std::optional<std::string> Cache::recall(const std::string& key) const {
  auto name = read(std::string(known_file) + key, known_magic, max_known);
  return name && is_entry_name(*name) ? std::move(name) : std::nullopt;
}

Result<Fd> Cache::create(const std::string& name) const {
  constexpr int flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  Fd file(::openat(fd_.get(), name.c_str(), flags, 0600));
  if (!file && errno == EEXIST) {  // of a process that had our pid
    ::unlinkat(fd_.get(), name.c_str(), 0);
    file = Fd(::openat(fd_.get(), name.c_str(), flags, 0600));
  }
  if (!file) {
    return fail_errno("cannot write to the cache " + escape(folder_));
  }
  return file;
}

Status Cache::write(const std::string& file, std::string_view magic, std::string_view body) const {
  ASSIGN_OR_RETURN(const Digest::Value digest, digest_of(body));
  const std::string temporary = fmt::format("{}{}", unfinished, ::getpid());
  ASSIGN_OR_RETURN(const Fd fd, create(temporary));
  // Not synced: an entry that a crash left half written is seen by its digest.
  auto status = write_all(fd.get(), fmt::format("{}{}", magic, bytes_of(digest)), folder_);
  if (status) {
    status = write_all(fd.get(), body, folder_);
  }
  if (status && ::renameat(fd_.get(), temporary.c_str(), fd_.get(), file.c_str()) != 0) {
    status = fail_errno("cannot write to the cache " + escape(folder_));
  }
  if (!status) {
    ::unlinkat(fd_.get(), temporary.c_str(), 0);
    return status;
  }
  prune();
  return {};
}

Status Cache::store(const std::string& name, const Entry& entry) const {
  const std::string body = wire::encode(Stored{encode(Outcome(entry.image)), entry.besides});
  if (head_size + body.size() > max_entry) {
    return fail(Errc::too_large, "too much is known of one file for the cache");
  }
  return write(name, entry_magic, body);
}

Status Cache::remember(const std::string& key, const std::string& name) const {
  return write(std::string(known_file) + key, known_magic, name);
}

Result<Fd> Cache::scratch() const {
  const std::string temporary = fmt::format("{}{}-copy", unfinished, ::getpid());
  ASSIGN_OR_RETURN(Fd file, create(temporary));
  ::unlinkat(fd_.get(), temporary.c_str(), 0);
  return file;
}

void Cache::prune() const {
  struct CloseDir {
    void operator()(DIR* dir) const { ::closedir(dir); }
  };
  const int again = ::openat(fd_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, CloseDir> folder(again < 0 ? nullptr : ::fdopendir(again));
  if (!folder) {
    return;
  }
  std::vector<File> entries;
  std::vector<File> known;
  const time_t now = ::time(nullptr);
  while (const dirent* item = ::readdir(folder.get())) {
    const std::string name = item->d_name;
    struct stat st {};
    if (::fstatat(fd_.get(), item->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
      continue;
    }
    const File file{nanoseconds(st.st_mtim), static_cast<uint64_t>(st.st_size), name};
    if (name.starts_with(unfinished) && st.st_mtim.tv_sec + unfinished_after < now) {
      ::unlinkat(fd_.get(), item->d_name, 0);
    } else if (is_entry_name(name)) {
      entries.push_back(file);
    } else if (name.starts_with(known_file)) {
      known.push_back(file);
    }
  }
  keep_newest(fd_.get(), std::move(entries), bounds_);
  keep_newest(fd_.get(), std::move(known), bounds_);
}

Result<std::string> state_key(const FileState& state, const std::string& path, const Options& options) {
  ASSIGN_OR_RETURN(Digest digest, Digest::start());
  digest.add(state.text());
  ASSIGN_OR_RETURN(const Digest::Value around, circumstances(state.size, path, options));
  digest.add(bytes_of(around));
  return hex(digest.value());
}

Result<std::string> cache_name(int fd, const std::string& path, const Options& options, uint64_t limit,
                               int copy) {
  ASSIGN_OR_RETURN(Digest digest, Digest::start());
  std::string buffer(size_t{256} << 10, '\0');
  uint64_t at = 0;
  for (;;) {
    const ssize_t n = ::pread(fd, buffer.data(), buffer.size(), static_cast<off_t>(at));
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      return fail_errno("cannot read " + path);
    }
    if (n == 0) {
      break;
    }
    const std::string_view bytes(buffer.data(), static_cast<size_t>(n));
    at += bytes.size();
    if (at > limit) {
      return fail(Errc::too_large, path + " is too large for the cache");
    }
    digest.add(bytes);
    if (copy >= 0) {
      TRY(write_all(copy, bytes, "a copy of " + path));
    }
  }
  ASSIGN_OR_RETURN(const Digest::Value around, circumstances(at, path, options));
  digest.add(bytes_of(around));
  return hex(digest.value());
}

}  // namespace jemtrace::locate
