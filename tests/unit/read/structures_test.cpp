#include "read/structures.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <vector>

namespace jemtrace::read {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr uint64_t page = 4096;
constexpr uint64_t bias = 0x7000'0000'0000;
constexpr uint64_t arenas_at = 0x10000;  // as linked
constexpr uint64_t arena_at = 0x7100'0000'0000;
constexpr uint64_t extent_at = 0x7200'0000'0000;
constexpr uint64_t base_at = 0x7300'0000'0000;
constexpr uint64_t counters_at = 0x7400'0000'0000;

/// A target that a test makes up, of pages that are there and pages that are not.
class FakeMemory final : public Memory {
 public:
  Status read(std::span<Piece> pieces) const override {
    ++calls;
    if (exited) {
      return fail(Errc::gone, "no such process");
    }
    for (Piece& piece : pieces) {
      piece.whole = true;
      for (size_t i = 0; i < piece.into.size() && piece.whole; ++i) {
        const auto found = pages_.find((piece.address + i) / page);
        piece.whole = found != pages_.end();
        if (piece.whole) {
          piece.into[i] = found->second[(piece.address + i) % page];
        }
      }
    }
    after_read();
    return {};
  }

  void map(uint64_t address, uint64_t size) {
    for (uint64_t at = address / page; at <= (address + size - 1) / page; ++at) {
      pages_.try_emplace(at, page);
    }
  }
  void put(uint64_t address, uint64_t value, size_t size = 8) {
    map(address, size);
    for (size_t i = 0; i < size; ++i) {
      pages_[(address + i) / page][(address + i) % page] = static_cast<uint8_t>(value >> (8 * i));
    }
  }
  void unmap(uint64_t address) { pages_.erase(address / page); }

  bool exited = false;
  mutable int calls = 0;
  std::function<void()> after_read = [] {};

 private:
  std::map<uint64_t, std::vector<uint8_t>> pages_;
};

/// As 5.3.0 has it, in small.
locate::Structures layout() {
  locate::Structures s;
  s.found_by = "a test";
  s.arenas = arenas_at;
  s.nthreads = 0;
  s.nactive = 8;
  s.ind = 16;
  s.base = 24;
  s.internal = 32;
  const auto cache = [](uint32_t at) {
    return locate::CacheLayout{{at, at + 8}, at + 32, at + 36, {at + 16, at + 24}};
  };
  s.dirty = cache(0x100);
  s.muzzy = cache(0x200);
  s.retained = cache(0x300);
  s.dirty_decay.time_ms = 0x400;
  s.dirty_decay.interval = 0x408;
  s.dirty_decay.npages_limit = 0x410;
  s.muzzy_decay.time_ms = 0x500;
  s.muzzy_decay.interval = 0x508;
  s.muzzy_decay.backlog = 0x510;
  s.dirty_counters = {0x40, 0, 8, 16};
  s.muzzy_counters = {0x40, 24, 32, 40};
  s.extent = {0, 8, 16, 64, 17, 3};
  s.base_layout.blocks = 8;
  s.base_layout.allocated = 16;
  return s;
}

class ReaderTest : public testing::Test {
 protected:
  void SetUp() override {
    memory.map(bias + arenas_at, 8 * 4095);
    add_arena(0);
  }

  static uint64_t address(uint32_t index) { return arena_at + 0x10000 * uint64_t{index}; }

  void add_arena(uint32_t index) {
    const uint64_t at = address(index);
    memory.map(at, 0x1000);
    memory.put(bias + arenas_at + 8 * index, at);
    memory.put(at, 3, 4);
    memory.put(at + 8, 1000);
    memory.put(at + 16, index, 4);
    memory.put(at + 24, base_at);
    memory.put(at + 32, 77);
    memory.put(at + 0x40, counters_at);
    for (uint32_t state = 1; state <= 3; ++state) {
      memory.put(at + 0x100 * state + 32, state, 4);
      memory.put(at + 0x100 * state + 36, index, 4);
    }
    for (const uint32_t decay : {0x400, 0x500}) {
      memory.put(at + decay, 10'000);
      memory.put(at + decay + 8, 50'000'000);
    }
    memory.put(at + 0x410, 12);
    memory.put(at + 0x510 + 8 * 199, 40);
    for (uint64_t i = 0; i < 6; ++i) {
      memory.put(counters_at + 8 * i, 100 + i);
    }
    memory.put(base_at + 8, 0);
    memory.put(base_at + 16, 5555);
  }

  /// An extent of `pages` that is followed by extent number `next`.
  void add_extent(uint64_t number, uint64_t pages, uint64_t next, uint32_t state = 1, uint32_t arena = 0) {
    const uint64_t at = extent(number);
    memory.put(at, arena | uint64_t{state} << 17);
    memory.put(at + 8, 0x7500'0000'0000 + number * 0x100000 + 0x40);
    memory.put(at + 16, pages * page | 7);
    memory.put(at + 64, extent(next));
  }
  static uint64_t extent(uint64_t number) { return extent_at + 128 * number; }

  void set_dirty(uint64_t pages, uint64_t first) {
    memory.put(address(0) + 0x100, pages);
    memory.put(address(0) + 0x110, first);
  }

  [[nodiscard]] Result<ledger::Reading> read(const ReadOptions& options = {}) const {
    return Reader(memory, structures, bias).read(options);
  }
  [[nodiscard]] ledger::ArenaReading only(const ReadOptions& options = {}) const {
    const auto reading = read(options);
    return reading && reading->arenas.size() == 1 ? reading->arenas.front() : ledger::ArenaReading{};
  }

  FakeMemory memory;
  locate::Structures structures = layout();
};

TEST_F(ReaderTest, reads_an_arena) {
  memory.put(address(0) + 0x100, 20);
  memory.put(address(0) + 0x108, 1);
  const auto reading = read();
  ASSERT_TRUE(reading) << reading.error().message();
  ASSERT_THAT(reading->arenas, SizeIs(1));
  const auto& arena = reading->arenas.front();
  EXPECT_EQ(arena.threads, 3U);
  EXPECT_EQ(arena.active_pages, 1000U);
  EXPECT_EQ(arena.dirty.pages, 21U);
  EXPECT_EQ(arena.muzzy.pages, 0U);
  EXPECT_EQ(arena.dirty_decay.time_ms, 10'000);
  EXPECT_EQ(arena.dirty_decay.limit_pages, 12U);
  EXPECT_EQ(arena.dirty_decay.npurge, 100U);
  EXPECT_EQ(arena.muzzy_decay.purged_pages, 105U);
  EXPECT_EQ(arena.internal_bytes, 77U);
  EXPECT_EQ(arena.base_bytes, 5555U);
  EXPECT_FALSE(arena.dirty.ranges);
  EXPECT_EQ(reading->discarded, 0U);
}

// What was freed in the newest epoch may all stay: the last factor of smoothstep is 1.
TEST_F(ReaderTest, computes_the_limit_from_the_backlog) {
  EXPECT_EQ(only().muzzy_decay.limit_pages, 40U);
  memory.put(address(0) + 0x510 + 8 * 199, 0);
  memory.put(address(0) + 0x510 + 8 * 99, 1000);
  EXPECT_EQ(only().muzzy_decay.limit_pages, 500U);
}

TEST_F(ReaderTest, reads_4095_arenas_in_few_calls) {
  for (uint32_t i = 1; i < 4095; ++i) {
    add_arena(i);
  }
  const auto reading = read();
  ASSERT_TRUE(reading);
  EXPECT_THAT(reading->arenas, SizeIs(4095));
  EXPECT_LE(memory.calls, 3);
}

TEST_F(ReaderTest, knows_nothing_of_an_arena_that_says_another_index) {
  add_arena(1);
  memory.put(address(1) + 16, 7, 4);
  const auto reading = read();
  ASSERT_TRUE(reading);
  ASSERT_THAT(reading->arenas, SizeIs(2));
  EXPECT_TRUE(reading->arenas[0].active_pages);
  EXPECT_EQ(reading->arenas[1].index, 1U);
  EXPECT_FALSE(reading->arenas[1].active_pages);
  EXPECT_FALSE(reading->total(page).active) << "a sum without it would be too low";
  EXPECT_EQ(reading->discarded, 1U);
  EXPECT_THAT(reading->reasons, Contains(HasSubstr("another index")));
}

TEST_F(ReaderTest, knows_nothing_of_an_arena_that_is_not_mapped) {
  memory.put(bias + arenas_at + 8, 0x7777'0000'0000);
  memory.put(bias + arenas_at + 16, 3);  // no address at all
  const auto reading = read();
  ASSERT_TRUE(reading);
  ASSERT_THAT(reading->arenas, SizeIs(3));
  EXPECT_FALSE(reading->arenas[1].dirty.pages || reading->arenas[2].dirty.pages);
  EXPECT_FALSE(reading->total(page).dirty);
  EXPECT_EQ(reading->discarded, 2U);
}

TEST_F(ReaderTest, fails_when_no_arena_is_what_it_should_be) {
  memory.put(address(0) + 0x220, 1, 4);
  const auto reading = read();
  ASSERT_FALSE(reading);
  EXPECT_EQ(reading.error().code, Errc::unsupported);
  EXPECT_THAT(reading.error().what, HasSubstr("another state"));
}

TEST_F(ReaderTest, fails_when_the_array_is_not_mapped) {
  memory.unmap(bias + arenas_at + 4 * page);
  EXPECT_FALSE(read());
}

TEST_F(ReaderTest, fails_without_a_way_to_tell_arenas_apart) {
  structures.ind.reset();
  EXPECT_EQ(read().error().code, Errc::unsupported);
}

TEST_F(ReaderTest, has_no_arenas_before_jemalloc_has) {
  memory.put(bias + arenas_at, 0);
  const auto reading = read();
  ASSERT_TRUE(reading);
  EXPECT_TRUE(reading->arenas.empty());
}

TEST_F(ReaderTest, survives_an_exit_at_any_moment) {
  add_arena(1);
  for (int last = 1; last <= 8; ++last) {
    memory.calls = 0;
    memory.exited = false;
    memory.after_read = [&] { memory.exited = memory.calls >= last; };
    const auto reading = read({.with_ranges = true});
    EXPECT_TRUE(reading || reading.error().code == Errc::gone) << last;
  }
}

TEST_F(ReaderTest, reads_again_when_a_decay_time_is_being_changed) {
  memory.put(address(0) + 0x408, 25'000'000);
  memory.after_read = [&] {
    if (memory.calls == 3) {
      memory.put(address(0) + 0x408, 50'000'000);
    }
  };
  const auto reading = read();
  ASSERT_TRUE(reading);
  EXPECT_EQ(reading->arenas.at(0).dirty_decay.time_ms, 10'000);
  EXPECT_EQ(reading->discarded, 0U);
}

TEST_F(ReaderTest, leaves_out_a_decay_time_that_its_interval_denies) {
  memory.put(address(0) + 0x408, 25'000'000);
  const auto arena = only();
  EXPECT_FALSE(arena.dirty_decay.time_ms);
  EXPECT_EQ(arena.muzzy_decay.time_ms, 10'000);
  EXPECT_EQ(arena.active_pages, 1000U);
}

// decay_reinit leaves the interval of an earlier time there.
TEST_F(ReaderTest, knows_times_without_an_interval) {
  memory.put(address(0) + 0x400, ~uint64_t{0});
  memory.put(address(0) + 0x500, 0);
  const auto arena = only();
  EXPECT_EQ(arena.dirty_decay.time_ms, -1);
  EXPECT_FALSE(arena.dirty_decay.limit_pages);
  EXPECT_EQ(arena.muzzy_decay.time_ms, 0);
  EXPECT_EQ(arena.muzzy_decay.limit_pages, 0U);
}

TEST_F(ReaderTest, leaves_out_numbers_that_cannot_be) {
  memory.put(address(0) + 8, uint64_t{1} << 41);
  memory.put(address(0) + 0x100, ~uint64_t{0});
  const auto reading = read();
  ASSERT_TRUE(reading);
  EXPECT_FALSE(reading->arenas.at(0).active_pages);
  EXPECT_FALSE(reading->arenas.at(0).dirty.pages);
  EXPECT_EQ(reading->discarded, 2U);
}

TEST_F(ReaderTest, counts_nothing_without_statistics) {
  structures.stats = false;
  const auto arena = only();
  EXPECT_FALSE(arena.dirty_decay.npurge);
  EXPECT_FALSE(arena.base_bytes);
  EXPECT_EQ(arena.active_pages, 1000U);
}

TEST_F(ReaderTest, shows_options_as_jemalloc_spells_them) {
  using Kind = locate::Global::Kind;
  structures.options = {{"muzzy_decay_ms", {0x30000, 8, true, Kind::number, {}}},
                        {"narenas", {0x30008, 4, false, Kind::number, {}}},
                        {"retain", {0x3000c, 1, false, Kind::boolean, {}}},
                        {"thp", {0x30010, 4, false, Kind::choice, {"default", "always"}}},
                        {"dss", {0x30018, 8, false, Kind::text, {}}}};
  memory.put(bias + 0x30000, ~uint64_t{0});
  memory.put(bias + 0x30008, 8, 4);
  memory.put(bias + 0x3000c, 1, 1);
  memory.put(bias + 0x30010, 1, 4);
  // "secondary" across the end of a page, and nothing behind the second one.
  memory.put(bias + 0x30018, bias + 0x41ffb);
  const char text[] = "secondary";
  for (size_t i = 0; i < sizeof text; ++i) {
    memory.put(bias + 0x41ffb + i, static_cast<uint8_t>(text[i]), 1);
  }
  const auto reading = read();
  ASSERT_TRUE(reading);
  const std::map<std::string, std::string> expected = {{"muzzy_decay_ms", "-1"},
                                                       {"narenas", "8"},
                                                       {"retain", "true"},
                                                       {"thp", "always"},
                                                       {"dss", "secondary"}};
  EXPECT_EQ(reading->options, expected);
}

TEST_F(ReaderTest, leaves_out_options_that_cannot_be) {
  using Kind = locate::Global::Kind;
  structures.options = {{"retain", {0x3000c, 1, false, Kind::boolean, {}}},
                        {"thp", {0x30010, 4, false, Kind::choice, {"default", "always"}}},
                        {"dss", {0x30018, 8, false, Kind::text, {}}}};
  memory.put(bias + 0x3000c, 2, 1);
  memory.put(bias + 0x30010, 9, 4);
  memory.put(bias + 0x30018, 0x1234);
  const auto reading = read();
  ASSERT_TRUE(reading);
  EXPECT_TRUE(reading->options.empty());
  EXPECT_EQ(reading->discarded, 3U);
}

TEST_F(ReaderTest, walks_the_extents_of_a_cache) {
  set_dirty(6, extent(1));
  add_extent(1, 1, 2);
  add_extent(2, 2, 3);
  add_extent(3, 3, 1);
  const auto arena = only({.with_ranges = true});
  ASSERT_TRUE(arena.dirty.ranges);
  ASSERT_THAT(*arena.dirty.ranges, SizeIs(3));
  EXPECT_EQ(arena.dirty.ranges->at(2).start, 0x7500'0000'0000 + 3 * 0x100000U);
  EXPECT_EQ(arena.dirty.ranges->at(2).bytes, 3 * page);
  ASSERT_TRUE(arena.muzzy.ranges);
  EXPECT_TRUE(arena.muzzy.ranges->empty());
}

/// Lists that lead a walker astray: none of them may give ranges, hang, or touch the number of pages.
class HostileList : public ReaderTest {
 protected:
  void expect_refused(const char* why) {
    const auto reading = read({.with_ranges = true, .max_extents = 1000});
    ASSERT_TRUE(reading);
    EXPECT_FALSE(reading->arenas.at(0).dirty.ranges);
    EXPECT_EQ(reading->arenas.at(0).dirty.pages, 1U << 20);
    EXPECT_THAT(reading->reasons, Contains(HasSubstr(why)));
    EXPECT_GE(reading->discarded, 1U);
  }
  void SetUp() override {
    ReaderTest::SetUp();
    set_dirty(1 << 20, extent(1));
    add_extent(1, 1, 2);
    add_extent(2, 1, 1);
  }
};

TEST_F(HostileList, that_does_not_add_up) {
  expect_refused("changed under the walk");
}
TEST_F(HostileList, with_a_cycle_past_its_head) {
  add_extent(2, 1, 2);
  expect_refused("more extents");
}
TEST_F(HostileList, into_nowhere) {
  memory.put(extent(2) + 64, 0x6666'0000'0000);
  expect_refused("leads nowhere");
}
TEST_F(HostileList, to_an_odd_address) {
  memory.put(extent(2) + 64, extent(1) + 3);
  expect_refused("leads nowhere");
}
TEST_F(HostileList, of_an_extent_without_end) {
  memory.put(extent(2) + 16, ~uint64_t{0});
  expect_refused("changed under the walk");
}
TEST_F(HostileList, of_an_empty_extent) {
  memory.put(extent(2) + 16, 7);
  expect_refused("changed under the walk");
}
TEST_F(HostileList, of_another_state) {
  add_extent(2, 1, 1, 2);
  expect_refused("changed under the walk");
}
TEST_F(HostileList, of_another_arena) {
  add_extent(2, 1, 1, 1, 9);
  expect_refused("changed under the walk");
}

TEST_F(ReaderTest, refuses_a_list_that_is_longer_than_its_cache) {
  set_dirty(1, extent(1));
  add_extent(1, 1, 2);
  add_extent(2, 1, 1);
  EXPECT_FALSE(only({.with_ranges = true}).dirty.ranges);
}

TEST_F(ReaderTest, walks_the_blocks_of_metadata) {
  memory.put(base_at + 8, base_at + 0x10000);
  memory.put(base_at + 0x10000, 2 * page);
  memory.put(base_at + 0x10008, base_at + 0x20000);
  memory.put(base_at + 0x20000, page);
  memory.put(base_at + 0x20008, 0);
  const auto arena = only({.with_ranges = true});
  ASSERT_TRUE(arena.metadata);
  EXPECT_THAT(*arena.metadata, SizeIs(2));
  memory.put(base_at + 0x20008, base_at + 0x10000);  // a cycle
  EXPECT_FALSE(only({.with_ranges = true}).metadata);
  memory.put(base_at + 0x20008, 0x6666'0000'0000);
  EXPECT_FALSE(only({.with_ranges = true}).metadata);
}

TEST(LoadBias, follows_from_any_mapping_of_the_file) {
  locate::Image image;
  image.text = {0x5000, 0x4000, 0x2000};
  EXPECT_EQ(load_bias(image, bias + 0x5000, 0x4000), bias);
  EXPECT_EQ(load_bias(image, bias + 0x1000, 0), bias);
}

/// Three pages of which the middle one is not there.
class Hole {
 public:
  Hole()
      : pages_(static_cast<uint8_t*>(
            ::mmap(nullptr, 3 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
    std::memset(pages_, 'a', 3 * page);
    ::munmap(pages_ + page, page);
  }
  ~Hole() {
    ::munmap(pages_, page);
    ::munmap(pages_ + 2 * page, page);
  }
  Hole(const Hole&) = delete;
  Hole& operator=(const Hole&) = delete;
  [[nodiscard]] uint64_t address() const { return reinterpret_cast<uint64_t>(pages_); }

 private:
  uint8_t* pages_;
};

TEST(ProcessMemory, goes_on_behind_what_is_not_there) {
  const Hole hole;
  uint8_t bytes[5][16] = {};
  std::vector<Memory::Piece> pieces = {{hole.address(), bytes[0]},
                                       {hole.address() + page - 8, bytes[1]},
                                       {hole.address() + page, bytes[2]},
                                       {hole.address() + 2 * page, bytes[3]},
                                       {8, bytes[4]}};
  ASSERT_TRUE(ProcessMemory(::getpid()).read(pieces));
  EXPECT_TRUE(pieces[0].whole);
  EXPECT_FALSE(pieces[1].whole);
  EXPECT_FALSE(pieces[2].whole);
  EXPECT_TRUE(pieces[3].whole);
  EXPECT_FALSE(pieces[4].whole);
  EXPECT_EQ(bytes[3][15], 'a');
}

TEST(ProcessMemory, reads_more_pieces_than_one_call_takes) {
  const Hole hole;
  std::vector<uint8_t> bytes(5000);
  std::vector<Memory::Piece> pieces;
  for (uint8_t& byte : bytes) {
    pieces.push_back({hole.address() + 5, {&byte, 1}});
  }
  ASSERT_TRUE(ProcessMemory(::getpid()).read(pieces));
  EXPECT_TRUE(std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 'a'; }));
}

TEST(ProcessMemory, of_nobody_is_gone) {
  uint8_t byte = 0;
  Memory::Piece piece{4096, {&byte, 1}};
  EXPECT_EQ(ProcessMemory(0x3fffffff).read({&piece, 1}).error().code, Errc::gone);
}

}  // namespace
}  // namespace jemtrace::read
