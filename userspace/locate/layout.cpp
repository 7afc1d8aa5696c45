#include "locate/layout.hpp"

#include <algorithm>
#include <cstring>

#include "locate/recover/instructions.hpp"

namespace jemtrace::locate {
namespace {

struct Known {
  Family from, to;
  CacheFields layout;
};

// From the DWARF of upstream builds of these tags (x86-64, 4 kB pages, default
// options): 5.0.1, 5.1.0, 5.2.0, 5.2.1, 5.3.0, 5.3.1, dev at 295e4894. 5.2 put statistics of all size classes
// before the state. extents_t has no arena.
constexpr Known known[] = {
    {Family::v50, Family::v51, {0x6d8, 0}},
    {Family::v52, Family::v52, {0x1360, 0}},
    {Family::v53, Family::dev, {0x4be0, 0x4be4}},
};

constexpr uint32_t max_layout = 64 << 10;

}  // namespace

std::optional<uint32_t> getter_offset(std::span<const uint8_t> code) {
  constexpr uint8_t endbr64[] = {0xf3, 0x0f, 0x1e, 0xfa};
  if (code.size() >= 4 && std::memcmp(code.data(), endbr64, 4) == 0) {
    code = code.subspan(4);
  }
  if (code.size() < 7 || code[0] != 0x8b || code[1] != 0x87 || code[6] != 0xc3) {
    return std::nullopt;
  }
  uint32_t offset = 0;
  std::memcpy(&offset, code.data() + 2, sizeof offset);
  return offset > 0 && offset < max_layout ? std::optional(offset) : std::nullopt;
}

bool uses_displacement(std::span<const uint8_t> code, int64_t displacement) {
  const auto instructions = recover::decode(code, 0);
  return std::any_of(instructions.begin(), instructions.end(), [&](const recover::Instruction& in) {
    return in.base != recover::no_register && in.displacement == displacement;
  });
}

CacheFields cache_layout(const ElfFile& file, const Symbols& symbols, Family family) {
  // The image's own word counts more than the table: a fork may have moved the field.
  if (symbols.state_getter != 0) {
    constexpr uint64_t getter_size = 11;
    if (const auto code = file.read_vaddr(symbols.state_getter, getter_size, getter_size)) {
      if (const auto offset = getter_offset(*code)) {
        return {*offset, 0};
      }
    }
  }
  for (const Known& k : known) {
    if (family >= k.from && family <= k.to) {
      return k.layout;
    }
  }
  return {};
}

}  // namespace jemtrace::locate
