// The four ways in which programs use memory that matter for decay, by the clock: what is allocated when does
// not depend on jemalloc's settings, so that the settings can be compared.
//   shape=steady    `live_mib` of blocks, of which some are replaced by others all the time, and a slow swell
//   shape=bursty    every `period_ms` a batch of `live_mib` on top of a base, freed after a third of the time
//   shape=producer  one thread allocates, another frees; the queue between them fills and drains
//   shape=idle      a peak of `live_mib` at the start, freed after a quarter of the time, then little work
// Blocks have 4 to 64 pages. Of what is freed at a time some stays in between, with the producer every
// `keep`th block (0: none), so that the rest does not become one extent of oversize_threshold.
#include <jemalloc/jemalloc.h>
#include <stdlib.h>

#include <cmath>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

#include "workload.hpp"

namespace {

constexpr size_t page = 4096;

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t below(uint64_t limit) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return (state_ >> 33) % limit;
  }

 private:
  uint64_t state_;
};

struct Block {
  void* memory = nullptr;
  size_t size = 0;
};

Block make_block(Random& random) {
  const size_t size = page * (4 + random.below(61));
  void* memory = malloc(size);
  workload::touch(memory, size);
  return {memory, size};
}

/// Blocks of a wanted size in all.
class Heap {
 public:
  explicit Heap(uint64_t seed) : random_(seed) {}
  ~Heap() { resize(0); }
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;

  void resize(size_t bytes) {
    while (held_ < bytes) {
      blocks_.push_back(make_block(random_));
      held_ += blocks_.back().size;
    }
    while (held_ > bytes && !blocks_.empty()) {
      drop(random_.below(blocks_.size()));
    }
  }
  /// Frees some blocks and makes as many others.
  void replace(size_t count) {
    for (size_t i = 0; i < count && !blocks_.empty(); i++) {
      drop(random_.below(blocks_.size()));
      blocks_.push_back(make_block(random_));
      held_ += blocks_.back().size;
    }
  }

 private:
  void drop(size_t at) {
    held_ -= blocks_[at].size;
    free(blocks_[at].memory);
    blocks_[at] = blocks_.back();
    blocks_.pop_back();
  }

  Random random_;
  std::vector<Block> blocks_;
  size_t held_ = 0;
};

/// A step every 5 ms until the time is over; what it does depends on the time since the start.
template <typename Step>
void by_the_clock(uint64_t ms, Step step) {
  const uint64_t start = workload::now_ns();
  for (uint64_t next = 0; next < ms; next += 5) {
    const uint64_t now = (workload::now_ns() - start) / 1'000'000;
    if (now < next) {
      workload::sleep_ms(next - now);
    }
    step(next);
  }
}

/// Small work that ticks: a thousand of these are one chance to decay.
void tick_over(Heap& little) {
  little.replace(40);
}

void steady(size_t live, uint64_t ms, uint64_t period) {
  Heap heap(1);
  by_the_clock(ms, [&](uint64_t at) {
    const double swell = 1 + 0.2 * std::sin(2 * M_PI * static_cast<double>(at) / static_cast<double>(period));
    heap.resize(static_cast<size_t>(static_cast<double>(live) * swell));
    heap.replace(40);
  });
}

void bursty(size_t live, uint64_t ms, uint64_t period) {
  Heap base(1);
  Heap batch(2);
  base.resize(live / 8);
  by_the_clock(ms, [&](uint64_t at) {
    batch.resize(at % period < period / 3 ? live : live / 16);
    tick_over(base);
  });
}

void producer(size_t live, uint64_t ms, uint64_t period, uint64_t keep) {
  std::mutex mutex;
  std::condition_variable more;
  std::deque<Block> queue;
  bool over = false;
  std::jthread consumer([&] {
    uint64_t done = 0;
    for (;;) {
      Block block;
      {
        std::unique_lock lock(mutex);
        more.wait(lock, [&] { return over || !queue.empty(); });
        if (queue.empty()) {
          return;
        }
        block = queue.front();
        queue.pop_front();
      }
      free(block.memory);
      done += block.size;
    }
  });
  // The consumer is fast: what is in flight is what the producer holds back.
  std::deque<Block> held;
  std::deque<Block> kept;
  size_t bytes = 0;
  uint64_t released = 0;
  Random random(3);
  by_the_clock(ms, [&](uint64_t at) {
    const uint64_t phase = at % period;
    const double fill = phase < period / 2
                            ? 2.0 * static_cast<double>(phase) / static_cast<double>(period)
                            : 2.0 - 2.0 * static_cast<double>(phase) / static_cast<double>(period);
    const auto wanted = static_cast<size_t>(static_cast<double>(live) * (0.1 + 0.9 * fill));
    for (int i = 0; i < 20 || bytes < wanted; i++) {
      held.push_back(make_block(random));
      bytes += held.back().size;
    }
    const std::lock_guard lock(mutex);
    while (bytes > wanted) {
      bytes -= held.front().size;
      if (keep != 0 && ++released % keep == 0) {
        kept.push_back(held.front());
      } else {
        queue.push_back(held.front());
      }
      held.pop_front();
    }
    for (; kept.size() > 64; kept.pop_front()) {
      queue.push_back(kept.front());
    }
    more.notify_one();
  });
  held.insert(held.end(), kept.begin(), kept.end());
  for (const Block& block : held) {
    free(block.memory);
  }
  const std::lock_guard lock(mutex);
  over = true;
  more.notify_one();
}

void idle(size_t live, uint64_t ms) {
  Heap base(1);
  Heap peak(2);
  base.resize(live / 8);
  by_the_clock(ms, [&](uint64_t at) {
    peak.resize(at < ms / 4 ? live : live / 16);
    tick_over(base);
  });
}

}  // namespace

int main(int argc, char** argv) {
  const workload::Args args(
      argc, argv,
      {{"shape", "bursty"}, {"live_mib", "64"}, {"ms", "5000"}, {"period_ms", "1000"}, {"keep", "16"}});
  const std::string_view shape = args.text("shape");
  const size_t live = args.number("live_mib") << 20;
  const uint64_t ms = args.number("ms");
  const uint64_t period = args.number("period_ms");
  if (shape == "steady") {
    steady(live, ms, period);
  } else if (shape == "bursty") {
    bursty(live, ms, period);
  } else if (shape == "producer") {
    producer(live, ms, period, args.number("keep"));
  } else if (shape == "idle") {
    idle(live, ms);
  } else {
    workload::die("shape");
  }
  workload::finish(mallctl);
}
