#include "advise/parallel.hpp"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

namespace jemtrace::advise {

void in_parallel(size_t count, const std::function<void(size_t)>& work) {
  constexpr size_t most_threads = 4;
  const size_t threads = std::min({count, most_threads, size_t{std::thread::hardware_concurrency()}});
  std::atomic<size_t> next = 0;
  const auto take = [&] {
    for (size_t i = next++; i < count; i = next++) {
      work(i);
    }
  };
  std::vector<std::jthread> others;
  for (size_t i = 1; i < threads; ++i) {
    others.emplace_back(take);
  }
  take();
}

}  // namespace jemtrace::advise
