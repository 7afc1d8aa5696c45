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
//   state=locked      dirty blocks purged while all memory is locked
//   state=forked      lazily freed blocks, and a forked child that sleeps
//   state=sprawl      dirty blocks in 32 arenas (run with narenas:32), each of a thread that is idle now
//   state=mappings    `count` blocks of 16 KiB, every second unmapped (run with retain:false, no decay)
//   state=virtual     retained memory that was never touched
//   state=arenas      `count` more arenas, each with active and dirty pages
// A line on stdin makes it do something more: `grow` takes memory until somebody stops it; `churn` takes it
// and gives it back without end; `collapse` makes huge pages of what is there, as khugepaged does; `unmap
// ADDRESS` takes a page away. What of the blocks stays has a pattern in it; at the end `intact=` says whether
// it still has.
#include <jemalloc/jemalloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "workload.hpp"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

namespace {

constexpr size_t block_size = 1 << 20, huge = 2 << 20;

/// Blocks of 1 MiB, every `keep`th of which stays: what is freed cannot coalesce into one extent.
class Blocks {
 public:
  Blocks(uint64_t bytes, uint64_t keep) : blocks_(bytes / block_size), keep_(keep) {
    for (size_t i = 0; i < blocks_.size(); i++) {
      blocks_[i] = malloc(block_size);
      memset(blocks_[i], pattern(i), block_size);
    }
  }
  /// Is in the blocks that stayed what was written there?
  bool intact() const {
    for (size_t i = 0; i < blocks_.size(); i += keep_) {
      const auto* bytes = static_cast<const unsigned char*>(blocks_[i]);
      for (size_t at = 0; at < block_size; at++) {
        if (bytes[at] != pattern(i)) {
          return false;
        }
      }
    }
    return true;
  }
  /// Makes huge pages of all that can be one.
  void collapse_all() const {
    for (const void* block : blocks_) {
      const auto start = reinterpret_cast<uintptr_t>(block) / huge * huge;
      madvise(reinterpret_cast<void*>(start), huge, MADV_COLLAPSE);
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
  static unsigned char pattern(size_t i) { return static_cast<unsigned char>(i * 7 + 1); }

  std::vector<void*> blocks_;
  uint64_t keep_;
};
Blocks* blocks = nullptr;

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

uint64_t collapsed = 0, filled_pages = 0;

/// The huge page around the end of the block before, which stayed: where nothing is resident at all there is
/// no page table to collapse. Not where the mapping begins or ends within it.
void collapse(void* block) {
  const auto start = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(block) - 1) / huge * huge);
  unsigned char resident[huge / 4096];
  if (mincore(start, huge, resident) == 0 && madvise(start, huge, MADV_COLLAPSE) == 0) {
    collapsed++;
    filled_pages += static_cast<uint64_t>(std::count_if(std::begin(resident), std::end(resident),
                                                        [](unsigned char r) { return (r & 1) == 0; }));
  }
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

/// An idle child that ends with its parent.
void leave_a_child() {
  if (fork() == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
      pause();
    }
  }
}

void fill_arenas(uint64_t bytes) {
  constexpr unsigned arenas = 32;
  for (unsigned arena = 0; arena < arenas; arena++) {
    std::thread([=] {
      workload::bind_thread_to_arena(mallctl, arena);
      std::vector<void*> mine(bytes / arenas / block_size);
      for (void*& block : mine) {
        block = malloc(block_size);
        workload::touch(block, block_size);
      }
      for (void* block : mine) {
        free(block);
      }
      workload::sleep_ms(20 * (arenas - arena));  // all at once: a thread that ends decays its arena
      pause();
    }).detach();
    workload::sleep_ms(10);
  }
  workload::sleep_ms(1000);
}

void cut_mappings(uint64_t count) {
  std::vector<void*> pieces(count);
  for (void*& piece : pieces) {
    piece = malloc(16384);
  }
  for (size_t i = 0; i < pieces.size(); i += 2) {
    free(pieces[i]);
  }
}

void make_arenas(uint64_t count) {
  for (uint64_t i = 0; i < count; i++) {
    const int flags = static_cast<int>(MALLOCX_ARENA(workload::create_arena(mallctl)) | MALLOCX_TCACHE_NONE);
    void* const stays = mallocx(4096, flags);
    void* const goes = mallocx(4096, flags);
    workload::touch(stays, 4096);
    workload::touch(goes, 4096);
    dallocx(goes, flags);
  }
}

/// Some of it resident for a moment, some of it never.
[[noreturn]] void churn() {
  constexpr size_t large = size_t{4} << 30;
  for (;;) {
    void* const mapped = mmap(nullptr, large, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void* const block = malloc(block_size * 48);
    workload::touch(block, block_size * 48);
    free(block);
    workload::purge(mallctl);
    munmap(mapped, large);
  }
}

[[noreturn]] void grow() {
  for (;;) {
    workload::touch(malloc(block_size), block_size);
  }
}

void bring_into(std::string_view state, uint64_t bytes, uint64_t keep, uint64_t count) {
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
  } else if (state == "sprawl") {
    fill_arenas(bytes);
  } else if (state == "mappings") {
    cut_mappings(count);
  } else if (state == "arenas") {
    make_arenas(count);
  } else if (state == "virtual") {
    void* never_touched = malloc(bytes);
    workload::touch(never_touched, 1);  // or the compiler leaves out both
    free(never_touched);
    workload::purge(mallctl);
  } else {
    if (state == "locked" && mlockall(MCL_CURRENT | MCL_FUTURE) != 0) {
      workload::die("mlockall");
    }
    blocks = new Blocks(bytes, keep);
    blocks->free_most();
    if (state == "locked") {
      workload::purge(mallctl);
    } else if (state != "dirty") {
      decay_dirty();
    }
    if (state == "forked") {
      leave_a_child();
    }
    if (state == "redirtied") {
      blocks->half_of_freed([](void* block) { workload::touch(block, block_size); });
    } else if (state == "refilled") {
      blocks->half_of_freed(collapse);
      if (collapsed == 0) {
        workload::die("MADV_COLLAPSE");
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const workload::Args args(argc, argv,
                            {{"state", "dirty"}, {"mib", "64"}, {"keep", "4"}, {"count", "72000"}});
  std::string line;
  line.reserve(128);  // nothing is allocated once jemalloc's numbers are read
  bring_into(args.text("state"), args.number("mib") << 20, args.number("keep"), args.number("count"));
  mallctl("thread.tcache.flush", nullptr, nullptr, nullptr, 0);
  uint64_t epoch = 1;
  mallctl("epoch", nullptr, nullptr, &epoch, sizeof epoch);
  workload::Report()
      .add("allocated", workload::get<size_t>(mallctl, "stats.allocated"))
      .add("active", workload::get<size_t>(mallctl, "stats.active"))
      .add("metadata", workload::get<size_t>(mallctl, "stats.metadata"))
      .add("resident", workload::get<size_t>(mallctl, "stats.resident"))
      .add("retained", workload::get<size_t>(mallctl, "stats.retained"))
      .add("pdirty", workload::get<size_t>(mallctl, "stats.arenas.4096.pdirty"))
      .add("pmuzzy", workload::get<size_t>(mallctl, "stats.arenas.4096.pmuzzy"))
      .add("collapsed", collapsed)
      .add("filled_pages", filled_pages)
      .add("done", "held")
      .write();
  for (char byte = 0; read(STDIN_FILENO, &byte, 1) > 0;) {
    if (byte != '\n') {
      line += byte;
      continue;
    }
    if (line == "grow") {
      grow();
    } else if (line == "churn") {
      churn();
    } else if (line.starts_with("unmap ")) {
      // An address of this process. NOLINTNEXTLINE(performance-no-int-to-ptr)
      munmap(reinterpret_cast<void*>(strtoull(line.c_str() + 6, nullptr, 16) / 4096 * 4096), 4096);
      workload::Report().add("done", "unmapped").write();
    } else if (line == "collapse" && blocks != nullptr) {
      blocks->collapse_all();
    }
    line.clear();
  }
  if (blocks != nullptr) {
    workload::Report().add("intact", blocks->intact() ? 1 : 0).write();
  }
  _exit(0);
}
