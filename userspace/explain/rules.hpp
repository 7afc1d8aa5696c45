#pragma once

#include <span>
#include <string>
#include <utility>

#include "explain/inputs.hpp"
#include "explain/remedy.hpp"
#include "ledger/finding.hpp"

namespace jemtrace::explain {

/// Which question a diagnosis answers.
enum class Tree { rss, purge, setup };

/// What a rule says: it applies, it does not, or that cannot be known (`cannot` says why, a clause).
struct Verdict {
  Maybe<ledger::Finding> finding;
  std::string cannot;
};

/// One diagnosis. `priority`: lower ones come first among findings of the same severity.
struct Rule {
  const char* id;
  Tree tree;
  int priority;
  Verdict (*judge)(const Inputs&);
};

/// All of them, in the order of the documentation. HEALTHY is not among them: it is what is left.
std::span<const Rule> rules();

// One function each, by group: rss.cpp, lazyfree.cpp, thp.cpp, purge_cost.cpp, config.cpp.
Verdict stuck_dirty(const Inputs& in);
Verdict arena_sprawl(const Inputs& in);
Verdict fragmented(const Inputs& in);
Verdict not_jemalloc(const Inputs& in);
Verdict virt_only(const Inputs& in);
Verdict lazyfree_inflated(const Inputs& in);
Verdict lazyfree_starved(const Inputs& in);
Verdict lazyfree_cancelled(const Inputs& in);
Verdict fork_shared(const Inputs& in);
Verdict khugepaged_refill(const Inputs& in);
Verdict ghost_thp(const Inputs& in);
Verdict eager_oversize(const Inputs& in);
Verdict app_threads_pay(const Inputs& in);
Verdict lock_bound_purge(const Inputs& in);
Verdict shootdown_bound(const Inputs& in);
Verdict work_bound_purge(const Inputs& in);
Verdict purge_thrash(const Inputs& in);
Verdict conf_not_applied(const Inputs& in);
Verdict vma_explosion(const Inputs& in);
Verdict mlocked(const Inputs& in);
Verdict oom_context(const Inputs& in);

/// Writes a finding down, a piece at a time.
class Draft {
 public:
  Draft(const Inputs& in, ledger::Severity severity, std::string title) : in_(in) {
    finding_.pid = in.pid;
    finding_.severity = severity;
    finding_.title = std::move(title);
    finding_.confidence = 0.9;
  }
  Draft& number(const char* name, const char* unit, Maybe<double> value, Maybe<double> threshold = {}) {
    finding_.evidence.push_back({name, value, unit, threshold});
    return *this;
  }
  Draft& bytes(const char* name, const Maybe<uint64_t>& value, const Maybe<uint64_t>& threshold = {}) {
    return number(name, "bytes", as_double(value), as_double(threshold));
  }
  Draft& count(const char* name, const Maybe<uint64_t>& value, const Maybe<uint64_t>& threshold = {}) {
    return number(name, "count", as_double(value), as_double(threshold));
  }
  Draft& ns(const char* name, const Maybe<uint64_t>& value, const Maybe<uint64_t>& threshold = {}) {
    return number(name, "ns", as_double(value), as_double(threshold));
  }
  /// `value` and `threshold` as shares of 1.
  Draft& share(const char* name, const Maybe<double>& value, const Maybe<double>& threshold = {}) {
    return number(name, "percent", value ? Maybe<double>(*value * 100) : std::nullopt,
                  threshold ? Maybe<double>(*threshold * 100) : std::nullopt);
  }
  Draft& remedy(std::string text) {
    finding_.remedy += (finding_.remedy.empty() ? "" : " ") + std::move(text);
    return *this;
  }
  /// `options` are an alternative to those of other calls. Those of one call belong together.
  Draft& set(const std::string& options, const Version& since = {5, 0, 0}) {
    finding_.settings.push_back(set_conf(in_, options));
    if (!in_.version.known() && since > Version{5, 0, 0}) {
      remedy(options.substr(0, options.find(':')) + " needs " + version_text(since) +
             "; its version is not known.");
    }
    return *this;
  }
  /// The options of another variable, in that which is read.
  Draft& set(const std::map<std::string, std::string>& options) {
    finding_.settings.push_back(set_conf(in_, options));
    return *this;
  }
  /// A command that helps the process that runs.
  Draft& now(std::string command) {
    if (!in_.exited) {
      finding_.commands.push_back(std::move(command));
    }
    return *this;
  }
  Draft& confidence(double value) {
    finding_.confidence = value;
    return *this;
  }
  /// What could not be seen makes the verdict less sure.
  Draft& unmeasured(std::string reason, double less_sure = 0.1) {
    finding_.unmeasured.push_back(std::move(reason));
    finding_.confidence = finding_.confidence > less_sure ? finding_.confidence - less_sure : 0;
    return *this;
  }
  [[nodiscard]] Verdict yes() { return {std::move(finding_), {}}; }

 private:
  static Maybe<double> as_double(const Maybe<uint64_t>& value) {
    return value ? Maybe<double>(static_cast<double>(*value)) : std::nullopt;
  }
  const Inputs& in_;
  ledger::Finding finding_;
};

inline Verdict no() {
  return {};
}
inline Verdict cannot(std::string why) {
  return {std::nullopt, std::move(why)};
}

}  // namespace jemtrace::explain
