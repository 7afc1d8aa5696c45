// Ends the process from the main thread while other threads purge. `how`: _exit, exit, return, kill
// (SIGKILL). The counters, read in the middle of it all, are the least that jemtrace must have seen: least_*.
#include <jemalloc/jemalloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <string_view>
#include <thread>

#include "workload.hpp"

namespace {

[[noreturn]] void purge_for_ever(uint64_t size) {
  const unsigned arena = workload::create_arena(mallctl);
  workload::bind_thread_to_arena(mallctl, arena);
  for (;;) {
    workload::Burst(16, size, 0).run();
    workload::purge(mallctl, arena);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const workload::Args args(argc, argv,
                            {{"threads", "4"}, {"size", "16384"}, {"ms", "400"}, {"how", "_exit"}});
  for (uint64_t i = 0; i < args.number("threads"); i++) {
    std::thread(purge_for_ever, args.number("size")).detach();
  }
  workload::sleep_ms(args.number("ms"));

  workload::Report report;
  report.add("least_", workload::read_counters(mallctl)).write();
  const std::string_view how = args.text("how");
  if (how == "exit") {
    exit(0);
  }
  if (how == "kill") {
    kill(getpid(), SIGKILL);
  }
  if (how == "return") {
    return 0;
  }
  _exit(0);
}
