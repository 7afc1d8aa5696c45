#include "locate/cache.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "locate/locator.hpp"
#include "programs.hpp"

namespace jemtrace::locate::testing {
namespace {

class CacheTest : public ::testing::Test {
 protected:
  [[nodiscard]] Cache cache(const Cache::Bounds& bounds = {256, 64 << 20}) const {
    auto cache = Cache::open(path_, bounds);
    EXPECT_TRUE(cache) << cache.error().message();
    return std::move(*cache);
  }
  [[nodiscard]] static std::string name(char digit) { return std::string(64, digit); }
  [[nodiscard]] static Entry entry(const std::string& version) {
    Entry entry;
    entry.image.emplace();
    entry.image->version.text = version;
    return entry;
  }
  [[nodiscard]] std::string file_of(const std::string& name) const { return path_ + "/" + name; }
  [[nodiscard]] size_t files() const {
    const auto all = std::filesystem::directory_iterator(path_);
    return static_cast<size_t>(std::distance(begin(all), end(all)));
  }

  TempFolder folder_;
  std::string path_ = folder_ / "cache";
};

TEST_F(CacheTest, keeps_what_was_stored) {
  ASSERT_TRUE(cache().store(name('a'), entry("5.3.0")));
  const auto found = cache().find(name('a'));
  ASSERT_TRUE(found && found->image);
  EXPECT_EQ(found->image->version.text, "5.3.0");
  EXPECT_FALSE(cache().find(name('b')));
  EXPECT_EQ(files(), 1u);
}

TEST_F(CacheTest, keeps_that_there_is_no_jemalloc) {
  ASSERT_TRUE(cache().store(name('a'), Entry{}));
  const auto found = cache().find(name('a'));
  ASSERT_TRUE(found);
  EXPECT_FALSE(found->image);
}

TEST_F(CacheTest, makes_folder_and_files_for_its_owner_only) {
  ::umask(0);
  ASSERT_TRUE(cache().store(name('a'), Entry{}));
  ::umask(022);
  struct stat st {};
  ASSERT_EQ(::stat(path_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0700u);
  ASSERT_EQ(::stat(file_of(name('a')).c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0600u);
}

TEST_F(CacheTest, makes_the_folder_above_too) {
  EXPECT_TRUE(Cache::open(folder_ / ".cache/jemtrace"));
  EXPECT_FALSE(Cache::open(folder_ / "no/such/folder"));
  EXPECT_FALSE(Cache::open(""));
}

TEST_F(CacheTest, refuses_a_folder_that_others_can_write_to) {
  for (const mode_t mode : {0777U, 0770U, 0702U, 01777U}) {
    (void)::mkdir(path_.c_str(), 0700);
    ASSERT_EQ(::chmod(path_.c_str(), mode), 0);
    const auto refused = Cache::open(path_);
    ASSERT_FALSE(refused) << std::oct << mode;
    EXPECT_EQ(refused.error().code, Errc::denied);
  }
}

TEST_F(CacheTest, refuses_a_folder_of_somebody_else) {
  if (::geteuid() != 0) {
    EXPECT_FALSE(Cache::open("/var/cache"));
    return;
  }
  ASSERT_EQ(::mkdir(path_.c_str(), 0700), 0);
  ASSERT_EQ(::chown(path_.c_str(), 4242, 4242), 0);
  const auto refused = Cache::open(path_);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::denied);
}

TEST_F(CacheTest, refuses_a_symbolic_link_or_a_file_in_place_of_the_folder) {
  ASSERT_EQ(::mkdir((folder_ / "real").c_str(), 0700), 0);
  ASSERT_EQ(::symlink((folder_ / "real").c_str(), path_.c_str()), 0);
  EXPECT_FALSE(Cache::open(path_));
  std::ofstream(folder_ / "file") << "x";
  EXPECT_FALSE(Cache::open(folder_ / "file"));
}

TEST_F(CacheTest, takes_no_entry_through_a_link_and_none_of_somebody_else) {
  ASSERT_TRUE(cache().store(name('a'), entry("5.3.0")));
  ASSERT_EQ(::symlink(file_of(name('a')).c_str(), file_of(name('b')).c_str()), 0);
  EXPECT_FALSE(cache().find(name('b')));
  ASSERT_EQ(::mkfifo(file_of(name('c')).c_str(), 0600), 0);
  EXPECT_FALSE(cache().find(name('c')));
  if (::geteuid() == 0) {
    ASSERT_EQ(::chown(file_of(name('a')).c_str(), 4242, 4242), 0);
    EXPECT_FALSE(cache().find(name('a')));
  }
}

TEST_F(CacheTest, ignores_and_rewrites_a_damaged_entry) {
  ASSERT_TRUE(cache().store(name('a'), entry("5.3.0")));
  const std::string whole = *read_file(file_of(name('a')));
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    std::ofstream(file_of(name('a'))) << damaged;
    EXPECT_FALSE(cache().find(name('a'))) << at;
    std::ofstream(file_of(name('a'))) << whole.substr(0, at);
    EXPECT_FALSE(cache().find(name('a'))) << at;
  }
  ASSERT_TRUE(cache().store(name('a'), entry("5.3.1")));
  EXPECT_TRUE(cache().find(name('a')));
}

TEST_F(CacheTest, ignores_an_entry_that_is_too_large) {
  ASSERT_TRUE(cache().store(name('a'), entry("5.3.0")));
  ASSERT_EQ(::truncate(file_of(name('a')).c_str(), off_t{1} << 40), 0);
  EXPECT_FALSE(cache().find(name('a')));
}

TEST_F(CacheTest, ignores_an_entry_once_a_debug_file_came_or_changed) {
  const std::string debug = folder_ / "x.debug";
  Entry known = entry("5.3.0");
  known.besides.push_back(Beside::of(debug));
  ASSERT_TRUE(cache().store(name('a'), known));
  EXPECT_TRUE(cache().find(name('a')));
  std::ofstream(debug) << "symbols";
  EXPECT_FALSE(cache().find(name('a')));

  known.besides[0] = Beside::of(debug);
  ASSERT_TRUE(cache().store(name('a'), known));
  EXPECT_TRUE(cache().find(name('a')));
  std::ofstream(debug) << "other symbols";
  EXPECT_FALSE(cache().find(name('a')));
}

TEST_F(CacheTest, removes_the_oldest_entries_beyond_its_bounds) {
  const Cache bounded = cache({3, 64 << 20});
  for (const char digit : {'1', '2', '3', '4', '5'}) {
    ASSERT_TRUE(bounded.store(name(digit), entry("5.3.0")));
    std::this_thread::sleep_for(std::chrono::milliseconds(15));
  }
  EXPECT_EQ(files(), 3u);
  EXPECT_FALSE(bounded.find(name('2')));
  EXPECT_TRUE(bounded.find(name('3')));
  ASSERT_TRUE(cache({256, 250}).store(name('6'), entry("5.3.0")));
  EXPECT_EQ(files(), 2u);
}

TEST_F(CacheTest, clears_away_what_a_killed_process_left) {
  ASSERT_TRUE(cache().store(name('a'), Entry{}));
  std::ofstream(file_of(".new-99999999")) << "half";
  ASSERT_TRUE(run("touch -d '2 hours ago' " + file_of(".new-99999999")));
  std::ofstream(file_of(".new-" + std::to_string(::getpid()))) << "half";
  ASSERT_TRUE(cache().store(name('b'), Entry{}));
  EXPECT_EQ(files(), 2u);
}

TEST_F(CacheTest, the_name_is_that_of_content_and_folder) {
  std::ofstream(folder_ / "a") << "content";
  std::ofstream(folder_ / "b") << "content";
  std::ofstream(folder_ / "c") << "Content";
  const auto name_of = [&](const std::string& file, const std::string& path) {
    const auto fd = open_file(folder_ / file, O_RDONLY);
    return cache_name(fd->get(), path, {}, 1000).value_or("none");
  };
  EXPECT_EQ(name_of("a", "/usr/lib/a"), name_of("b", "/usr/lib/b"));
  EXPECT_NE(name_of("a", "/usr/lib/a"), name_of("c", "/usr/lib/a"));
  EXPECT_NE(name_of("a", "/usr/lib/a"), name_of("a", "/lib/a"));
  EXPECT_EQ(name_of("a", "/x").size(), 64u);
  const auto fd = open_file(folder_ / "a", O_RDONLY);
  EXPECT_EQ(cache_name(fd->get(), "/a", {}, 3).error().code, Errc::too_large);
}

class LocatorTest : public CacheTest {
 protected:
  void SetUp() override {
    if (!build_program(folder_, program_)) {
      GTEST_SKIP() << "no C compiler or no libjemalloc.a";
    }
  }
  [[nodiscard]] Result<Located> locate(bool rebuild = false) const {
    const auto fd = open_file(program_, O_RDONLY);
    return Locator({.debug_root = folder_ / "debug"}, cache()).locate(fd->get(), program_, rebuild);
  }
  std::string program_ = folder_ / "program";
};

TEST_F(LocatorTest, knows_a_file_the_second_time) {
  const auto first = locate();
  const auto second = locate();
  ASSERT_TRUE(first && first->image && second && second->image);
  EXPECT_FALSE(first->cached);
  EXPECT_TRUE(second->cached);
  EXPECT_TRUE(encode(Outcome(first->image)) == encode(Outcome(second->image)));
  EXPECT_EQ(files(), 1u);
}

TEST_F(LocatorTest, looks_again_when_asked_to) {
  (void)locate();
  EXPECT_FALSE(locate(true)->cached);
  EXPECT_TRUE(locate()->cached);
}

// A file may carry the build-id of another.
TEST_F(LocatorTest, does_not_take_one_file_for_another_of_the_same_build_id) {
  const std::string id = locate()->image->build_id;
  ASSERT_TRUE(run("strip " + program_));
  const auto other = locate();
  ASSERT_TRUE(other && other->image);
  EXPECT_EQ(other->image->build_id, id);
  EXPECT_FALSE(other->cached);
  EXPECT_NE(other->image->tier, Tier::symbols);
}

TEST_F(LocatorTest, finds_a_debug_file_that_came_later) {
  const std::string id = locate()->image->build_id;
  const std::string place = folder_ / "debug/.build-id/" + id.substr(0, 2);
  ASSERT_TRUE(run("mkdir -p " + place + " && objcopy --only-keep-debug " + program_ + " " +
                  (folder_ / "debug/p") + " && strip " + program_));
  EXPECT_NE(locate()->image->tier, Tier::symbols);
  EXPECT_TRUE(locate()->cached);
  ASSERT_TRUE(run("mv " + (folder_ / "debug/p") + " " + place + "/" + id.substr(2) + ".debug"));
  const auto now = locate();
  EXPECT_FALSE(now->cached);
  EXPECT_EQ(now->image->tier, Tier::symbols);
}

TEST_F(LocatorTest, works_without_a_cache) {
  const auto fd = open_file(program_, O_RDONLY);
  const auto located = Locator({.debug_root = "/nonexistent"}).locate(fd->get(), program_);
  ASSERT_TRUE(located && located->image);
  EXPECT_FALSE(located->cached);
}

TEST_F(LocatorTest, works_when_the_cache_cannot_be_written_to) {
  const Locator locator({.debug_root = "/nonexistent"}, cache());
  ASSERT_EQ(::rmdir(path_.c_str()), 0);
  const auto fd = open_file(program_, O_RDONLY);
  const auto located = locator.locate(fd->get(), program_);
  ASSERT_TRUE(located && located->image) << located.error().message();
}

}  // namespace
}  // namespace jemtrace::locate::testing
