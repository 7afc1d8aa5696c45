// Fills arenas with dirty, muzzy and retained pages, says in one line of JSON what jemalloc counts in each,
// and stands still until its standard input ends: between the line and the end nothing changes, so that what
// is read from outside has to equal it.
#include <jemalloc/jemalloc.h>
#include <unistd.h>

#include <array>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "workload.hpp"

namespace {

constexpr size_t blocks = 48;

template <typename T>
T of_arena(const char* form, unsigned arena) {
  char name[96];
  std::snprintf(name, sizeof name, form, arena);
  return workload::get<T>(mallctl, name);
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

/// What thread caches hold afterwards, of small and of large classes.
void fill_thread_cache() {
  std::array<void*, 9> blocks{};
  for (const size_t size : {40, 200, 3000, 20'000}) {
    for (void*& block : blocks) {
      block = std::malloc(size);
    }
    for (void*& block : blocks) {
      std::free(block);
      block = nullptr;
    }
  }
}

char line[1 << 16];
size_t length = 0;

/// Without an allocation, which the line would not know of.
void say(const char* form, ...) {
  va_list arguments;
  va_start(arguments, form);
  const int n = std::vsnprintf(line + length, sizeof line - length, form, arguments);
  va_end(arguments);
  if (n < 0 || length + static_cast<size_t>(n) >= sizeof line) {
    workload::die("the line is too long");
  }
  length += static_cast<size_t>(n);
}

/// `"key":value,` of a number that is not there in all builds.
template <typename T>
void say_if(const char* key, const char* form, unsigned arena) {
  char name[96];
  std::snprintf(name, sizeof name, form, arena);
  if (const auto value = workload::ask<T>(mallctl, name)) {
    say("\"%s\":%zu,", key, static_cast<size_t>(*value));
  }
}

template <typename T>
void say_option(const char* option, const char* form) {
  char name[96];
  std::snprintf(name, sizeof name, "opt.%s", option);
  if (const auto value = workload::ask<T>(mallctl, name)) {
    say(",\"%s\":", option);
    say(form, *value);
  }
}

void say_flag(const char* option) {
  char name[96];
  std::snprintf(name, sizeof name, "opt.%s", option);
  if (const auto value = workload::ask<bool>(mallctl, name)) {
    say(",\"%s\":\"%s\"", option, *value ? "true" : "false");
  }
}

void say_decay(const char* state, unsigned arena) {
  for (const char* counter : {"npurge", "nmadvise", "purged"}) {
    char key[32];
    char form[64];
    std::snprintf(key, sizeof key, "%s_%s", state, counter);
    std::snprintf(form, sizeof form, "stats.arenas.%%u.%s", key);
    say_if<uint64_t>(key, form, arena);
  }
  char form[64];
  std::snprintf(form, sizeof form, "arena.%%u.%s_decay_ms", state);
  say("\"%s_decay_ms\":%zd,", state, of_arena<ssize_t>(form, arena));
}

void say_arena(unsigned arena) {
  say("{\"index\":%u,\"nthreads\":%u,", arena, of_arena<unsigned>("stats.arenas.%u.nthreads", arena));
  say_decay("dirty", arena);
  say_decay("muzzy", arena);
  say_if<size_t>("retained", "stats.arenas.%u.retained", arena);
  say_if<size_t>("base", "stats.arenas.%u.base", arena);
  say_if<size_t>("internal", "stats.arenas.%u.internal", arena);
  say_if<size_t>("small", "stats.arenas.%u.small.allocated", arena);
  say_if<size_t>("large", "stats.arenas.%u.large.allocated", arena);
  say_if<size_t>("tcache", "stats.arenas.%u.tcache_bytes", arena);
  say("\"pactive\":%zu,", of_arena<size_t>("stats.arenas.%u.pactive", arena));
  say("\"pdirty\":%zu,", of_arena<size_t>("stats.arenas.%u.pdirty", arena));
  say("\"pmuzzy\":%zu}", of_arena<size_t>("stats.arenas.%u.pmuzzy", arena));
}

void say_options() {
  say("\"options\":{\"dirty_decay_ms\":\"%zd\"", workload::get<ssize_t>(mallctl, "opt.dirty_decay_ms"));
  say_option<ssize_t>("muzzy_decay_ms", "\"%zd\"");
  say_option<unsigned>("narenas", "\"%u\"");
  for (const char* size : {"oversize_threshold", "lg_extent_max_active_fit", "tcache_max"}) {
    say_option<size_t>(size, "\"%zu\"");
  }
  say_option<ssize_t>("lg_tcache_max", "\"%zd\"");
  for (const char* flag :
       {"abort_conf", "background_thread", "hpa", "prof", "retain", "tcache", "trust_madvise", "zero"}) {
    say_flag(flag);
  }
  for (const char* word : {"dss", "metadata_thp", "percpu_arena", "thp", "zero_realloc"}) {
    say_option<const char*>(word, "\"%s\"");
  }
  say("}");
}

/// Blocks in use by size class, of all arenas.
void say_classes() {
  say("\"classes\":{");
  const char* comma = "";
  for (const char* kind : {"bin", "lextent"}) {
    const bool small = kind[0] == 'b';
    for (unsigned i = 0; i < workload::get<unsigned>(mallctl, small ? "arenas.nbins" : "arenas.nlextents");
         ++i) {
      char name[96];
      std::snprintf(name, sizeof name, "stats.arenas.4096.%ss.%u.%s", kind, i,
                    small ? "curregs" : "curlextents");
      const auto blocks = workload::ask<size_t>(mallctl, name);
      std::snprintf(name, sizeof name, "arenas.%s.%u.size", kind, i);
      if (blocks.value_or(0) > 0) {
        say("%s\"%zu\":%zu", comma, workload::get<size_t>(mallctl, name), *blocks);
        comma = ",";
      }
    }
  }
  say("},");
}

}  // namespace

int main() {
  for (const size_t scale : {1, 2, 3}) {
    fill(workload::get<unsigned>(mallctl, "arenas.create"), scale);
  }
  fill_thread_cache();
  // The first look makes jemalloc allocate.
  for (int look = 0; look < 2; ++look) {
    uint64_t epoch = 1;
    size_t size = sizeof epoch;
    mallctl("epoch", &epoch, &size, &epoch, size);
  }
  say("{\"arenas\":[");
  const char* comma = "";
  for (unsigned arena = 0; arena < workload::get<unsigned>(mallctl, "arenas.narenas"); ++arena) {
    if (of_arena<bool>("arena.%u.initialized", arena)) {
      say("%s", comma);
      say_arena(arena);
      comma = ",";
    }
  }
  say("],");
  say_classes();
  say_if<size_t>("allocated", "stats.allocated", 0);
  say_if<size_t>("active", "stats.active", 0);
  say_if<size_t>("metadata", "stats.metadata", 0);
  say_options();
  say("}\n");
  if (write(STDOUT_FILENO, line, length) != static_cast<ssize_t>(length)) {
    workload::die("write");
  }
  char end = 0;
  while (read(STDIN_FILENO, &end, 1) > 0) {
  }
  return 0;
}
