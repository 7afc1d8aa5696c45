#include "cli/examples.hpp"

#include <string_view>

namespace jemtrace::cli {
namespace {

struct Example {
  std::string_view verb, lines;
};

constexpr Example examples[] = {
    {"",
     "  jemtrace -p 4242 -d 30s          one process, for 30 seconds\n"
     "  jemtrace                         every process with jemalloc, until Ctrl-C\n"
     "  jemtrace -n 'redis*' -f json     by name, as NDJSON\n"
     "  jemtrace -- ./server --flag      a command, from exec to exit\n"
     "  jemtrace stats -p 4242           where its memory is now\n"
     "  jemtrace diagnose -p 4242        what is wrong, and what to set\n"
     "  jemtrace advise -p 4242          what other settings would hold and cost\n"
     "  jemtrace serve                   metrics of the whole host for Prometheus\n"
     "  jemtrace check                   what this host allows\n"},
    {"list",
     "  jemtrace list                    the whole host\n"
     "  jemtrace list -n 'redis*'        by name\n"},
    {"image",
     "  jemtrace image 4242              the jemalloc in a process\n"
     "  jemtrace image /usr/lib/x86_64-linux-gnu/libjemalloc.so.2\n"},
    {"stats",
     "  jemtrace stats -p 4242           the account that sums to RSS\n"
     "  jemtrace stats -n redis-server --arenas\n"
     "  jemtrace stats -p 4242 --mallctl=call --set dirty_decay_ms=500\n"},
    {"prof",
     "  jemtrace prof -p 4242 --activate\n"
     "  jemtrace prof -p 4242 --dump /tmp/heap.prof\n"},
    {"diagnose",
     "  jemtrace diagnose -p 4242        watch it for 30 s, then say what is wrong\n"
     "  jemtrace diagnose -d 10s         every jemalloc process of the host\n"
     "  jemtrace diagnose --since-oom    and what the kernel has killed\n"
     "  jemtrace diagnose -p 4242 --flush-lazyfree\n"},
    {"merge",
     "  jemtrace -d 60s -f json -o $HOSTNAME.ndjson      on each host\n"
     "  jemtrace merge *.ndjson --html fleet.html        in one place\n"},
    {"serve",
     "  jemtrace serve                   on 127.0.0.1:9738\n"
     "  jemtrace serve --listen :9738 --token-file /etc/jemtrace/token\n"
     "  jemtrace serve --otlp http://127.0.0.1:4318/v1/metrics\n"},
    {"advise",
     "  jemtrace advise -p 4242 -d 2m    watch for longer than a batch takes\n"
     "  jemtrace advise -p 4242 --grid 'dirty=0,1000,10000 bg=off,on'\n"
     "  jemtrace advise -p 4242 -f json --series -o now.ndjson\n"
     "  jemtrace advise now.ndjson shorter.ndjson\n"},
    {"sweep",
     "  jemtrace sweep -- ./job          as it is, then under several settings\n"
     "  jemtrace sweep -d 60s --repeat 3 --grid 'dirty=0,1000,10000' -- ./server\n"},
    {"check", "  jemtrace check                   what works here\n"},
};

constexpr const char* exit_status =
    "Exit status: 0 ok; 1 failure; 2 usage; 3 nothing selected uses jemalloc;\n"
    "77 this host cannot trace";
constexpr const char* exit_status_of_trace = "; with -- CMD, its own; with --strict, 4 if something was lost";

}  // namespace

std::string help_footer(const std::string& verb) {
  std::string text;
  for (const Example& example : examples) {
    if (example.verb == verb) {
      text = "Examples:\n" + std::string(example.lines) + "\n";
    }
  }
  return text + exit_status + (verb.empty() ? exit_status_of_trace : "") + ".\nSee jemtrace(8).";
}

}  // namespace jemtrace::cli
