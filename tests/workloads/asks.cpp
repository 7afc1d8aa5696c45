// Asks jemalloc what is active and allocated, by name and by number, each 0.1 s, `times` times; then ends.
// Its settings are in the program: malloc_conf.
#include <jemalloc/jemalloc.h>

#include <cstdlib>

#include "workload.hpp"

extern "C" {
extern const char* malloc_conf;
const char* malloc_conf = "dirty_decay_ms:4321,narenas:2";
}

namespace {

/// As clients in Rust ask: the slot on the stack is another call's the next time.
uint64_t by_number(const char* name) {
  size_t mib[2];
  size_t depth = 2;
  size_t value = 0;
  size_t length = sizeof value;
  if (mallctlnametomib(name, mib, &depth) != 0 ||
      mallctlbymib(mib, depth, &value, &length, nullptr, 0) != 0) {
    workload::die(name);
  }
  return value;
}

}  // namespace

int main(int argc, char** argv) {
  const workload::Args args(argc, argv, {{"times", "10"}});
  void* held = std::malloc(20 << 20);
  workload::touch(held, 20 << 20);
  uint64_t allocated = 0;
  uint64_t active = 0;
  for (uint64_t i = args.number("times"); i > 0; --i) {
    uint64_t epoch = 1;
    mallctl("epoch", nullptr, nullptr, &epoch, sizeof epoch);
    allocated = by_number("stats.allocated");
    active = workload::get<size_t>(mallctl, "stats.active");
    workload::sleep_ms(100);
  }
  workload::Report().add("allocated", allocated).add("active", active).write();
  std::free(held);
  return 0;
}
