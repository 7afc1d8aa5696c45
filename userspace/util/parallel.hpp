#pragma once

#include <cstddef>
#include <functional>

namespace jemtrace {

/// work(0) to work(count - 1), each once, on up to `most_threads` threads: on fewer where no more are to be
/// had, at the least on the calling one.
void in_parallel(size_t count, size_t most_threads, const std::function<void(size_t)>& work);

/// For what computes: a few, as the host has others to serve.
size_t few_threads();

}  // namespace jemtrace
