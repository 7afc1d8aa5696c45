// As many purge syscalls a second as asked: each thread frees small extents in an arena of its own whose
// dirty_decay_ms is 0, so each free() is one sweep with one madvise; with `extents` N > 1 it frees N extents
// that cannot coalesce and purges them by arena.<i>.purge: one sweep with N. `rate` is per second over all
// threads, 0: unlimited. Prints calls, ns and, with `report_every` N, the nanoseconds of each batch of N
// purges as batch_ns lines on stdout while it runs. A second number there is of a piece of work that never
// changes, done right after the batch: how quiet was the machine?
#include <jemalloc/jemalloc.h>

#include <cstdio>
#include <functional>
#include <thread>
#include <vector>

#include "workload.hpp"

namespace {

struct Pace {
  uint64_t calls_per_s;  // of this thread; 0: unlimited
  uint64_t size;
  uint64_t touch;
  uint64_t extents;  // per sweep
  uint64_t report_every;
  uint64_t duration_ns;
};

unsigned make_arena(ssize_t decay_ms) {
  const unsigned arena = workload::create_arena(mallctl);
  char name[64];
  snprintf(name, sizeof name, "arena.%u.dirty_decay_ms", arena);
  if (mallctl(name, nullptr, nullptr, &decay_ms, sizeof decay_ms) != 0) {
    workload::die(name);
  }
  return arena;
}

void wait_until(uint64_t due_ns) {
  while (workload::now_ns() < due_ns) {
    std::this_thread::yield();
  }
}

/// Frees and purges one extent after the other, 64 times.
class SingleExtents {
 public:
  explicit SingleExtents(const Pace& pace)
      : pace_(pace), flags_(static_cast<int>(MALLOCX_ARENA(make_arena(0))) | MALLOCX_TCACHE_NONE) {}

  uint64_t operator()() const {
    constexpr uint64_t chunk = 64;
    for (uint64_t i = 0; i < chunk; i++) {
      void* block = mallocx(pace_.size, flags_);
      if (pace_.touch != 0) {
        workload::touch(block, pace_.size);
      }
      dallocx(block, flags_);
    }
    return chunk;
  }

 private:
  const Pace& pace_;
  int flags_;
};

/// Frees every second one of many extents and purges those in one sweep.
class ManyExtents {
 public:
  explicit ManyExtents(const Pace& pace) : pace_(pace), blocks_(2 * pace.extents) {
    const unsigned arena = make_arena(-1);
    flags_ = static_cast<int>(MALLOCX_ARENA(arena)) | MALLOCX_TCACHE_NONE;
    snprintf(purge_, sizeof purge_, "arena.%u.purge", arena);
    for (void*& block : blocks_) {
      block = mallocx(pace.size, flags_);
    }
  }

  uint64_t operator()() {
    for (size_t i = 1; i < blocks_.size(); i += 2) {
      dallocx(blocks_[i], flags_);
    }
    mallctl(purge_, nullptr, nullptr, nullptr, 0);
    for (size_t i = 1; i < blocks_.size(); i += 2) {
      blocks_[i] = mallocx(pace_.size, flags_);
      if (pace_.touch != 0) {
        workload::touch(blocks_[i], pace_.size);
      }
    }
    return pace_.extents;
  }

 private:
  const Pace& pace_;
  int flags_ = 0;
  char purge_[64] = {};
  std::vector<void*> blocks_;
};

/// ns of a fixed piece of arithmetic that fills the CPU's pipelines, some 20 us: more when somebody shares
/// them.
uint64_t reference_ns() {
  constexpr int rounds = 6'000;
  uint64_t chains[4] = {1, 2, 3, 4};
  const uint64_t start = workload::now_ns();
  for (int i = 0; i < rounds; i++) {
    for (uint64_t& chain : chains) {
      chain = chain * 6364136223846793005U + 1442695040888963407U;
      asm volatile("" : "+r"(chain));
    }
  }
  return workload::now_ns() - start;
}

template <typename Round>
void storm(const Pace& pace, uint64_t& calls, Round round) {
  const uint64_t start = workload::now_ns();
  uint64_t batch_start = start;
  uint64_t batch_calls = 0;

  for (uint64_t now = start; now - start < pace.duration_ns; now = workload::now_ns()) {
    const uint64_t done = round();
    calls += done;
    batch_calls += done;
    if (pace.report_every != 0 && batch_calls >= pace.report_every) {
      const uint64_t end = workload::now_ns();
      printf("batch_ns=%lu %lu\n",
             static_cast<unsigned long>((end - batch_start) * pace.report_every / batch_calls),
             static_cast<unsigned long>(reference_ns()));
      fflush(stdout);
      batch_start = workload::now_ns();
      batch_calls = 0;
    }
    if (pace.calls_per_s != 0) {
      wait_until(start + calls * 1'000'000'000 / pace.calls_per_s);
    }
  }
}

void run(const Pace& pace, uint64_t& calls) {
  if (pace.extents > 1) {
    storm(pace, calls, ManyExtents(pace));
  } else {
    storm(pace, calls, SingleExtents(pace));
  }
}

}  // namespace

int main(int argc, char** argv) {
  const workload::Args args(argc, argv,
                            {{"threads", "1"},
                             {"rate", "0"},
                             {"ms", "1000"},
                             {"size", "16384"},
                             {"touch", "0"},
                             {"extents", "1"},
                             {"report_every", "0"}});
  const uint64_t threads = args.number("threads");
  const Pace pace = {args.number("rate") / threads, args.number("size"),
                     args.number("touch"),          args.number("extents"),
                     args.number("report_every"),   args.number("ms") * 1'000'000};
  std::vector<uint64_t> calls(threads);
  const uint64_t start = workload::now_ns();
  {
    std::vector<std::jthread> running;
    for (uint64_t& count : calls) {
      running.emplace_back(run, std::cref(pace), std::ref(count));
    }
  }
  const uint64_t ns = workload::now_ns() - start;
  uint64_t sum = 0;
  for (uint64_t count : calls) {
    sum += count;
  }
  workload::finish(mallctl, workload::Report().add("calls", sum).add("ns", ns));
}
