#include "locate/prologue.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace jemtrace::locate {
namespace {

void expect_point(const std::vector<uint8_t>& code, uint32_t offset, CostClass cost,
                  const std::string& instruction) {
  const auto point = choose_probe(code);
  ASSERT_TRUE(point);
  EXPECT_EQ(point->offset, offset);
  EXPECT_EQ(point->cost, cost);
  EXPECT_EQ(point->instruction, instruction);
}

TEST(ChooseProbe, takes_a_push_at_the_entry) {
  expect_point({0x41, 0x57, 0xc3}, 0, CostClass::emulated, "push r15");
  expect_point({0x55, 0xc3}, 0, CostClass::emulated, "push rbp");
}

TEST(ChooseProbe, skips_endbr64) {
  expect_point({0xf3, 0x0f, 0x1e, 0xfa, 0x53, 0xc3}, 4, CostClass::emulated, "push rbx");
}

TEST(ChooseProbe, takes_a_nop_of_one_byte_at_the_entry) {
  expect_point({0x90, 0xc3}, 0, CostClass::emulated, "nop");
  expect_point({0x66, 0x90, 0xc3}, 0, CostClass::emulated, "nop");
}

TEST(ChooseProbe, takes_no_longer_nop_and_no_pause) {
  expect_point({0x0f, 0x1f, 0x40, 0x00, 0xc3}, 0, CostClass::single_step, "nop [rax], eax");
  expect_point({0xf3, 0x90, 0xc3}, 0, CostClass::single_step, "pause");
}

TEST(ChooseProbe, takes_no_push_with_another_prefix) {
  // push ax; REX.W push rax: push_setup_xol_ops() refuses both.
  EXPECT_EQ(choose_probe(std::vector<uint8_t>{0x66, 0x50, 0xc3})->cost, CostClass::single_step);
  EXPECT_EQ(choose_probe(std::vector<uint8_t>{0x48, 0x50, 0xc3})->cost, CostClass::single_step);
}

TEST(ChooseProbe, looks_behind_harmless_instructions) {
  // mov rax, [rdi]; test rax, rax; push r12
  expect_point({0x48, 0x8b, 0x07, 0x48, 0x85, 0xc0, 0x41, 0x54, 0xc3}, 6, CostClass::emulated, "push r12");
}

TEST(ChooseProbe, passes_a_push_of_a_constant) {
  // push 1; push r12
  expect_point({0x6a, 0x01, 0x41, 0x54, 0xc3}, 2, CostClass::emulated, "push r12");
}

TEST(ChooseProbe, stays_before_a_lost_argument) {
  // mov rdi, rax; push rbx
  expect_point({0x48, 0x89, 0xc7, 0x53, 0xc3}, 0, CostClass::single_step, "mov rdi, rax");
  // xor r8d, r8d: the 32-bit half clears all of r8.
  expect_point({0x45, 0x31, 0xc0, 0x53, 0xc3}, 0, CostClass::single_step, "xor r8d, r8d");
  // cqo writes rdx without naming it; cpuid and mul as well.
  expect_point({0x48, 0x99, 0x53, 0xc3}, 0, CostClass::single_step, "cqo");
}

TEST(ChooseProbe, stays_before_a_moved_stack_pointer) {
  // sub rsp, 0x18; push rbx
  expect_point({0x48, 0x83, 0xec, 0x18, 0x53, 0xc3}, 0, CostClass::single_step, "sub rsp, 0x18");
}

TEST(ChooseProbe, stays_before_a_branch) {
  // test rsi, rsi; je +2; push rbx
  expect_point({0x48, 0x85, 0xf6, 0x74, 0x02, 0x53, 0xc3}, 0, CostClass::single_step, "test rsi, rsi");
}

TEST(ChooseProbe, looks_at_six_instructions_ahead_only) {
  std::vector<uint8_t> code;
  for (int i = 0; i < 7; ++i) {
    code.insert(code.end(), {0x48, 0x31, 0xc0});  // xor rax, rax
  }
  code.push_back(0x53);
  expect_point(code, 0, CostClass::single_step, "xor rax, rax");
  code.erase(code.begin(), code.begin() + 3);
  expect_point(code, 18, CostClass::emulated, "push rbx");
}

TEST(ChooseProbe, refuses_what_is_no_code) {
  EXPECT_FALSE(choose_probe({}));
  EXPECT_FALSE(choose_probe(std::vector<uint8_t>{0x06}));
  EXPECT_FALSE(choose_probe(std::vector<uint8_t>{0x48}));
}

}  // namespace
}  // namespace jemtrace::locate
