#pragma once

#include <chrono>
#include <cstdint>

#include "ledger/reading.hpp"
#include "locate/image.hpp"
#include "read/memory.hpp"

namespace jemtrace::read {

/// What to add to an address as linked, for the image that is mapped so: a jt_target_image's start and
/// file_offset.
uint64_t load_bias(const locate::Image& image, uint64_t mapping_start, uint64_t mapping_file_offset);

struct ReadOptions {
  bool with_ranges = false;       // the extents of the caches, and the blocks of metadata
  bool with_backlog = false;      // how old the pages are for the decay: 3.2 kB more per arena
  size_t max_extents = 1U << 20;  // in one reading
  std::chrono::milliseconds max_time{500};
};

/// Reads jemalloc's numbers out of a running process, which is not stopped and holds no lock for us: the
/// numbers are of slightly different moments. Each is one aligned word, so none is torn; what has to agree
/// with another is read again when it does not, and left out when that does not help.
///
/// Nothing is believed because the image says so: an arena has to say its own index, its caches which they
/// are, a decay time its interval.
class Reader {
 public:
  /// `memory` and `structures` have to live as long as the reader.
  Reader(const Memory& memory, const locate::Structures& structures, uint64_t bias)
      : memory_(memory), structures_(structures), bias_(bias) {}

  /// Errc::gone: the process has exited; denied; unsupported: the image is not understood well enough, or
  /// its layout does not fit this process.
  [[nodiscard]] Result<ledger::Reading> read(const ReadOptions& options = {}) const;

 private:
  const Memory& memory_;
  const locate::Structures& structures_;
  uint64_t bias_;
};

}  // namespace jemtrace::read
