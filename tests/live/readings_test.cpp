// What is read from outside equals what jemalloc says itself, as long as the process stands still. Needs no
// BPF, and no rights but to read the memory of an own child.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "discover/maps.hpp"
#include "locate/image.hpp"
#include "read/structures.hpp"

namespace jemtrace {
namespace {

using Json = nlohmann::json;

/// A program that says one line and waits for the end of its input.
class Quiescent {
 public:
  explicit Quiescent(const std::vector<std::string>& command,
                     const std::vector<std::string>& environment = {}) {
    int in[2];
    int out[2];
    if (::pipe(in) != 0 || ::pipe(out) != 0) {
      return;
    }
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(in[0], 0);
      ::dup2(out[1], 1);
      ::close(in[1]);
      ::close(out[0]);
      std::vector<char*> argv;
      argv.reserve(command.size() + 1);
      for (const std::string& word : command) {
        argv.push_back(const_cast<char*>(word.c_str()));
      }
      argv.push_back(nullptr);
      for (const std::string& variable : environment) {
        ::putenv(const_cast<char*>(variable.c_str()));
      }
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    ::close(in[0]);
    ::close(out[1]);
    input_ = in[1];
    FILE* const said = ::fdopen(out[0], "r");
    char* text = nullptr;
    size_t size = 0;
    if (::getline(&text, &size, said) > 0) {
      line = Json::parse(text, nullptr, false);
    }
    std::free(text);
    std::fclose(said);
  }
  ~Quiescent() { end(); }
  Quiescent(const Quiescent&) = delete;
  Quiescent& operator=(const Quiescent&) = delete;

  void end() {
    if (pid_ > 0) {
      ::close(input_);
      ::waitpid(pid_, nullptr, 0);
      pid_ = -1;
    }
  }
  [[nodiscard]] pid_t pid() const { return pid_; }

  Json line;

 private:
  pid_t pid_ = -1;
  int input_ = -1;
};

struct Mapped {
  locate::Image image;
  uint64_t bias = 0;
};

std::optional<Mapped> find_jemalloc(pid_t pid) {
  const ProcRoot proc;
  const auto mappings = discover::Mappings::read(proc, pid);
  if (!mappings) {
    return std::nullopt;
  }
  for (const discover::Mapping& mapping : mappings->all()) {
    const std::string path(mapping.path);
    const auto file =
        mapping.executable && path.starts_with('/') ? open_file(path, O_RDONLY) : Result<Fd>(Fd());
    if (!file || file->get() < 0) {
      continue;
    }
    const auto image = locate::analyse(file->get(), path);
    if (image && *image) {
      return Mapped{**image, read::load_bias(**image, mapping.start, mapping.file_offset)};
    }
  }
  return std::nullopt;
}

uint64_t bytes_of(const std::vector<ledger::Range>& ranges) {
  uint64_t bytes = 0;
  for (const ledger::Range& range : ranges) {
    bytes += range.bytes;
  }
  return bytes;
}

constexpr uint64_t page = 4096;

/// What a build without statistics does not count stays unknown.
void expect_value(const std::optional<uint64_t>& read, const Json& said, const char* key) {
  EXPECT_EQ(read.has_value(), said.contains(key)) << key;
  if (read && said.contains(key)) {
    EXPECT_EQ(*read, said[key].get<uint64_t>()) << key;
  }
}

void expect_arena(const ledger::ArenaReading& arena, const Json& said, uint64_t forgotten_bytes) {
  SCOPED_TRACE(said.dump());
  EXPECT_EQ(arena.index, said["index"]);
  expect_value(arena.threads, said, "nthreads");
  expect_value(arena.active_pages, said, "pactive");
  expect_value(arena.dirty.pages, said, "pdirty");
  expect_value(arena.muzzy.pages, said, "pmuzzy");
  if (said.contains("retained")) {
    EXPECT_EQ(arena.retained.pages.value_or(0) * page, said["retained"].get<uint64_t>());
  }
  EXPECT_EQ(arena.dirty_decay.time_ms, said["dirty_decay_ms"].get<int64_t>());
  EXPECT_EQ(arena.muzzy_decay.time_ms, said["muzzy_decay_ms"].get<int64_t>());
  expect_value(arena.dirty_decay.npurge, said, "dirty_npurge");
  expect_value(arena.dirty_decay.nmadvise, said, "dirty_nmadvise");
  expect_value(arena.dirty_decay.purged_pages, said, "dirty_purged");
  expect_value(arena.muzzy_decay.npurge, said, "muzzy_npurge");
  expect_value(arena.muzzy_decay.nmadvise, said, "muzzy_nmadvise");
  expect_value(arena.muzzy_decay.purged_pages, said, "muzzy_purged");
  expect_value(arena.base_bytes, said, "base");
  expect_value(arena.internal_bytes, said, "internal");
  EXPECT_EQ(arena.tcache_bytes.has_value(), said.contains("tcache"));
  EXPECT_EQ(arena.tcache_bytes.value_or(0),
            said.value("tcache", uint64_t{0}) + (arena.index == 0 ? forgotten_bytes : 0));
  EXPECT_EQ(arena.allocated_bytes.has_value(), said.contains("small"));
  EXPECT_EQ(arena.allocated_bytes.value_or(0),
            said.value("small", uint64_t{0}) + said.value("large", uint64_t{0}));
  for (const ledger::CacheReading* cache : {&arena.dirty, &arena.muzzy, &arena.retained}) {
    ASSERT_TRUE(cache->ranges);
    EXPECT_EQ(bytes_of(*cache->ranges), *cache->pages * page);
  }
  ASSERT_TRUE(arena.metadata);
  EXPECT_GE(bytes_of(*arena.metadata), arena.base_bytes.value_or(1));
}

/// The arenas that the workload filled have all three kinds of pages: else the comparison proves little.
void expect_filled(const Json& said) {
  const Json& filled = said["arenas"].back();
  EXPECT_GT(filled["pdirty"], 100U);
  EXPECT_GT(filled["pmuzzy"], 100U);
  EXPECT_GT(filled.value("retained", 101U * page), 100U * page);
  EXPECT_GT(filled.value("dirty_purged", 101U), 100U);
}

/// The classes of which blocks are in use, and how many.
void expect_classes(const ledger::Reading& reading, const Json& said) {
  Json read = Json::object();
  for (const ledger::SizeClass& size : reading.classes) {
    if (size.blocks != uint64_t{0}) {
      read[std::to_string(size.bytes)] = size.blocks ? Json(*size.blocks) : Json(nullptr);
    }
  }
  EXPECT_EQ(read, said);
}

void expect_equal(const Quiescent& program) {
  ASSERT_TRUE(program.line.is_object()) << "the workload failed";
  expect_filled(program.line);
  const auto mapped = find_jemalloc(program.pid());
  ASSERT_TRUE(mapped && mapped->image.structures) << "no structures were found";
  const read::ProcessMemory memory(program.pid());
  const read::Reader reader(memory, *mapped->image.structures, mapped->bias);
  const auto reading = reader.read({.with_ranges = true});
  ASSERT_TRUE(reading) << reading.error().message();
  EXPECT_EQ(reading->discarded, 0U) << testing::PrintToString(reading->reasons);
  const Json& arenas = program.line["arenas"];
  ASSERT_EQ(reading->arenas.size(), arenas.size());
  // 5.1 and 5.2 look for cached blocks of large classes in the wrong places (bins_large[i] in
  // arena_stats_merge, where i begins at NBINS): the workload cached nine of 20 kB.
  const uint64_t forgotten_bytes =
      mapped->image.version.minor < 3 && program.line.contains("allocated") ? 9 * 20480 : 0;
  for (size_t i = 0; i < arenas.size(); ++i) {
    expect_arena(reading->arenas[i], arenas[i], forgotten_bytes);
  }
  const auto total = reading->total(page);
  if (program.line.contains("metadata")) {
    EXPECT_EQ(total.active, program.line["active"].get<uint64_t>());
    EXPECT_EQ(total.allocated, program.line["allocated"].get<uint64_t>());
    EXPECT_GT(total.tcache.value_or(0), 20'000U);
    expect_classes(*reading, program.line["classes"]);
    EXPECT_EQ(total.base.value_or(0) + total.internal.value_or(0), program.line["metadata"].get<uint64_t>());
  }
  for (const auto& [name, value] : program.line["options"].items()) {
    const auto option = reading->options.find(name);
    ASSERT_NE(option, reading->options.end()) << name;
    EXPECT_EQ(option->second, value.get<std::string>()) << name;
  }
  testing::Test::RecordProperty("cost_us", static_cast<int>(reading->cost_ns / 1000));
  std::printf("%zu arenas, %llu us\n", reading->arenas.size(),
              static_cast<unsigned long long>(reading->cost_ns / 1000));
}

std::string workload(const std::string& name) {
  return std::string(WORKLOADS_PATH) + "/" + name;
}

/// What tests/oracle/fetch prints; empty when it fails.
std::string fetch(const std::string& arguments) {
  FILE* const out = ::popen((FETCH_PATH " " + arguments + " 2>/dev/null").c_str(), "r");
  std::string text;
  for (int c = std::fgetc(out); c != EOF && c != '\n'; c = std::fgetc(out)) {
    text.push_back(static_cast<char>(c));
  }
  return ::pclose(out) == 0 ? text : std::string();
}

bool required() {
  const char* live = std::getenv("JEMTRACE_LIVE");
  return live != nullptr && std::string(live) == "require";
}

#define NEED_FILES(path)                                  \
  if ((path).empty()) {                                   \
    ASSERT_FALSE(required()) << "cannot fetch the suite"; \
    GTEST_SKIP() << "cannot fetch the suite";             \
  }

constexpr const char* libraries = "/usr/lib/x86_64-linux-gnu";

TEST(Readings, equal_mallctl_with_the_stripped_library) {
  expect_equal(Quiescent({workload("quiescent")}));
}

TEST(Readings, equal_mallctl_in_a_static_program) {
  expect_equal(Quiescent({workload("static_quiescent")}));
}

TEST(Readings, equal_mallctl_in_a_stripped_static_program) {
  expect_equal(Quiescent({workload("stripped_quiescent")}));
}

TEST(Readings, equal_mallctl_of_5_2_1) {
  const std::string files = fetch("bullseye");
  NEED_FILES(files);
  expect_equal(Quiescent({workload("quiescent")}, {"LD_LIBRARY_PATH=" + files + libraries}));
}

// Threads of one arena may have bins of their own.
TEST(Readings, equal_mallctl_with_sharded_bins) {
  const std::string shards = "MALLOC_CONF=bin_shards:1-160:16|161-1024:4";
  expect_equal(Quiescent({workload("quiescent")}, {shards}));
  const std::string files = fetch("bullseye");
  NEED_FILES(files);
  expect_equal(Quiescent({workload("quiescent")}, {shards, "LD_LIBRARY_PATH=" + files + libraries}));
}

// sid's library needs sid's C library, and that its ld.so.
TEST(Readings, equal_mallctl_of_5_3_1) {
  const std::string files = fetch("sid");
  const std::string libc = fetch("sid libc");
  NEED_FILES(files);
  NEED_FILES(libc);
  expect_equal(
      Quiescent({libc + libraries + "/ld-linux-x86-64.so.2", "--library-path",
                 libc + libraries + ":" + files + libraries + ":" + libraries, workload("quiescent")}));
}

/// A suite's libjemalloc.a in a static program, with its symbols or without.
struct Linked {
  const char* name;
  const char* suite;
  bool stripped;
};

class StaticReadings : public ::testing::TestWithParam<Linked> {};

TEST_P(StaticReadings, equal_mallctl) {
  const std::string files = fetch(GetParam().suite);
  NEED_FILES(files);
  char program[] = "/tmp/jemtrace-readings-XXXXXX";
  const int file = ::mkstemp(program);
  ASSERT_GE(file, 0);
  ::close(file);
  // strtol: all that an older glibc lacks.
  const std::string command =
      std::string(LINKER " -static -Wl,--defsym=__isoc23_strtol=strtol -o ") + program + " " +
      workload("quiescent.a") + " " + files + libraries + "/libjemalloc.a -lm" +
      (GetParam().stripped ? std::string(" && " STRIP " --strip-all ") + program : "");
  ASSERT_EQ(std::system(command.c_str()), 0) << command;
  expect_equal(Quiescent({program}));
  ::unlink(program);
}

INSTANTIATE_TEST_SUITE_P(Releases, StaticReadings,
                         ::testing::Values(Linked{"of_5_2_1", "bullseye", false},
                                           Linked{"of_5_2_1_stripped", "bullseye", true},
                                           Linked{"of_5_3_1", "sid", false},
                                           Linked{"of_5_3_1_stripped", "sid", true}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(Readings, of_a_process_that_has_exited_fail_as_gone) {
  Quiescent program({workload("quiescent")});
  const auto mapped = find_jemalloc(program.pid());
  ASSERT_TRUE(mapped && mapped->image.structures);
  const read::ProcessMemory memory(program.pid());
  program.end();
  const auto reading = read::Reader(memory, *mapped->image.structures, mapped->bias).read();
  ASSERT_FALSE(reading);
  EXPECT_EQ(reading.error().code, Errc::gone);
}

// Nothing of another image's addresses is taken for an arena.
TEST(Readings, of_a_wrong_place_fail_as_unsupported) {
  const Quiescent program({workload("quiescent")});
  const auto mapped = find_jemalloc(program.pid());
  ASSERT_TRUE(mapped && mapped->image.structures);
  const read::ProcessMemory memory(program.pid());
  for (const uint64_t shift : {uint64_t{8}, uint64_t{4096}, uint64_t{1} << 40}) {
    const auto reading = read::Reader(memory, *mapped->image.structures, mapped->bias + shift).read();
    EXPECT_TRUE(!reading || reading->arenas.empty()) << shift;
  }
}

}  // namespace
}  // namespace jemtrace
