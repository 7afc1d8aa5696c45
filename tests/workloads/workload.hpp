#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// What every workload needs: `key=value` arguments, memory to make dirty, and jemalloc's own counters at the
/// end.
namespace workload {

/// mallctl(3): `::mallctl` of the linked jemalloc, or the one that dlsym found.
using Mallctl = int(const char* name, void* old_value, size_t* old_length, void* new_value,
                    size_t new_length);

/// Says what failed, with errno, on stderr and ends the process with status 99: an oracle must not be
/// silently wrong.
[[noreturn]] void die(const char* what);

/// One of jemalloc's values; nullopt: this version, or this build, does not know it.
template <typename T>
std::optional<T> ask(Mallctl* mallctl, const char* name) {
  T value{};
  size_t size = sizeof value;
  return mallctl(name, &value, &size, nullptr, 0) == 0 ? std::optional(value) : std::nullopt;
}

/// One that each jemalloc knows.
template <typename T>
T get(Mallctl* mallctl, const char* name) {
  const std::optional<T> value = ask<T>(mallctl, name);
  if (!value) {
    die(name);
  }
  return *value;
}

/// `key=value` arguments over defaults. An unknown key or a bad number ends the process with status 2 and the
/// defaults.
class Args {
 public:
  Args(int argc, char** argv, std::initializer_list<std::pair<const char*, const char*>> defaults);

  uint64_t number(std::string_view key) const;
  const char* text(std::string_view key) const;

 private:
  std::vector<std::pair<std::string, std::string>> values_;
};

uint64_t now_ns();  ///< CLOCK_MONOTONIC
void sleep_ms(uint64_t ms);

/// Writes a byte to each page of [memory, memory + size).
void touch(void* memory, size_t size);

/// Bursts of `count` blocks of `size`, 2, 3 and 4 times `size` bytes, all touched, then freed. Every `keep`th
/// block stays until the next burst (0: none), so that what is freed cannot coalesce into one huge extent.
class Burst {
 public:
  Burst(size_t count, size_t size, size_t keep) : size_(size), keep_(keep), blocks_(count) {}
  ~Burst() { free_kept(); }
  Burst(const Burst&) = delete;
  Burst& operator=(const Burst&) = delete;

  void run();
  void free_kept();

 private:
  size_t size_;
  size_t keep_;
  std::vector<void*> blocks_;
};

/// `stats.arenas.<merged>` plus `<destroyed>`, after an epoch. What jemtrace's totals must equal.
struct Counters {
  uint64_t dirty_npurge, dirty_nmadvise, dirty_purged;
  uint64_t muzzy_npurge, muzzy_nmadvise, muzzy_purged;

  bool operator==(const Counters&) const = default;
};
Counters read_counters(Mallctl* mallctl);

/// Waits for jemalloc's background threads to end; true if there were any.
bool stop_background_threads(Mallctl* mallctl);
void start_background_threads(Mallctl* mallctl);

/// arena.<arena>.purge; all arenas by default.
constexpr unsigned all_arenas = 4096;
void purge(Mallctl* mallctl, unsigned arena = all_arenas);

/// Makes an arena (arenas.create) or destroys one: its counters move to the destroyed ones, its memory is
/// unmapped.
unsigned create_arena(Mallctl* mallctl);
void destroy_arena(Mallctl* mallctl, unsigned arena);
void bind_thread_to_arena(Mallctl* mallctl, unsigned arena);

/// `key=value` lines, collected without malloc and written by one write(2), so that blocks of several
/// processes on one pipe do not mix. The first line is always `pid=`.
class Report {
 public:
  Report();
  Report& add(std::string_view key, uint64_t value);
  Report& add(std::string_view key, std::string_view value);
  Report& add(std::string_view prefix, const Counters& counters);
  void write() const;

 private:
  void append(std::string_view text);

  char text_[2048];
  size_t length_ = 0;
};

/// Prints jemalloc's counters behind what `report` holds. The caller has joined all its threads; background
/// threads are stopped here. Reads twice: counters that still move end the process with status 99.
void print_counters(Mallctl* mallctl, Report report = {});

/// print_counters, then _exit(0): nothing can be freed, thus purged, after the counters were read.
[[noreturn]] void finish(Mallctl* mallctl, Report report = {});

}  // namespace workload
