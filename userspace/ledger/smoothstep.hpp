#pragma once

#include <cstddef>
#include <cstdint>

namespace jemtrace::ledger {

/// SMOOTHSTEP_NSTEPS, SMOOTHSTEP_BFP: the same from 5.0 on.
constexpr size_t decay_steps = 200;
constexpr unsigned decay_fixed_point = 24;

/// h_steps[i] of smoothstep.h: how much of what became unused 199 - i epochs ago may still stay, in units of
/// 2^-24. 6x^5 - 15x^4 + 10x^3 at x = (i + 1)/200, rounded down; `i` below 200.
constexpr uint64_t smoothstep(size_t i) {
  const uint64_t n = i + 1;
  const uint64_t s = 6 * n * n * n * n * n - 3000 * n * n * n * n + 400000 * n * n * n;
  __extension__ using Wide = unsigned __int128;
  return static_cast<uint64_t>((Wide{s} << decay_fixed_point) / 320'000'000'000U);
}

}  // namespace jemtrace::ledger
