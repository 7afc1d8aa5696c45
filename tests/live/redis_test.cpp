// Debian's redis-server, attached to while it works. Oracle: the difference of two MEMORY MALLOC-STATS, each
// read when the counters have come to rest.
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>
#include <utility>

#include "live.hpp"

namespace jemtrace::live {
namespace {

class Redis {
 public:
  Redis()
      : port_(free_port()),
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

void expect_exact(const Redis& redis, const Counters& before, Tracer& tracer) {
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

LIVE_TEST(RedisServer, purges_as_much_as_its_own_statistics_say) {
  const Redis redis;
  redis.benchmark({"-t", "set", "-n", "20000", "-r", "20000", "-d", "2000"});
  const Counters before = redis.counters_at_rest();
  Tracer tracer({"-p", std::to_string(redis.pid())});
  expect_exact(redis, before, tracer);
}

/// The capabilities that packaging/systemd/jemtrace.service gives, as setpriv takes them: "+bpf,+perfmon".
std::string capabilities_of_the_unit() {
  std::ifstream unit(UNIT_PATH);
  std::string list;
  for (std::string line; std::getline(unit, line);) {
    if (line.rfind("AmbientCapabilities=", 0) == 0) {
      std::istringstream words(line.substr(line.find('=') + 1));
      for (std::string word; words >> word;) {
        list += (list.empty() ? "+" : ",+") + word.substr(4);
      }
    }
  }
  std::transform(list.begin(), list.end(), list.begin(), [](unsigned char c) { return std::tolower(c); });
  return list;
}

/// A folder of `user`, removed with the object.
class OwnedFolder {
 public:
  explicit OwnedFolder(uid_t user) {
    if (mkdtemp(path_.data()) == nullptr || chown(path_.c_str(), user, user) != 0) {
      throw std::runtime_error("cannot make " + path_);
    }
  }
  ~OwnedFolder() { std::filesystem::remove_all(path_); }
  OwnedFolder(const OwnedFolder&) = delete;
  OwnedFolder& operator=(const OwnedFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_ = "/tmp/jemtrace-cache-XXXXXX";
};

// As the service runs: no root, no more rights than the unit gives, another user's process, nothing worse for
// it.
LIVE_TEST(RedisServer, is_traced_exactly_by_a_user_with_just_the_rights_of_the_unit) {
  constexpr uid_t nobody = 65534;
  const std::string rights = capabilities_of_the_unit();
  ASSERT_NE(rights, "");
  ASSERT_EQ(rights.find("sys_admin"), std::string::npos);
  const OwnedFolder cache(nobody);
  const Redis redis;
  redis.benchmark({"-t", "set", "-n", "20000", "-r", "20000", "-d", "2000"});
  const Counters before = redis.counters_at_rest();
  // The host has tracefs mounted, where systemd runs.
  const Strings launcher = {"unshare",
                            "-m",
                            "sh",
                            "-c",
                            "mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs "
                            "/sys/kernel/tracing; exec setpriv --reuid=65534 "
                            "--regid=65534 --clear-groups --no-new-privs --inh-caps=-all," +
                                rights + " --ambient-caps=-all," + rights + " --bounding-set=-all," + rights +
                                " env CACHE_DIRECTORY=" + cache.path() + " \"$@\"",
                            "sh"};
  Tracer tracer({"-p", std::to_string(redis.pid())}, launcher, nobody);
  expect_exact(redis, before, tracer);
  // What was found in the image is kept: parsing in the confined child works for such a user, too.
  EXPECT_FALSE(std::filesystem::is_empty(cache.path()));
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
