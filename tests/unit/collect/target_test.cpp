#include "collect/target.hpp"

#include <gtest/gtest.h>

namespace jemtrace::collect {
namespace {

ledger::TargetInfo target() {
  ledger::TargetInfo info;
  info.images.emplace_back();
  info.images[0].version = "5.3.0-0-g54eaed1d";
  return info;
}

ledger::Reading reading(int64_t first_ms, int64_t second_ms) {
  ledger::Reading r;
  r.arenas.resize(2);
  r.arenas[0].dirty_decay.time_ms = first_ms;
  r.arenas[1].dirty_decay.time_ms = second_ms;
  r.options = {
      {"dirty_decay_ms", "10000"}, {"retain", "true"}, {"narenas", "8"}, {"background_thread", "true"}};
  return r;
}

TEST(Effective, options_of_a_process_that_overwrote_its_environment_are_known) {
  ledger::TargetInfo info = target();
  info.conf_unknown_because = "it has overwritten its environment";
  apply_effective(info, reading(10000, 10000));
  EXPECT_EQ(info.conf.at("dirty_decay_ms").value, "10000");
  EXPECT_EQ(info.conf.at("dirty_decay_ms").source, "default of 5.3.0");
  EXPECT_EQ(info.conf.at("narenas").value, "8");
  EXPECT_EQ(info.conf.at("narenas").source, "its memory");
  EXPECT_EQ(info.conf.at("background_thread").source, "its memory");
  EXPECT_EQ(info.conf_unknown_because, "");
}

TEST(Effective, what_was_asked_for_and_took_effect_keeps_its_source) {
  ledger::TargetInfo info = target();
  info.conf["narenas"] = {"8", "MALLOC_CONF in its environment"};
  info.conf["retain"] = {"false", "MALLOC_CONF in its environment"};
  info.conf["background_thread"] = {"false", "default of 5.3.0"};
  apply_effective(info, reading(10000, 10000));
  EXPECT_EQ(info.conf.at("narenas").source, "MALLOC_CONF in its environment");
  EXPECT_EQ(info.conf.at("retain").value, "true");
  EXPECT_EQ(info.conf.at("retain").source,
            "default of 5.3.0, against false by MALLOC_CONF in its environment");
  EXPECT_EQ(info.conf.at("background_thread").source, "its memory");
}

TEST(Effective, decay_times_written_since_the_start_win) {
  ledger::TargetInfo info = target();
  apply_effective(info, reading(500, 500));
  EXPECT_EQ(info.conf.at("dirty_decay_ms").value, "500");
  EXPECT_EQ(info.conf.at("dirty_decay_ms").source, "its arenas now, 10000 at its start");
  // Not when arenas differ: no one number is theirs.
  info = target();
  apply_effective(info, reading(500, 0));
  EXPECT_EQ(info.conf.at("dirty_decay_ms").value, "10000");
}

TEST(Effective, before_jemalloc_has_started_nothing_is_believed) {
  ledger::TargetInfo info = target();
  ledger::Reading early = reading(0, 0);
  early.options["narenas"] = "0";
  EXPECT_FALSE(apply_effective(info, early));
  early = reading(0, 0);
  early.arenas.clear();
  EXPECT_FALSE(apply_effective(info, early));
  EXPECT_TRUE(info.conf.empty());
  EXPECT_TRUE(apply_effective(info, reading(10000, 10000)));
}

TEST(Effective, nothing_read_changes_nothing) {
  ledger::TargetInfo info = target();
  info.conf_unknown_because = "its environment cannot be read";
  apply_effective(info, {});
  EXPECT_TRUE(info.conf.empty());
  EXPECT_EQ(info.conf_unknown_because, "its environment cannot be read");
}

}  // namespace
}  // namespace jemtrace::collect
