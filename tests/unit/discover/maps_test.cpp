#include "discover/maps.hpp"

#include <gtest/gtest.h>

namespace jemtrace::discover {
namespace {

TEST(ParseMapping, reads_a_line_of_a_library) {
  const auto m = parse_mapping(
      "7f0fe4409000-7f0fe44a3000 r-xp 00008000 fe:00 1187093                    /usr/lib/libjemalloc.so.2");
  ASSERT_TRUE(m);
  EXPECT_EQ(m->start, 0x7f0fe4409000U);
  EXPECT_EQ(m->end, 0x7f0fe44a3000U);
  EXPECT_EQ(m->file_offset, 0x8000U);
  EXPECT_TRUE(m->executable);
  EXPECT_EQ(m->device_major, 0xfeU);
  EXPECT_EQ(m->device_minor, 0U);
  EXPECT_EQ(m->inode, 1187093U);
  EXPECT_EQ(m->path, "/usr/lib/libjemalloc.so.2");
}

TEST(ParseMapping, keeps_spaces_in_paths) {
  EXPECT_EQ(parse_mapping("1000-2000 rw-p 00000000 08:01 42   /tmp/a b (deleted)")->path,
            "/tmp/a b (deleted)");
}

TEST(ParseMapping, takes_anonymous_memory) {
  const auto m = parse_mapping("1000-2000 rw-p 00000000 00:00 0 ");
  ASSERT_TRUE(m);
  EXPECT_EQ(m->inode, 0U);
  EXPECT_EQ(m->path, "");
  EXPECT_FALSE(m->executable);
}

TEST(ParseMapping, refuses_what_is_no_mapping) {
  for (const char* line :
       {"", "x", "1000", "1000-", "1000-2000", "2000-1000 r-xp 0 00:00 0", "1000-2000 r-xp",
        "1000-2000 r-xp 00000000 0800 0", "zz-2000 r-xp 00000000 08:01 1"}) {
    EXPECT_FALSE(parse_mapping(line)) << line;
  }
}

TEST(Mappings, skips_lines_that_make_no_sense) {
  const Mappings mappings("1000-2000 r-xp 00000000 08:01 1 /a\nrubbish\n3000-4000 r-xp 00000000 08:01 2 /b");
  ASSERT_EQ(mappings.all().size(), 2U);
  EXPECT_EQ(mappings.all()[1].path, "/b");
}

}  // namespace
}  // namespace jemtrace::discover
