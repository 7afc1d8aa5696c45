#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "jemtrace/abi.h"
#include "locate/version.hpp"

namespace jemtrace::locate {

/// What a function means to a walk up the stack.
struct RoleEntry {
  std::string_view role;  // jemalloc's name for the function, or the C library's
  jt_purpose purpose;     // JT_PASS: walk on
  jt_cause cause = JT_CAUSE_UNKNOWN;
  bool jemalloc = true;  // false: the C library's
};

/// All functions that can be on the stack of a memory system call. The one table of this tool's knowledge of
/// names.
std::span<const RoleEntry> role_table();
const RoleEntry* find_role(std::string_view role);

/// The functions that a family needs for exact accounts; each is there under one name in a plain build.
std::vector<std::string_view> wanted_roles(Family family);

/// The function that makes one decay pass, and the one that takes extents out of a cache, in a family.
std::string_view sweep_role(Family family);
std::string_view evict_role(Family family);

/// What a compiler makes of one function.
enum class Variant {
  plain,    // as written
  part,     // .part.N: all but the first tests; the arguments are the same ones in practice
  altered,  // .constprop.N, .isra.N, .lto_priv.N, .llvm.N: arguments may be gone
  cold,     // .cold: a piece of a function, reached by a jump, without an entry of its own
};

/// A symbol taken apart: "_rjem_je_pac_decay_to_limit.part.0.llvm.123".
struct SpelledName {
  std::string_view prefix;  // "_rjem_je_"
  std::string_view role;    // "pac_decay_to_limit"
  Variant variant = Variant::plain;
};

/// nullopt when the symbol is no function of the table under any spelling.
std::optional<SpelledName> spelled_name(std::string_view symbol);

/// `symbol` without what compilers append: from the first dot on.
std::string_view without_suffix(std::string_view symbol);

}  // namespace jemtrace::locate
