#include "read/call/settings.hpp"

#include <gtest/gtest.h>

namespace jemtrace::read {
namespace {

TEST(ParseSetting, takes_decay_times_and_the_background_thread) {
  EXPECT_EQ(parse_setting("dirty_decay_ms=500")->value, 500);
  EXPECT_EQ(parse_setting("muzzy_decay_ms=-1")->value, -1);
  EXPECT_EQ(parse_setting("background_thread=true")->value, 1);
  EXPECT_FALSE(parse_setting("background_thread=false")->per_arena());
}

TEST(ParseSetting, refuses_what_cannot_be_set) {
  for (const char* text :
       {"", "dirty_decay_ms", "dirty_decay_ms=", "dirty_decay_ms=-2", "dirty_decay_ms=10ms",
        "dirty_decay_ms=99999999999999999999", "background_thread=1", "narenas=4", "=5"}) {
    const auto setting = parse_setting(text);
    ASSERT_FALSE(setting) << text;
    EXPECT_EQ(setting.error().code, Errc::usage);
    EXPECT_FALSE(setting.error().hint.empty());
  }
}

}  // namespace
}  // namespace jemtrace::read
