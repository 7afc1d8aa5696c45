#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "advise/simulate.hpp"
#include "util/result.hpp"

namespace jemtrace::advise {

struct Candidate {
  Settings settings;
  Outcome outcome;
  uint64_t least_refaulted = 0, most_refaulted = 0;  // what the recordings leave open
  bool front = false;                                // no other one needs less memory and less CPU
};

/// The settings to try: `current`, and a grid around what people set.
std::vector<Settings> default_grid(const Settings& current);
/// "dirty=0,1000,-1 muzzy=0 bg=off,on": the parts left out are as in `current`. Errc::usage.
Result<std::vector<Settings>> parse_grid(std::string_view text, const Settings& current);

/// Marks those that no other one beats in both mean resident memory and CPU.
void mark_front(std::vector<Candidate>& candidates);

enum class Goal { memory, balanced, latency };
inline constexpr std::array<Goal, 3> goals = {Goal::memory, Goal::balanced, Goal::latency};
const char* name(Goal goal);

/// What `balanced` takes a CPU to be worth: hosts are sold with about 4 GiB for each.
constexpr double bytes_per_cpu = 4.0 * (1ULL << 30);

/// What a goal wants little of. memory: mean resident bytes, of what costs no more than `dear` of a CPU more
/// than now. latency: CPU of application threads for purges and refaults. balanced: CPUs, with memory at
/// bytes_per_cpu.
constexpr double dear = 0.05;
struct Price {
  double resident_bytes = 0;
  double cpu = 0, app_cpu = 0;  // shares of one CPU
};
Price price_of(const Outcome& outcome, uint64_t page_bytes);
/// The index of the best for a goal. What is as good within what the simulator can tell is decided by the
/// other quantity: less CPU for memory, less memory for latency; then by being the current one. Not empty.
size_t best_for(Goal goal, const std::vector<Price>& prices, std::optional<size_t> current);

/// "dirty_decay_ms:1000,muzzy_decay_ms:0,background_thread:true". Names only what differs from `current`.
std::string conf_of(const Settings& settings, const std::optional<Settings>& current);

}  // namespace jemtrace::advise
