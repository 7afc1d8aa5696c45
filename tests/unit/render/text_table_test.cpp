#include "render/text_table.hpp"

#include <gtest/gtest.h>

namespace jemtrace::render {
namespace {

TEST(DisplayWidth, counts_columns_and_not_bytes) {
  EXPECT_EQ(display_width("abc"), 3u);
  EXPECT_EQ(display_width("\u00e4\u2026"), 2u);
  EXPECT_EQ(display_width("\u65e5\u672c"), 4u);  // CJK takes two each
  EXPECT_EQ(display_width("e\u0301"), 1u);       // a combining accent takes none
  EXPECT_LE(display_width("\xff\xe2"), 2u);      // not UTF-8: no crash
}

TEST(CutMiddle, keeps_both_ends) {
  EXPECT_EQ(cut_middle("abcdefghij", 10), "abcdefghij");
  EXPECT_EQ(cut_middle("abcdefghij", 7), "abc\u2026hij");
  EXPECT_EQ(cut_middle("abcdefghij", 6), "abc\u2026ij");
  EXPECT_EQ(cut_middle("abcdefghij", 1), "\u2026");
  EXPECT_EQ(cut_middle("abcdefghij", 0), "");
}

TEST(CutMiddle, never_exceeds_the_width_with_wide_characters) {
  for (size_t width = 0; width < 12; ++width) {
    EXPECT_LE(display_width(cut_middle("\u65e5\u672c\u8a9e\u65e5\u672c\u8a9e", width)), width);
  }
}

TEST(Wrap, breaks_between_words_and_indents) {
  EXPECT_EQ(wrap("label", "one two three", 14, 7), "label  one two\n       three\n");
}

TEST(Wrap, does_not_break_glued_values) {
  EXPECT_EQ(wrap("", "of " + glue("1.16 GB"), 7, 0), "of\n1.16 GB\n");
}

TEST(Wrap, cuts_words_longer_than_a_line) {
  EXPECT_EQ(wrap("", "/a/very/long/path", 9, 0), "/a/v\u2026path\n");
}

TEST(Wrap, starts_a_new_line_after_a_long_label) {
  EXPECT_EQ(wrap("a long label ", "text", 14, 4), "a long label\n    text\n");
}

TEST(Columns, use_short_headers_before_they_drop_a_column) {
  const std::vector<Column> columns = {{"NAME", 8, true},
                                       {"OPTIONAL", 8, false, 1},
                                       {.header = "LONG NAME", .short_header = "LN", .min_width = 3}};
  EXPECT_EQ(Columns(columns, 40).header(), "NAME      OPTIONAL  LONG NAME");
  EXPECT_EQ(Columns(columns, 21).header(), "NAME     OPTIONAL  LN");
  EXPECT_EQ(Columns(columns, 14).header(), "NAME       LN");
}

TEST(Columns, let_a_wide_number_take_the_next_padding) {
  const Columns columns({{"A", 3}, {"B", 6}}, 10);
  EXPECT_EQ(columns.row({"12345", "7"}), "12345    7");
  EXPECT_EQ(columns.row({"1", "7"}), "  1      7");
}

TEST(Columns, shrink_the_widest_text_to_fit) {
  Columns columns({{"PATH", 0, true, 0, "", 6}, {"N"}}, 12);
  columns.fit({{"/usr/lib/libjemalloc.so.2", "12"}});
  EXPECT_EQ(columns.row({"/usr/lib/libjemalloc.so.2", "12"}), "/usr\u2026so.2 12");
}

}  // namespace
}  // namespace jemtrace::render
