// jemtrace's totals equal jemalloc's own counters, for a program that is traced from exec to exit: the
// system's jemalloc, linked statically.
#include "exactness.hpp"

#include <tuple>

namespace jemtrace::live {
namespace {

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
struct Linked {
  const char* prefix;  // of the workload's name
  const char* tier;
};

class Exactness : public LiveTest, public ::testing::WithParamInterface<std::tuple<Linked, Configuration>> {};

TEST_P(Exactness, totals_equal_jemallocs_counters) {
  const auto& [linked, configuration] = GetParam();
  expect_exact({.tier = linked.tier}, workload(linked.prefix + configuration.command[0]), configuration);
}

const auto configuration_name = [](const auto& test) { return std::string(std::get<1>(test.param).name); };

INSTANTIATE_TEST_SUITE_P(Launched, Exactness,
                         ::testing::Combine(::testing::Values(Linked{"static_", "symbols"}),
                                            ::testing::ValuesIn(configurations())),
                         configuration_name);
INSTANTIATE_TEST_SUITE_P(Stripped, Exactness,
                         ::testing::Combine(::testing::Values(Linked{"stripped_", "recovered"}),
                                            ::testing::ValuesIn(configurations())),
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

// Who paid is the same purges again, by thread. Beyond the room for threads they are one, and nothing is
// missing.
class Generations : public LiveTest, public ::testing::WithParamInterface<uint64_t> {};

TEST_P(Generations, of_threads_add_up_to_the_counters) {
  constexpr uint64_t room = 6144;
  const uint64_t threads = GetParam();
  const Trace run =
      run_traced({workload("static_generations"), "threads=" + std::to_string(threads)},
                 {.environment = {{"MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0,tcache:false"}}});
  const Block block = parse_block(run.outcome.out);
  const Json summary = run.output().summary_of(block.pid());
  uint64_t calls = 0, bytes = 0, named = 0;
  for (const Json& payer : summary["payers"]) {
    calls += payer["calls"].get<uint64_t>();
    bytes += payer["bytes"].get<uint64_t>();
    named += payer["tid"] != 0 ? 1 : 0;
  }
  EXPECT_EQ(calls, block.number("dirty_nmadvise"));
  EXPECT_EQ(bytes, block.number("dirty_purged") * 4096);
  EXPECT_EQ(counters_of(summary), block.counters());
  EXPECT_EQ(summary["exact"], true);
  EXPECT_GE(block.number("dirty_nmadvise"), threads);
  EXPECT_GE(named, std::min(threads, room));
  EXPECT_LE(named, room);
  EXPECT_EQ(summary["payers"].size() > named, threads > room);
}

INSTANTIATE_TEST_SUITE_P(Few, Generations, ::testing::Values(40));
INSTANTIATE_TEST_SUITE_P(Many, Generations, ::testing::Values(6500));

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
  const Trace run = run_traced({workload("static_oversize")},
                               {.environment = {{"MALLOC_CONF", "dirty_decay_ms:1000000"}}}, {"--events"});
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
