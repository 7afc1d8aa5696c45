// jemtrace's totals equal jemalloc's own counters, for a program that is traced from exec to exit. Oracle:
// the stats.arenas.* that the workload prints when nothing can be purged any more. A configuration also says
// which of them must not be 0, so that a test cannot pass because nothing happened.
#include <tuple>

#include "live.hpp"

namespace jemtrace::live {
namespace {

enum class Expect { some, none, any };

struct Configuration {
  const char* name;
  const char* malloc_conf;
  Strings command;  // a workload and its arguments
  Expect dirty_sweeps, muzzy_sweeps;
};

std::ostream& operator<<(std::ostream& out, const Configuration& configuration) {
  return out << configuration.name << ", MALLOC_CONF=" << configuration.malloc_conf;
}

void expect(Expect what, uint64_t counter, const char* name) {
  if (what == Expect::some) {
    EXPECT_GT(counter, 0u) << name << ": the workload proves nothing";
  } else if (what == Expect::none) {
    EXPECT_EQ(counter, 0u) << name << ": the workload proves something else";
  }
}

constexpr Expect some = Expect::some;
constexpr Expect none = Expect::none;
constexpr Expect any = Expect::any;

const Configuration configurations[] = {
    {"both_decay", "dirty_decay_ms:20,muzzy_decay_ms:20", {"batch"}, some, some},
    {"dirty_decays_past_muzzy", "dirty_decay_ms:20,muzzy_decay_ms:0", {"batch"}, some, none},
    {"muzzy_never_decays", "dirty_decay_ms:20,muzzy_decay_ms:-1", {"batch"}, some, none},
    {"muzzy_never_decays_but_is_purged",
     "dirty_decay_ms:20,muzzy_decay_ms:-1",
     {"batch", "purge=1"},
     some,
     some},
    {"dirty_is_purged_at_once", "dirty_decay_ms:0,muzzy_decay_ms:20", {"batch", "rounds=8"}, some, none},
    {"muzzy_decays_faster_than_dirty", "dirty_decay_ms:40,muzzy_decay_ms:5", {"batch"}, some, some},
    {"only_purged_by_hand", "dirty_decay_ms:-1,muzzy_decay_ms:-1", {"batch", "purge=1"}, some, none},
    {"defaults", "", {"batch", "purge=1"}, some, none},
    {"background_threads",
     "dirty_decay_ms:20,muzzy_decay_ms:20,background_thread:true",
     {"steady"},
     some,
     some},
    {"background_threads_and_own_arenas",
     "dirty_decay_ms:20,muzzy_decay_ms:20,background_thread:true",
     {"multi_arena"},
     some,
     some},
    {"one_background_thread",
     "dirty_decay_ms:20,muzzy_decay_ms:20,background_thread:true,max_background_threads:1",
     {"steady", "threads=8"},
     some,
     some},
    {"purged_memory_is_unmapped", "retain:false,dirty_decay_ms:20,muzzy_decay_ms:20", {"batch"}, some, some},
    {"purged_memory_is_unmapped_at_once",
     "retain:false,dirty_decay_ms:0,muzzy_decay_ms:0",
     {"batch", "rounds=8"},
     some,
     none},
    {"unmapped_by_background_threads",
     "retain:false,dirty_decay_ms:20,muzzy_decay_ms:20,background_thread:true",
     {"steady"},
     some,
     some},
    {"eight_threads", "dirty_decay_ms:20,muzzy_decay_ms:20", {"steady", "threads=8"}, some, some},
    {"eight_threads_in_one_arena",
     "dirty_decay_ms:20,muzzy_decay_ms:20,narenas:1",
     {"steady", "threads=8"},
     some,
     some},
    {"one_thread_in_one_arena", "dirty_decay_ms:20,muzzy_decay_ms:20,narenas:1", {"batch"}, some, some},
    {"sixteen_arenas",
     "dirty_decay_ms:20,muzzy_decay_ms:20,narenas:16",
     {"multi_arena", "threads=16", "arenas=16", "count=80"},
     some,
     any},
    {"destroyed_arenas", "dirty_decay_ms:20,muzzy_decay_ms:20", {"multi_arena", "purge=0"}, some, any},
    {"oversize_extents", "dirty_decay_ms:10000", {"oversize"}, none, none},
    {"oversize_extents_unmapped", "dirty_decay_ms:10000,retain:false", {"oversize"}, none, none},
    {"oversize_arena_off",
     "oversize_threshold:0,dirty_decay_ms:20,muzzy_decay_ms:20",
     {"oversize", "count=6", "size=9437184", "rounds=10"},
     any,
     any},
    {"oversize_arena", "dirty_decay_ms:20", {"oversize", "count=6", "size=9437184", "rounds=10"}, any, none},
    {"no_thread_caches", "tcache:false,dirty_decay_ms:20,muzzy_decay_ms:20", {"batch"}, some, some},
    {"huge_pages", "thp:always,dirty_decay_ms:20,muzzy_decay_ms:20", {"batch"}, some, some},
    {"arena_per_cpu", "percpu_arena:percpu,dirty_decay_ms:20,muzzy_decay_ms:20", {"steady"}, some, some},
};

// The events of calls that were purges; the other memory calls are listed beside them.
std::vector<Json> purge_events(const Output& output) {
  std::vector<Json> purges;
  for (const Json& event : output.of_type("transition")) {
    if (event["purpose"] == "sweep" || event["purpose"] == "oversize") {
      purges.push_back(event);
    }
  }
  return purges;
}

/// The symbols as they were linked, or all of them gone.
struct Build {
  const char* prefix;  // of the workload's name
  const char* tier;
};

class Exactness : public LiveTest, public ::testing::WithParamInterface<std::tuple<Build, Configuration>> {};

TEST_P(Exactness, totals_equal_jemallocs_counters) {
  const auto& [build, configuration] = GetParam();
  Strings command = configuration.command;
  command[0] = workload(build.prefix + command[0]);

  for (int i = 0; i < number_from_environment("JEMTRACE_REPEAT", 1) && !HasFailure(); i++) {
    const Trace run = run_traced(command, {.environment = {{"MALLOC_CONF", configuration.malloc_conf}}});
    ASSERT_EQ(run.outcome.status, 0) << run.outcome.err;
    const Block block = parse_block(run.outcome.out);
    const Counters truth = block.counters();
    expect(configuration.dirty_sweeps, truth.dirty_npurge, "dirty_npurge");
    expect(configuration.muzzy_sweeps, truth.muzzy_npurge, "muzzy_npurge");
    EXPECT_GT(truth.dirty_nmadvise, 0u);

    const Output output = run.output();
    EXPECT_EQ(output.target(block.pid())["images"][0]["tier"], build.tier);
    const Json summary = output.summary_of(block.pid());
    EXPECT_EQ(counters_of(summary), truth);
    expect_no_losses(summary);
  }
}

const auto configuration_name = [](const auto& test) { return std::string(std::get<1>(test.param).name); };

INSTANTIATE_TEST_SUITE_P(Launched, Exactness,
                         ::testing::Combine(::testing::Values(Build{"static_", "symbols"}),
                                            ::testing::ValuesIn(configurations)),
                         configuration_name);
INSTANTIATE_TEST_SUITE_P(Stripped, Exactness,
                         ::testing::Combine(::testing::Values(Build{"stripped_", "recovered"}),
                                            ::testing::ValuesIn(configurations)),
                         configuration_name);

// The transitions of the summary are the same purges: by source and target state they add up to jemalloc's
// counters.
LIVE_TEST(Transitions, add_up_to_the_counters) {
  const Trace run = run_traced({workload("static_batch")},
                               {.environment = {{"MALLOC_CONF", "dirty_decay_ms:20,muzzy_decay_ms:20"}}});
  const Block block = parse_block(run.outcome.out);
  const Json transitions = run.output().summary_of(block.pid())["transitions"];
  const auto sum = [&](const char* key, std::initializer_list<const char*> names) {
    uint64_t total = 0;
    for (const char* name : names) {
      total += transitions.contains(name) ? transitions[name][key].get<uint64_t>() : 0;
    }
    return total;
  };

  EXPECT_EQ(sum("extents_total", {"dirty_muzzy", "dirty_retained", "dirty_returned"}),
            block.number("dirty_nmadvise"));
  EXPECT_EQ(sum("bytes_total", {"dirty_muzzy", "dirty_retained", "dirty_returned"}),
            block.number("dirty_purged") * 4096);
  EXPECT_EQ(sum("extents_total", {"muzzy_retained", "muzzy_returned"}), block.number("muzzy_nmadvise"));
  EXPECT_EQ(sum("bytes_total", {"muzzy_retained", "muzzy_returned"}), block.number("muzzy_purged") * 4096);
  EXPECT_GT(sum("extents_total", {"dirty_muzzy"}), 0u);
}

// With retain:false purged ranges are unmapped: returned, not retained.
LIVE_TEST(Transitions, are_returned_when_nothing_is_retained) {
  const Trace run =
      run_traced({workload("static_batch")},
                 {.environment = {{"MALLOC_CONF", "retain:false,dirty_decay_ms:20,muzzy_decay_ms:20"}}});
  const Block block = parse_block(run.outcome.out);
  const Json transitions = run.output().summary_of(block.pid())["transitions"];

  EXPECT_EQ(transitions["muzzy_returned"]["extents_total"], block.number("muzzy_nmadvise"));
  EXPECT_EQ(transitions["muzzy_returned"]["bytes_total"], block.number("muzzy_purged") * 4096);
}

// Oracle: jemalloc counts oversize purges in nmadvise and not in npurge.
LIVE_TEST(Oversize, purges_inside_free_have_their_own_cause) {
  const Trace run =
      run_traced({workload("static_oversize")}, {.environment = {{"MALLOC_CONF", ""}}}, {"--events"});
  const Block block = parse_block(run.outcome.out);
  const Output output = run.output();
  const Json summary = output.summary_of(block.pid());
  ASSERT_EQ(block.number("dirty_npurge"), 0u);
  ASSERT_GT(block.number("dirty_nmadvise"), 0u);

  EXPECT_EQ(counters_of(summary), block.counters());
  EXPECT_EQ(summary["transitions"]["dirty_retained"]["extents_total"], block.number("dirty_nmadvise"));
  EXPECT_EQ(output.of_type("sweep").size(), 0u);
  const std::vector<Json> transitions = purge_events(output);
  EXPECT_EQ(transitions.size(), block.number("dirty_nmadvise"));
  for (const Json& transition : transitions) {
    EXPECT_EQ(transition["cause"], "oversize");
    EXPECT_EQ(transition["from"], "dirty");
    EXPECT_EQ(transition["to"], "retained");
    EXPECT_EQ(transition["payer"], "app");
    EXPECT_GE(transition["bytes"], 8u << 20);
  }
}

// Every purge is one event: the events add up to the counters too. Oracle: the workload's counters.
LIVE_TEST(Events, are_as_many_as_jemalloc_counts) {
  const Trace run =
      run_traced({workload("static_batch"), "purge=1"},
                 {.environment = {{"MALLOC_CONF", "dirty_decay_ms:20,muzzy_decay_ms:20"}}}, {"--events"});
  const Block block = parse_block(run.outcome.out);
  uint64_t extents[2] = {}, bytes[2] = {}, sweeps[2] = {};
  const Output output = run.output();
  for (const Json& transition : purge_events(output)) {
    const bool muzzy = transition["from"] == "muzzy";
    extents[muzzy]++;
    bytes[muzzy] += transition["bytes"].get<uint64_t>();
  }
  for (const Json& sweep : output.of_type("sweep")) {
    sweeps[sweep["state"] == "muzzy"]++;
  }

  const Counters seen = {sweeps[0], extents[0], bytes[0] / 4096, sweeps[1], extents[1], bytes[1] / 4096};
  EXPECT_EQ(seen, block.counters());
  expect_no_losses(output.summary_of(block.pid()));
}

}  // namespace
}  // namespace jemtrace::live
