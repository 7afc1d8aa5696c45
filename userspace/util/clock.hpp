#pragma once

#include <cstdint>

namespace jemtrace {

/// CLOCK_MONOTONIC, as the kernel side's time stamps.
uint64_t monotonic_ns();

}  // namespace jemtrace
