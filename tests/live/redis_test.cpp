// Debian's redis-server, attached to while it works. Oracle: the difference of two MEMORY MALLOC-STATS, each
// read when the counters have come to rest.
#include <unistd.h>

#include <cstdio>
#include <sstream>
#include <thread>
#include <utility>

#include "live.hpp"

namespace jemtrace::live {
namespace {

class Redis {
 public:
  Redis()
      : port_(std::to_string(20000 + getpid() % 20000)),
        server_({"redis-server", "--port", port_, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                 "--dir", "/tmp"},
                {.environment = {{"MALLOC_CONF", "dirty_decay_ms:200,muzzy_decay_ms:200"}}}) {
    server_.wait_for_out("Ready to accept connections");
  }

  pid_t pid() const { return server_.pid(); }

  std::string ask(const Strings& command) const {
    Strings all = {"redis-cli", "-p", port_};
    all.insert(all.end(), command.begin(), command.end());
    const Outcome outcome = Process(all).wait();
    if (outcome.status != 0) {
      throw std::runtime_error("redis-cli: " + outcome.out + outcome.err);
    }
    return outcome.out;
  }

  void benchmark(const Strings& arguments) const {
    Strings all = {"redis-benchmark", "-p", port_, "-q"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    if (Process(all).wait(120s).status != 0) {
      throw std::runtime_error("redis-benchmark failed");
    }
  }

  /// The first `dirty:` and `muzzy:` lines behind "decaying:" are of all arenas, or of the only one.
  Counters counters() const {
    const std::string text = ask({"memory", "malloc-stats"});
    Counters found;
    const size_t begin = text.find("decaying:");
    long ignored;
    if (begin == text.npos ||
        sscanf(text.c_str() + text.find("dirty:", begin) + 6, "%*s %ld %lu %lu %lu", &ignored,
               &found.dirty_npurge, &found.dirty_nmadvise, &found.dirty_purged) != 4 ||
        sscanf(text.c_str() + text.find("muzzy:", begin) + 6, "%*s %ld %lu %lu %lu", &ignored,
               &found.muzzy_npurge, &found.muzzy_nmadvise, &found.muzzy_purged) != 4) {
      throw std::runtime_error("cannot read MEMORY MALLOC-STATS:\n" + text.substr(0, 3000));
    }
    return found;
  }

  /// Without background threads only malloc and free purge, and an idle Redis hardly calls them.
  void set_background_threads(bool on) const {
    ask({"config", "set", "jemalloc-bg-thread", on ? "yes" : "no"});
  }

  /// Two readings in a row that are equal. Asking is work too: it may purge once more, but not for ever.
  Counters counters_at_rest() const {
    set_background_threads(false);
    Counters last = counters();
    wait_until("jemalloc's counters to come to rest", [&] {
      std::this_thread::sleep_for(50ms);
      const Counters before = std::exchange(last, counters());
      return before == last;
    });
    return last;
  }

 private:
  std::string port_;
  Process server_;
};

// Redis zeroes its hash tables by calloc, so a tier that cannot tell zero fills from purges sees more calls
// than purges. Then some of the call sites, and not the others, must add up to jemalloc's counters exactly.
bool some_call_sites_add_up(const Json& summary, const Calls& truth) {
  std::vector<Calls> sites;
  for (const Json& site : summary["callsites"]) {
    if (site["purpose"] == "unproven" || site["purpose"] == "sweep" || site["purpose"] == "oversize") {
      sites.push_back({site["calls_total"].get<uint64_t>(), site["bytes_total"].get<uint64_t>()});
    }
  }
  if (sites.size() > 16) {
    return false;
  }
  for (uint32_t chosen = 0; chosen < (1u << sites.size()); chosen++) {
    Calls sum;
    for (size_t i = 0; i < sites.size(); i++) {
      if ((chosen >> i & 1) != 0) {
        sum.calls += sites[i].calls;
        sum.bytes += sites[i].bytes;
      }
    }
    if (sum == truth) {
      return true;
    }
  }
  return false;
}

LIVE_TEST(RedisServer, purges_as_much_as_its_own_statistics_say) {
  const Redis redis;
  redis.benchmark({"-t", "set", "-n", "20000", "-r", "20000", "-d", "2000"});
  const Counters before = redis.counters_at_rest();

  Tracer tracer({"-p", std::to_string(redis.pid())});
  tracer.wait_for(redis.pid());
  ASSERT_EQ(redis.counters(), before) << "not at rest";
  redis.set_background_threads(true);
  redis.benchmark({"-t", "set", "-n", "60000", "-r", "40000", "-d", "3000"});
  redis.ask({"flushall"});
  redis.benchmark({"-t", "set", "-n", "20000", "-r", "20000", "-d", "10000"});
  redis.ask({"flushall"});
  redis.ask({"memory", "purge"});
  const Counters after = redis.counters_at_rest();
  const Counters truth = after - before;
  const Trace run = tracer.stop();
  ASSERT_EQ(redis.counters(), after) << "not at rest";

  ASSERT_EQ(run.outcome.status, 0) << run.outcome.err;
  EXPECT_GT(truth.calls(), 0u);
  const Output output = run.output();
  const Json summary = output.summary_of(redis.pid());
  expect_no_losses(summary);
  if (knows_sources(output.target(redis.pid()))) {
    EXPECT_EQ(counters_of(summary), truth);
  } else {
    EXPECT_TRUE(some_call_sites_add_up(summary, {truth.calls(), truth.bytes()}))
        << "jemalloc: " << truth << "\nseen: " << purge_calls_of(summary) << "\n"
        << summary["callsites"].dump(2);
  }
}

LIVE_TEST(RedisServer, answers_while_traced) {
  const Redis redis;
  Tracer tracer({"-p", std::to_string(redis.pid())});
  tracer.wait_for(redis.pid());
  redis.benchmark({"-t", "set,get", "-n", "20000", "-r", "20000", "-d", "2000"});
  EXPECT_EQ(redis.ask({"ping"}), "PONG\n");
  EXPECT_EQ(tracer.stop().outcome.status, 0);
  EXPECT_EQ(redis.ask({"ping"}), "PONG\n");
}

}  // namespace
}  // namespace jemtrace::live
