#include "advise/calibrate.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <vector>

#include "advise/parallel.hpp"

namespace jemtrace::advise {
namespace {

constexpr std::array shares = {1.0, 1.0 / 2, 1.0 / 4, 1.0 / 8, 1.0 / 16, 1.0 / 32};
// Differences of a misfit, which is a sum of relative errors.
constexpr double cannot_tell = 0.02, may_be = 0.1;

using Recordings = std::vector<std::reference_wrapper<const Input>>;

/// By the logarithm; of little, no difference counts.
double error_of(double said, double real) {
  constexpr double few_pages = 4096;
  return std::abs(std::log((std::max(said, 0.0) + few_pages) / (std::max(real, 0.0) + few_pages)));
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
  return error_of(out.mean_resident - active, in.activity.mean_resident_pages() - active) +
         (real ? error_of(static_cast<double>(moved), static_cast<double>(*real)) : 0);
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

}  // namespace

void calibrate(Input& input) {
  Recordings recordings = {input};
  recordings.insert(recordings.end(), input.others.begin(), input.others.end());
  Model model = input.model;
  share_touched(model, recordings);
  model.busy_chances = mean(recordings, &Model::busy_chances);
  model.idle_chances = mean(recordings, &Model::idle_chances);

  std::vector<double> misfits(shares.size());
  in_parallel(shares.size(), [&](size_t i) {
    for (const Input& one : recordings) {
      Model own = model;
      own.usual = one.model.usual;
      own.changing_share = shares[i];
      misfits[i] += misfit(one, own) / static_cast<double>(recordings.size());
    }
  });
  const double least = *std::min_element(misfits.begin(), misfits.end());
  const auto first_within = [&](double more) {
    return std::find_if(misfits.begin(), misfits.end(), [&](double one) { return one <= least + more; });
  };
  const auto share_at = [&](auto found) { return shares[static_cast<size_t>(found - misfits.begin())]; };
  model.changing_share = share_at(first_within(cannot_tell));
  input.most_changing = share_at(first_within(may_be));
  input.least_changing = model.changing_share;
  for (size_t i = 0; i < shares.size(); ++i) {
    if (misfits[i] <= least + may_be) {
      input.least_changing = std::min(input.least_changing, shares[i]);
    }
  }
  input.model = model;
}

}  // namespace jemtrace::advise
