// Any bytes as an ELF file: whatever they are, looking at them ends, and no site lies outside of the file.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>

#include "locate/image.hpp"
#include "locate/image_file.hpp"
#include "util/fd.hpp"

namespace {

using namespace jemtrace;

void require(bool holds) {
  if (!holds) {
    std::abort();
  }
}

void check(const locate::Image& image, size_t file_size) {
  for (const auto& call : image.call_sites) {
    require(call.return_offset <= file_size);
  }
  for (const auto& probe : image.probes) {
    require(probe.offset < file_size);
  }
  for (const auto& role : image.roles) {
    require(role.offset < file_size);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Fd file(::memfd_create("fuzz", MFD_CLOEXEC));
  require(::ftruncate(file.get(), 0) == 0);
  require(::pwrite(file.get(), data, size, 0) == static_cast<ssize_t>(size));

  const locate::Options nowhere{.debug_root = "/nonexistent"};
  (void)locate::may_hold_jemalloc(file.get(), nowhere);
  const auto outcome = locate::analyse(file.get(), "/fuzz", nowhere);
  if (outcome && *outcome) {
    check(**outcome, size);
  }
  // What was found passes through the pipe, or is refused there; it is not changed.
  const std::string bytes = encode(outcome);
  const auto again = locate::decode(bytes);
  require(!again || encode(*again) == bytes);
  return 0;
}
