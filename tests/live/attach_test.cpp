// Attached to a running process, jemtrace counts exactly what happens in its window. Oracle: jemalloc's
// counters after the window minus those before it, both read while `controlled` does nothing.
#include <signal.h>

#include "live.hpp"

namespace jemtrace::live {
namespace {

struct Configuration {
  const char* name;
  const char* workload;
  const char* malloc_conf;
};

std::ostream& operator<<(std::ostream& out, const Configuration& configuration) {
  return out << configuration.name;
}

class Window : public LiveTest, public ::testing::WithParamInterface<Configuration> {};

TEST_P(Window, counts_what_jemalloc_counts_in_it) {
  Controlled target(GetParam().workload, GetParam().malloc_conf);
  target.command("work 10");
  const Counters before = target.counters();

  Tracer tracer({"-p", std::to_string(target.pid())});
  tracer.wait_for(target.pid());
  target.command("work 25");
  target.command("purge");
  const Counters truth = target.counters() - before;
  const Trace run = tracer.stop();
  target.command("work 10");

  EXPECT_EQ(run.outcome.status, 0) << run.outcome.err;
  EXPECT_GT(truth.dirty_npurge, 0u);
  const Output output = run.output();
  expect_equal_to_jemalloc(output.summary_of(target.pid()), output.target(target.pid()), truth);
  EXPECT_EQ(target.quit().status, 0);
}

INSTANTIATE_TEST_SUITE_P(
    Attached, Window,
    ::testing::Values(Configuration{"static_program", "static_controlled",
                                    "dirty_decay_ms:20,muzzy_decay_ms:20"},
                      Configuration{"static_program_with_background_threads", "static_controlled",
                                    "dirty_decay_ms:20,muzzy_decay_ms:20,background_thread:true"},
                      Configuration{"static_program_that_unmaps", "static_controlled",
                                    "dirty_decay_ms:20,muzzy_decay_ms:20,retain:false"},
                      Configuration{"shared_library", "controlled", "dirty_decay_ms:20,muzzy_decay_ms:20"},
                      Configuration{"shared_library_with_background_threads", "controlled",
                                    "dirty_decay_ms:20,muzzy_decay_ms:20,background_thread:true"}),
    [](const auto& test) { return std::string(test.param.name); });

// Two windows over one process: each has its own, and nothing of the time between.
LIVE_TEST(Windows, do_not_add_up) {
  Controlled target("static_controlled", "dirty_decay_ms:20,muzzy_decay_ms:20");
  for (int i = 0; i < 2; i++) {
    target.command("work 10");
    const Counters before = target.counters();
    Tracer tracer({"-p", std::to_string(target.pid())});
    tracer.wait_for(target.pid());
    target.command("work 15");
    const Counters truth = target.counters() - before;
    EXPECT_EQ(counters_of(tracer.stop().output().summary_of(target.pid())), truth);
  }
}

// A quiet process: zeros, which are known to be zeros.
LIVE_TEST(Windows, of_a_quiet_process_are_empty) {
  Controlled target("static_controlled", "dirty_decay_ms:20,muzzy_decay_ms:20");
  target.command("work 10");
  Tracer tracer({"-p", std::to_string(target.pid()), "-d", "500ms"});
  const Trace run = tracer.wait();

  EXPECT_EQ(run.outcome.status, 0);
  EXPECT_EQ(counters_of(run.output().summary_of(target.pid())), Counters{});
}

LIVE_TEST(Windows, last_as_long_as_asked) {
  Controlled target("static_controlled", "");
  Tracer tracer({"-p", std::to_string(target.pid()), "-d", "3s"});
  const Json summary = tracer.wait().output().summary_of(target.pid());

  EXPECT_GE(summary["window_ns"], 3'000'000'000u);
  EXPECT_LT(summary["window_ns"], 6'000'000'000u);
}

// Two observers see the same. Oracle: jemalloc's counters.
LIVE_TEST(Observers, do_not_disturb_each_other) {
  Controlled target("static_controlled", "dirty_decay_ms:20,muzzy_decay_ms:20");
  const Counters before = target.counters();
  Tracer first({"-p", std::to_string(target.pid())});
  Tracer second({"-p", std::to_string(target.pid())});
  first.wait_for(target.pid());
  second.wait_for(target.pid());
  target.command("work 20");
  const Counters truth = target.counters() - before;

  EXPECT_EQ(counters_of(first.stop().output().summary_of(target.pid())), truth);
  EXPECT_EQ(counters_of(second.stop().output().summary_of(target.pid())), truth);
}

}  // namespace
}  // namespace jemtrace::live
