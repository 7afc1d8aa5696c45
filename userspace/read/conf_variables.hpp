#pragma once

#include <optional>
#include <string>

#include "locate/image.hpp"
#include "read/memory.hpp"

namespace jemtrace::read {

/// What a program says in `malloc_conf`, out of its memory: at most 4 kB of printable text. nullopt: the
/// variable is not set, not there yet, or holds no text. `bias`: of the image (load_bias).
std::optional<std::string> read_conf_variable(const Memory& memory, const locate::ConfVariable& variable,
                                              uint64_t bias);

}  // namespace jemtrace::read
