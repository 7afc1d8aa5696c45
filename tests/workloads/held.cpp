// Brings memory into one state, prints jemalloc's own numbers, and stands still until its stdin ends:
//   state=dirty       blocks freed (run with dirty_decay_ms:-1)
//   state=lazyfree    and purged into the muzzy cache (muzzy_decay_ms:-1)
//   state=redirtied   and half of them written to after that, by dangling pointers
//   state=retained    and purged into the retained cache (muzzy_decay_ms:0)
//   state=refilled    and half of that made resident again by MADV_COLLAPSE, as khugepaged does
//   state=fragmented  small objects, of which every `keep`th stays
//   state=oversize    freed blocks of 16 MiB
//   state=untouched   active memory of which only half was ever written to
//   state=other       a heap that is not jemalloc's: mmap by hand and brk
#include <jemalloc/jemalloc.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string_view>
#include <vector>

#include "workload.hpp"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

namespace {

constexpr size_t block_size = 1 << 20, huge = 2 << 20;

uint64_t read_size(const char* name) {
  size_t value = 0;
  size_t length = sizeof value;
  if (mallctl(name, &value, &length, nullptr, 0) != 0) {
    workload::die(name);
  }
  return value;
}

/// Blocks of 1 MiB, every `keep`th of which stays: what is freed cannot coalesce into one extent.
class Blocks {
 public:
  Blocks(uint64_t bytes, uint64_t keep) : blocks_(bytes / block_size), keep_(keep) {
    for (void*& block : blocks_) {
      block = malloc(block_size);
      workload::touch(block, block_size);
    }
  }
  void free_most() {
    for (size_t i = 0; i < blocks_.size(); i++) {
      if (i % keep_ != 0) {
        free(blocks_[i]);
      }
    }
  }
  /// Calls `f` with half of the blocks that were freed.
  template <typename F>
  void half_of_freed(F f) {
    for (size_t i = 0; i < blocks_.size(); i++) {
      if (i % keep_ == 1) {
        f(blocks_[i]);
      }
    }
  }

 private:
  std::vector<void*> blocks_;
  uint64_t keep_;
};

void set_decay(const char* name, ssize_t ms) {
  if (mallctl(name, nullptr, nullptr, &ms, sizeof ms) != 0) {
    workload::die(name);
  }
}

/// Decays all dirty pages: into the muzzy cache if there is one.
void decay_dirty() {
  // A pass that takes everything, `arena.<i>.purge`, would skip the muzzy cache. A new decay time makes all
  // pages young: the first pass only sees them.
  set_decay("arena.0.dirty_decay_ms", 10);
  for (int i = 0; i < 5; i++) {
    workload::sleep_ms(20);
    if (mallctl("arena.0.decay", nullptr, nullptr, nullptr, 0) != 0) {
      workload::die("arena.0.decay");
    }
  }
  set_decay("arena.0.dirty_decay_ms", -1);
}

/// The huge page around the end of the block before, which stayed: where nothing is resident at all there is
/// no page table to collapse. False where the mapping begins or ends within it.
bool collapse(void* block) {
  const auto start = (reinterpret_cast<uintptr_t>(block) - 1) / huge * huge;
  return madvise(reinterpret_cast<void*>(start), huge, MADV_COLLAPSE) == 0;
}

void fragment(uint64_t bytes, uint64_t keep) {
  constexpr size_t object = 200;
  std::vector<void*> objects(bytes / object);
  for (void*& o : objects) {
    o = malloc(object);
    workload::touch(o, object);
  }
  for (size_t i = 0; i < objects.size(); i++) {
    if (i % keep != 0) {
      free(objects[i]);
    }
  }
}

void allocate_elsewhere(uint64_t bytes) {
  void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) {
    workload::die("mmap");
  }
  workload::touch(mapped, bytes);
  void* grown = sbrk(static_cast<intptr_t>(bytes / 4));
  workload::touch(grown, bytes / 4);
}

void bring_into(std::string_view state, uint64_t bytes, uint64_t keep) {
  if (state == "fragmented") {
    fragment(bytes, keep);
  } else if (state == "oversize") {
    for (uint64_t i = 0; i < bytes >> 24; i++) {
      void* block = malloc(16 << 20);
      workload::touch(block, 16 << 20);
      free(block);
    }
  } else if (state == "untouched") {
    void* half = malloc(bytes);
    workload::touch(half, bytes / 2);
  } else if (state == "other") {
    allocate_elsewhere(bytes);
  } else {
    static Blocks blocks(bytes, keep);
    blocks.free_most();
    if (state != "dirty") {
      decay_dirty();
    }
    if (state == "redirtied") {
      blocks.half_of_freed([](void* block) { workload::touch(block, block_size); });
    } else if (state == "refilled") {
      unsigned collapsed = 0;
      blocks.half_of_freed([&](void* block) { collapsed += collapse(block); });
      if (collapsed == 0) {
        workload::die("MADV_COLLAPSE");
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const workload::Args args(argc, argv, {{"state", "dirty"}, {"mib", "64"}, {"keep", "4"}});
  bring_into(args.text("state"), args.number("mib") << 20, args.number("keep"));
  mallctl("thread.tcache.flush", nullptr, nullptr, nullptr, 0);
  uint64_t epoch = 1;
  mallctl("epoch", nullptr, nullptr, &epoch, sizeof epoch);
  workload::Report()
      .add("allocated", read_size("stats.allocated"))
      .add("active", read_size("stats.active"))
      .add("metadata", read_size("stats.metadata"))
      .add("resident", read_size("stats.resident"))
      .add("retained", read_size("stats.retained"))
      .add("pdirty", read_size("stats.arenas.4096.pdirty"))
      .add("pmuzzy", read_size("stats.arenas.4096.pmuzzy"))
      .add("done", "held")
      .write();
  char byte;
  while (read(STDIN_FILENO, &byte, 1) > 0) {
  }
  _exit(0);
}
