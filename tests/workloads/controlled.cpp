// Does what it reads on stdin, a command a line, and answers each with `key=value` lines that end with
// `done=`:
//   work N      N bursts        calloc N  N recycled blocks zeroed    purge   arena.<all>.purge
//   counters    quiet, then jemalloc's counters                       quit    exit status 0 (end of input
//   does the same)
// Between commands nothing happens: background threads, if on, run during `work` alone, so a tracer may come
// and go.
#include <jemalloc/jemalloc.h>
#include <stdlib.h>
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
    } else {
      report.add("error", "unknown command");
    }
    report.add("done", command).write();
  }
  _exit(0);
}
