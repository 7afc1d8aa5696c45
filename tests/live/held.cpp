#include "held.hpp"

#include <algorithm>
#include <cstdlib>
#include <fstream>

namespace jemtrace::live {

Strings Held::with(Strings wrapper, const std::string& program, const std::string& state,
                   const Strings& more) {
  wrapper.push_back(workload(program));
  wrapper.push_back("state=" + state);
  wrapper.insert(wrapper.end(), more.begin(), more.end());
  return wrapper;
}

Held::Held(const std::string& program, const std::string& state, const std::string& conf,
           const Strings& wrapper, const Strings& more)
    : process_(with(wrapper, program, state, more),
               {.environment = {{"MALLOC_CONF", "narenas:1," + conf}}, .with_stdin = true}),
      pid_(process_.pid()) {
  process_.wait_for_out("done=held");
  truth_.emplace(parse_block(process_.out()));
  if (!wrapper.empty()) {
    // What the wrapper ran, if that is not what it became.
    pid_ = session_members(pid_).back();
  }
}

Json stats_of(pid_t pid, const Strings& options) {
  Strings arguments = {"stats", "-f", "json", "-p", std::to_string(pid)};
  arguments.insert(arguments.end(), options.begin(), options.end());
  const Outcome outcome = run_jemtrace(arguments);
  if (outcome.status != 0) {
    throw std::runtime_error("jemtrace stats: " + outcome.err);
  }
  return Json::parse(outcome.out);
}

Json Held::stats() const {
  return stats_of(pid_);
}

uint64_t smaps_rollup(pid_t pid, const std::string& field) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/smaps_rollup");
  for (std::string name; file >> name;) {
    uint64_t kilobytes = 0;
    if (name == field && file >> kilobytes) {
      return kilobytes * 1024;
    }
  }
  throw std::runtime_error("no " + field + " in smaps_rollup");
}

void expect_sums_to_rss(const Json& stats, pid_t pid) {
  const Json& account = stats.at("account");
  uint64_t sum = 0;
  for (const auto& [name, bytes] : account.at("resident").items()) {
    sum += bytes.is_null() ? 0 : bytes.get<uint64_t>();
  }
  const uint64_t rss = smaps_rollup(pid, "Rss:");
  const auto off = [](uint64_t a, uint64_t b) { return a > b ? a - b : b - a; };
  EXPECT_LE(off(sum, rss), std::max(mib, rss / 100)) << stats.dump(1);
  EXPECT_LE(off(account.at("rss_bytes"), rss), std::max(mib, rss / 100));
  EXPECT_LE(std::abs(account.at("unexplained_bytes").get<int64_t>()),
            account.at("bound_bytes").get<int64_t>());
}

void expect_equals_mallctl(const Json& stats, const Held& held) {
  const Json& states = stats.at("reading").at("states");
  EXPECT_EQ(states.at("active_bytes"), held.truth("active"));
  EXPECT_EQ(states.at("dirty_bytes"), held.truth("pdirty") * 4096);
  EXPECT_EQ(states.at("muzzy_bytes"), held.truth("pmuzzy") * 4096);
  EXPECT_EQ(states.at("retained_bytes"), held.truth("retained"));
}

}  // namespace jemtrace::live
