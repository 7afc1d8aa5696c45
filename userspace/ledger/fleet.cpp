#include "ledger/fleet.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "util/text.hpp"

namespace jemtrace::ledger {
namespace {

bool add(uint64_t& to, uint64_t part) {
  return !__builtin_add_overflow(to, part, &to);
}

bool fits(uint64_t a, uint64_t b) {
  return a <= ~uint64_t{0} - b;
}

tl::unexpected<Error> too_much() {
  return fail(Errc::malformed, "a sum of counters does not fit into 64 bits: one of the numbers is not real");
}

std::string host_words(const std::string& host) {
  return host.empty() ? "an unnamed host" : "host " + escape(host);
}

tl::unexpected<Error> counted_already(const FleetRun& run) {
  return fail(Errc::usage, fmt::format("the run of {} that started at Unix time {}.{:09} was counted already",
                                       host_words(run.host), run.start_unix_ns / 1'000'000'000,
                                       std::abs(run.start_unix_ns % 1'000'000'000)));
}

}  // namespace

bool add(Histogram& to, const Histogram& part) {
  const jt_hist& a = to.raw();
  const jt_hist& b = part.raw();
  bool ok = fits(a.extents, b.extents) && fits(a.bytes, b.bytes) && fits(a.count, b.count) &&
            fits(a.sum_ns, b.sum_ns);
  // So that a quantile may add the buckets up, their sum has to fit, too.
  uint64_t all = 0;
  for (unsigned i = 0; ok && i < JT_HIST_BUCKETS; ++i) {
    ok = add(all, a.buckets[i]) && add(all, b.buckets[i]);
  }
  if (ok) {
    to.merge(part);
  }
  return ok;
}

bool add(PartialSum& to, const PartialSum& part) {
  PartialSum sum = to;
  if (!add(sum.sum, part.sum) || !add(sum.parts, part.parts) || !add(sum.unknown, part.unknown)) {
    return false;
  }
  to = sum;
  return true;
}

bool add(FleetGroup& to, const FleetGroup& part) {
  return add(to.processes, part.processes) && add(to.app_calls, part.app_calls) &&
         add(to.app_ns, part.app_ns) && add(to.rss_bytes, part.rss_bytes) &&
         add(to.lazyfree_bytes, part.lazyfree_bytes) && add(to.purges, part.purges);
}

bool add(FleetCounters& to, const FleetCounters& part) {
  bool ok = true;
  for (size_t state = 0; state < JT_STATES; ++state) {
    ok = ok && add(to.decay[state].npurge, part.decay[state].npurge) &&
         add(to.decay[state].nmadvise, part.decay[state].nmadvise) &&
         add(to.decay[state].purged_pages, part.decay[state].purged_pages);
    for (size_t cause = 0; cause < JT_CAUSES; ++cause) {
      ok = ok && add(to.sweeps[state][cause], part.sweeps[state][cause]);
    }
  }
  return ok && add(to.oversize_extents, part.oversize_extents) && add(to.purged_pages, part.purged_pages) &&
         add(to.followed_pages, part.followed_pages) && add(to.touched_10s_pages, part.touched_10s_pages) &&
         add(to.waiting_10s_pages, part.waiting_10s_pages);
}

bool add(Transitions& to, const Transitions& part) {
  bool ok = true;
  for (size_t transition = 0; transition < JT_TRANSITIONS; ++transition) {
    for (size_t payer = 0; payer < JT_PAYERS; ++payer) {
      ok = ok && add(to[transition].by_payer[payer], part[transition].by_payer[payer]);
    }
  }
  return ok;
}

const char* name(GroupKind kind) {
  static constexpr std::array names = {"host", "cgroup", "version"};
  return names.at(static_cast<size_t>(kind));
}

Status Fleet::add_run(const FleetRun& run) {
  const Key key(run.host, run.start_unix_ns);
  if (runs_.count(key) > 0) {
    return counted_already(run);
  }
  if (runs_.size() >= max_runs) {
    return fail(Errc::too_large, fmt::format("more than {} runs", max_runs));
  }
  runs_.emplace(key, run);
  return {};
}

Status Fleet::add_group(GroupKind kind, const std::string& key, const FleetGroup& group) {
  auto& groups = groups_[static_cast<size_t>(kind)];
  auto found = groups.find(key);
  if (found == groups.end() && groups.size() >= max_groups) {
    folded[static_cast<size_t>(kind)] += 1;
    found = groups.try_emplace(other).first;
  } else if (found == groups.end()) {
    found = groups.try_emplace(key).first;
  }
  return add(found->second, group) ? Status{} : too_much();
}

const FleetRun* Fleet::common_run(const Fleet& other) const {
  const bool smaller = runs_.size() < other.runs_.size();
  const auto& few = smaller ? runs_ : other.runs_;
  const auto& many = smaller ? other.runs_ : runs_;
  for (const auto& [key, run] : few) {
    if (many.count(key) > 0) {
      return &run;
    }
  }
  return nullptr;
}

Status Fleet::merge(const Fleet& other) {
  if (const FleetRun* twice = common_run(other)) {
    return counted_already(*twice);
  }
  for (const auto& [key, run] : other.runs_) {
    TRY(add_run(run));
  }
  const bool ok = add(processes, other.processes) && add(window_ns, other.window_ns) &&
                  add(transitions, other.transitions) && add(counters, other.counters) &&
                  add(rss_bytes, other.rss_bytes) && add(lazyfree_bytes, other.lazyfree_bytes);
  if (!ok) {
    return too_much();
  }
  for (size_t kind = 0; kind < group_kinds; ++kind) {
    if (!add(folded[kind], other.folded[kind])) {
      return too_much();
    }
    for (const auto& [key, group] : other.groups_[kind]) {
      TRY(add_group(static_cast<GroupKind>(kind), key, group));
    }
  }
  return {};
}

std::vector<std::pair<const FleetRun*, const FleetRun*>> Fleet::overlaps(size_t at_most) const {
  std::vector<std::pair<const FleetRun*, const FleetRun*>> found;
  const FleetRun* latest = nullptr;  // of this host, the one that ends last
  for (const auto& [key, run] : runs_) {
    if (found.size() >= at_most) {
      break;
    }
    if (latest == nullptr || latest->host != run.host) {
      latest = &run;
      continue;
    }
    if (run.start_unix_ns < latest->end_unix_ns) {
      found.emplace_back(latest, &run);
    }
    if (run.end_unix_ns > latest->end_unix_ns) {
      latest = &run;
    }
  }
  return found;
}

size_t Fleet::hosts() const {
  size_t count = 0;
  const std::string* last = nullptr;
  for (const auto& [key, run] : runs_) {  // in the order of hosts
    count += last == nullptr || *last != key.first ? 1 : 0;
    last = &key.first;
  }
  return count;
}

std::array<PartialSum, JT_LOSSES> Fleet::losses() const {
  std::array<PartialSum, JT_LOSSES> all{};
  for (const auto& [key, run] : runs_) {
    for (size_t kind = 0; kind < JT_LOSSES; ++kind) {
      add(all[kind], PartialSum::of(run.losses[kind]));  // the reader sees to it that they fit
    }
  }
  return all;
}

PartialSum Fleet::cpu_ns() const {
  PartialSum all;
  for (const auto& [key, run] : runs_) {
    add(all, PartialSum::of(run.cpu_ns));
  }
  return all;
}

}  // namespace jemtrace::ledger
