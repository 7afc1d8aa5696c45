#include "read/call/frames.hpp"

#include <gtest/gtest.h>

namespace jemtrace::read {
namespace {

constexpr CodeRange jemalloc[] = {{0x5000, 0x6000}};

// Frames of 4 words (rsp-based) around 0x1000, of 3 words by rbp around 0x2000.
std::optional<locate::FrameRule> rule_at(uint64_t pc) {
  if (pc >= 0x1000 && pc < 0x1100) {
    return locate::FrameRule{JT_CFA_SP, 32, 0};
  }
  if (pc >= 0x2000 && pc < 0x2100) {
    return locate::FrameRule{JT_CFA_BP, 16, -16};
  }
  if (pc >= 0x5000 && pc < 0x6000) {
    return locate::FrameRule{JT_CFA_SP, 16, 0};
  }
  return std::nullopt;
}

std::optional<uint64_t> live(const std::vector<uint64_t>& words, uint64_t pc, uint64_t bp = 0) {
  const Stack stack{0x100, words};
  return find_live_return(stack, walk(stack, pc, bp, rule_at), jemalloc);
}

TEST(FindLiveReturn, passes_over_what_earlier_calls_left_in_a_frame) {
  EXPECT_FALSE(live({0, 0x5010, 0, 0x1050, 0x5020, 0, 0, 0}, 0x1010));
}

TEST(FindLiveReturn, finds_a_frame_of_jemalloc) {
  EXPECT_EQ(live({0, 0, 0, 0x5010, 0, 0x1050, 0, 0, 0, 0}, 0x1010), 0x5010U);
}

TEST(FindLiveReturn, takes_what_it_did_not_walk_for_live) {
  EXPECT_EQ(live({0, 0, 0, 0x9999, 0x5010}, 0x1010), 0x5010U) << "no rule for 0x9999";
  EXPECT_EQ(live({0x5010}, 0x9999), 0x5010U);
}

TEST(FindLiveReturn, follows_rbp_through_frames_that_save_it) {
  // rbp 0x110: CFA 0x120, return address at 0x118, the caller's rbp at 0x110.
  EXPECT_FALSE(live({0, 0x5010, 0x200, 0x1050, 0x5010, 0, 0, 0}, 0x2010, 0x110));
}

TEST(Walk, ends_where_a_frame_does_not_grow) {
  const std::vector<uint64_t> words(8, 0x2010);
  const Stack stack{0x100, words};
  EXPECT_EQ(walk(stack, 0x2010, 0x20, rule_at).end, 0x100U) << "rbp points below the stack";
  EXPECT_EQ(walk(stack, 0x2010, ~uint64_t{0} - 8, rule_at).end, 0x100U) << "the CFA overflows";
  EXPECT_EQ(walk({0x100, {}}, 0x1010, 0, rule_at).end, 0x100U);
}

}  // namespace
}  // namespace jemtrace::read
