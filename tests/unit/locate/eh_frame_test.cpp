#include "locate/eh_frame.hpp"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <fcntl.h>
#include <gtest/gtest.h>

#include <cstring>

#include "locate/call_sites.hpp"
#include "locate/layout.hpp"
#include "programs.hpp"

namespace jemtrace::locate::testing {
namespace {

/// libdw's answer in our words.
std::optional<FrameRule> libdw_rule(Dwarf_CFI* cfi, uint64_t vaddr) {
  Dwarf_Frame* frame = nullptr;
  if (dwarf_cfi_addrframe(cfi, vaddr, &frame) != 0) {
    return std::nullopt;
  }
  FrameRule rule;
  Dwarf_Op* ops = nullptr;
  size_t n = 0;
  // libdw 0.188 says bregx for all registers.
  if (dwarf_frame_cfa(frame, &ops, &n) == 0 && n == 1 && ops[0].atom == DW_OP_bregx &&
      (ops[0].number == 6 || ops[0].number == 7)) {
    rule.cfa_register = ops[0].number == 7 ? JT_CFA_SP : JT_CFA_BP;
    rule.cfa_offset = static_cast<int32_t>(ops[0].number2);
  }
  Dwarf_Op memory[3];
  if (dwarf_frame_register(frame, 6, memory, &ops, &n) == 0 && n >= 1 &&
      ops[0].atom == DW_OP_call_frame_cfa) {
    rule.saved_bp = n >= 2 && ops[1].atom == DW_OP_plus_uconst ? static_cast<int32_t>(ops[1].number) : 0;
  }
  std::free(frame);
  return rule;
}

void expect_same_as_libdw(const std::string& path) {
  const auto fd = open_file(path, O_RDONLY);
  ASSERT_TRUE(fd);
  const auto file = ElfFile::open(fd->get(), path, uint64_t{1} << 30);
  ASSERT_TRUE(file);
  const auto frames = CallFrames::read(*file);
  ASSERT_TRUE(frames) << path;
  ASSERT_GT(frames->entries().size(), 100u);
  Elf* elf = elf_begin(fd->get(), ELF_C_READ, nullptr);
  Dwarf_CFI* cfi = dwarf_getcfi_elf(elf);
  ASSERT_NE(cfi, nullptr);
  size_t compared = 0;
  for (const CallFrames::Entry& entry : frames->entries()) {
    const auto code = file->read_vaddr(entry.start, entry.size, 1 << 20);
    for (const Call& call : code ? find_calls(*code, entry.start) : std::vector<Call>{}) {
      const auto ours = frames->rule_at(call.vaddr);
      const auto theirs = libdw_rule(cfi, call.vaddr);
      ASSERT_TRUE(ours && theirs) << std::hex << call.vaddr;
      if (ours->cfa_register != JT_CFA_NONE) {
        EXPECT_EQ(ours->cfa_register, theirs->cfa_register) << std::hex << call.vaddr;
        EXPECT_EQ(ours->cfa_offset, theirs->cfa_offset) << std::hex << call.vaddr;
        EXPECT_EQ(ours->saved_bp, theirs->saved_bp) << std::hex << call.vaddr;
        ++compared;
      }
    }
  }
  EXPECT_GT(compared, 1000u);
  dwarf_cfi_end(cfi);
  elf_end(elf);
}

TEST(CallFrames, agree_with_libdw_on_the_library) {
  if (!std::filesystem::exists(library)) {
    GTEST_SKIP() << "no " << library;
  }
  expect_same_as_libdw(library);
}

TEST(CallFrames, agree_with_libdw_on_a_static_program_without_an_index) {
  TempFolder folder;
  if (!build_program(folder, folder / "static", "-static")) {
    GTEST_SKIP() << "no C compiler or no libjemalloc.a";
  }
  expect_same_as_libdw(folder / "static");
}

TEST(CallFrames, are_found_without_section_headers) {
  TempFolder folder;
  if (!build_program(folder, folder / "program")) {
    GTEST_SKIP() << "no C compiler or no libjemalloc.a";
  }
  const std::string path = folder / "program";
  const auto entries = [&] {
    const auto fd = open_file(path, O_RDONLY);
    const auto file = ElfFile::open(fd->get(), path, uint64_t{1} << 30);
    const auto frames = CallFrames::read(*file);
    return frames ? frames->entries().size() : 0;
  };
  const size_t with_sections = entries();
  // e_shoff, e_shnum and e_shstrndx to 0, as sstrip does.
  std::fstream bytes(path, std::ios::in | std::ios::out | std::ios::binary);
  const char zeros[8] = {};
  bytes.seekp(offsetof(Elf64_Ehdr, e_shoff)).write(zeros, 8);
  bytes.seekp(offsetof(Elf64_Ehdr, e_shnum)).write(zeros, 4);
  bytes.close();
  EXPECT_GT(with_sections, 100u);
  EXPECT_EQ(entries(), with_sections);
}

TEST(FindCalls, knows_direct_calls_calls_through_memory_and_through_registers) {
  // call +0; call [rip+0x10]; call rax; nop; addr32 call +0
  const std::vector<uint8_t> code = {0xe8, 0,    0,    0,    0,    0xff, 0x15, 0x10, 0, 0,
                                     0,    0xff, 0xd0, 0x90, 0x67, 0xe8, 0,    0,    0, 0};
  const auto calls = find_calls(code, 0x1000);
  ASSERT_EQ(calls.size(), 4u);
  EXPECT_EQ(calls[0].return_vaddr, 0x1005u);
  EXPECT_EQ(calls[0].target, 0x1005u);
  EXPECT_EQ(calls[1].return_vaddr, 0x100bu);
  EXPECT_EQ(calls[1].slot, 0x101bu);
  EXPECT_EQ(calls[2].return_vaddr, 0x100du);
  EXPECT_EQ(calls[2].target, 0u);
  EXPECT_EQ(calls[3].vaddr, 0x100eu);
  EXPECT_EQ(calls[3].return_vaddr, 0x1014u);
}

TEST(CallPurpose, tells_a_trim_and_a_retreat_from_a_zero_fill) {
  const RoleEntry& grow = *find_role("extent_grow_retained");
  EXPECT_EQ(call_purpose(grow, "munmap"), JT_TRIM);
  EXPECT_EQ(call_purpose(grow, "extent_dalloc_wrapper"), JT_ABANDON);
  EXPECT_EQ(call_purpose(grow, "madvise"), JT_ZERO_FILL);
  EXPECT_EQ(call_purpose(grow, ""), JT_ZERO_FILL);
  EXPECT_EQ(call_purpose(*find_role("extent_record"), "extent_dalloc_wrapper"), JT_PURGE_OVERSIZE);
}

TEST(GetterOffset, reads_the_displacement_of_a_plain_getter) {
  EXPECT_EQ(getter_offset(std::vector<uint8_t>{0x8b, 0x87, 0x60, 0x13, 0, 0, 0xc3}), 0x1360u);
  EXPECT_EQ(getter_offset(std::vector<uint8_t>{0xf3, 0x0f, 0x1e, 0xfa, 0x8b, 0x87, 0xd8, 6, 0, 0, 0xc3}),
            0x6d8u);
  EXPECT_FALSE(getter_offset(std::vector<uint8_t>{0x8b, 0x87, 0xff, 0xff, 0xff, 0x7f, 0xc3}));
  EXPECT_FALSE(getter_offset(std::vector<uint8_t>{0x8b, 0x86, 0x60, 0x13, 0, 0, 0xc3}));
  EXPECT_FALSE(getter_offset(std::vector<uint8_t>{0x8b, 0x87, 0x60}));
}

}  // namespace
}  // namespace jemtrace::locate::testing
