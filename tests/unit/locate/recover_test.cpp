#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "locate/recover/function_scan.hpp"
#include "programs.hpp"

namespace jemtrace::locate::testing {
namespace {

using recover::scan;
using Code = std::vector<uint8_t>;
using ::testing::IsEmpty;

TEST(ScanFunction, knows_a_constant_argument) {
  const Code code = {0xba, 0x08, 0x00, 0x00, 0x00,   // mov edx, 8
                     0xe8, 0xf6, 0x0f, 0x00, 0x00};  // call 0x2000
  const auto found = scan(code, 0x1000, false);
  ASSERT_EQ(found.transfers.size(), 1u);
  EXPECT_EQ(found.transfers[0].target, 0x2000u);
  EXPECT_EQ(found.transfers[0].return_vaddr, 0x100au);
  EXPECT_EQ(found.transfers[0].rdx, 8u);
  EXPECT_TRUE(found.whole);
}

TEST(ScanFunction, knows_no_constant_where_paths_meet) {
  const Code code = {0xba, 0x08, 0x00, 0x00, 0x00,   // mov edx, 8
                     0x75, 0x05,                     // jne 0x100c
                     0xba, 0x04, 0x00, 0x00, 0x00,   // mov edx, 4
                     0xe8, 0xef, 0x0f, 0x00, 0x00};  // 0x100c: call 0x2000
  const auto found = scan(code, 0x1000, false);
  ASSERT_EQ(found.transfers.size(), 1u);
  EXPECT_EQ(found.transfers[0].rdx, std::nullopt);
}

TEST(ScanFunction, sees_the_other_path_into_a_merged_tail_call) {
  const Code code = {0x31, 0xc9,                    // xor ecx, ecx
                     0x31, 0xd2,                    // 0x1002: xor edx, edx
                     0xe9, 0xf7, 0x0f, 0x00, 0x00,  // jmp 0x2000
                     0xb9, 0x01, 0x00, 0x00, 0x00,  // mov ecx, 1
                     0xeb, 0xf2};                   // jmp 0x1002
  const auto found = scan(code, 0x1000, false);
  ASSERT_EQ(found.transfers.size(), 1u);
  EXPECT_EQ(found.transfers[0].rdx, 0u);
  EXPECT_EQ(found.transfers[0].rcx, std::nullopt);
  EXPECT_TRUE(found.transfers[0].rcx_may_be_one);
}

TEST(ScanFunction, follows_a_member_through_a_register_and_a_spill) {
  const Code code = {0x48, 0x8b, 0x43, 0x28,        // mov rax, [rbx+0x28]
                     0x48, 0x89, 0x44, 0x24, 0x08,  // mov [rsp+8], rax
                     0xe8, 0xf2, 0x0f, 0x00, 0x00,  // call 0x2000
                     0x48, 0x8b, 0x44, 0x24, 0x08,  // mov rax, [rsp+8]
                     0xff, 0xd0};                   // call rax
  const auto found = scan(code, 0x1000, false);
  ASSERT_EQ(found.transfers.size(), 2u);
  EXPECT_EQ(found.transfers[1].member, 5u);
}

TEST(ScanFunction, forgets_what_a_call_destroys) {
  const Code code = {0x48, 0x8b, 0x43, 0x28,        // mov rax, [rbx+0x28]
                     0xe8, 0xf7, 0x0f, 0x00, 0x00,  // call 0x2000
                     0xff, 0xd0};                   // call rax
  const auto found = scan(code, 0x1000, false);
  ASSERT_EQ(found.transfers.size(), 2u);
  EXPECT_EQ(found.transfers[1].member, std::nullopt);
}

TEST(ScanFunction, tells_a_pointer_result_that_is_tested) {
  const Code code = {0xe8, 0xfb, 0x0f, 0x00, 0x00,  // call 0x2000
                     0x48, 0x85, 0xc0,              // test rax, rax
                     0xc3};
  const auto found = scan(code, 0x1000, false);
  ASSERT_EQ(found.transfers.size(), 1u);
  EXPECT_TRUE(found.transfers[0].result_tested);
}

TEST(ScanFunction, knows_the_arguments_that_are_read) {
  const Code code = {0x50,                          // push rax: only saved
                     0x31, 0xd2,                    // xor edx, edx
                     0x48, 0x89, 0xcf,              // mov rdi, rcx
                     0xe8, 0xf5, 0x0f, 0x00, 0x00,  // call
                     0x4c, 0x89, 0xc7};             // mov rdi, r8: after the call, no argument
  const auto found = scan(code, 0x1000, false);
  EXPECT_EQ(found.arguments, 1U << recover::rcx);
}

TEST(ScanFunction, says_when_the_code_ends_in_the_middle_of_an_instruction) {
  EXPECT_FALSE(scan(Code{0x90, 0xe8, 0x00}, 0x1000, false).whole);
}

/// The same program with and without symbols.
class RecoveryTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!build_program(folder_, program_, GetParam())) {
      GTEST_SKIP() << "no C compiler or no libjemalloc.a";
    }
    ASSERT_TRUE(run("strip -s -o " + stripped_ + " " + program_));
    whole_ = analyse_file(program_, {.debug_root = "/nonexistent"});
    recovered_ = analyse_file(stripped_, {.debug_root = "/nonexistent"});
    ASSERT_TRUE(whole_ && recovered_);
  }

  TempFolder folder_;
  std::string program_ = folder_ / "program";
  std::string stripped_ = folder_ / "stripped";
  std::optional<Image> whole_, recovered_;
};

TEST_P(RecoveryTest, gives_each_function_the_name_of_its_symbol) {
  EXPECT_GE(recovered_->roles.size(), 30u);
  EXPECT_THAT(recovered_->missing, IsEmpty());
  for (const FoundRole& found : recovered_->roles) {
    const auto same = [&](const FoundRole& r) { return r.role == found.role && r.vaddr == found.vaddr; };
    EXPECT_TRUE(std::any_of(whole_->roles.begin(), whole_->roles.end(), same)) << found.role;
  }
}

TEST_P(RecoveryTest, probes_the_same_instructions) {
  ASSERT_EQ(recovered_->probes.size(), whole_->probes.size());
  for (size_t i = 0; i < whole_->probes.size(); ++i) {
    EXPECT_EQ(recovered_->probes[i].offset, whole_->probes[i].offset);
    EXPECT_EQ(std::memcmp(&recovered_->probes[i].site, &whole_->probes[i].site, sizeof(jt_site)), 0);
  }
  EXPECT_EQ(recovered_->cache_state_offset, whole_->cache_state_offset);
}

// What may differ: nothing known (unclassified), or a wrapper, from which a walk goes on to the same end.
TEST_P(RecoveryTest, contradicts_no_call_site_that_has_a_symbol) {
  std::map<uint64_t, jt_site> by_symbols;
  for (const CallSite& site : whole_->call_sites) {
    by_symbols[site.return_offset] = site.site;
  }
  size_t same = 0;
  for (const CallSite& site : recovered_->call_sites) {
    const auto known = by_symbols.find(site.return_offset);
    if (known == by_symbols.end()) {
      continue;
    }
    const bool weaker = site.site.purpose == JT_UNCLASSIFIED || site.site.purpose == JT_PASS;
    EXPECT_TRUE(site.site.purpose == known->second.purpose || weaker) << std::hex << site.return_offset;
    EXPECT_TRUE(site.site.cause == known->second.cause || site.site.cause == JT_CAUSE_UNKNOWN)
        << std::hex << site.return_offset;
    EXPECT_EQ(site.site.cfa_offset, known->second.cfa_offset);
    same += site.site.purpose == known->second.purpose ? 1 : 0;
  }
  EXPECT_GT(same, 250u);
}

// No purge by mistake: where the symbols know of none, nothing recovered is one.
TEST_P(RecoveryTest, takes_no_other_call_for_a_purge) {
  std::map<uint64_t, jt_site> by_symbols;
  for (const CallSite& site : whole_->call_sites) {
    by_symbols[site.return_offset] = site.site;
  }
  for (const CallSite& site : recovered_->call_sites) {
    if (site.site.purpose == JT_PURGE_SWEEP || site.site.purpose == JT_PURGE_OVERSIZE) {
      ASSERT_TRUE(by_symbols.contains(site.return_offset)) << std::hex << site.return_offset;
      EXPECT_EQ(by_symbols[site.return_offset].purpose, site.site.purpose) << std::hex << site.return_offset;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Linking, RecoveryTest, ::testing::Values("", "-static", "-no-pie"));

TEST(Recovery, survives_a_damaged_library) {
  if (!std::filesystem::exists(library)) {
    GTEST_SKIP() << "no " << library;
  }
  const TempFolder folder;
  const std::string copy = folder / "damaged.so";
  std::ifstream in(library, std::ios::binary);
  const std::string original((std::istreambuf_iterator<char>(in)), {});
  uint32_t random = 12345;
  const auto next = [&] { return random = random * 1664525 + 1013904223; };
  for (int round = 0; round < 12; ++round) {
    std::string bytes = original;
    // The headers of the file, which decide whether anything is read, stay.
    for (int i = 0; i < 4000; ++i) {
      bytes[4096 + next() % (bytes.size() - 8192)] = static_cast<char>(next() >> 24);
    }
    std::ofstream(copy, std::ios::binary) << bytes;
    const auto fd = open_file(copy, O_RDONLY);
    ASSERT_TRUE(fd);
    const auto image = analyse(fd->get(), copy, {.debug_root = "/nonexistent"});
    EXPECT_TRUE(image || !image.error().what.empty());
  }
}

}  // namespace
}  // namespace jemtrace::locate::testing
