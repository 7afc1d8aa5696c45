#include "locate/image_file.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <random>

#include "util/wire.hpp"

namespace jemtrace::locate::testing {
namespace {

using ::testing::ElementsAre;

CallSite call_site(uint64_t offset) {
  CallSite call;
  call.return_offset = offset;
  call.site.cfa_offset = 48;
  call.site.saved_bp = -16;
  call.site.purpose = JT_PURGE_SWEEP;
  call.site.cause = JT_CAUSE_TICK;
  return call;
}

/// No field has its default.
Structures sample_structures() {
  Structures s;
  s.found_by = "known layout of 5.3.0";
  s.arenas = 0xcd6c0;
  s.max_arenas = 17;
  s.narenas_total = Global{0xd5808, 4, true, Global::Kind::boolean, {"x"}};
  s.page_shift = 14;
  s.stats = false;
  s.nthreads = 1;
  s.nactive = 2;
  s.ind = 3;
  s.base = 4;
  s.internal = 5;
  s.dirty = {{6, 7}, 8, 9, {10, 11}};
  s.muzzy = {{12}, 13, std::nullopt, {14}};
  s.retained = {{15}, std::nullopt, 16, {17}};
  s.dirty_decay = {18, 19, 20, 21, 22, 23, 24};
  s.muzzy_decay = {25, 26, 27, 28, std::nullopt, 29, 30};
  s.dirty_counters = {31, 32, 33, 34};
  s.muzzy_counters = {std::nullopt, 35, 36, 37};
  s.extent = {38, 39, 40, 41, 17, 3};
  s.base_layout = {42, 43, 44};
  s.options["thp"] = {0x1234, 4, false, Global::Kind::choice, {"default", "always"}};
  s.options["dss"] = {0x5678, 8, false, Global::Kind::text, {}};
  s.evidence = {"seen"};
  s.missing = {"not seen"};
  return s;
}

/// No field has its default.
Image sample() {
  Image image;
  image.build_id = "0123456789abcdef";
  image.version = {5, 3, 1, "5.3.1-0-g54eaed1d"};
  image.symbol_prefix = "_rjem_";
  image.linkage = Linkage::static_linked;
  image.tier = Tier::recovered;
  image.musl = true;
  image.text = {0x1000, 0x2000, 0x30000};
  image.exe_code_vaddr = 0x1000;
  image.roles = {{"ecache_evict", "je_ecache_evict", 0x1100, 0x2100, 77, "symtab"},
                 {"pac_decay_to_limit", "pac_decay_to_limit.part.0", 0x1200, 0x2200, 99, "build-id"}};
  image.missing = {"arena_decay", "extent_record"};
  ProbeSite probe{"ecache_evict", 0x2104, CostClass::emulated, "push r15", {}};
  probe.site.role = JT_ROLE_EVICT;
  probe.site.cache_arg[0] = 4;
  image.probes = {probe};
  image.call_sites = {call_site(0x2110), call_site(0x2120), call_site(0x2130)};
  image.cache_state_offset = 112;
  image.cache_ind_offset = 116;
  image.structures = sample_structures();
  image.notes = {"one", "two"};
  return image;
}

/// The image of an outcome that has one.
const Image& image_of(const std::optional<Outcome>& outcome) {
  return ***outcome;
}

bool readable(const Image& image) {
  return decode(encode(Outcome(image))).has_value();
}

TEST(ImageFile, gives_back_the_structures) {
  const auto outcome = decode(encode(Outcome(sample())));
  ASSERT_TRUE(outcome && *outcome && **outcome);
  ASSERT_TRUE(image_of(outcome).structures);
  const Structures& s = *image_of(outcome).structures;
  EXPECT_EQ(s.arenas, 0xcd6c0U);
  EXPECT_EQ(s.narenas_total.value_or(Global{}).vaddr, 0xd5808U);
  EXPECT_FALSE(s.stats);
  EXPECT_THAT(s.dirty.npages, ElementsAre(6U, 7U));
  EXPECT_FALSE(s.muzzy.ind);
  EXPECT_EQ(s.retained.ind, 16U);
  EXPECT_EQ(s.muzzy_decay.backlog, 30U);
  EXPECT_FALSE(s.muzzy_decay.npages_limit);
  EXPECT_EQ(s.dirty_counters.through, 31U);
  EXPECT_EQ(s.extent.state_width, 3U);
  EXPECT_EQ(s.base_layout.allocated, 44U);
  ASSERT_TRUE(s.options.contains("thp"));
  EXPECT_THAT(s.options.at("thp").names, ElementsAre("default", "always"));
  EXPECT_EQ(s.options.at("dss").kind, Global::Kind::text);
  EXPECT_THAT(s.missing, ElementsAre("not seen"));
}

TEST(ImageFile, refuses_structures_that_cannot_be) {
  for (const auto& damage : std::vector<void (*)(Structures&)>{
           [](Structures& s) { s.max_arenas = 1 << 30; }, [](Structures& s) { s.page_shift = 60; },
           [](Structures& s) { s.nactive = 0xffffffff; }, [](Structures& s) { s.dirty.npages.resize(9); },
           [](Structures& s) { s.retained.lru = {0xffffff00}; },
           [](Structures& s) { s.extent.state_shift = 64; }, [](Structures& s) { s.options["thp"].size = 3; },
           [](Structures& s) { s.options["dss"].size = 1; }}) {
    Image image = sample();
    damage(*image.structures);
    EXPECT_FALSE(readable(image));
  }
}

TEST(ImageFile, gives_back_every_field) {
  const std::string bytes = encode(Outcome(sample()));
  const auto outcome = decode(bytes);
  ASSERT_TRUE(outcome && *outcome && **outcome);
  const Image& image = image_of(outcome);
  EXPECT_TRUE(encode(Outcome(image)) == bytes);
  EXPECT_EQ(image.build_id, "0123456789abcdef");
  EXPECT_EQ(image.version.major, 5);
  EXPECT_EQ(image.version.minor, 3);
  EXPECT_EQ(image.version.patch, 1);
  EXPECT_EQ(image.version.text, "5.3.1-0-g54eaed1d");
  EXPECT_EQ(image.symbol_prefix, "_rjem_");
  EXPECT_EQ(image.linkage, Linkage::static_linked);
  EXPECT_EQ(image.tier, Tier::recovered);
  EXPECT_TRUE(image.musl);
  EXPECT_EQ(image.text.vaddr, 0x1000u);
  EXPECT_EQ(image.text.offset, 0x2000u);
  EXPECT_EQ(image.text.size, 0x30000u);
  EXPECT_EQ(image.exe_code_vaddr, 0x1000u);
  ASSERT_EQ(image.roles.size(), 2u);
  EXPECT_EQ(image.roles[1].symbol, "pac_decay_to_limit.part.0");
  EXPECT_EQ(image.roles[1].size, 99u);
  EXPECT_EQ(image.roles[1].found_by, "build-id");
  EXPECT_THAT(image.missing, ElementsAre("arena_decay", "extent_record"));
  ASSERT_EQ(image.probes.size(), 1u);
  EXPECT_EQ(image.probes[0].cost, CostClass::emulated);
  EXPECT_EQ(image.probes[0].instruction, "push r15");
  EXPECT_EQ(image.probes[0].site.cache_arg[0], 4);
  ASSERT_EQ(image.call_sites.size(), 3u);
  EXPECT_EQ(image.call_sites[2].return_offset, 0x2130u);
  EXPECT_EQ(image.call_sites[2].site.saved_bp, -16);
  EXPECT_EQ(image.cache_state_offset, 112u);
  EXPECT_EQ(image.cache_ind_offset, 116u);
  EXPECT_THAT(image.notes, ElementsAre("one", "two"));
}

TEST(ImageFile, gives_back_that_there_is_no_jemalloc) {
  const auto outcome = decode(encode(Outcome(std::nullopt)));
  ASSERT_TRUE(outcome && *outcome);
  EXPECT_FALSE(**outcome);
}

TEST(ImageFile, gives_back_an_error) {
  const auto outcome = decode(encode(fail_errno("cannot read it", EPERM, "try again")));
  ASSERT_TRUE(outcome);
  ASSERT_FALSE(*outcome);
  EXPECT_EQ(outcome->error().code, Errc::denied);
  EXPECT_EQ(outcome->error().what, "cannot read it");
  EXPECT_EQ(outcome->error().sys, EPERM);
  EXPECT_EQ(outcome->error().hint, "try again");
}

TEST(ImageFile, lets_no_control_character_through) {
  Image image = sample();
  image.notes = {"a\x1b[2Jb\nc"};
  const auto outcome = decode(encode(Outcome(image)));
  ASSERT_TRUE(outcome && *outcome && **outcome);
  EXPECT_THAT(image_of(outcome).notes, ElementsAre("a?[2Jb?c"));

  std::string bytes = encode(Outcome(sample()));
  const size_t at = bytes.find("push r15");
  ASSERT_NE(at, std::string::npos);
  bytes[at + 4] = '\n';
  EXPECT_FALSE(decode(bytes));
}

TEST(ImageFile, refuses_numbers_that_mean_nothing) {
  ASSERT_TRUE(readable(sample()));
  const auto refuses = [](const auto& change) {
    Image image = sample();
    change(image);
    return !readable(image);
  };
  EXPECT_TRUE(refuses([](Image& i) { i.tier = static_cast<Tier>(4); }));
  EXPECT_TRUE(refuses([](Image& i) { i.linkage = static_cast<Linkage>(77); }));
  EXPECT_TRUE(refuses([](Image& i) { i.probes[0].cost = static_cast<CostClass>(2); }));
  EXPECT_TRUE(refuses([](Image& i) { i.probes[0].site.role = 3; }));
  EXPECT_TRUE(refuses([](Image& i) { i.probes[0].site.role = JT_ROLE_NONE; }));
  EXPECT_TRUE(refuses([](Image& i) { i.probes[0].site.cache_arg[1] = 7; }));
  EXPECT_TRUE(refuses([](Image& i) { i.probes[0].offset = ~uint64_t{0}; }));
  EXPECT_TRUE(refuses([](Image& i) { i.call_sites[0].site.role = JT_ROLE_SWEEP; }));
  EXPECT_TRUE(refuses([](Image& i) { i.call_sites[0].site.purpose = JT_PURPOSES; }));
  EXPECT_TRUE(refuses([](Image& i) { i.call_sites[0].site.cause = JT_CAUSES; }));
  EXPECT_TRUE(refuses([](Image& i) { i.call_sites[0].site.cfa_register = JT_CFA_NONE + 1; }));
  EXPECT_TRUE(refuses([](Image& i) { i.call_sites[0].site.cfa_offset = -8; }));
  EXPECT_TRUE(refuses([](Image& i) { i.call_sites[0].site.cfa_offset = 1 << 20; }));
  EXPECT_TRUE(refuses([](Image& i) { i.call_sites[0].site.saved_bp = 8; }));
  EXPECT_TRUE(refuses([](Image& i) { i.call_sites[0].site.pad[0] = 1; }));
  EXPECT_TRUE(refuses([](Image& i) { i.call_sites[0].return_offset = 0x5000; }));  // not ascending
  EXPECT_TRUE(refuses([](Image& i) { i.text.offset = ~uint64_t{0}; }));
  EXPECT_TRUE(refuses([](Image& i) { i.text.vaddr = ~uint64_t{0}; }));
}

TEST(ImageFile, refuses_what_is_too_large) {
  Image image;
  image.notes.assign(wire::max_elements + 1, "x");
  EXPECT_FALSE(readable(image));
  EXPECT_FALSE(decode(std::string(max_encoded_image + 1, '\0')));
}

// A message may be empty: two bytes make an element.
TEST(ImageFile, few_bytes_do_not_become_many_elements) {
  std::string roles;
  for (size_t i = 0; i <= wire::max_elements; ++i) {
    roles += std::string("\x4a\x00", 2);  // field 9
  }
  std::string bytes;
  protozero::pbf_writer writer(bytes);
  writer.add_uint64(1, 1);
  writer.add_message(2, roles);
  EXPECT_FALSE(decode(bytes));
}

TEST(ImageFile, damage_is_survived) {
  const std::string bytes = encode(Outcome(sample()));
  for (size_t length = 0; length < bytes.size(); ++length) {
    (void)decode(std::string_view(bytes).substr(0, length));
  }
  std::mt19937 random(4242);
  for (int round = 0; round < 50000; ++round) {
    std::string damaged = bytes;
    for (unsigned n = 1 + random() % 4; n > 0; --n) {
      damaged[random() % damaged.size()] = static_cast<char>(random());
    }
    const auto outcome = decode(damaged);
    if (outcome && *outcome && **outcome) {
      EXPECT_TRUE(readable(image_of(outcome)));
    }
  }
}

TEST(ImageFile, twenty_thousand_call_sites_take_a_moment) {
  Image image = sample();
  image.call_sites.clear();
  for (uint64_t i = 0; i < 20000; ++i) {
    image.call_sites.push_back(call_site(0x2000 + 5 * i));
  }
  const std::string bytes = encode(Outcome(image));
  const auto start = std::chrono::steady_clock::now();
  const auto outcome = decode(bytes);
  const auto took = std::chrono::steady_clock::now() - start;
  ASSERT_TRUE(outcome && *outcome && **outcome);
  EXPECT_EQ(image_of(outcome).call_sites.size(), 20000u);
  EXPECT_LT(took, std::chrono::milliseconds(50));  // 0.2 measured
  RecordProperty("microseconds",
                 static_cast<int>(std::chrono::duration_cast<std::chrono::microseconds>(took).count()));
}

}  // namespace
}  // namespace jemtrace::locate::testing
