#include "advise/calibrate.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
#include <vector>

#include "util/parallel.hpp"

namespace jemtrace::advise {
namespace {

// Differences of a misfit, which is a sum of relative errors.
constexpr double cannot_tell = 0.02, may_be = 0.1;

using Recordings = std::vector<std::reference_wrapper<const Input>>;

/// By the logarithm; what is less than `few` counts as so many.
double error_of(double said, double real, double few) {
  return std::abs(std::log(std::max(said, few) / std::max(real, few)));
}

double mean_active_pages(const Activity& activity) {
  double sum = 0;
  const auto totals = activity.totals();
  for (const Point& point : totals) {
    sum += static_cast<double>(point.active);
  }
  return totals.empty() ? 0 : sum / static_cast<double>(totals.size());
}

/// Of the pages that are held, and of those that came back or, where that is not known, went.
double misfit(const Input& in, const Model& model) {
  constexpr unsigned plays = 3;
  const Outcome out = simulate(in.activity, in.current, model, in.costs,
                               in.activity.from_start ? Begin::empty : Begin::as_read, plays);
  const auto& real = in.measured.refaulted_pages ? in.measured.refaulted_pages : in.measured.purged_pages;
  const uint64_t moved = in.measured.refaulted_pages ? out.refaulted : out.purged();
  const double active = mean_active_pages(in.activity);
  constexpr double few_held = 256;
  constexpr double few_moved = 4096;
  return error_of(out.mean_resident - active, in.activity.mean_resident_pages() - active, few_held) +
         (real ? error_of(static_cast<double>(moved), static_cast<double>(*real), few_moved) : 0);
}

void share_touched(Model& model, const Recordings& recordings) {
  double returned = 0;
  uint64_t refaulted = 0;
  for (const Input& one : recordings) {
    const auto back = returned_pages(one.activity);
    if (back && one.measured.refaulted_pages) {
      returned += *back;
      refaulted += *one.measured.refaulted_pages;
    }
  }
  model.touched_share = touched_share(returned, refaulted);
}

/// How often it was seen whether there was a chance to decay.
double seen_chances(const Activity& activity) {
  double seen = 0;
  for (const ArenaActivity& arena : activity.arenas) {
    seen += static_cast<double>(std::count_if(arena.chances.begin(), arena.chances.end(),
                                              [](Chance chance) { return chance != Chance::unknown; }));
  }
  return seen;
}

/// Of those that know it, the ones that saw more counting more.
std::optional<double> mean(const Recordings& recordings, std::optional<double> Model::*value) {
  double sum = 0;
  double weights = 0;
  for (const Input& one : recordings) {
    if (one.model.*value) {
      const double weight = 1 + seen_chances(one.activity);
      sum += *(one.model.*value) * weight;
      weights += weight;
    }
  }
  return weights == 0 ? std::nullopt : std::optional(sum / weights);
}

struct Try {
  double share = 1;   // Model::changing_share
  double misfit = 0;  // of a recording, on average
};

std::vector<Try> try_shares(const std::vector<double>& shares, const Model& model,
                            const Recordings& recordings) {
  std::vector<Try> tries(shares.size());
  in_parallel(shares.size(), few_threads(), [&](size_t i) {
    tries[i].share = shares[i];
    for (const Input& one : recordings) {
      Model own = model;
      own.usual = one.model.usual;
      own.changing_share = shares[i];
      tries[i].misfit += misfit(one, own) / static_cast<double>(recordings.size());
    }
  });
  return tries;
}

}  // namespace

void calibrate(Input& input) {
  Recordings recordings = {input};
  recordings.insert(recordings.end(), input.others.begin(), input.others.end());
  Model model = input.model;
  share_touched(model, recordings);
  model.busy_chances = mean(recordings, &Model::busy_chances);
  model.idle_chances = mean(recordings, &Model::idle_chances);

  std::vector<Try> tries = try_shares({1, 1.0 / 2, 1.0 / 4, 1.0 / 8, 1.0 / 16, 1.0 / 32}, model, recordings);
  const auto least = [&] {
    return *std::min_element(tries.begin(), tries.end(),
                             [](const Try& a, const Try& b) { return a.misfit < b.misfit; });
  };
  // Then between the best and its neighbours.
  for (const double step : {std::numbers::sqrt2, std::sqrt(std::numbers::sqrt2)}) {
    const double near = least().share;
    const auto more = try_shares({std::min(1.0, near * step), near / step}, model, recordings);
    tries.insert(tries.end(), more.begin(), more.end());
  }
  std::sort(tries.begin(), tries.end(), [](const Try& a, const Try& b) { return a.share > b.share; });
  std::erase_if(tries, [best = least().misfit](const Try& one) { return one.misfit > best + may_be; });
  input.most_changing = tries.front().share;
  input.least_changing = tries.back().share;
  // Where the recordings tell little, the middle.
  const double good = least().misfit + cannot_tell;
  model.changing_share = input.most_changing >= 4 * input.least_changing
                             ? std::sqrt(input.most_changing * input.least_changing)
                             : std::find_if(tries.begin(), tries.end(), [&](const Try& one) {
                                 return one.misfit <= good;
                               })->share;
  input.model = model;
}

}  // namespace jemtrace::advise
