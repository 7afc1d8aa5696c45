#include "locate/isolated.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>

#include "locate/debug_files.hpp"
#include "util/confined.hpp"

namespace jemtrace::locate {
namespace {

constexpr uint64_t mb = uint64_t{1} << 20;
// For what does not depend on the file's size: MiniDebugInfo takes 65 MB to unpack, and up to 96 MB unpacked.
constexpr uint64_t least_memory = 256 * mb;
// A table is held as read, and as vectors that grow by doubling.
constexpr uint64_t memory_per_byte = 3;
constexpr uint64_t most_memory = 2048 * mb;
// Several times what the slowest files take (20 ms per MB when all functions have to be recovered): hosts are
// slower, and emulated ones much slower.
constexpr std::chrono::seconds least_time{5};
constexpr uint64_t bytes_per_second = 10 * mb;

Budget for_size(uint64_t size) {
  return {.memory_bytes = std::min(memory_per_byte * size, most_memory),
          .cpu = std::chrono::seconds(size / bytes_per_second)};
}

Result<uint64_t> size_of(int fd, const std::string& path) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) {
    return fail_errno("cannot stat " + path);
  }
  if (!S_ISREG(status.st_mode)) {
    return fail(Errc::malformed, path + " is not a regular file");
  }
  return static_cast<uint64_t>(status.st_size);
}

/// Runs in the child.
std::string look(int fd, const std::string& path, const Options& options, const Ask& ask) {
  Options inside = options;
  inside.open_debug_file = ask;
  try {
    return encode(analyse(fd, path, inside));
  } catch (const std::bad_alloc&) {
    return encode(fail(Errc::too_large, path + " needs more memory to look at than such a file may take"));
  }
}

}  // namespace

Outcome analyse_isolated(int fd, const std::string& path, const Options& options, const Witness& witness) {
  ASSIGN_OR_RETURN(const uint64_t size, size_of(fd, path));
  if (size > options.max_file_size) {
    return fail(Errc::too_large, fmt::format("{} is larger than {} bytes", path, options.max_file_size));
  }
  Confinement confinement{
      .path = path, .file = fd, .budget = for_size(size), .max_answer = max_encoded_image};
  confinement.budget.memory_bytes += least_memory;
  confinement.budget.cpu += least_time;
  const Give give = [&](const std::string& name) -> Result<Given> {
    if (!may_be_debug_file_of(name, path, options)) {
      return fail(Errc::denied, "this is no debug file");
    }
    auto file = options.open_debug_file ? options.open_debug_file(name) : open_debug_path(name);
    if (witness) {
      witness(name, file);
    }
    if (!file) {
      return tl::unexpected(std::move(file).error());
    }
    ASSIGN_OR_RETURN(const uint64_t more, size_of(file->get(), name));
    return Given{std::move(*file), for_size(more)};
  };
  ASSIGN_OR_RETURN(
      const std::string answer,
      run_confined(
          confinement, [&](int file, const Ask& ask) { return look(file, path, options, ask); }, give));
  auto outcome = decode(answer);
  if (!outcome) {
    return fail(Errc::malformed, "what came of looking at " + path + " makes no sense");
  }
  return std::move(*outcome);
}

}  // namespace jemtrace::locate
