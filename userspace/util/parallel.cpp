#include "util/parallel.hpp"

#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>
#include <vector>

namespace jemtrace {

void in_parallel(size_t count, size_t most_threads, const std::function<void(size_t)>& work) {
  std::atomic<size_t> next = 0;
  const auto take = [&] {
    for (size_t i = next++; i < count; i = next++) {
      work(i);
    }
  };
  std::vector<std::jthread> others;
  for (size_t i = 1; i < std::min(count, most_threads); ++i) {
    try {
      others.emplace_back(take);
    } catch (const std::system_error&) {
      break;  // a limit of the service or the container
    }
  }
  take();
}

size_t few_threads() {
  constexpr size_t few = 4;
  return std::clamp(size_t{std::thread::hardware_concurrency()}, size_t{1}, few);
}

}  // namespace jemtrace
