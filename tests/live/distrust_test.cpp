// Images whose symbols mislead, as a wrong recovery would: tracing finds out, takes the probe off, and claims
// nothing that it does not know. And images without a function to probe. Oracle: the workload's counters, of
// which only the sums are then known.
#include <elf.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <stdexcept>

#include "live.hpp"

namespace jemtrace::live {
namespace {

/// A copy of a workload, to be edited.
class Edited {
 public:
  explicit Edited(std::string_view name) : bytes_(read(workload(name))) {
    const auto header = at<Elf64_Ehdr>(0);
    for (unsigned i = 0; i < header.e_shnum; i++) {
      const auto section = at<Elf64_Shdr>(header.e_shoff + i * sizeof(Elf64_Shdr));
      if (section.sh_type == SHT_SYMTAB) {
        symbols_ = section;
        names_ = at<Elf64_Shdr>(header.e_shoff + section.sh_link * sizeof(Elf64_Shdr)).sh_offset;
      }
    }
  }

  /// The compiler's suffix (.part.0) goes too. The new name must not be longer.
  Edited& rename(const std::string& from, const std::string& to) {
    const uint64_t name = names_ + at<Elf64_Sym>(find(from)).st_name;
    char* const text = bytes_.data() + name;
    const size_t length = strlen(text);
    memset(text, 0, length);
    to.copy(text, std::min(length, to.size()));
    return *this;
  }

  /// Lets the name mean another function.
  Edited& redirect(const std::string& name, const std::string& function) {
    const uint64_t offset = find(name);
    auto symbol = at<Elf64_Sym>(offset);
    const auto other = at<Elf64_Sym>(find(function));
    symbol.st_value = other.st_value;
    symbol.st_size = other.st_size;
    memcpy(bytes_.data() + offset, &symbol, sizeof symbol);
    return *this;
  }

  /// Spoils a word that is a string of its own, with the length it has.
  Edited& spoil(const std::string& word) {
    const std::string text = '\0' + word + '\0';
    const size_t offset = bytes_.find(text);
    if (offset == bytes_.npos) {
      throw std::runtime_error("no string " + word);
    }
    bytes_[offset + word.size()] = '~';
    return *this;
  }

  const std::string& program() {
    std::ofstream(file_->path(), std::ios::binary) << bytes_;
    std::filesystem::permissions(file_->path(), std::filesystem::perms(0755));
    return file_->path();
  }

 private:
  static std::string read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  template <typename T>
  T at(uint64_t offset) const {
    T value;
    memcpy(&value, bytes_.data() + offset, sizeof value);
    return value;
  }

  /// The file offset of the symbol with this name, whatever the compiler appended.
  uint64_t find(const std::string& name) const {
    for (uint64_t offset = 0; offset < symbols_.sh_size; offset += sizeof(Elf64_Sym)) {
      const auto symbol = at<Elf64_Sym>(symbols_.sh_offset + offset);
      const std::string_view text = bytes_.data() + names_ + symbol.st_name;
      if (text.substr(0, text.find('.')) == name && symbol.st_size > 0) {
        return symbols_.sh_offset + offset;
      }
    }
    throw std::runtime_error("no symbol " + name);
  }

  std::string bytes_;
  Elf64_Shdr symbols_{};
  uint64_t names_ = 0;
  std::unique_ptr<TemporaryFile> file_ = std::make_unique<TemporaryFile>();
};

struct Lie {
  const char* name;
  const char* probed;  // what je_ecache_evict is said to be
  const char* objection;
};

std::ostream& operator<<(std::ostream& out, const Lie& lie) {
  return out << lie.name;
}

// Without the sweep's own function, as where the compiler inlined it, the evictions are probed. The stacks
// are understood as before: only the probe is wrong.
Edited evictions_at(const char* function) {
  Edited image("static_batch");
  image.rename("pac_decay_to_limit", "pac_decay_stashed").redirect("je_ecache_evict", function);
  return image;
}

Trace trace(Edited& image, const Strings& options = {}) {
  return run_traced({image.program(), "rounds=50"},
                    {.environment = {{"MALLOC_CONF", "dirty_decay_ms:20,muzzy_decay_ms:20"}}}, options);
}

class Misleading : public LiveTest, public ::testing::WithParamInterface<Lie> {};

TEST_P(Misleading, probe_is_taken_off_and_nothing_it_said_is_claimed) {
  Edited image = evictions_at(GetParam().probed);
  const Trace run = trace(image);
  ASSERT_EQ(run.outcome.status, 0) << run.outcome.err;
  const Block block = parse_block(run.outcome.out);
  const Counters truth = block.counters();
  const Output output = run.output();
  ASSERT_EQ(output.target(block.pid())["images"][0]["tier"], "symbols");
  const Json summary = output.summary_of(block.pid());

  EXPECT_EQ(summary["exact"], false);
  ASSERT_EQ(summary["caveats"].size(), 1u) << summary["caveats"];
  const std::string caveat = summary["caveats"][0];
  EXPECT_NE(caveat.find("the probe on ecache_evict was taken off"), caveat.npos) << caveat;
  EXPECT_NE(caveat.find(GetParam().objection), caveat.npos) << caveat;
  for (const char* source : {"dirty", "muzzy"}) {
    for (const char* counter : {"_npurge", "_nmadvise", "_purged"}) {
      EXPECT_TRUE(summary["counters"][std::string(source) + counter].is_null()) << source << counter;
    }
    EXPECT_TRUE(summary["sweeps"][source].is_null()) << source;
  }

  // What remains is right: MADV_FREE says dirty by itself, the rest is from somewhere.
  const Json transitions = summary["transitions"];
  EXPECT_EQ(transitions["dirty_muzzy"]["extents_total"], truth.dirty_nmadvise);
  EXPECT_EQ(transitions["dirty_muzzy"]["bytes_total"], truth.dirty_purged * 4096);
  EXPECT_EQ(transitions["unknown_retained"]["extents_total"], truth.muzzy_nmadvise);
  EXPECT_EQ(transitions["unknown_retained"]["bytes_total"], truth.muzzy_purged * 4096);
  EXPECT_EQ(transitions["dirty_retained"]["extents_total"], 0u);
  EXPECT_EQ(transitions["muzzy_retained"]["extents_total"], 0u);
  EXPECT_EQ(summary["counters"]["unknown_nmadvise"], truth.muzzy_nmadvise);
  EXPECT_EQ(summary["counters"]["unknown_purged"], truth.muzzy_purged);
}

INSTANTIATE_TEST_SUITE_P(
    Symbol, Misleading,
    ::testing::Values(Lie{"never_called", "je_pac_destroy", "purges came without passing it"},
                      Lie{"called_without_a_cache", "je_eset_insert", "times no argument was a cache"},
                      Lie{"called_with_another_cache", "je_ecache_dalloc",
                          "purges cannot come from the cache that it saw"}),
    [](const auto& test) { return std::string(test.param.name); });

// The last events come after the probe was taken off.
LIVE_TEST(WrongProbe, says_nothing_of_later_purges) {
  Edited image = evictions_at("je_ecache_dalloc");
  const Trace run = trace(image, {"--events"});
  const std::vector<Json> events = run.output().of_type("transition");
  ASSERT_GT(events.size(), 300u);
  for (auto event = events.end() - 100; event != events.end(); ++event) {
    if ((*event)["purpose"] == "sweep") {
      EXPECT_NE((*event)["from_method"], "probe") << *event;
      EXPECT_TRUE((*event)["cause"].is_null()) << *event;
      EXPECT_TRUE((*event)["arena"].is_null()) << *event;
    }
  }
}

// The call sites of the real sweep are then in no known function.
LIVE_TEST(WrongSweep, leaves_its_purges_unclassified) {
  Edited image("static_batch");
  image.redirect("pac_decay_to_limit", "je_eset_insert");
  const Trace run = run_traced({image.program()},
                               {.environment = {{"MALLOC_CONF", "dirty_decay_ms:20,muzzy_decay_ms:20"}}});
  const Block block = parse_block(run.outcome.out);
  const Json summary = run.output().summary_of(block.pid());

  EXPECT_EQ(summary["exact"], false);
  EXPECT_EQ(summary["caveats"].size(), 1u) << summary["caveats"];
  EXPECT_EQ(other_calls_of(summary, "unclassified"),
            (Calls{block.counters().calls(), block.counters().bytes()}));
  EXPECT_EQ(other_calls_of(summary, "boot_probe").calls, 4u);
  EXPECT_EQ(other_calls_of(summary, "foreign").calls, 0u);
}

// Without "decay" among the names of mallctl no way to the sweep is found, so nothing is probed; other
// functions are found by what they do.
LIVE_TEST(CallSitesOnly, tell_purges_from_other_calls) {
  Edited image("stripped_own_madvise");
  image.spoil("decay");
  const Trace run = run_traced({image.program()},
                               {.environment = {{"MALLOC_CONF", "dirty_decay_ms:200,muzzy_decay_ms:200"}}});
  ASSERT_EQ(run.outcome.status, 0) << run.outcome.err;
  const Block block = parse_block(run.outcome.out);
  const Output output = run.output();
  const Json target = output.target(block.pid());
  const Json summary = output.summary_of(block.pid());
  const Counters truth = block.counters();

  EXPECT_EQ(target["images"][0]["tier"], "callsite");
  EXPECT_EQ(summary["exact"], false);
  EXPECT_TRUE(summary["counters"]["dirty_npurge"].is_null());
  EXPECT_EQ(summary["cost"]["probe_hits"], 0);
  EXPECT_GT(truth.calls(), 0u);
  EXPECT_EQ(other_calls_of(summary, "unclassified"), (Calls{truth.calls(), truth.bytes()}));
  EXPECT_EQ(other_calls_of(summary, "zero_fill").calls, block.number("callocs"));
  EXPECT_EQ(other_calls_of(summary, "boot_probe").calls, 4u);
  EXPECT_EQ(other_calls_of(summary, "foreign").calls,
            block.number("own_dontneed") + block.number("own_free") + block.number("own_munmap") +
                block.number("own_decommit"));
  EXPECT_EQ(other_calls_of(summary, "thread_stack").calls, block.number("threads"));
  expect_no_losses(summary);
}

}  // namespace
}  // namespace jemtrace::live
