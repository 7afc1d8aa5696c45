#pragma once

#include <cstddef>
#include <functional>

namespace jemtrace::advise {

/// work(0) to work(count - 1), on a few threads: the host has others to serve.
void in_parallel(size_t count, const std::function<void(size_t)>& work);

}  // namespace jemtrace::advise
