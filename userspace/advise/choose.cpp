#include "advise/choose.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "util/text.hpp"

namespace jemtrace::advise {
namespace {

// Closer than that the simulator cannot tell (docs/advise.md).
constexpr double same_memory = 0.02;
constexpr double same_cpu = 0.0005;  // of a CPU
constexpr double same_cpu_share = 0.1;

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t end = text.find(separator);
    if (const auto part = text.substr(0, end); !part.empty()) {
      parts.push_back(part);
    }
    if (end == std::string_view::npos) {
      return parts;
    }
    text.remove_prefix(end + 1);
  }
}

Result<std::vector<int64_t>> parse_times(std::string_view list) {
  constexpr int64_t most_ms = 1'000'000'000;
  std::vector<int64_t> times;
  for (const std::string_view part : split(list, ',')) {
    int64_t ms = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), ms);
    if (error != std::errc{} || end != part.data() + part.size() || ms < -1 || ms > most_ms) {
      return fail(Errc::usage, fmt::format("'{}' is no decay time", escape(part)),
                  "a decay time is in ms: -1 never, 0 at once");
    }
    times.push_back(ms);
  }
  return times;
}

Result<std::vector<bool>> parse_switches(std::string_view list) {
  std::vector<bool> switches;
  for (const std::string_view part : split(list, ',')) {
    if (part != "on" && part != "off") {
      return fail(Errc::usage, fmt::format("'{}' is neither on nor off", escape(part)));
    }
    switches.push_back(part == "on");
  }
  return switches;
}

std::vector<Settings> product(const std::vector<int64_t>& dirty, const std::vector<int64_t>& muzzy,
                              const std::vector<bool>& background) {
  std::vector<Settings> grid;
  for (const bool bg : background) {
    for (const int64_t m : muzzy) {
      for (const int64_t d : dirty) {
        // What never leaves the dirty cache, or is purged past the muzzy one, never meets its time.
        if ((d == -1 || d == 0) && m != 0 && std::find(muzzy.begin(), muzzy.end(), 0) != muzzy.end()) {
          continue;
        }
        grid.push_back({d, m, bg});
      }
    }
  }
  return grid;
}

double value(Goal goal, const Price& price) {
  switch (goal) {
    case Goal::memory:
      return price.resident_bytes;
    case Goal::balanced:
      return price.cpu + price.resident_bytes / bytes_per_cpu;
    case Goal::latency:
      return price.app_cpu;
  }
  return 0;
}

/// What may not be told from the best.
double ceiling(Goal goal, double best) {
  switch (goal) {
    case Goal::memory:
      return best * (1 + same_memory);
    case Goal::balanced:
      return best;
    case Goal::latency:
      return std::max(best * (1 + same_cpu_share), best + same_cpu);
  }
  return best;
}

}  // namespace

std::vector<Settings> default_grid(const Settings& current) {
  auto grid = product({0, 100, 300, 1000, 3000, 10000, 30000, -1}, {0, 1000, 10000}, {false, true});
  if (std::find(grid.begin(), grid.end(), current) == grid.end()) {
    grid.push_back(current);
  }
  return grid;
}

Result<std::vector<Settings>> parse_grid(std::string_view text, const Settings& current) {
  std::vector<int64_t> dirty = {current.dirty_ms};
  std::vector<int64_t> muzzy = {current.muzzy_ms};
  std::vector<bool> background = {current.background};
  for (const std::string_view part : split(text, ' ')) {
    const size_t equals = part.find('=');
    const std::string_view key = part.substr(0, equals);
    const std::string_view list = equals == std::string_view::npos ? "" : part.substr(equals + 1);
    if (key == "dirty") {
      ASSIGN_OR_RETURN(dirty, parse_times(list));
    } else if (key == "muzzy") {
      ASSIGN_OR_RETURN(muzzy, parse_times(list));
    } else if (key == "bg") {
      ASSIGN_OR_RETURN(background, parse_switches(list));
    } else {
      return fail(Errc::usage, fmt::format("'{}' is no part of a grid", escape(part)),
                  "for example: 'dirty=0,1000,10000 muzzy=0,1000 bg=off,on'");
    }
  }
  if (dirty.empty() || muzzy.empty() || background.empty()) {
    return fail(Errc::usage, "a part of the grid is empty");
  }
  constexpr size_t most = 256;
  if (dirty.size() * muzzy.size() * background.size() > most) {
    return fail(Errc::usage, fmt::format("more than {} settings", most));
  }
  auto grid = product(dirty, muzzy, background);
  if (std::find(grid.begin(), grid.end(), current) == grid.end()) {
    grid.push_back(current);
  }
  return grid;
}

void mark_front(std::vector<Candidate>& candidates) {
  for (Candidate& one : candidates) {
    one.front = std::none_of(candidates.begin(), candidates.end(), [&](const Candidate& other) {
      const double memory = other.outcome.mean_resident - one.outcome.mean_resident;
      const double cpu = other.outcome.cost() - one.outcome.cost();
      return memory <= 0 && cpu <= 0 && (memory < 0 || cpu < 0);
    });
  }
}

const char* name(Goal goal) {
  switch (goal) {
    case Goal::memory:
      return "memory";
    case Goal::balanced:
      return "balanced";
    case Goal::latency:
      return "latency";
  }
  return "";
}

Price price_of(const Outcome& outcome, uint64_t page_bytes) {
  return {outcome.mean_resident * static_cast<double>(page_bytes), outcome.cost(), outcome.app_cost()};
}

size_t best_for(Goal goal, const std::vector<Price>& prices, std::optional<size_t> current) {
  const auto cheapest = std::min_element(prices.begin(), prices.end(),
                                         [](const Price& a, const Price& b) { return a.cpu < b.cpu; });
  const double most_cpu =
      goal == Goal::memory ? (current ? prices[*current].cpu : cheapest->cpu) + dear : INFINITY;
  const auto better = [&](const Price& a, const Price& b) {
    const bool too_dear = a.cpu > most_cpu;
    return too_dear != (b.cpu > most_cpu) ? !too_dear : value(goal, a) < value(goal, b);
  };
  const auto least = std::min_element(prices.begin(), prices.end(), better);
  const double limit = ceiling(goal, value(goal, *least));
  const Goal second = goal == Goal::memory ? Goal::balanced : Goal::memory;
  size_t best = static_cast<size_t>(least - prices.begin());
  for (size_t i = 0; i < prices.size(); ++i) {
    if (prices[i].cpu <= most_cpu && value(goal, prices[i]) <= limit &&
        value(second, prices[i]) < value(second, prices[best])) {
      best = i;
    }
  }
  // A change has to be worth it.
  if (current && value(goal, prices[*current]) <= limit &&
      value(second, prices[*current]) <= value(second, prices[best]) * (1 + same_memory)) {
    return *current;
  }
  return best;
}

std::string conf_of(const Settings& settings, const std::optional<Settings>& current) {
  std::string out;
  const auto add = [&](const std::string& part) { out += (out.empty() ? "" : ",") + part; };
  if (!current || current->dirty_ms != settings.dirty_ms) {
    add(fmt::format("dirty_decay_ms:{}", settings.dirty_ms));
  }
  if (!current || current->muzzy_ms != settings.muzzy_ms) {
    add(fmt::format("muzzy_decay_ms:{}", settings.muzzy_ms));
  }
  if (!current || current->background != settings.background) {
    add(fmt::format("background_thread:{}", settings.background));
  }
  return out;
}

}  // namespace jemtrace::advise
