// Fills arenas with dirty, muzzy and retained pages, says in one line of JSON what jemalloc counts in each,
// and stands still until its standard input ends: between the line and the end nothing changes, so that what
// is read from outside has to equal it.
#include <jemalloc/jemalloc.h>
#include <unistd.h>

#include <array>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <vector>

#include "workload.hpp"

namespace {

constexpr size_t blocks = 48;

template <typename T>
T get(const char* name) {
  T value{};
  size_t size = sizeof value;
  if (mallctl(name, &value, &size, nullptr, 0) != 0) {
    workload::die(name);
  }
  return value;
}

template <typename T>
T of_arena(const char* form, unsigned arena) {
  char name[96];
  std::snprintf(name, sizeof name, form, arena);
  return get<T>(name);
}

void act(const char* form, unsigned arena) {
  char name[96];
  std::snprintf(name, sizeof name, form, arena);
  if (mallctl(name, nullptr, nullptr, nullptr, 0) != 0) {
    workload::die(name);
  }
}

void set_decay(const char* form, unsigned arena, ssize_t ms) {
  char name[96];
  std::snprintf(name, sizeof name, form, arena);
  if (mallctl(name, nullptr, nullptr, &ms, sizeof ms) != 0) {
    workload::die(name);
  }
}

/// Blocks of an arena, some of which stay between those that are freed.
class Blocks {
 public:
  Blocks(unsigned arena, size_t size) : flags_(static_cast<int>(MALLOCX_ARENA(arena) | MALLOCX_TCACHE_NONE)) {
    for (void*& block : blocks_) {
      block = mallocx(size, flags_);
      if (block == nullptr) {
        workload::die("mallocx");
      }
      workload::touch(block, size);
    }
  }
  void free_most() {
    for (size_t i = 0; i < blocks_.size(); ++i) {
      if (i % 4 != 0) {
        dallocx(blocks_[i], flags_);
      }
    }
  }

 private:
  int flags_;
  std::array<void*, blocks> blocks_{};
};

void fill(unsigned arena, size_t scale) {
  Blocks retained(arena, scale * 24 << 10);
  Blocks muzzy(arena, scale * 40 << 10);
  Blocks dirty(arena, scale * 56 << 10);
  Blocks small(arena, 320);
  set_decay("arena.%u.muzzy_decay_ms", arena, -1);
  retained.free_most();
  act("arena.%u.purge", arena);
  // A pass that is not asked to purge all of it goes by way of muzzy.
  muzzy.free_most();
  set_decay("arena.%u.dirty_decay_ms", arena, 1);
  for (int pass = 0; pass < 4; ++pass) {
    workload::sleep_ms(3);
    act("arena.%u.decay", arena);
  }
  set_decay("arena.%u.dirty_decay_ms", arena, 60'000 + static_cast<ssize_t>(scale));
  set_decay("arena.%u.muzzy_decay_ms", arena, scale == 2 ? -1 : 90'001);
  dirty.free_most();
  small.free_most();
}

char line[1 << 16];
size_t length = 0;

/// Without an allocation, which the line would not know of.
__attribute__((format(printf, 1, 2))) void say(const char* form, ...) {
  va_list arguments;
  va_start(arguments, form);
  const int n = std::vsnprintf(line + length, sizeof line - length, form, arguments);
  va_end(arguments);
  if (n < 0 || length + static_cast<size_t>(n) >= sizeof line) {
    workload::die("the line is too long");
  }
  length += static_cast<size_t>(n);
}

void say_decay(const char* state, unsigned arena) {
  for (const char* counter : {"npurge", "nmadvise", "purged"}) {
    char form[64];
    std::snprintf(form, sizeof form, "stats.arenas.%%u.%s_%s", state, counter);
    say("\"%s_%s\":%zu,", state, counter, static_cast<size_t>(of_arena<uint64_t>(form, arena)));
  }
  char form[64];
  std::snprintf(form, sizeof form, "arena.%%u.%s_decay_ms", state);
  say("\"%s_decay_ms\":%zd,", state, of_arena<ssize_t>(form, arena));
}

void say_arena(unsigned arena) {
  say("{\"index\":%u,\"nthreads\":%u,", arena, of_arena<unsigned>("stats.arenas.%u.nthreads", arena));
  say_decay("dirty", arena);
  say_decay("muzzy", arena);
  say("\"retained\":%zu,", of_arena<size_t>("stats.arenas.%u.retained", arena));
  say("\"base\":%zu,", of_arena<size_t>("stats.arenas.%u.base", arena));
  say("\"internal\":%zu,", of_arena<size_t>("stats.arenas.%u.internal", arena));
  say("\"pactive\":%zu,", of_arena<size_t>("stats.arenas.%u.pactive", arena));
  say("\"pdirty\":%zu,", of_arena<size_t>("stats.arenas.%u.pdirty", arena));
  say("\"pmuzzy\":%zu}", of_arena<size_t>("stats.arenas.%u.pmuzzy", arena));
}

}  // namespace

int main() {
  for (const size_t scale : {1, 2, 3}) {
    fill(get<unsigned>("arenas.create"), scale);
  }
  // The first look makes jemalloc allocate.
  for (int look = 0; look < 2; ++look) {
    uint64_t epoch = 1;
    size_t size = sizeof epoch;
    mallctl("epoch", &epoch, &size, &epoch, size);
  }
  say("{\"arenas\":[");
  const char* comma = "";
  for (unsigned arena = 0; arena < get<unsigned>("arenas.narenas"); ++arena) {
    if (of_arena<bool>("arena.%u.initialized", arena)) {
      say("%s", comma);
      say_arena(arena);
      comma = ",";
    }
  }
  say("],\"active\":%zu,\"metadata\":%zu,", get<size_t>("stats.active"), get<size_t>("stats.metadata"));
  say("\"options\":{\"dirty_decay_ms\":\"%zd\",", get<ssize_t>("opt.dirty_decay_ms"));
  say("\"muzzy_decay_ms\":\"%zd\",", get<ssize_t>("opt.muzzy_decay_ms"));
  say("\"narenas\":\"%u\",", get<unsigned>("opt.narenas"));
  say("\"oversize_threshold\":\"%zu\",", get<size_t>("opt.oversize_threshold"));
  say("\"background_thread\":\"%s\",", get<bool>("opt.background_thread") ? "true" : "false");
  say("\"retain\":\"%s\",", get<bool>("opt.retain") ? "true" : "false");
  say("\"tcache\":\"%s\",", get<bool>("opt.tcache") ? "true" : "false");
  say("\"dss\":\"%s\",\"thp\":\"%s\",", get<const char*>("opt.dss"), get<const char*>("opt.thp"));
  say("\"metadata_thp\":\"%s\",", get<const char*>("opt.metadata_thp"));
  say("\"percpu_arena\":\"%s\"}}\n", get<const char*>("opt.percpu_arena"));
  if (write(STDOUT_FILENO, line, length) != static_cast<ssize_t>(length)) {
    workload::die("write");
  }
  char end = 0;
  while (read(STDIN_FILENO, &end, 1) > 0) {
  }
  return 0;
}
