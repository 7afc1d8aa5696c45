// Forks while it has dirty memory. The child's counters continue from the parent's, so it prints what they
// were right after fork as base_*; it purges, works on and exits, and the parent goes on.
#include <jemalloc/jemalloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workload.hpp"

namespace {

void work(const workload::Args& args, uint64_t extra_rounds = 0) {
  workload::Burst burst(args.number("count"), args.number("size"), args.number("keep"));
  for (uint64_t round = 0; round < args.number("rounds") + extra_rounds; round++) {
    burst.run();
    workload::sleep_ms(args.number("sleep_ms"));
  }
}

}  // namespace

int main(int argc, char** argv) {
  const workload::Args args(argc, argv,
                            {{"children", "2"},
                             {"rounds", "10"},
                             {"count", "300"},
                             {"size", "16384"},
                             {"keep", "16"},
                             {"sleep_ms", "15"}});
  for (uint64_t i = 0; i < args.number("children"); i++) {
    work(args);
    const pid_t child = fork();
    if (child < 0) {
      workload::die("fork");
    }
    if (child == 0) {
      workload::Report report;
      report.add("role", "child").add("base_", workload::read_counters(mallctl));
      workload::purge(mallctl);
      work(args, 5);  // another number of purges than the parent
      workload::finish(mallctl, report);
    }
    workload::purge(mallctl);
    work(args);
    int status = 0;
    if (waitpid(child, &status, 0) != child || status != 0) {
      workload::die("child");
    }
  }
  workload::finish(mallctl, workload::Report().add("role", "parent"));
}
