#include "cli/signals.hpp"

#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>

namespace jemtrace::cli {
namespace {

TEST(SignalsTest, the_first_one_is_taken) {
  Signals signals;
  EXPECT_FALSE(signals.take());
  ::raise(SIGTERM);
  EXPECT_TRUE(signals.take());
  EXPECT_FALSE(signals.take());
}

void end_with_signals_waiting() {
  {
    const Signals signals;
    ::raise(SIGINT);
    ::raise(SIGTERM);
  }
  std::exit(7);
}

TEST(SignalsTest, one_that_comes_at_the_end_does_not_kill) {
  EXPECT_EXIT(end_with_signals_waiting(), ::testing::ExitedWithCode(7), "");
}

void raise_two() {
  Signals signals;
  ::raise(SIGINT);
  signals.take();
  ::raise(SIGINT);
  std::exit(7);
}

TEST(SignalsTest, the_second_one_kills) {
  EXPECT_EXIT(raise_two(), ::testing::KilledBySignal(SIGINT), "");
}

}  // namespace
}  // namespace jemtrace::cli
