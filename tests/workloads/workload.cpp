#include "workload.hpp"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>

namespace workload {
namespace {

constexpr unsigned merged_arenas = 4096;     // MALLCTL_ARENAS_ALL
constexpr unsigned destroyed_arenas = 4097;  // MALLCTL_ARENAS_DESTROYED
constexpr size_t page_size = 4096;

[[noreturn]] void usage(const std::vector<std::pair<std::string, std::string>>& defaults, const char* bad) {
  fprintf(stderr, "bad argument: %s\ndefaults:", bad);
  for (const auto& [key, value] : defaults) {
    fprintf(stderr, " %s=%s", key.c_str(), value.c_str());
  }
  fputc('\n', stderr);
  _exit(2);
}

void advance_epoch(Mallctl* mallctl) {
  uint64_t epoch = 1;
  size_t length = sizeof epoch;
  if (mallctl("epoch", &epoch, &length, &epoch, length) != 0) {
    die("mallctl epoch");
  }
}

// The destroyed arenas' entry does not exist before the first one is destroyed: 0.
uint64_t read_counter(Mallctl* mallctl, unsigned arena, const char* counter) {
  char name[64];
  uint64_t value = 0;
  size_t length = sizeof value;

  snprintf(name, sizeof name, "stats.arenas.%u.%s", arena, counter);
  const int error = mallctl(name, &value, &length, nullptr, 0);
  if (error == 0) {
    return value;
  }
  if (arena != destroyed_arenas) {
    errno = error;
    die(name);
  }
  return 0;
}

void set_background_threads(Mallctl* mallctl, bool on) {
  const int error = mallctl("background_thread", nullptr, nullptr, &on, sizeof on);
  if (error != 0) {
    errno = error;
    die("mallctl background_thread");
  }
}

void call_arena_ctl(Mallctl* mallctl, unsigned arena, const char* action) {
  char name[64];
  snprintf(name, sizeof name, "arena.%u.%s", arena, action);
  const int error = mallctl(name, nullptr, nullptr, nullptr, 0);
  if (error != 0) {
    errno = error;
    die(name);
  }
}

}  // namespace

void die(const char* what) {
  dprintf(STDERR_FILENO, "workload: %s: %s\n", what, strerror(errno));
  _exit(99);
}

Args::Args(int argc, char** argv, std::initializer_list<std::pair<const char*, const char*>> defaults)
    : values_(defaults.begin(), defaults.end()) {
  for (int i = 1; i < argc; i++) {
    const std::string_view argument = argv[i];
    const size_t equals = argument.find('=');
    bool known = false;
    for (auto& [key, value] : values_) {
      if (equals != argument.npos && argument.substr(0, equals) == key) {
        value = argument.substr(equals + 1);
        known = true;
      }
    }
    if (!known) {
      usage(values_, argv[i]);
    }
  }
}

const char* Args::text(std::string_view key) const {
  for (const auto& [name, value] : values_) {
    if (name == key) {
      return value.c_str();
    }
  }
  abort();
}

uint64_t Args::number(std::string_view key) const {
  const std::string_view value = text(key);
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size()) {
    usage(values_, value.data());
  }
  return number;
}

uint64_t now_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

void sleep_ms(uint64_t ms) {
  timespec left = {static_cast<time_t>(ms / 1000), static_cast<long>(ms % 1000 * 1'000'000)};
  while (nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
}

void touch(void* memory, size_t size) {
  volatile char* bytes = static_cast<char*>(memory);
  for (size_t offset = 0; offset < size; offset += page_size) {
    bytes[offset] = 1;
  }
}

void Burst::run() {
  free_kept();
  for (size_t i = 0; i < blocks_.size(); i++) {
    const size_t size = size_ * (1 + i % 4);
    blocks_[i] = malloc(size);
    if (blocks_[i] == nullptr) {
      die("malloc");
    }
    touch(blocks_[i], size);
  }
  for (size_t i = 0; i < blocks_.size(); i++) {
    if (keep_ == 0 || i % keep_ != 0) {
      free(blocks_[i]);
      blocks_[i] = nullptr;
    }
  }
}

void Burst::free_kept() {
  for (void*& block : blocks_) {
    free(block);
    block = nullptr;
  }
}

Counters read_counters(Mallctl* mallctl) {
  advance_epoch(mallctl);
  const auto sum = [mallctl](const char* counter) {
    return read_counter(mallctl, merged_arenas, counter) + read_counter(mallctl, destroyed_arenas, counter);
  };
  return {sum("dirty_npurge"), sum("dirty_nmadvise"), sum("dirty_purged"),
          sum("muzzy_npurge"), sum("muzzy_nmadvise"), sum("muzzy_purged")};
}

bool stop_background_threads(Mallctl* mallctl) {
  bool on = false;
  size_t length = sizeof on;
  if (mallctl("background_thread", &on, &length, nullptr, 0) != 0) {
    return false;
  }
  if (on) {
    set_background_threads(mallctl, false);
  }
  return on;
}

void start_background_threads(Mallctl* mallctl) {
  set_background_threads(mallctl, true);
}

void purge(Mallctl* mallctl, unsigned arena) {
  call_arena_ctl(mallctl, arena, "purge");
}

unsigned create_arena(Mallctl* mallctl) {
  unsigned arena = 0;
  size_t length = sizeof arena;
  if (mallctl("arenas.create", &arena, &length, nullptr, 0) != 0) {
    die("mallctl arenas.create");
  }
  return arena;
}

void destroy_arena(Mallctl* mallctl, unsigned arena) {
  call_arena_ctl(mallctl, arena, "destroy");
}

void bind_thread_to_arena(Mallctl* mallctl, unsigned arena) {
  if (mallctl("thread.arena", nullptr, nullptr, &arena, sizeof arena) != 0) {
    die("mallctl thread.arena");
  }
}

Report::Report() {
  add("pid", static_cast<uint64_t>(getpid()));
  add("page_size", static_cast<uint64_t>(sysconf(_SC_PAGESIZE)));
}

Report& Report::add(std::string_view key, uint64_t value) {
  char digits[24];
  const auto result = std::to_chars(digits, digits + sizeof digits, value);
  return add(key, std::string_view(digits, result.ptr));
}

Report& Report::add(std::string_view key, std::string_view value) {
  append(key);
  append("=");
  append(value);
  append("\n");
  return *this;
}

Report& Report::add(std::string_view prefix, const Counters& counters) {
  const std::pair<std::string_view, uint64_t> all[] = {
      {"dirty_npurge", counters.dirty_npurge},     {"dirty_nmadvise", counters.dirty_nmadvise},
      {"dirty_purged", counters.dirty_purged},     {"muzzy_npurge", counters.muzzy_npurge},
      {"muzzy_nmadvise", counters.muzzy_nmadvise}, {"muzzy_purged", counters.muzzy_purged},
  };
  for (const auto& [name, value] : all) {
    append(prefix);
    add(name, value);
  }
  return *this;
}

void Report::append(std::string_view text) {
  if (length_ + text.size() > sizeof text_) {
    errno = ENOSPC;
    die("report");
  }
  memcpy(text_ + length_, text.data(), text.size());
  length_ += text.size();
}

void Report::write() const {
  size_t written = 0;
  while (written < length_) {
    const ssize_t n = ::write(STDOUT_FILENO, text_ + written, length_ - written);
    if (n < 0 && errno != EINTR) {
      die("write");
    }
    written += n > 0 ? static_cast<size_t>(n) : 0;
  }
}

void print_counters(Mallctl* mallctl, Report report) {
  stop_background_threads(mallctl);
  const Counters counters = read_counters(mallctl);
  report.add("", counters);
  report.write();
  if (read_counters(mallctl) != counters) {
    errno = EBUSY;
    die("counters still move");
  }
}

void finish(Mallctl* mallctl, Report report) {
  print_counters(mallctl, report);
  _exit(0);
}

}  // namespace workload
