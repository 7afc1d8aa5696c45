#include <gtest/gtest.h>
#include <sys/mman.h>

#include <chrono>
#include <cstring>
#include <random>
#include <set>

#include "locate/debug_files.hpp"
#include "locate/eh_frame.hpp"
#include "locate/isolated.hpp"
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

// ---- files made to mislead -------------------------------------------------------------------------------

/// The program's headers and tables, to be changed in place.
class Forgery {
 public:
  explicit Forgery(std::string bytes) : bytes_(std::move(bytes)) {}

  Elf64_Ehdr& header() { return at<Elf64_Ehdr>(0); }
  Elf64_Shdr& section(size_t index) { return at<Elf64_Shdr>(header().e_shoff + index * sizeof(Elf64_Shdr)); }
  Elf64_Phdr& segment(size_t index) { return at<Elf64_Phdr>(header().e_phoff + index * sizeof(Elf64_Phdr)); }
  size_t sections() { return header().e_shnum; }
  size_t segments() { return header().e_phnum; }
  /// The first section of a type.
  Elf64_Shdr& of_type(uint32_t type) {
    size_t index = 0;
    while (index + 1 < sections() && section(index).sh_type != type) {
      ++index;
    }
    return section(index);
  }
  size_t symbols() { return of_type(SHT_SYMTAB).sh_size / sizeof(Elf64_Sym); }
  Elf64_Sym& symbol(size_t index) {
    return at<Elf64_Sym>(of_type(SHT_SYMTAB).sh_offset + index * sizeof(Elf64_Sym));
  }
  [[nodiscard]] const std::string& bytes() const { return bytes_; }

 private:
  template <typename T>
  T& at(size_t offset) {
    return *reinterpret_cast<T*>(bytes_.data() + offset);
  }
  std::string bytes_;
};

class ForgeryTest : public HostileTest {
 protected:
  void SetUp() override {
    HostileTest::SetUp();
    if (IsSkipped()) {
      return;
    }
    file_.set(bytes_);
    const auto image = analyse(file_.fd(), "/a", nowhere);
    ASSERT_TRUE(image && *image);
    for (const CallSite& call : (*image)->call_sites) {
      true_sites_.insert(call.return_offset);
    }
    for (const ProbeSite& probe : (*image)->probes) {
      true_sites_.insert(probe.offset);
    }
    text_ = (*image)->text;
  }

  /// Looks at it as a target's file is looked at: within memory and time. All sites lie in code of the file.
  std::optional<Image> look(const Forgery& forgery) {
    file_.set(forgery.bytes());
    const auto start = std::chrono::steady_clock::now();
    const auto outcome = analyse_isolated(file_.fd(), "/forged", nowhere);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
    if (!outcome) {
      EXPECT_EQ(outcome.error().what.find("child"), std::string::npos) << outcome.error().message();
      return std::nullopt;
    }
    return *outcome;
  }
  void expect_sites_in_text(const std::optional<Image>& image) const {
    const auto in_text = [&](uint64_t offset) {
      return offset >= text_.offset && offset <= text_.offset + text_.size;
    };
    for (const CallSite& call : image ? image->call_sites : std::vector<CallSite>{}) {
      EXPECT_TRUE(in_text(call.return_offset)) << std::hex << call.return_offset;
    }
    for (const ProbeSite& probe : image ? image->probes : std::vector<ProbeSite>{}) {
      EXPECT_TRUE(in_text(probe.offset)) << std::hex << probe.offset;
    }
  }

  std::set<uint64_t> true_sites_;
  TextSegment text_;
};

TEST_F(ForgeryTest, sections_on_top_of_each_other) {
  Forgery forgery(bytes_);
  const size_t n = forgery.sections();
  for (size_t i = 1; i < n; ++i) {
    for (size_t j = 1; j < n; ++j) {
      Forgery overlapping(bytes_);
      overlapping.section(i).sh_offset = overlapping.section(j).sh_offset;
      overlapping.section(i).sh_size = overlapping.section(j).sh_size;
      expect_sites_in_text(look(overlapping));
    }
  }
}

TEST_F(ForgeryTest, tables_that_lead_to_themselves) {
  for (size_t i = 0; i < Forgery(bytes_).sections(); ++i) {
    Forgery cyclic(bytes_);
    cyclic.section(i).sh_link = static_cast<uint32_t>(i);
    cyclic.section(i).sh_info = static_cast<uint32_t>(i);
    cyclic.header().e_shstrndx = static_cast<uint16_t>(i);
    expect_sites_in_text(look(cyclic));
  }
  // Segments that are the header, or the table of segments.
  for (size_t i = 0; i < Forgery(bytes_).segments(); ++i) {
    Forgery cyclic(bytes_);
    cyclic.segment(i).p_offset = cyclic.header().e_phoff;
    expect_sites_in_text(look(cyclic));
  }
  // Entries of .eh_frame that are their own CIE, or each other's.
  Forgery frames(bytes_);
  for (size_t i = 0; i < frames.sections(); ++i) {
    const Elf64_Shdr& section = frames.section(i);
    for (uint32_t distance = 0; distance < 64 && section.sh_type == SHT_PROGBITS; distance += 4) {
      std::string bytes = bytes_;
      for (uint64_t at = section.sh_offset + 4; at + 4 <= section.sh_offset + section.sh_size; at += 24) {
        std::memcpy(bytes.data() + at, &distance, sizeof distance);
      }
      (void)look(Forgery(bytes));
    }
  }
}

TEST_F(ForgeryTest, sizes_of_gigabytes) {
  for (const uint64_t size : {uint64_t{1} << 32, uint64_t{1} << 40, ~uint64_t{0}}) {
    for (size_t i = 0; i < Forgery(bytes_).sections(); ++i) {
      Forgery huge(bytes_);
      huge.section(i).sh_size = size;
      expect_sites_in_text(look(huge));
    }
    for (size_t i = 0; i < Forgery(bytes_).segments(); ++i) {
      Forgery huge(bytes_);
      huge.segment(i).p_filesz = size;
      huge.segment(i).p_memsz = size;
      (void)look(huge);
    }
    Forgery symbols(bytes_);
    for (size_t i = 0; i < symbols.symbols(); ++i) {
      symbols.symbol(i).st_size = size;
    }
    expect_sites_in_text(look(symbols));
  }
}

TEST_F(ForgeryTest, a_file_of_gigabytes_with_nothing_in_it) {
  file_.set(bytes_);
  ASSERT_EQ(::ftruncate(file_.fd(), off_t{3} << 30), 0);
  Forgery sparse(bytes_);
  for (size_t i = 0; i < sparse.sections(); ++i) {
    sparse.section(i).sh_size = uint64_t{2} << 30;  // now within the file
  }
  for (size_t i = 0; i < sparse.segments(); ++i) {
    sparse.segment(i).p_filesz = uint64_t{2} << 30;
  }
  const auto start = std::chrono::steady_clock::now();
  ASSERT_EQ(::pwrite(file_.fd(), sparse.bytes().data(), sparse.bytes().size(), 0),
            static_cast<ssize_t>(sparse.bytes().size()));
  (void)may_hold_jemalloc(file_.fd(), nowhere);
  const auto outcome = analyse_isolated(file_.fd(), "/sparse", nowhere);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(3));
  if (outcome) {
    expect_sites_in_text(*outcome);
  }
  ASSERT_EQ(::ftruncate(file_.fd(), off_t{5} << 30), 0);
  EXPECT_EQ(analyse_isolated(file_.fd(), "/sparse", nowhere).error().code, Errc::too_large);
}

TEST_F(ForgeryTest, symbols_of_addresses_that_hold_no_code) {
  for (const uint64_t vaddr : {uint64_t{0}, uint64_t{1}, text_.vaddr - 1, text_.vaddr + text_.size,
                               ~uint64_t{0}, uint64_t{1} << 63, uint64_t{0xffffffff81000000}}) {
    Forgery misleading(bytes_);
    for (size_t i = 0; i < misleading.symbols(); ++i) {
      misleading.symbol(i).st_value = vaddr;
    }
    const auto image = look(misleading);
    expect_sites_in_text(image);
    EXPECT_TRUE(!image || image->probes.empty()) << std::hex << vaddr;
  }
}

// Names that were swapped are believed, but only as names of code: each site is a call's, or a function's
// start.
TEST_F(ForgeryTest, symbols_that_swapped_their_names) {
  std::mt19937 random(99);
  for (int round = 0; round < 50; ++round) {
    Forgery misleading(bytes_);
    const size_t n = misleading.symbols();
    for (size_t i = 1; i < n; ++i) {
      std::swap(misleading.symbol(i).st_name, misleading.symbol(1 + random() % (n - 1)).st_name);
    }
    const auto image = look(misleading);
    expect_sites_in_text(image);
    for (const CallSite& call : image ? image->call_sites : std::vector<CallSite>{}) {
      EXPECT_TRUE(true_sites_.contains(call.return_offset)) << std::hex << call.return_offset;
    }
  }
}

TEST_F(ForgeryTest, symbols_in_the_middle_of_instructions) {
  for (uint64_t shift = 1; shift < 12; ++shift) {
    Forgery misleading(bytes_);
    for (size_t i = 0; i < misleading.symbols(); ++i) {
      misleading.symbol(i).st_value += shift;
    }
    expect_sites_in_text(look(misleading));
  }
}

TEST_F(ForgeryTest, the_words_of_jemalloc_without_one) {
  TempFolder folder;
  std::ofstream(folder / "a.c")
      << "const char *s[] = {\"<jemalloc>: \", \"dirty_decay_ms\", \"muzzy_decay_ms\", "
         "\"trust_madvise\", \"5.3.0-0-g54eaed1d\"};\n"
         "int evict(void *p) { return !p; }\n"
         "void _start(void) { evict(s); for (;;) {} }\n";
  ASSERT_TRUE(run("cc -O1 -fno-inline -nostdlib -static -o " + (folder / "a") + " " + (folder / "a.c")));
  const auto image = look(Forgery(*read_file(folder / "a")));
  EXPECT_TRUE(!image || image->tier == Tier::syscall);
  EXPECT_TRUE(!image || image->call_sites.empty());
  EXPECT_TRUE(!image || image->probes.empty());
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
