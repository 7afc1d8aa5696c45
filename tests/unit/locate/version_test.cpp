#include "locate/version.hpp"

#include <gtest/gtest.h>

#include "locate/strings.hpp"

namespace jemtrace::locate {
namespace {

TEST(ParseVersion, takes_a_git_description_apart) {
  const Version version = parse_version("5.3.0-1-ge13ca993e8ccb9ba9847cc330696e02839f328f7");
  EXPECT_TRUE(version.known());
  EXPECT_EQ(version.major, 5);
  EXPECT_EQ(version.minor, 3);
  EXPECT_EQ(version.patch, 0);
  EXPECT_EQ(version.text, "5.3.0-1-ge13ca993e8ccb9ba9847cc330696e02839f328f7");
}

TEST(ParseVersion, takes_the_short_ids_of_redis) {
  EXPECT_EQ(parse_version("5.1.0-0-g0").minor, 1);
}

TEST(ParseVersion, knows_nothing_of_a_build_without_git) {
  EXPECT_FALSE(parse_version("0.0.0-0-g000000missing_version_try_git_fetch_tags").known());
  EXPECT_FALSE(parse_version("0.0.0-0-g0000000000000000000000000000000000000000").known());
}

TEST(ParseVersion, refuses_what_does_not_look_like_one) {
  for (const char* text : {"", "5.3.0", "5.3.0-0", "5.3-0-gabc", "5.3.0-0-g", "5.3.0-gabc", "v5.3.0-0-gabc",
                           "5.3.0-0-gabcZ", "999999999.1.1-0-g0"}) {
    EXPECT_FALSE(parse_version(text).known()) << text;
  }
}

TEST(VersionAround, finds_the_string_inside_other_text) {
  const std::string text = "xx5.2.1-0-gea6b3e97zz";
  EXPECT_EQ(version_around(text, text.find("-g")), "5.2.1-0-gea6b3e97");
  EXPECT_EQ(version_around("-g0", 0), "");
  EXPECT_EQ(version_around("1-g0", 1), "");
}

uint32_t features(std::initializer_list<std::string_view> present) {
  uint32_t found = 0;
  const auto all = feature_strings();
  for (size_t i = 0; i < all.size(); ++i) {
    found |= std::count(present.begin(), present.end(), all[i].text) != 0 ? 1U << i : 0;
  }
  return found;
}

TEST(Family, follows_from_the_newest_feature) {
  EXPECT_EQ(family_of_features(0), Family::unknown);
  EXPECT_EQ(family_of_features(features({"lg_dirty_mult"})), Family::v4);
  EXPECT_EQ(family_of_features(features({"muzzy_decay_ms"})), Family::v50);
  EXPECT_EQ(family_of_features(features({"muzzy_decay_ms", "max_background_threads"})), Family::v51);
  EXPECT_EQ(family_of_features(features({"muzzy_decay_ms", "oversize_threshold"})), Family::v52);
  EXPECT_EQ(family_of_features(features({"muzzy_decay_ms", "trust_madvise"})), Family::v53);
  EXPECT_EQ(family_of_features(features({"muzzy_decay_ms", "process_madvise_max_batch"})), Family::v531);
}

TEST(ChooseVersion, prefers_the_one_that_agrees_with_the_features) {
  Strings strings;
  strings.anchors = {1000};
  strings.versions = {{"1.76.0-4-g0123abc", 1010}, {"4.5.0-0-g1", 1020}, {"5.3.0-0-g54eaed1d", 90000}};
  EXPECT_EQ(choose_version(strings, Family::v53).text, "5.3.0-0-g54eaed1d");
}

TEST(ChooseVersion, prefers_the_one_near_the_options) {
  Strings strings;
  strings.anchors = {1000};
  strings.versions = {{"5.3.0-7-gaaa", 90000}, {"5.3.0-0-gbbb", 1100}};
  EXPECT_EQ(choose_version(strings, Family::v53).text, "5.3.0-0-gbbb");
}

TEST(ChooseVersion, takes_no_version_of_other_software) {
  Strings strings;
  strings.anchors = {1000};
  strings.versions = {{"1.76.0-4-g0123abc", 1010}};
  EXPECT_FALSE(choose_version(strings, Family::v53).known());
}

TEST(MessageTag, is_what_jemalloc_prints) {
  EXPECT_EQ(message_tag(), std::string("<jem") + "alloc>: ");
}

}  // namespace
}  // namespace jemtrace::locate
