#include "util/text.hpp"

#include <gtest/gtest.h>

namespace jemtrace {
namespace {

using std::chrono::milliseconds;

TEST(Escape, keeps_plain_text_and_utf8) {
  EXPECT_EQ(escape("redis-server é 日本"), "redis-server é 日本");
}

TEST(Escape, lets_no_terminal_escape_through) {
  EXPECT_EQ(escape("\x1b[31mred\a\n"), "\\x1b[31mred\\x07\\x0a");
  EXPECT_EQ(escape("\xc2\x9b"), "\\xc2\\x9b");           // CSI as one C1 character
  EXPECT_EQ(escape("\xe2\x80\xae"), "\\xe2\\x80\\xae");  // right-to-left override
}

TEST(Escape, makes_invalid_utf8_visible) {
  EXPECT_EQ(escape("a\xff"
                   "b"),
            "a\\xffb");
  EXPECT_EQ(escape("\xc0\xaf"), "\\xc0\\xaf");           // overlong
  EXPECT_EQ(escape("\xed\xa0\x80"), "\\xed\\xa0\\x80");  // surrogate
  EXPECT_EQ(escape("\xe6\x97"), "\\xe6\\x97");           // cut short
}

TEST(Escape, keeps_its_own_escapes_unambiguous) {
  EXPECT_EQ(escape("\\x1b"), "\\x5cx1b");
}

TEST(HumanBytes, gives_three_digits) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(1023), "1023 B");
  EXPECT_EQ(human_bytes(4096), "4.00 kB");
  EXPECT_EQ(human_bytes(100 * 1024), "100 kB");
  EXPECT_EQ(human_bytes(uint64_t{1} << 20), "1.00 MB");
  EXPECT_EQ(human_bytes(1023 * 1024), "1.00 MB");
  EXPECT_EQ(human_bytes(~uint64_t{0}), "16.0 EB");
}

TEST(HumanBytes, signs_a_difference) {
  EXPECT_EQ(human_bytes_delta(0), "0");
  EXPECT_EQ(human_bytes_delta(-4096), "-4.00 kB");
  EXPECT_EQ(human_bytes_delta(4096), "+4.00 kB");
  EXPECT_EQ(human_bytes_delta(INT64_MIN), "-8.00 EB");
}

TEST(HumanNs, picks_the_unit) {
  EXPECT_EQ(human_ns(999), "999 ns");
  EXPECT_EQ(human_ns(1000), "1.0 us");
  EXPECT_EQ(human_ns(38'400), "38 us");
  EXPECT_EQ(human_ns(999'600), "1.0 ms");
  EXPECT_EQ(human_ns(2'000'000'000), "2.0 s");
}

TEST(HumanCount, groups_digits) {
  EXPECT_EQ(human_count(7), "7");
  EXPECT_EQ(human_count(10991), "10 991");
  EXPECT_EQ(human_count(1234567), "1 234 567");
  EXPECT_EQ(plural(1, "process", "processes"), "1 process");
  EXPECT_EQ(plural(10991, "process", "processes"), "10 991 processes");
}

TEST(ParseDuration, needs_a_unit) {
  EXPECT_EQ(parse_duration("500ms").value(), milliseconds(500));
  EXPECT_EQ(parse_duration("10s").value(), milliseconds(10'000));
  EXPECT_EQ(parse_duration("2m").value(), milliseconds(120'000));
  for (const char* bad :
       {"", "10", "s", "-1s", "1.5s", "0s", "10 s", "10sec", "99999999999999999999s", "9999999h"}) {
    EXPECT_EQ(parse_duration(bad).error().code, Errc::usage) << bad;
  }
}

TEST(MajorMinor, are_the_numbers_in_front) {
  EXPECT_EQ(major_minor("5.3.0-0-g54eaed1d"), std::pair(5, 3));
  EXPECT_EQ(major_minor("6.18.44-x"), std::pair(6, 18));
  EXPECT_EQ(major_minor("7"), std::pair(7, 0));
  EXPECT_EQ(major_minor(""), std::pair(0, 0));
  EXPECT_EQ(major_minor("v5.3"), std::pair(0, 0));
}

}  // namespace
}  // namespace jemtrace
