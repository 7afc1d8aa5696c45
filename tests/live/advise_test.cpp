// `jemtrace advise` and `jemtrace sweep`: the simulator against the real jemalloc. Oracle: the workload
// `shapes` under each of the settings that were simulated from its run under the first one.
// tests/bench/simulator.py runs all of it, and holds it against the bounds.
#include <algorithm>
#include <cmath>
#include <fstream>

#include "live.hpp"

namespace jemtrace::live {
namespace {

// Batches of 1 s instead of 5 s, and decay times shorter than usual by as much.
const std::string present = "narenas:1,dirty_decay_ms:2000";
constexpr double resident_tolerance = 0.10;
constexpr double refault_tolerance = 0.30;  // in one run of 4 s, chance alone is 10 %
constexpr double few_pages = 4096;

std::vector<Json> sweep(const std::string& shape, const std::string& grid, int repeat, int ms) {
  const TemporaryFile out;
  const Outcome ran = run_jemtrace(
      {"sweep", "-f", "json", "-o", out.path(), "--grid", grid, "--repeat", std::to_string(repeat), "--",
       workload("shapes"), "shape=" + shape, "ms=" + std::to_string(ms)},
      {.environment = {{"MALLOC_CONF", present}}}, 600s);
  EXPECT_EQ(ran.status, 0) << ran.err;
  return Output(out.read()).of_type("trial");
}

double number(const Json& trial, const char* side, const char* key) {
  return trial.at(side).at(key).get<double>();
}

std::string settings_of(const Json& trial) {
  return trial.at("conf").get<std::string>();
}

double off(double simulated, double real) {
  return std::abs(simulated - real) / std::max(simulated, real);
}

/// Prints a row; says whether it is within the tolerances.
void expect_predicted(const std::string& shape, const Json& trial) {
  const double page = 4096;
  const double resident = number(trial, "predicted", "mean_resident_bytes");
  const double real_resident = number(trial, "measured", "mean_resident_bytes");
  const double refaults = number(trial, "predicted", "refaulted_pages");
  const double real_refaults = number(trial, "measured", "refaulted_pages");
  std::printf("%-9s %-75s %6.1f %6.1f MB %+5.1f %%  %7.0f %7.0f %+5.1f %%  RSS %6.1f %6.1f MB\n",
              shape.c_str(), settings_of(trial).c_str(), resident / 1048576, real_resident / 1048576,
              100 * (resident / real_resident - 1), refaults, real_refaults,
              100 * (refaults / std::max(1.0, real_refaults) - 1),
              number(trial, "predicted", "mean_rss_bytes") / 1048576,
              number(trial, "measured", "mean_rss_bytes") / 1048576);
  EXPECT_LE(off(resident, real_resident), resident_tolerance) << shape << ' ' << settings_of(trial);
  if (std::max(refaults, real_refaults) >= few_pages) {
    EXPECT_LE(off(refaults, real_refaults), refault_tolerance) << shape << ' ' << settings_of(trial);
  }
  EXPECT_GT(real_resident, 1000 * page) << "the workload does nothing";
}

/// What each goal wants little of, simulated or real.
struct Prices {
  double memory = 0, balanced = 0, latency = 0;
};

Prices prices(const Json& trial, const char* side, double fault_ns) {
  const double seconds = number(trial, side, "seconds");
  const double faults = number(trial, side, "refaulted_pages") * fault_ns / (seconds * 1e9);
  const bool simulated = std::string_view(side) == "predicted";
  const auto purge = [&](const char* cpu, const char* ns) {
    return simulated ? number(trial, side, cpu) : number(trial, side, ns) / (seconds * 1e9);
  };
  const double app = purge("app_purge_cpu", "app_purge_ns") + faults;
  const double all = app + purge("background_purge_cpu", "background_purge_ns");
  const double resident = number(trial, side, "mean_resident_bytes");
  return {resident, all + resident / (4.0 * (1 << 30)), app};
}

/// The simulator's choice is among the best two of the real ones, or no worse than the second by what cannot
/// be told.
void expect_choice(const std::string& shape, const std::vector<Json>& trials, double Prices::*goal,
                   const char* name, double cannot_tell) {
  double fault_ns = 0;
  for (const Json& trial : trials) {
    const double pages = number(trial, "predicted", "refaulted_pages");
    if (pages > 0) {
      fault_ns =
          number(trial, "predicted", "refault_cpu") * number(trial, "predicted", "seconds") * 1e9 / pages;
    }
  }
  const auto best = std::min_element(trials.begin(), trials.end(), [&](const Json& a, const Json& b) {
    return prices(a, "predicted", fault_ns).*goal < prices(b, "predicted", fault_ns).*goal;
  });
  std::vector<double> real;
  for (const Json& trial : trials) {
    real.push_back(prices(trial, "measured", fault_ns).*goal);
  }
  const double chosen = real[static_cast<size_t>(best - trials.begin())];
  std::sort(real.begin(), real.end());
  const auto rank = std::lower_bound(real.begin(), real.end(), chosen) - real.begin() + 1;
  std::printf("%-9s %-9s %s: number %ld of %zu\n", shape.c_str(), name, settings_of(*best).c_str(),
              static_cast<long>(rank), real.size());
  EXPECT_LE(chosen, real[1] + cannot_tell) << shape << ": " << name << ' ' << settings_of(*best);
}

void expect_choices(const std::string& shape, const std::vector<Json>& trials) {
  ASSERT_GE(trials.size(), 3U);
  expect_choice(shape, trials, &Prices::memory, "memory", 1 << 20);
  expect_choice(shape, trials, &Prices::balanced, "balanced", 0.001);
  expect_choice(shape, trials, &Prices::latency, "latency", 0.001);
}

LIVE_TEST(Sweep, batches_are_as_predicted) {
  const auto trials = sweep("bursty", "dirty=600,2000,-1", 1, 4000);
  ASSERT_EQ(trials.size(), 3U);
  for (const Json& trial : trials) {
    EXPECT_EQ(trial.at("runs"), 1);
    expect_predicted("bursty", trial);
  }
  expect_choices("bursty", trials);
}

LIVE_TEST(Sweep, ends_a_command_that_does_not) {
  const Outcome ran = run_jemtrace({"sweep", "-d", "1s", "--repeat", "1", "--grid", "dirty=-1", "-f", "json",
                                    "--", workload("shapes"), "ms=60000"});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_NE(ran.out.find("\"trial\""), std::string::npos);
}

LIVE_TEST(Sweep, takes_the_commands_status) {
  EXPECT_EQ(run_jemtrace({"sweep", "--", "/bin/true"}).status, 3);
  const Outcome missing = run_jemtrace({"sweep", "--", "/nonexistent"});
  EXPECT_EQ(missing.status, 127);
  EXPECT_NE(missing.err.find("cannot run /nonexistent"), std::string::npos) << missing.err;
  EXPECT_EQ(run_jemtrace({"sweep", "--", "/etc/passwd"}).status, 126);
}

LIVE_TEST(Advise, says_how_far_it_is_off_and_what_to_set) {
  Process busy({workload("shapes"), "shape=bursty", "ms=60000"}, {.environment = {{"MALLOC_CONF", present}}});
  wait_for_jemalloc(busy.pid());
  const TemporaryFile saved;
  const Outcome ran = run_jemtrace(
      {"advise", "-p", std::to_string(busy.pid()), "-d", "5s", "-f", "json", "--series", "-o", saved.path()},
      {}, 2 * patience);
  ASSERT_EQ(ran.status, 0) << ran.err;
  const Json advice = Output(saved.read()).of_type("advice").at(0);
  EXPECT_EQ(advice.at("current").at("dirty_decay_ms"), 2000);
  EXPECT_EQ(advice.at("conf_variable"), "MALLOC_CONF");
  EXPECT_EQ(advice.at("recommendations").size(), 3U);
  const Json& fit = advice.at("fit");
  EXPECT_LE(off(fit.at("simulated_resident_bytes"), fit.at("measured_resident_bytes")), resident_tolerance)
      << fit;
  EXPECT_LE(off(fit.at("simulated_purged_pages"), fit.at("measured_purged_pages")), 0.25) << fit;
  ASSERT_FALSE(advice.at("rhythm").is_null()) << advice.at("measured");
  EXPECT_NEAR(advice.at("rhythm").at("period_s").get<double>(), 1, 0.15);

  // What was saved says the same, without the process.
  const Outcome again = run_jemtrace({"advise", saved.path(), "-f", "json"});
  ASSERT_EQ(again.status, 0) << again.err;
  EXPECT_EQ(Output(again.out).of_type("advice").at(0).at("candidates"), advice.at("candidates"));

  const Outcome text = run_jemtrace({"advise", saved.path()});
  EXPECT_EQ(text.status, 0);
  EXPECT_NE(text.out.find("with the present settings the simulator says"), std::string::npos) << text.out;
}

LIVE_TEST(Advise, idle_process_is_told_that_decay_times_do_not_matter) {
  Process held({workload("held"), "state=dirty"},
               {.environment = {{"MALLOC_CONF", "narenas:1,dirty_decay_ms:1000"}}, .with_stdin = true});
  held.wait_for_out("done=held");
  const Outcome ran = run_jemtrace({"advise", "-p", std::to_string(held.pid()), "-d", "1s", "-f", "json"});
  ASSERT_EQ(ran.status, 0) << ran.err;
  const Json advice = Output(ran.out).of_type("advice").at(0);
  EXPECT_TRUE(advice.at("recommendations").empty());
  EXPECT_NE(advice.at("futile").dump().find("an idle process does not decay"), std::string::npos)
      << advice.at("futile");
}

LIVE_TEST(Advise, says_what_it_cannot_read) {
  const Outcome none = run_jemtrace({"advise", "-p", "1", "-d", "1s"});
  EXPECT_NE(none.status, 0);
  EXPECT_NE(none.err.find("hint:"), std::string::npos) << none.err;
  const TemporaryFile garbage;
  std::ofstream(garbage.path()) << "{\"type\":\"series\",\"pid\":1}\n";
  const Outcome broken = run_jemtrace({"advise", garbage.path()});
  EXPECT_EQ(broken.status, 1);
  EXPECT_NE(broken.err.find("line 1 is not as jemtrace writes it"), std::string::npos) << broken.err;
}

}  // namespace
}  // namespace jemtrace::live
