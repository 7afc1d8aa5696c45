#include "read/call/safe_point.hpp"

#include <gtest/gtest.h>

#include <cerrno>

namespace jemtrace::read {
namespace {

constexpr const char* sleeping =
    "Name:\tredis-server\nState:\tS (sleeping)\nTracerPid:\t0\nSigIgn:\t0000000000001001\n"
    "SigCgt:\t00000003440044eb\nSeccomp:\t0\nSeccomp_filters:\t0\n";

std::string with(std::string from, const std::string& to) {
  std::string text = sleeping;
  const size_t at = text.find(from);
  return text.replace(at, from.size(), to);
}

std::string status_reason(const std::string& text) {
  const auto status = parse_thread_status(text);
  const auto refusal = status ? refuse_status(*status) : Refusal{"no status", true};
  return refusal ? refusal->reason : "";
}

TEST(RefuseStatus, takes_a_plain_sleeping_thread) {
  EXPECT_EQ(status_reason(sleeping), "");
  EXPECT_EQ(status_reason(with("Seccomp:\t0\n", "")), "") << "a kernel without seccomp";
}

TEST(RefuseStatus, names_what_forbids_a_call) {
  EXPECT_EQ(status_reason(with("TracerPid:\t0", "TracerPid:\t42")), "it is traced by pid 42");
  EXPECT_NE(status_reason(with("Seccomp:\t0", "Seccomp:\t2")).find("seccomp"), std::string::npos);
  EXPECT_NE(status_reason(with("0000000000001001", "0000000000000400")).find("SIGSEGV"), std::string::npos);
  EXPECT_NE(status_reason(with("Seccomp:", "x86_Thread_features:\tshstk \nSeccomp:")).find("shadow stack"),
            std::string::npos);
  EXPECT_EQ(status_reason(with("redis-server", "jemalloc_bg_thd")), "it is a background thread of jemalloc");
  EXPECT_EQ(status_reason(with("S (sleeping)", "T (stopped)")), "it is stopped");
  EXPECT_EQ(status_reason(with("S (sleeping)", "R (running)")), "it is running");
  EXPECT_EQ(status_reason(with("S (sleeping)", "D (disk sleep)")), "it is running");
}

TEST(RefuseStatus, only_what_passes_is_worth_another_look) {
  EXPECT_FALSE(refuse_status({.comm = "", .state = 'R'})->lasting);
  EXPECT_TRUE(refuse_status({.comm = "", .state = 'S', .tracer = 1})->lasting);
}

TEST(ParseThreadStatus, refuses_rubbish) {
  EXPECT_FALSE(parse_thread_status(""));
  EXPECT_FALSE(parse_thread_status("Name:\tx\nState:\tS\nTracerPid:\tx\nSigIgn:\t0\n"));
  EXPECT_FALSE(parse_thread_status("Name:\tx\nState:\tS\nTracerPid:\t0\nSigIgn:\t0\nSeccomp:\t?\n"));
}

TEST(ParseBlockedCall, reads_number_arguments_and_registers) {
  const auto call =
      parse_blocked_call("232 0x5 0x7ffc 0x10 0xffffffffffffffff 0x0 0x8 0x7ffc1234 0x7f0042\n");
  ASSERT_TRUE(call);
  EXPECT_EQ(call->number, 232);
  EXPECT_EQ(call->args[3], ~uint64_t{0});
  EXPECT_EQ(call->sp, 0x7ffc1234U);
  EXPECT_EQ(call->pc, 0x7f0042U);
}

TEST(ParseBlockedCall, knows_threads_that_are_in_none) {
  EXPECT_FALSE(parse_blocked_call("running\n"));
  EXPECT_FALSE(parse_blocked_call(""));
  EXPECT_FALSE(parse_blocked_call("232 0x5\n"));
  EXPECT_EQ(parse_blocked_call("-1 0x7ffc 0x7f00\n")->number, -1);
}

bool accepts(int64_t number, uint64_t second = 0) {
  return !refuse_call({.number = number, .args = {0, second, 0, 0, 0, 0}});
}

TEST(RefuseCall, takes_waits_for_the_outside) {
  for (const int number : {0, 7, 23, 35, 43, 45, 219, 230, 232, 270, 271, 281, 441}) {
    EXPECT_TRUE(accepts(number)) << number;
  }
}

TEST(RefuseCall, takes_no_other_system_calls) {
  for (const int number : {-1, 1, 9, 11, 15, 28, 42, 56, 57, 58, 59, 61, 231, 247, 435}) {
    EXPECT_FALSE(accepts(number)) << number;
  }
}

TEST(RefuseCall, takes_a_futex_wait_only_if_it_is_for_no_lock_of_the_c_library) {
  EXPECT_TRUE(accepts(202, 0x189)) << "FUTEX_WAIT_BITSET, private, realtime: a condition variable";
  EXPECT_TRUE(accepts(202, 0x109)) << "not private: pthread_join";
  EXPECT_FALSE(accepts(202, 0x80)) << "FUTEX_WAIT, private: a mutex, or a lock that fork waits for";
  EXPECT_FALSE(accepts(202, 0x86)) << "FUTEX_LOCK_PI";
}

TEST(FindReturn, looks_behind_calls) {
  const CodeRange jemalloc[] = {{0x1000, 0x2000}};
  EXPECT_FALSE(find_return(std::vector<uint64_t>{0, 0xfff, 0x1000, 0x2001}, jemalloc))
      << "no call ends there";
  EXPECT_EQ(find_return(std::vector<uint64_t>{5, 0x1005}, jemalloc), 0x1005U);
  EXPECT_EQ(find_return(std::vector<uint64_t>{0x2000}, jemalloc), 0x2000U) << "behind the last instruction";
}

locate::Image program() {
  locate::Image image;
  image.linkage = locate::Linkage::static_linked;
  image.text = {0x1000, 0, 0x1000000};
  image.mallctl_vaddr = 0x402000;
  for (const auto& [vaddr, size] :
       {std::pair<uint64_t, uint64_t>{0x400000, 0x100}, {0x408000, 0x200}, {0x500000, 0x80}}) {
    image.roles.push_back({.role = "",
                           .symbol = "",
                           .vaddr = vaddr,
                           .offset = 0,
                           .size = size,
                           .found_by = "",
                           .evidence = {}});
  }
  return image;
}

TEST(CodeOf, a_library_is_all_its_code) {
  locate::Image image = program();
  image.linkage = locate::Linkage::shared;
  image.text = {0x6000, 0x6000, 0x90000};
  const auto code = code_of(image, 0x7f0000000000);
  ASSERT_EQ(code.size(), 1U);
  EXPECT_EQ(code[0].start, 0x7f0000006000U);
  EXPECT_EQ(code[0].end, 0x7f0000096000U);
}

TEST(CodeOf, a_program_is_what_lies_between_neighbours) {
  const auto code = code_of(program(), 0x10);
  ASSERT_EQ(code.size(), 2U);
  EXPECT_EQ(code[0].start, 0x400010U);
  EXPECT_EQ(code[0].end, 0x408210U);
  EXPECT_EQ(code[1].start, 0x500010U);
}

TEST(CodeOf, a_program_of_which_nothing_is_known_is_all_its_code) {
  locate::Image image = program();
  image.roles.clear();
  EXPECT_EQ(code_of(image, 0)[0].end, 0x1001000U);
}

TEST(IsSigreturn, knows_both_ways_to_write_it) {
  const uint8_t wide[] = {0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05};
  const uint8_t narrow[] = {0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05, 0xc3, 0x90};
  const uint8_t other[] = {0xb8, 0x0e, 0, 0, 0, 0x0f, 0x05, 0xc3, 0x90};
  EXPECT_TRUE(is_sigreturn(wide));
  EXPECT_TRUE(is_sigreturn(narrow));
  EXPECT_FALSE(is_sigreturn(other));
  EXPECT_FALSE(is_sigreturn({}));
}

TEST(ResumedResult, a_wait_does_not_fail_because_it_was_looked_at) {
  const auto result = [](int64_t number, int64_t rax) {
    return static_cast<int64_t>(resumed_result({.number = number}, static_cast<uint64_t>(rax)));
  };
  EXPECT_EQ(result(232, -EINTR), -514);
  EXPECT_EQ(result(232, 3), 3);
  EXPECT_EQ(result(7, -516), -516);
  EXPECT_EQ(result(42, -EINTR), -EINTR) << "connect cannot be done again";
  EXPECT_EQ(result(-1, -EINTR), -EINTR) << "in no system call: a value of the program's";
}

}  // namespace
}  // namespace jemtrace::read
