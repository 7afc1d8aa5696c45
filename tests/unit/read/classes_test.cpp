#include "read/classes.hpp"

#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <map>

namespace jemtrace::read {
namespace {

constexpr uint64_t page = 4096;
constexpr uint64_t bias = 0x7000'0000'0000;
constexpr uint64_t infos_at = 0x20000;  // as linked
constexpr uint64_t arena_at = 0x7100'0000'0000;
constexpr uint64_t tcaches_at = 0x7200'0000'0000;
constexpr uint32_t bin_bytes = 104, bin_stats = 32;
constexpr uint32_t bins = 0x3000, large = 0x400, large_bytes = 24, nactive = 16, tcaches = 24;

class FakeMemory final : public Memory {
 public:
  Status read(std::span<Piece> pieces) const override {
    for (Piece& piece : pieces) {
      piece.whole = true;
      for (size_t i = 0; i < piece.into.size(); ++i) {
        const auto found = bytes_.find(piece.address + i);
        piece.into[i] = found == bytes_.end() ? 0 : found->second;
      }
      piece.whole = piece.address < unmapped_from;
    }
    reads += 1;
    after_read();
    return {};
  }
  void put(uint64_t address, uint64_t value, size_t size = 8) {
    for (size_t i = 0; i < size; ++i) {
      bytes_[address + i] = static_cast<uint8_t>(value >> (8 * i));
    }
  }

  uint64_t unmapped_from = ~uint64_t{0};
  mutable int reads = 0;
  std::function<void()> after_read = [] {};

 private:
  std::map<uint64_t, uint8_t> bytes_;
};

class ClassReaderTest : public testing::Test {
 protected:
  void SetUp() override {
    structures.nactive = nactive;
    structures.classes = {.infos = infos_at,
                          .bins = bins,
                          .large = large,
                          .tcaches = tcaches,
                          .bin_bytes = bin_bytes,
                          .bin_stats = bin_stats,
                          .large_bytes = large_bytes,
                          .large_active = {},
                          .kind = locate::ClassLayout::Bins::behind};
    const auto sizes = size_classes(16).small;
    for (size_t i = 0; i < sizes.size(); ++i) {
      uint64_t slab = page;
      while (slab % sizes[i] != 0) {
        slab += page;
      }
      const uint64_t at = bias + infos_at + 40 * i;
      memory.put(at, sizes[i]);
      memory.put(at + 8, slab);
      memory.put(at + 16, slab / sizes[i], 4);
      memory.put(at + 20, 1, 4);
    }
    memory.put(arena_at + nactive, 1000);
  }

  void put_bin(size_t shard, uint64_t nmalloc, uint64_t ndalloc, uint64_t curregs) {
    const uint64_t at = arena_at + bins + shard * bin_bytes + bin_stats;
    memory.put(at, nmalloc);
    memory.put(at + 8, ndalloc);
    memory.put(at + 24, curregs);
    memory.put(at + 48, curregs);          // slabs, ever
    memory.put(at + 64, curregs / 2 + 1);  // slabs
  }
  void put_large(size_t index, uint64_t nmalloc, uint64_t ndalloc) {
    memory.put(arena_at + large + index * large_bytes, nmalloc);
    memory.put(arena_at + large + index * large_bytes + 8, ndalloc);
  }

  ClassReader::Arena read() {
    ClassReader reader(memory, structures, bias);
    std::array<ClassReader::Arena, 1> arenas = {
        {{.address = arena_at, .allocated_bytes = {}, .tcache_bytes = {}, .blocks = {}}}};
    if (reader.open()) {
      EXPECT_TRUE(reader.read(arenas));
      EXPECT_TRUE(reader.read_tcaches(arenas, until));
    }
    discarded = reader.discarded();
    classes = reader.sum(arenas);
    return arenas[0];
  }

  FakeMemory memory;
  locate::Structures structures;
  uint64_t discarded = 0;
  ClassReader::Clock::time_point until = ClassReader::Clock::time_point::max();
  std::vector<ledger::SizeClass> classes;
};

TEST(SizeClasses, are_those_of_sc_c) {
  const SizeClasses usual = size_classes(16);
  EXPECT_EQ(usual.small.size(), 36U);
  EXPECT_EQ(usual.small[1], 16U);
  EXPECT_EQ(usual.small[5], 80U);
  EXPECT_EQ(usual.small.back(), 14336U);
  EXPECT_EQ(usual.large.size(), 196U);
  EXPECT_EQ(usual.large.front(), 16384U);
  EXPECT_EQ(usual.large.back(), uint64_t{7} << 60);
  const SizeClasses fine = size_classes(8);
  EXPECT_EQ(fine.small.size(), 39U);
  EXPECT_EQ(fine.small[2], 24U);
  EXPECT_EQ(fine.large, usual.large);
}

TEST_F(ClassReaderTest, adds_slabs_and_extents_up) {
  put_bin(2, 100, 90, 10);  // 32 bytes
  put_large(1, 5, 2);       // 20 kB
  const auto arena = read();
  EXPECT_EQ(arena.allocated_bytes, 10 * 32U + 3 * 20480U);
  ASSERT_TRUE(arena.taken);
  EXPECT_EQ(arena.taken->pages, 10 * 1 + 5 * 6U) << "a page more for each large block";
  ASSERT_EQ(arena.taken->sizes.size(), 2U);
  EXPECT_EQ(arena.taken->sizes[0].pages, 1U);
  EXPECT_EQ(arena.taken->sizes[0].extents, 10U);
  EXPECT_EQ(arena.taken->sizes[1].pages, 6U);
  EXPECT_EQ(arena.taken->sizes[1].extents, 5U);
  EXPECT_EQ(discarded, 0U);
  EXPECT_EQ(classes[2].blocks, 10U);
  EXPECT_EQ(classes[37].blocks, 3U);
  EXPECT_TRUE(classes[37].large);
}

TEST_F(ClassReaderTest, has_no_time_for_thread_caches) {
  put_bin(2, 100, 90, 10);
  until = ClassReader::Clock::time_point::min();
  const ClassReader::Arena arena = read();
  EXPECT_TRUE(arena.allocated_bytes);
  EXPECT_FALSE(arena.tcache_bytes);
  EXPECT_EQ(discarded, 1U);
}

TEST_F(ClassReaderTest, adds_the_shards_of_a_bin_up) {
  memory.put(bias + infos_at + 20, 3, 4);  // of the first bin, 8 bytes
  put_bin(0, 1, 0, 1);
  put_bin(1, 2, 0, 2);
  put_bin(2, 4, 0, 4);
  put_bin(3, 8, 0, 8);  // the next bin, 16 bytes
  EXPECT_EQ(read().allocated_bytes, 7 * 8U + 8 * 16U);
}

TEST_F(ClassReaderTest, reads_again_what_was_torn) {
  put_bin(2, 101, 90, 10);
  memory.after_read = [this] {
    if (memory.reads == 2) {
      put_bin(2, 101, 90, 11);
    }
  };
  EXPECT_EQ(read().allocated_bytes, 11 * 32U);
  EXPECT_EQ(discarded, 0U);
}

// arena.<i>.reset takes blocks away without counting them as freed.
TEST_F(ClassReaderTest, believes_a_difference_that_stays) {
  put_bin(2, 100, 50, 10);
  EXPECT_EQ(read().allocated_bytes, 10 * 32U);
}

TEST_F(ClassReaderTest, leaves_out_what_cannot_be) {
  put_bin(2, 10, 0, 20);  // more in use than were handed out
  EXPECT_FALSE(read().allocated_bytes);
  EXPECT_EQ(discarded, 1U);
  EXPECT_FALSE(classes[2].blocks);
  put_bin(2, 0, 0, 0);
  put_large(1, 2, 5);
  EXPECT_FALSE(read().allocated_bytes);
  put_large(1, 100'000, 0);  // more than is active
  EXPECT_FALSE(read().allocated_bytes);
  put_large(195, ~uint64_t{0}, 0);
  EXPECT_FALSE(read().allocated_bytes);
}

TEST_F(ClassReaderTest, refuses_other_size_classes) {
  memory.put(bias + infos_at + 40 * 3, 40);
  ClassReader reader(memory, structures, bias);
  EXPECT_FALSE(reader.open());
  EXPECT_FALSE(reader.why().empty());
}

TEST_F(ClassReaderTest, refuses_bins_that_are_not_in_a_row) {
  structures.classes.kind = locate::ClassLayout::Bins::pointers;
  const uint64_t first = arena_at + 0x10000;
  for (size_t i = 0; i < 36; ++i) {
    memory.put(arena_at + bins + 8 * i, first + i * bin_bytes);
  }
  memory.put(first + 2 * bin_bytes + bin_stats, 4);
  memory.put(first + 2 * bin_bytes + bin_stats + 24, 4);
  memory.put(first + 2 * bin_bytes + bin_stats + 64, 1);
  EXPECT_EQ(read().allocated_bytes, 4 * 32U);
  memory.put(arena_at + bins + 8 * 7, first);
  EXPECT_FALSE(read().allocated_bytes);
}

/// Descriptor `n` of a ring of `all`, with `cached` blocks of 32 bytes.
void put_tcache(FakeMemory& memory, uint64_t n, uint64_t all, uint64_t cached) {
  const auto at = [](uint64_t i) { return tcaches_at + 0x1000 * i; };
  memory.put(at(n), at((n + 1) % all));
  memory.put(at(n) + 8, at((n + all - 1) % all));
  memory.put(at(n) + 16, at(n) + 0x100);
  const uint64_t bin = at(n) + 0x100 + 2 * 24;
  memory.put(bin, 0x7fff'0001'0000 - 8 * cached);  // grows down, over a boundary of its low 16 bits
  memory.put(bin + 20, 0x0000, 2);
}

TEST_F(ClassReaderTest, adds_thread_caches_up) {
  EXPECT_EQ(read().tcache_bytes, 0U);
  memory.put(arena_at + tcaches, tcaches_at);
  put_tcache(memory, 0, 2, 3);
  put_tcache(memory, 1, 2, 4);
  EXPECT_EQ(read().tcache_bytes, 7 * 32U);
}

TEST_F(ClassReaderTest, a_list_of_thread_caches_that_makes_no_sense_is_unknown) {
  memory.put(arena_at + tcaches, tcaches_at);
  put_tcache(memory, 0, 2, 3);
  put_tcache(memory, 1, 2, 4);
  memory.put(tcaches_at + 0x1008, 0xdead);  // back to somewhere else
  EXPECT_FALSE(read().tcache_bytes);
  // A ring that never comes back to where it began.
  put_tcache(memory, 1, 2, 4);
  put_tcache(memory, 2, 3, 4);
  memory.put(tcaches_at + 0x1000, tcaches_at + 0x2000);
  memory.put(tcaches_at + 0x2000, tcaches_at + 0x1000);
  EXPECT_FALSE(read().tcache_bytes);
}

}  // namespace
}  // namespace jemtrace::read
