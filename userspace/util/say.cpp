#include "util/say.hpp"

#include <cstdio>

namespace jemtrace {

void tell(const std::string& text) {
  (void)std::fputs(text.c_str(), stderr);
}

}  // namespace jemtrace
