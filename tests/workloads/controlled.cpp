// Does what it reads on stdin, a command a line, and answers each with `key=value` lines that end with
// `done=`:
//   work N      N bursts        calloc N  N recycled blocks zeroed    purge   arena.<all>.purge
//   counters    quiet, then jemalloc's counters                       quit    exit status 0 (end of input
//   does the same)
//   values      an epoch, then statistics in jemalloc's names          seccomp a filter that allows
//   everything ignore      SIGSEGV is ignored      handler, inside: the next line is waited for in a signal
//   handler, in a function that jemalloc called
// Between commands nothing happens: background threads, if on, run during `work` alone, so a tracer may come
// and go.
#include <jemalloc/jemalloc.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <string>
#include <string_view>

#include "workload.hpp"

namespace {

bool read_line(std::string& line) {
  line.clear();
  for (;;) {
    char byte;
    if (read(STDIN_FILENO, &byte, 1) != 1) {
      return false;
    }
    if (byte == '\n') {
      return true;
    }
    line += byte;
  }
}

void calloc_recycled() {
  constexpr size_t size = 512 * 1024;
  void* block = malloc(size);
  workload::touch(block, size);
  free(block);
  block = calloc(1, size);
  workload::touch(block, size);
  free(block);
}

void allow_everything() {
  sock_filter allow = {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
  const sock_fprog program = {1, &allow};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    workload::die("seccomp");
  }
}

void read_until_newline() {
  char byte = 0;
  while (byte != '\n' && read(STDIN_FILENO, &byte, 1) == 1) {
  }
}

void wait_in_handler() {
  signal(SIGUSR1, [](int) { read_until_newline(); });
  raise(SIGUSR1);
}

void wait_inside() {
  bool waited = false;
  malloc_stats_print(
      [](void* opaque, const char*) {
        if (!*static_cast<bool*>(opaque)) {
          *static_cast<bool*>(opaque) = true;
          read_until_newline();
        }
      },
      &waited, "gmdablxeh");
}

void add_values(workload::Report& report) {
  uint64_t epoch = 1;
  size_t size = sizeof epoch;
  mallctl("epoch", &epoch, &size, &epoch, size);
  for (const char* name :
       {"stats.allocated", "stats.active", "stats.metadata", "stats.resident", "stats.mapped",
        "stats.retained", "arena.0.dirty_decay_ms", "arena.0.muzzy_decay_ms", "epoch"}) {
    report.add(name, workload::get<uint64_t>(mallctl, name));
  }
  for (const char* name : {"pactive", "pdirty", "pmuzzy", "retained", "base", "internal", "tcache_bytes",
                           "small.allocated", "large.allocated", "dirty_npurge", "dirty_nmadvise",
                           "dirty_purged", "bins.2.curregs", "lextents.0.curlextents"}) {
    const std::string full = std::string("stats.arenas.0.") + name;
    report.add(full, workload::get<uint64_t>(mallctl, full.c_str()));
  }
  report.add("background_thread", workload::get<bool>(mallctl, "background_thread"));
}

}  // namespace

int main(int argc, char** argv) {
  const workload::Args args(argc, argv,
                            {{"count", "300"}, {"size", "16384"}, {"keep", "16"}, {"sleep_ms", "15"}});
  const bool background = workload::stop_background_threads(mallctl);
  workload::Burst burst(args.number("count"), args.number("size"), args.number("keep"));
  std::string line;
  line.reserve(256);
  workload::Report().add("done", "start").write();

  while (read_line(line) && line != "quit") {
    const std::string_view command = std::string_view(line).substr(0, line.find(' '));
    const uint64_t times =
        command.size() < line.size() ? strtoull(line.c_str() + command.size(), nullptr, 10) : 1;
    workload::Report report;
    if (command == "work") {
      if (background) {
        workload::start_background_threads(mallctl);
      }
      for (uint64_t i = 0; i < times; i++) {
        burst.run();
        workload::sleep_ms(args.number("sleep_ms"));
      }
      workload::stop_background_threads(mallctl);
    } else if (command == "calloc") {
      for (uint64_t i = 0; i < times; i++) {
        calloc_recycled();
      }
    } else if (command == "purge") {
      workload::purge(mallctl);
    } else if (command == "counters") {
      report.add("", workload::read_counters(mallctl));
    } else if (command == "values") {
      add_values(report);
    } else if (command == "seccomp") {
      allow_everything();
    } else if (command == "ignore") {
      signal(SIGSEGV, SIG_IGN);
    } else if (command == "handler") {
      wait_in_handler();
    } else if (command == "inside") {
      wait_inside();
    } else {
      report.add("error", "unknown command");
    }
    report.add("done", command).write();
  }
  _exit(0);
}
