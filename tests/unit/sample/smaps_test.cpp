#include "sample/smaps.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

namespace jemtrace::sample {
namespace {

using Kind = ledger::Vma::Kind;

constexpr const char* text =
    "55d0c0000000-55d0c0010000 r-xp 00000000 fe:00 1234                       /usr/bin/a program\n"
    "Size:                 64 kB\n"
    "Rss:                  60 kB\n"
    "Anonymous:             0 kB\n"
    "VmFlags: rd ex mr mw me\n"
    "55d0c0010000-55d0c0020000 rw-p 00000000 00:00 0 \n"
    "Rss:                   8 kB\n"
    "Anonymous:             8 kB\n"
    "55d0c1000000-55d0c1021000 rw-p 00000000 00:00 0                          [heap]\n"
    "Rss:                  12 kB\n"
    "7f0000000000-7f0010000000 rw-p 00000000 00:00 0 \n"
    "Rss:              204800 kB\n"
    "Anonymous:        204800 kB\n"
    "LazyFree:         102400 kB\n"
    "AnonHugePages:      4096 kB\n"
    "Swap:               2048 kB\n"
    "SwapPss:            1024 kB\n"
    "7f0020000000-7f0020001000 rw-p 00000000 00:00 0                          [anon:jemalloc_pg]\n"
    "Rss:                   4 kB\n"
    "7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]\n"
    "7ffc00030000-7ffc00032000 r-xp 00000000 00:00 0                          [vdso]\n";

TEST(Smaps, tells_what_is_mapped_and_how_much_of_it_is_resident) {
  const auto all = parse_smaps(text);
  ASSERT_EQ(all.size(), 7u);
  EXPECT_EQ(all[0].kind, Kind::file);
  EXPECT_EQ(all[0].rss_bytes, 60u << 10);
  EXPECT_EQ(all[1].kind, Kind::anonymous);
  EXPECT_TRUE(all[1].zero_fill);
  EXPECT_EQ(all[2].kind, Kind::heap);
  EXPECT_EQ(all[3].start, 0x7f0000000000u);
  EXPECT_EQ(all[3].end, 0x7f0010000000u);
  EXPECT_EQ(all[3].kind, Kind::anonymous);
  EXPECT_FALSE(all[3].zero_fill);
  EXPECT_EQ(all[3].rss_bytes, 200u << 20);
  EXPECT_EQ(all[3].anonymous_bytes, 200u << 20);
  EXPECT_EQ(all[3].lazyfree_bytes, 100u << 20);
  EXPECT_EQ(all[3].anon_huge_bytes, 4u << 20);
  EXPECT_EQ(all[3].swap_bytes, 2u << 20);
  EXPECT_EQ(all[4].kind, Kind::anonymous);
  EXPECT_EQ(all[5].kind, Kind::stack);
  EXPECT_EQ(all[6].kind, Kind::other);
}

TEST(Smaps, lines_that_make_no_sense_are_left_out) {
  EXPECT_TRUE(parse_smaps("").empty());
  EXPECT_TRUE(parse_smaps("Rss: 12 kB\n").empty());
  EXPECT_TRUE(parse_smaps("7f00-\n7f00-7e00 rw-p 0 0:0 0\nzz-zz\n-\n").empty());
  const auto cut = parse_smaps("7f00-7f10 rw-p\nRss: 99999999999999999999999 kB\nRss:");
  ASSERT_EQ(cut.size(), 1u);
  EXPECT_EQ(cut[0].rss_bytes, 0u);
}

TEST(Smaps, reads_this_process) {
  const auto all = read_smaps(ProcRoot(), ::getpid());
  ASSERT_TRUE(all);
  uint64_t rss = 0;
  for (const auto& vma : *all) {
    rss += vma.rss_bytes;
  }
  EXPECT_GT(rss, 1u << 20);
}

}  // namespace
}  // namespace jemtrace::sample
