#include "exactness.hpp"

namespace jemtrace::live {
namespace {

void expect(Expect what, uint64_t counter, const char* name) {
  if (what == Expect::some) {
    EXPECT_GT(counter, 0u) << name << ": the workload proves nothing";
  } else if (what == Expect::none) {
    EXPECT_EQ(counter, 0u) << name << ": the workload proves something else";
  }
}

void expect_known_causes(const Json& summary) {
  for (const auto& [source, sweeps] : summary["sweeps"].items()) {
    EXPECT_EQ(sweeps["by_cause"]["unknown"], 0) << "sweeps of " << source;
  }
}

constexpr Expect some = Expect::some;
constexpr Expect none = Expect::none;
constexpr Expect any = Expect::any;

const Configuration all[] = {
    {"both_decay", "dirty_decay_ms:20,muzzy_decay_ms:20", {"batch"}, some, some},
    {"dirty_decays_past_muzzy", "dirty_decay_ms:20,muzzy_decay_ms:0", {"batch"}, some, none},
    {"muzzy_never_decays", "dirty_decay_ms:20,muzzy_decay_ms:-1", {"batch"}, some, none},
    {"muzzy_never_decays_but_is_purged",
     "dirty_decay_ms:20,muzzy_decay_ms:-1",
     {"batch", "purge=1"},
     some,
     some},
    {"dirty_is_purged_at_once", "dirty_decay_ms:0,muzzy_decay_ms:20", {"batch", "rounds=8"}, some, any},
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
     any},
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
    {"oversize_extents", "dirty_decay_ms:1000000", {"oversize"}, none, none},
    {"oversize_extents_unmapped", "dirty_decay_ms:1000000,retain:false", {"oversize"}, none, none},
    {"oversize_arena_off",
     "oversize_threshold:0,dirty_decay_ms:20,muzzy_decay_ms:20",
     {"oversize", "count=6", "size=9437184", "rounds=10", "ticks=1100"},
     any,
     any},
    {"oversize_arena", "dirty_decay_ms:20", {"oversize", "count=6", "size=9437184", "rounds=10"}, any, none},
    {"no_thread_caches", "tcache:false,dirty_decay_ms:20,muzzy_decay_ms:20", {"batch"}, some, some},
    {"huge_pages", "thp:always,dirty_decay_ms:20,muzzy_decay_ms:20", {"batch"}, some, some},
    // The same extent fails again and again: each time in several ways, and counted once.
    {"locked_memory",
     "dirty_decay_ms:0,muzzy_decay_ms:0",
     {"batch", "lock=1", "count=1", "size=1048576", "keep=0"},
     some,
     none},
    {"locked_memory_decays", "dirty_decay_ms:20,muzzy_decay_ms:20", {"batch", "lock=1"}, some, any},
    {"arena_per_cpu", "percpu_arena:percpu,dirty_decay_ms:20,muzzy_decay_ms:20", {"steady"}, some, some},
};

}  // namespace

std::ostream& operator<<(std::ostream& out, const Configuration& configuration) {
  return out << configuration.name << ", MALLOC_CONF=" << configuration.malloc_conf;
}

std::span<const Configuration> configurations() {
  return all;
}

void expect_exact(const Build& build, const std::string& program, const Configuration& configuration) {
  Strings command = build.launcher;
  command.push_back(program);
  command.insert(command.end(), configuration.command.begin() + 1, configuration.command.end());
  std::map<std::string, std::string> environment = build.environment;
  environment["MALLOC_CONF"] = configuration.malloc_conf;

  for (int i = 0; i < number_from_environment("JEMTRACE_REPEAT", 1) && !::testing::Test::HasFailure(); i++) {
    const Trace run = run_traced(command, {.environment = environment});
    ASSERT_EQ(run.outcome.status, 0) << run.outcome.err;
    const Block block = parse_block(run.outcome.out);
    const Counters truth = block.counters();
    expect(configuration.dirty_sweeps, truth.dirty_npurge, "dirty_npurge");
    expect(configuration.muzzy_sweeps, truth.muzzy_npurge, "muzzy_npurge");
    EXPECT_GT(truth.dirty_nmadvise, 0u);

    const Output output = run.output();
    const Json image = output.target(block.pid())["images"].at(0);
    EXPECT_EQ(image["tier"], build.tier);
    EXPECT_TRUE(image["version"].get<std::string>().starts_with(build.version)) << image;
    const Json summary = output.summary_of(block.pid());
    EXPECT_EQ(counters_of(summary), truth);
    EXPECT_EQ(summary["exact"], true);
    EXPECT_GE(summary["cost"]["probe_hits"], truth.dirty_npurge + truth.muzzy_npurge);
    expect_known_causes(summary);
    expect_no_losses(summary);
  }
}

}  // namespace jemtrace::live
