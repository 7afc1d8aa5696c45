#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>
#include <random>

#include "locate/debug_files.hpp"
#include "locate/eh_frame.hpp"
#include "programs.hpp"

namespace jemtrace::locate::testing {
namespace {

/// A file in memory, to be damaged.
class MemoryFile {
 public:
  MemoryFile() : fd_(::memfd_create("hostile", MFD_CLOEXEC)) {}
  void set(const std::string& bytes) {
    ASSERT_EQ(::ftruncate(fd_.get(), 0), 0);
    ASSERT_EQ(::pwrite(fd_.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  }
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  Fd fd_;
};

const Options nowhere{.debug_root = "/nonexistent"};

/// Neither crashes nor hangs; what comes out does not matter.
void expect_survival(const MemoryFile& file) {
  (void)may_hold_jemalloc(file.fd(), nowhere);
  (void)analyse(file.fd(), "/hostile", nowhere);
}

std::string small_program() {
  TempFolder folder;
  std::ofstream(folder / "a.c")
      << "const char *s[] = {\"<jemalloc>: \", \"dirty_decay_ms\", \"muzzy_decay_ms\", "
         "\"trust_madvise\", \"5.3.0-0-g54eaed1d\"};\n"
         "int mallctl(void) { return 0; }\n"
         "int madvise(void *p) { return !p; }\n"
         "int pages_purge_forced(void *p) { return madvise(p) + 1; }\n"
         "int extent_dalloc_wrapper(void *p) { return pages_purge_forced(p) + 1; }\n"
         "int ecache_evict(void *p) { return extent_dalloc_wrapper(p) + 1; }\n"
         "int pac_decay_to_limit(void *p) { return ecache_evict(p) + 1; }\n"
         "void _start(void) { pac_decay_to_limit(s); for (;;) {} }\n";
  if (!run("cc -O1 -fno-inline -nostdlib -static -Wl,--build-id -Wl,-z,noseparate-code -o " + (folder / "a") +
           " " + (folder / "a.c"))) {
    return {};
  }
  return *read_file(folder / "a");
}

class HostileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    bytes_ = small_program();
    if (bytes_.empty()) {
      GTEST_SKIP() << "no C compiler";
    }
  }
  std::string bytes_;
  MemoryFile file_;
};

TEST_F(HostileTest, the_undamaged_file_is_understood) {
  file_.set(bytes_);
  const auto image = analyse(file_.fd(), "/a", nowhere);
  ASSERT_TRUE(image && *image);
  EXPECT_EQ((*image)->tier, Tier::symbols);
  EXPECT_EQ((*image)->probes.size(), 2u);
  EXPECT_GE((*image)->call_sites.size(), 4u);
}

TEST_F(HostileTest, every_prefix_is_survived) {
  for (size_t length = 0; length < bytes_.size(); ++length) {
    file_.set(bytes_.substr(0, length));
    expect_survival(file_);
  }
}

TEST_F(HostileTest, flipped_bytes_are_survived) {
  std::mt19937 random(4242);
  for (int round = 0; round < 5000; ++round) {
    std::string damaged = bytes_;
    for (unsigned n = 1 + random() % 8; n > 0; --n) {
      damaged[random() % damaged.size()] = static_cast<char>(random());
    }
    file_.set(damaged);
    expect_survival(file_);
  }
}

TEST_F(HostileTest, extreme_numbers_in_headers_are_survived) {
  Elf64_Ehdr header;
  std::memcpy(&header, bytes_.data(), sizeof header);
  const uint64_t tables[][2] = {{0, sizeof header},
                                {header.e_phoff, header.e_phnum * sizeof(Elf64_Phdr)},
                                {header.e_shoff, header.e_shnum * sizeof(Elf64_Shdr)}};
  for (const auto& [start, size] : tables) {
    for (uint64_t at = start; at + 8 <= start + size && at + 8 <= bytes_.size(); at += 4) {
      for (const uint64_t value :
           {~uint64_t{0}, uint64_t{1} << 63, uint64_t{0xffffffff}, uint64_t{1} << 32, uint64_t{0}}) {
        std::string damaged = bytes_;
        std::memcpy(damaged.data() + at, &value, sizeof value);
        file_.set(damaged);
        expect_survival(file_);
      }
    }
  }
}

TEST_F(HostileTest, a_damaged_program_with_jemalloc_is_survived) {
  TempFolder folder;
  if (!build_program(folder, folder / "program")) {
    GTEST_SKIP() << "no libjemalloc.a";
  }
  const std::string whole = *read_file(folder / "program");
  std::mt19937 random(1717);
  for (int round = 0; round < 30; ++round) {
    std::string damaged = whole;
    for (int n = 0; n < 2000; ++n) {
      damaged[random() % damaged.size()] = static_cast<char>(random());
    }
    std::memcpy(damaged.data(), whole.data(), 1024);
    file_.set(damaged);
    expect_survival(file_);
  }
}

TEST(UnpackXz, stops_at_the_limit) {
  TempFolder folder;
  ASSERT_TRUE(run("head -c 10000000 /dev/zero | xz > " + (folder / "zeros.xz")));
  const std::string packed = *read_file(folder / "zeros.xz");
  const std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(packed.data()), packed.size());
  EXPECT_EQ(unpack_xz(bytes, 20000000)->size(), 10000000u);
  const auto cut = unpack_xz(bytes, 1000000);
  ASSERT_FALSE(cut);
  EXPECT_EQ(cut.error().code, Errc::too_large);
  EXPECT_FALSE(unpack_xz(bytes.first(bytes.size() / 2), 20000000));
  EXPECT_FALSE(unpack_xz({}, 1000));
}

}  // namespace
}  // namespace jemtrace::locate::testing
