// jemtrace's totals equal jemalloc's own counters in other releases than the system's: libjemalloc.so.2 of
// other releases of Debian, stripped as it is shipped, and their libjemalloc.a in a static program. The
// packages come from tests/oracle/fetch; where that cannot fetch, the tests skip with its reason.
#include <algorithm>
#include <filesystem>
#include <stdexcept>
#include <tuple>

#include "exactness.hpp"

namespace jemtrace::live {
namespace {

enum class Linkage { shared, linked_statically, linked_statically_and_stripped };

struct Release {
  const char* name;  // of the test
  const char* suite;
  const char* version;
  Linkage linkage;
  bool newer_libc = false;  // than any system that runs these tests: its own is fetched too
};

std::ostream& operator<<(std::ostream& out, const Release& release) {
  return out << "jemalloc " << release.version << " of " << release.suite;
}

struct Unavailable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The folder with the libraries of a suite; `kind`: empty, or libc.
std::string fetched(const Release& release, const std::string& kind = "") {
  Strings command = {FETCH_PATH, release.suite};
  if (!kind.empty()) {
    command.push_back(kind);
  }
  const Outcome outcome = Process(command).wait(150s);
  if (outcome.status != 0) {
    throw Unavailable(outcome.err);
  }
  return outcome.out.substr(0, outcome.out.find('\n')) + "/usr/lib/x86_64-linux-gnu";
}

void run_or_throw(const Strings& command) {
  const Outcome outcome = Process(command).wait();
  if (outcome.status != 0) {
    throw std::runtime_error(command[0] + ": " + outcome.out + outcome.err);
  }
}

class Releases : public LiveTest, public ::testing::WithParamInterface<std::tuple<Release, Configuration>> {
 protected:
  void SetUp() override {
    LiveTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) {
      return;
    }
    try {
      get(std::get<Release>(GetParam()), std::get<Configuration>(GetParam()).command[0]);
    } catch (const Unavailable& error) {
      if (everything_is_required()) {
        FAIL() << error.what();
      }
      GTEST_SKIP() << error.what();
    }
  }

  Build build_;
  std::string program_;

 private:
  void get(const Release& release, const std::string& name) {
    const std::string libraries = fetched(release);
    build_.version = release.version;
    build_.tier = release.linkage == Linkage::linked_statically ? "symbols" : "recovered";
    if (release.linkage != Linkage::shared) {
      link(release, libraries + "/libjemalloc.a", name);
      return;
    }
    program_ = workload(name);
    if (release.newer_libc) {
      // The kernel then sees a process whose program is the dynamic linker.
      const std::string libc = fetched(release, "libc");
      build_.launcher = {libc + "/ld-linux-x86-64.so.2", "--library-path", libraries + ":" + libc};
    } else {
      build_.environment["LD_LIBRARY_PATH"] = libraries;
    }
  }

  void link(const Release& release, const std::string& jemalloc, const std::string& name) {
    program_ = linked_.path();
    Strings command = {LINKER, "-static", "-o", program_, workload(name + ".a"), jemalloc, "-lm"};
    if (release.newer_libc) {
      command.emplace_back("-Wl,--defsym=__isoc23_strtol=strtol");  // all that an older glibc lacks
    }
    run_or_throw(command);
    if (release.linkage == Linkage::linked_statically_and_stripped) {
      run_or_throw({STRIP, "--strip-all", program_});
    }
    std::filesystem::permissions(program_, std::filesystem::perms(0755));
  }

  TemporaryFile linked_;
};

TEST_P(Releases, totals_equal_jemallocs_counters) {
  expect_exact(build_, program_, std::get<Configuration>(GetParam()));
}

const Release releases[] = {
    {"bullseye_shared", "bullseye", "5.2.1", Linkage::shared},
    {"sid_shared", "sid", "5.3.1", Linkage::shared, true},
    {"bookworm_shared", "bookworm", "5.3.0", Linkage::shared},
    {"trixie_shared", "trixie", "5.3.0", Linkage::shared},
    {"bullseye_static", "bullseye", "5.2.1", Linkage::linked_statically},
    {"bullseye_stripped", "bullseye", "5.2.1", Linkage::linked_statically_and_stripped},
    {"sid_static", "sid", "5.3.1", Linkage::linked_statically, true},
    {"sid_stripped", "sid", "5.3.1", Linkage::linked_statically_and_stripped, true},
};

/// What the versions do in different ways: the first three for every release, all for two.
constexpr std::string_view spread[] = {
    "muzzy_never_decays_but_is_purged",
    "background_threads",
    "oversize_extents",
    "both_decay",
    "destroyed_arenas",
    "dirty_decays_past_muzzy",
    "dirty_is_purged_at_once",
    "purged_memory_is_unmapped",
};

std::vector<std::tuple<Release, Configuration>> chosen() {
  const char* which = getenv("JEMTRACE_RELEASES");
  const bool all = which != nullptr && std::string_view(which) == "all";
  std::vector<std::tuple<Release, Configuration>> result;
  for (const Release& release : releases) {
    const size_t few = &release < releases + 2 ? std::size(spread) : 3;
    for (const Configuration& configuration : configurations()) {
      if (all || std::find(spread, spread + few, configuration.name) != spread + few) {
        result.emplace_back(release, configuration);
      }
    }
  }
  return result;
}

INSTANTIATE_TEST_SUITE_P(Debian, Releases, ::testing::ValuesIn(chosen()), [](const auto& test) {
  return std::string(std::get<Release>(test.param).name) + "_" + std::get<Configuration>(test.param).name;
});

}  // namespace
}  // namespace jemtrace::live
