#pragma once

#include <optional>

#include "locate/recover/recover.hpp"
#include "locate/structures.hpp"

namespace jemtrace::locate::recover {

/// Where the image keeps its numbers. The options and the array of arenas come from the code of the mallctl
/// handlers; the members of arena_t from the layouts of the releases, of which one has to agree with the
/// distances that the code uses. nullopt: nothing is known. What is found is a proposal: a reader still has
/// to see that an arena says its own index, and a cache its own state.
std::optional<Structures> find_structures(const ElfFile& file, const Survey& survey, Family family);

}  // namespace jemtrace::locate::recover
