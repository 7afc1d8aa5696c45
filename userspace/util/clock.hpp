#pragma once

#include <cstdint>

namespace jemtrace {

/// CLOCK_MONOTONIC, as the kernel side's time stamps.
uint64_t monotonic_ns();
/// CLOCK_REALTIME: the time of day. It can be set back and forth; durations are no differences of it.
int64_t unix_ns();

}  // namespace jemtrace
