#include "locate/file_state.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "locate/cache.hpp"
#include "locate/locator.hpp"
#include "programs.hpp"
#include "util/clock.hpp"

namespace jemtrace::locate::testing {
namespace {

using namespace std::chrono_literals;

constexpr int64_t second_ns = 1'000'000'000;

TEST(FileState, believes_only_what_lies_on_a_disk_of_the_host) {
  EXPECT_TRUE(is_believed(EXT4_SUPER_MAGIC));
  EXPECT_TRUE(is_believed(BTRFS_SUPER_MAGIC));
  for (const uint64_t other :
       {uint64_t{OVERLAYFS_SUPER_MAGIC}, uint64_t{TMPFS_MAGIC}, uint64_t{NFS_SUPER_MAGIC},
        uint64_t{FUSE_SUPER_MAGIC}, uint64_t{V9FS_MAGIC}, uint64_t{0}}) {
    EXPECT_FALSE(is_believed(other)) << std::hex << other;
  }
}

TEST(FileState, is_settled_once_no_clock_can_show_the_same_time_again) {
  const FileState state{.ctime_ns = 100 * second_ns};
  EXPECT_FALSE(state.settled(100 * second_ns));
  EXPECT_FALSE(state.settled(102 * second_ns));
  EXPECT_TRUE(state.settled(102 * second_ns + 1));
  EXPECT_FALSE(state.settled(50 * second_ns));  // the clock was set back
}

TEST(FileState, memory_and_devices_have_none) {
  const Fd memory(::memfd_create("file", MFD_CLOEXEC));
  EXPECT_FALSE(FileState::of(memory.get()));
  EXPECT_FALSE(FileState::of(open_file("/dev/null", O_RDONLY)->get()));
  EXPECT_FALSE(FileState::of(-1));
}

/// Skips where the folder for temporary files lies on another file system, as in a container.
class OnDisk : public ::testing::Test {
 protected:
  void SetUp() override {
    std::ofstream(file_) << "content";
    if (!FileState::of(open_file(file_, O_RDONLY)->get())) {
      GTEST_SKIP() << "the file system of " << file_ << " is not believed";
    }
  }
  [[nodiscard]] FileState state() const { return FileState::of(open_file(file_, O_RDONLY)->get()).value(); }
  /// As it was: content's size, mtime and atime.
  void touch_back(const struct stat& then) const {
    const timespec times[2] = {then.st_atim, then.st_mtim};
    ASSERT_EQ(::utimensat(AT_FDCWD, file_.c_str(), times, 0), 0);
  }
  /// Longer than a tick of the kernel's clock.
  static void wait() { std::this_thread::sleep_for(20ms); }

  TempFolder folder_;
  std::string file_ = folder_ / "file";
};

TEST_F(OnDisk, stays_as_long_as_nothing_is_done_to_the_file) {
  const FileState before = state();
  wait();
  EXPECT_TRUE(read_file(file_, 100));
  EXPECT_TRUE(state() == before);
  EXPECT_FALSE(before.settled(unix_ns()));
}

TEST_F(OnDisk, changes_with_content_that_is_touched_back) {
  const FileState before = state();
  struct stat then {};
  ASSERT_EQ(::stat(file_.c_str(), &then), 0);
  wait();
  std::ofstream(file_, std::ios::in) << "CONTENT";
  touch_back(then);
  const FileState after = state();
  EXPECT_EQ(after.mtime_ns, before.mtime_ns);
  EXPECT_EQ(after.size, before.size);
  EXPECT_EQ(after.inode, before.inode);
  EXPECT_FALSE(after == before);
}

TEST_F(OnDisk, changes_with_a_write_through_a_mapping) {
  ASSERT_EQ(::truncate(file_.c_str(), 4096), 0);
  const FileState before = state();
  wait();
  const auto fd = open_file(file_, O_RDWR);
  void* at = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd->get(), 0);
  ASSERT_NE(at, MAP_FAILED);
  static_cast<char*>(at)[0] = 'C';
  ::munmap(at, 4096);
  EXPECT_FALSE(state() == before);
}

TEST_F(OnDisk, changes_when_another_file_takes_its_place) {
  const FileState before = state();
  struct stat then {};
  ASSERT_EQ(::stat(file_.c_str(), &then), 0);
  wait();
  std::ofstream(folder_ / "other") << "CONTENT";
  ASSERT_EQ(::rename((folder_ / "other").c_str(), file_.c_str()), 0);
  touch_back(then);
  EXPECT_FALSE(state() == before);
}

TEST_F(OnDisk, changes_with_what_only_touches_times_owner_or_links) {
  FileState before = state();
  const auto changed = [&] {
    const FileState now = state();
    const bool changed = !(now == before);
    before = now;
    wait();
    return changed;
  };
  wait();
  ASSERT_EQ(::utimensat(AT_FDCWD, file_.c_str(), nullptr, 0), 0);
  EXPECT_TRUE(changed());
  ASSERT_EQ(::chmod(file_.c_str(), 0600), 0);
  EXPECT_TRUE(changed());
  ASSERT_EQ(::link(file_.c_str(), (folder_ / "link").c_str()), 0);
  EXPECT_TRUE(changed());
}

class Recall : public OnDisk {
 protected:
  void SetUp() override {
    if (!build_program(folder_, file_)) {
      GTEST_SKIP() << "no C compiler or no libjemalloc.a";
    }
    if (!FileState::of(open_file(file_, O_RDONLY)->get())) {
      GTEST_SKIP() << "the file system of " << file_ << " is not believed";
    }
  }
  [[nodiscard]] Locator locator() const {
    return {{.debug_root = folder_ / "debug"}, Cache::open(folder_ / "cache").value()};
  }
  [[nodiscard]] Result<Located> locate() const {
    return locator().locate(open_file(file_, O_RDONLY)->get(), file_);
  }
  [[nodiscard]] std::optional<Located> recall(const std::string& path) const {
    return locator().recall(open_file(path, O_RDONLY)->get(), path);
  }
  [[nodiscard]] std::optional<Located> recall() const { return recall(file_); }
  /// The cache's file of this state.
  [[nodiscard]] std::string known() const {
    for (const auto& file : std::filesystem::directory_iterator(folder_ / "cache")) {
      if (file.path().filename().string().starts_with("file-")) {
        return file.path();
      }
    }
    return {};
  }
  static void settle() { std::this_thread::sleep_for(2100ms); }
};

TEST_F(Recall, knows_a_settled_file_without_reading_it_until_it_changes) {
  ASSERT_TRUE(locate());
  EXPECT_FALSE(recall()) << "its ctime is of just now: a change in the same tick would not show";
  EXPECT_EQ(known(), "");
  EXPECT_TRUE(locate()->cached);
  EXPECT_FALSE(recall());
  settle();
  EXPECT_TRUE(locate()->cached);
  const auto found = recall();
  ASSERT_TRUE(found && found->image);
  EXPECT_EQ(found->image->tier, Tier::symbols);
  EXPECT_TRUE(locate()->cached);

  // As somebody would who wants the old table for new content.
  struct stat then {};
  ASSERT_EQ(::stat(file_.c_str(), &then), 0);
  {
    const auto fd = open_file(file_, O_RDWR);
    ASSERT_EQ(::pwrite(fd->get(), "x", 1, then.st_size - 1), 1);
  }
  touch_back(then);
  EXPECT_FALSE(recall());
  EXPECT_FALSE(locate()->cached);
}

TEST_F(Recall, is_of_one_file_and_one_folder) {
  settle();
  ASSERT_TRUE(locate());
  EXPECT_TRUE(recall());
  const std::string copy = folder_ / "copy";
  ASSERT_TRUE(run("cp -a " + file_ + " " + copy));
  EXPECT_FALSE(recall(copy));
  EXPECT_FALSE(locator().recall(open_file(file_, O_RDONLY)->get(), "/usr/bin/file"));
}

TEST_F(Recall, takes_no_damaged_entry) {
  settle();
  ASSERT_TRUE(locate());
  const std::string entry = known();
  ASSERT_NE(entry, "");
  const std::string whole = *read_file(entry, 1000);
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    std::ofstream(entry) << damaged;
    EXPECT_FALSE(recall()) << at;
    std::ofstream(entry) << whole.substr(0, at);
    EXPECT_FALSE(recall()) << at;
  }
  std::ofstream(entry) << whole << "x";
  EXPECT_FALSE(recall());
  EXPECT_TRUE(locate()->cached) << "hashed, and written anew";
  EXPECT_TRUE(recall());
}

TEST_F(Recall, is_nothing_once_what_it_leads_to_is_gone) {
  settle();
  ASSERT_TRUE(locate());
  for (const auto& file : std::filesystem::directory_iterator(folder_ / "cache")) {
    if (!file.path().filename().string().starts_with("file-")) {
      std::filesystem::remove(file.path());
    }
  }
  EXPECT_FALSE(recall());
  EXPECT_FALSE(locate()->cached);
  EXPECT_TRUE(recall());
}

TEST_F(Recall, keeps_as_many_as_the_cache_has_room_for) {
  const auto cache = Cache::open(folder_ / "cache", {3, 64 << 20});
  for (const char digit : {'1', '2', '3', '4', '5'}) {
    ASSERT_TRUE(cache->remember(std::string(64, digit), std::string(64, 'a')));
    std::this_thread::sleep_for(15ms);
  }
  EXPECT_FALSE(cache->recall(std::string(64, '2')));
  EXPECT_EQ(cache->recall(std::string(64, '3')), std::string(64, 'a'));
  ASSERT_TRUE(cache->remember(std::string(64, '6'), "../../etc/passwd"));
  EXPECT_FALSE(cache->recall(std::string(64, '6')));
}

}  // namespace
}  // namespace jemtrace::locate::testing
