#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "locate/image.hpp"

namespace jemtrace::locate {

/// An instruction near a function's entry at which all arguments are still in their registers.
struct ProbePoint {
  uint32_t offset = 0;  // from the entry
  CostClass cost = CostClass::single_step;
  std::string instruction;  // "push r15"
};

/// Chooses where to probe a function whose x86-64 code is `code`, at its entry. An instruction that the
/// kernel emulates is searched for behind endbr64 and up to six harmless instructions; nullopt when the first
/// one cannot be decoded.
std::optional<ProbePoint> choose_probe(std::span<const uint8_t> code);

}  // namespace jemtrace::locate
