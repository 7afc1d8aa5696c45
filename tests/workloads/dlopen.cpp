// Linked without jemalloc. Runs for a while, then loads a jemalloc with RTLD_LOCAL and uses its malloc by
// dlsym, beside the C library's own.
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <vector>

#include "workload.hpp"

namespace {

template <typename Function>
Function* find(void* library, const char* name) {
  auto* function = reinterpret_cast<Function*>(dlsym(library, name));
  if (function == nullptr) {
    fprintf(stderr, "dlsym: %s\n", dlerror());
    _exit(99);
  }
  return function;
}

}  // namespace

int main(int argc, char** argv) {
  const workload::Args args(argc, argv,
                            {{"library", "libjemalloc.so.2"},
                             {"wait_ms", "200"},
                             {"rounds", "20"},
                             {"count", "300"},
                             {"size", "16384"},
                             {"sleep_ms", "15"},
                             {"purge", "1"}});
  workload::sleep_ms(args.number("wait_ms"));

  void* library = dlopen(args.text("library"), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    fprintf(stderr, "dlopen: %s\n", dlerror());
    _exit(99);
  }
  auto* je_malloc = find<void*(size_t)>(library, "malloc");
  auto* je_free = find<void(void*)>(library, "free");
  auto* je_mallctl = find<workload::Mallctl>(library, "mallctl");

  std::vector<void*> blocks(args.number("count"));
  for (uint64_t round = 0; round < args.number("rounds"); round++) {
    for (size_t i = 0; i < blocks.size(); i++) {
      const size_t size = args.number("size") * (1 + i % 4);
      je_free(blocks[i]);
      blocks[i] = je_malloc(size);
      workload::touch(blocks[i], size);
    }
    for (size_t i = 0; i < blocks.size(); i++) {
      if (i % 16 != 0) {
        je_free(blocks[i]);
        blocks[i] = nullptr;
      }
    }
    void* of_libc = malloc(1 << 20);
    workload::touch(of_libc, 1 << 20);
    free(of_libc);
    workload::sleep_ms(args.number("sleep_ms"));
  }
  if (args.number("purge") != 0) {
    workload::purge(je_mallctl);
  }
  workload::finish(je_mallctl);
}
