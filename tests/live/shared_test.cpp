// A stripped shared library, Debian's libjemalloc.so.2: whatever tier it gets, what is claimed about it is
// exact. Oracles: the workload's counters, or jemalloc's own statistics at exit (stats_print).
#include <sstream>

#include "live.hpp"

namespace jemtrace::live {
namespace {

constexpr const char* both_decay = "dirty_decay_ms:20,muzzy_decay_ms:20";

struct Configuration {
  const char* name;
  const char* malloc_conf;
  Strings command;  // without large callocs: nothing is zeroed by MADV_DONTNEED
};

std::ostream& operator<<(std::ostream& out, const Configuration& configuration) {
  return out << configuration.name;
}

class StrippedLibrary : public LiveTest, public ::testing::WithParamInterface<Configuration> {};

TEST_P(StrippedLibrary, purges_add_up_to_jemallocs_counters) {
  Strings command = GetParam().command;
  command[0] = workload(command[0]);
  const Trace run = run_traced(command, {.environment = {{"MALLOC_CONF", GetParam().malloc_conf}}});
  ASSERT_EQ(run.outcome.status, 0) << run.outcome.err;
  const Block block = parse_block(run.outcome.out);
  EXPECT_GT(block.counters().calls(), 0u);
  const Output output = run.output();
  expect_equal_to_jemalloc(output.summary_of(block.pid()), output.target(block.pid()), block.counters());
}

INSTANTIATE_TEST_SUITE_P(
    Debian, StrippedLibrary,
    ::testing::Values(Configuration{"both_decay", both_decay, {"batch"}},
                      Configuration{"dirty_decays_past_muzzy", "dirty_decay_ms:20", {"batch"}},
                      Configuration{"dirty_is_purged_at_once", "dirty_decay_ms:0", {"batch", "rounds=8"}},
                      Configuration{"background_threads",
                                    "dirty_decay_ms:20,muzzy_decay_ms:20,background_thread:true",
                                    {"steady"}},
                      Configuration{"eight_threads", both_decay, {"steady", "threads=8"}},
                      Configuration{"oversize_extents", "", {"oversize"}}),
    [](const auto& test) { return std::string(test.param.name); });

LIVE_TEST(Target, names_its_image) {
  const Trace run =
      run_traced({workload("batch"), "rounds=2"}, {.environment = {{"MALLOC_CONF", both_decay}}});
  const Json target = run.output().target(parse_block(run.outcome.out).pid());
  ASSERT_EQ(target["images"].size(), 1u) << target.dump(2);
  const Json image = target["images"][0];

  EXPECT_NE(image["path"].get<std::string>().find("libjemalloc.so.2"), std::string::npos);
  EXPECT_EQ(image["linkage"], "shared");
  EXPECT_EQ(image["build_id"].get<std::string>().size(), 40u);
  EXPECT_EQ(target["conf"]["dirty_decay_ms"]["value"].dump().find("20") != std::string::npos, true)
      << target["conf"];
}

LIVE_TEST(Target, that_is_linked_statically_has_symbols) {
  const Trace run = run_traced({workload("static_batch"), "rounds=2"});
  const Json image = run.output().target(parse_block(run.outcome.out).pid())["images"].at(0);

  EXPECT_EQ(image["linkage"], "static");
  EXPECT_EQ(image["tier"], "symbols");
  EXPECT_EQ(image["missing"].size(), 0u) << image["missing"];
}

// stats_print's JSON lies somewhere in stderr.
Counters printed_at_exit(const std::string& text) {
  const size_t begin = text.find("{\"jemalloc\":");
  if (begin == text.npos) {
    throw std::runtime_error("jemalloc printed no statistics:\n" + text);
  }
  std::istringstream stream(text.substr(begin));
  Json statistics;
  stream >> statistics;
  const Json& arenas = statistics["jemalloc"]["stats.arenas"];
  const Json& all = arenas.contains("merged") ? arenas["merged"] : arenas["0"];
  return {all["dirty_npurge"], all["dirty_nmadvise"], all["dirty_purged"],
          all["muzzy_npurge"], all["muzzy_nmadvise"], all["muzzy_purged"]};
}

// A program that knows nothing of jemalloc. jemalloc's exit handler is registered first, thus runs last.
LIVE_TEST(Preloaded, into_perl_purges_add_up_to_jemallocs_counters) {
  const Trace run = run_traced(
      {"/usr/bin/perl", "-e",
       "for my $i (1..40) { my @a = map { 'x' x 20000 } 1..300; select(undef, undef, undef, 0.01); } print "
       "$$;"},
      {.environment = {
           {"LD_PRELOAD", "libjemalloc.so.2"},
           {"MALLOC_CONF", std::string(both_decay) + ",stats_print:true,stats_print_opts:Jgxbleh"}}});
  ASSERT_EQ(run.outcome.status, 0) << run.outcome.err;
  const pid_t pid = std::stoi(run.outcome.out);
  const Counters truth = printed_at_exit(run.outcome.err);
  EXPECT_GT(truth.calls(), 0u);
  const Output output = run.output();
  expect_equal_to_jemalloc(output.summary_of(pid), output.target(pid), truth);
}

}  // namespace
}  // namespace jemtrace::live
