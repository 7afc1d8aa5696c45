#pragma once

#include <vector>

#include "locate/elf_file.hpp"
#include "locate/image.hpp"

namespace jemtrace::locate {

/// The variables of type `const char *` in which a program itself says its settings, as `malloc_conf` and,
/// from 5.3.0, `malloc_conf_2_conf_harder`, with the prefix of the public API. Of a shared library not the
/// variable but the word of the GOT that leads to it: the program's own definition replaces the library's.
std::vector<ConfVariable> find_conf_variables(const ElfFile& file);

}  // namespace jemtrace::locate
