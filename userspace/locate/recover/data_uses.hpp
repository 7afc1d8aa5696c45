#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "locate/recover/data_view.hpp"

namespace jemtrace::locate::recover {

/// A load from an address that the code alone fixes.
struct DataUse {
  uint64_t vaddr = 0;
  uint8_t bytes = 0;     // that are read
  bool element = false;  // of an array of pointers that begins at `vaddr`
};

/// Where in the struct behind a pointer from an array something is.
struct MemberUse {
  uint64_t array = 0;
  uint32_t offset = 0;
};

struct DataUses {
  std::vector<DataUse> reads;  // each once
  std::vector<MemberUse> members;
};

/// What a function reads of the image's data. Addresses are followed along the text: from lea, through a word
/// that the dynamic linker fills in (the GOT), through moves.
DataUses data_uses(std::span<const uint8_t> code, uint64_t vaddr, const DataView& data);

}  // namespace jemtrace::locate::recover
