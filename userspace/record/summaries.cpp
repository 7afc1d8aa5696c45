#include "record/summaries.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "util/text.hpp"

namespace jemtrace::record {
namespace {

using Json = nlohmann::json;
using ledger::Fleet;
using ledger::GroupKind;
using ledger::Maybe;
using ledger::PartialSum;

constexpr int known_schema = 1;
constexpr int max_depth = 16;  // of brackets in a line; jemtrace's own have 7
constexpr size_t max_text = 4096;
constexpr size_t max_targets = 100'000;  // of a run: their cgroups and versions are kept until its end
constexpr uint64_t max_per_run = uint64_t{1}
                                 << 43;  // losses: so many runs as there may be then fit into 64 bits
constexpr int64_t max_time_ns = int64_t{1} << 62;
/// Bucket 0 of jt_hist, as Prometheus and OpenTelemetry number the buckets of this width.
constexpr int64_t first_index = int64_t{JT_HIST_MIN_EXP} * 8;

/// Names in jemtrace's lines are escaped already: a backslash stays, so that reading and writing them again
/// changes nothing. What else might upset a terminal, as jemtrace never writes it, is escaped now.
std::string made_safe(const std::string& text) {
  std::string out;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find('\\', at), text.size());
    out += escape(std::string_view(text).substr(at, end - at));
    out += end < text.size() ? "\\" : "";
    at = end + 1;
  }
  return out;
}

/// Reads the fields of one line. Remembers the first that is not what jemtrace writes.
class Fields {
 public:
  [[nodiscard]] const std::string& error() const { return error_; }
  [[nodiscard]] bool ok() const { return error_.empty(); }
  void wrong(const std::string& what) { error_ = ok() ? what : error_; }

  const Json& member(const Json& object, const char* key) {
    static const Json none;
    if (!object.is_object() || !object.contains(key)) {
      wrong(fmt::format("no \"{}\"", key));
      return none;
    }
    return object[key];
  }

  const Json& object(const Json& in, const char* key) {
    const Json& value = member(in, key);
    if (!value.is_object()) {
      wrong(fmt::format("\"{}\" is no object", key));
    }
    return value;
  }

  uint64_t whole(const Json& object, const char* key) {
    const Json& value = member(object, key);
    if (!value.is_number_unsigned()) {
      wrong(fmt::format("\"{}\" is no whole number", key));
      return 0;
    }
    return value.get<uint64_t>();
  }

  Maybe<uint64_t> whole_or_null(const Json& in, const char* key) {
    return member(in, key).is_null() ? Maybe<uint64_t>() : whole(in, key);
  }

  int64_t time(const Json& object, const char* key) {
    const Json& value = member(object, key);
    if (!value.is_number_integer() || value > max_time_ns || value < 0) {
      wrong(fmt::format("\"{}\" is no time", key));
      return 0;
    }
    return value.get<int64_t>();
  }

  std::string string(const Json& object, const char* key) {
    const auto* given = member(object, key).get_ptr<const std::string*>();
    const bool short_enough = given != nullptr && given->size() <= max_text;
    std::string text = short_enough ? made_safe(*given) : std::string();
    if (!short_enough || text.size() > max_text) {
      wrong(fmt::format("\"{}\" is no text, or a very long one", key));
      return {};
    }
    return text;
  }

  std::string string_or_null(const Json& in, const char* key) {
    return member(in, key).is_null() ? std::string() : string(in, key);
  }

  PartialSum partial(const Json& in, const char* key) {
    const Json& object = this->object(in, key);
    PartialSum sum;
    sum.parts = whole(object, "parts");
    sum.unknown = whole(object, "unknown");
    sum.sum = whole_or_null(object, "sum").value_or(0);
    if (sum.unknown > sum.parts || (sum.parts == sum.unknown && sum.sum != 0)) {
      wrong(fmt::format("\"{}\" has more unknown parts than parts", key));
    }
    return sum;
  }

  /// From {"extents_total", "bytes_total", "calls_total", "latency"}.
  ledger::Histogram histogram(const Json& amounts) {
    jt_hist h{};
    h.extents = whole(amounts, "extents_total");
    h.bytes = whole(amounts, "bytes_total");
    const Json& latency = object(amounts, "latency");
    h.count = whole(latency, "count");
    h.sum_ns = whole(latency, "sum_ns");
    h.min_ns = whole_or_null(latency, "min_ns").value_or(0);
    h.max_ns = whole_or_null(latency, "max_ns").value_or(0);
    if (ok() && !latency.contains("buckets")) {
      wrong("no \"buckets\": written by a jemtrace that did not print them yet");
    }
    if (ok() && whole(latency, "schema") != JT_HIST_SCHEMA) {
      wrong("buckets of another width");
    }
    if (ok()) {
      fill_buckets(latency["buckets"], h);
    }
    return ledger::Histogram(h);
  }

 private:
  void fill_buckets(const Json& buckets, jt_hist& h) {
    if (!buckets.is_array() || buckets.size() > JT_HIST_BUCKETS) {
      return wrong("\"buckets\" is no list of buckets");
    }
    uint64_t in_them = 0;
    int64_t next = 0;
    for (const Json& bucket : buckets) {
      const bool pair = bucket.is_array() && bucket.size() == 2 && bucket[0].is_number_integer() &&
                        bucket[1].is_number_unsigned();
      if (!pair || bucket[0] < first_index + next || bucket[0] >= first_index + JT_HIST_BUCKETS) {
        return wrong("\"buckets\" has one that is no [index, count], out of order or out of range");
      }
      const int64_t index = bucket[0].get<int64_t>() - first_index;
      h.buckets[index] = bucket[1].get<uint64_t>();
      next = index + 1;
      if (__builtin_add_overflow(in_them, h.buckets[index], &in_them)) {
        return wrong("\"buckets\" do not add up");
      }
    }
    // Read while the kernel counted: a few calls may be in one and not yet in the other.
    const uint64_t apart = in_them > h.count ? in_them - h.count : h.count - in_them;
    if (apart > 64 || h.min_ns > h.max_ns) {
      wrong("\"buckets\", \"count\", \"min_ns\" and \"max_ns\" contradict each other");
    }
  }

  std::string error_;
};

ledger::Transitions read_transitions(Fields& fields, const Json& line) {
  ledger::Transitions all;
  const Json& transitions = fields.object(line, "transitions");
  for (unsigned t = 0; t < JT_TRANSITIONS && fields.ok(); ++t) {
    const Json& one = fields.object(transitions, ledger::name(static_cast<jt_transition>(t)));
    const Json& by_payer = fields.object(one, "by_payer");
    for (unsigned p = 0; p < JT_PAYERS && fields.ok(); ++p) {
      all[t].by_payer[p] = fields.histogram(fields.object(by_payer, ledger::name(static_cast<jt_payer>(p))));
    }
  }
  return all;
}

constexpr jt_state decaying[] = {JT_STATE_DIRTY, JT_STATE_MUZZY, JT_STATE_UNKNOWN};

/// Of a summary: each number, or null where the tier does not tell.
ledger::FleetCounters counters_of_summary(Fields& fields, const Json& line) {
  ledger::FleetCounters all;
  const Json& counters = fields.object(line, "counters");
  const Json& sweeps = fields.object(line, "sweeps");
  for (const jt_state state : decaying) {
    const std::string prefix = ledger::name(state);
    const auto value = [&](const char* key) {
      return PartialSum::of(fields.whole_or_null(counters, (prefix + key).c_str()));
    };
    all.decay[state] = {value("_npurge"), value("_nmadvise"), value("_purged")};
    const bool seen = sweeps.contains(prefix) && !sweeps[prefix].is_null();
    for (unsigned cause = 0; cause < JT_CAUSES; ++cause) {
      const char* name = ledger::name(static_cast<jt_cause>(cause));
      Maybe<uint64_t> count;
      if (seen) {
        count = fields.whole(fields.object(sweeps[prefix], "by_cause"), name);
      }
      all.sweeps[state][cause] = PartialSum::of(count);
    }
  }
  all.oversize_extents = PartialSum::of(fields.whole_or_null(line, "oversize_extents_total"));
  const Json& refaults = fields.member(line, "refaults");
  const bool measured = refaults.is_object();
  const auto of = [&](const Json& in, const char* key) {
    return PartialSum::of(measured ? fields.whole_or_null(in, key) : Maybe<uint64_t>());
  };
  all.purged_pages = of(refaults, "purged_pages");
  all.followed_pages = of(refaults, "followed_pages");
  static const Json none;
  const Json& within = measured ? fields.object(refaults, "within_10s") : none;
  all.touched_10s_pages = of(within, "touched_pages");
  all.waiting_10s_pages = of(within, "waiting_pages");
  return all;
}

ledger::FleetCounters counters_of_merged(Fields& fields, const Json& line) {
  ledger::FleetCounters all;
  const Json& counters = fields.object(line, "counters");
  const Json& sweeps = fields.object(line, "sweeps");
  for (const jt_state state : decaying) {
    const std::string prefix = ledger::name(state);
    all.decay[state] = {fields.partial(counters, (prefix + "_npurge").c_str()),
                        fields.partial(counters, (prefix + "_nmadvise").c_str()),
                        fields.partial(counters, (prefix + "_purged").c_str())};
    const Json& by_cause = fields.object(sweeps, prefix.c_str());
    for (unsigned cause = 0; cause < JT_CAUSES && fields.ok(); ++cause) {
      all.sweeps[state][cause] = fields.partial(by_cause, ledger::name(static_cast<jt_cause>(cause)));
    }
  }
  all.oversize_extents = fields.partial(line, "oversize_extents");
  const Json& refaults = fields.object(line, "refaults");
  all.purged_pages = fields.partial(refaults, "purged_pages");
  all.followed_pages = fields.partial(refaults, "followed_pages");
  all.touched_10s_pages = fields.partial(refaults, "touched_10s_pages");
  all.waiting_10s_pages = fields.partial(refaults, "waiting_10s_pages");
  return all;
}

ledger::Losses read_losses(Fields& fields, const Json& line) {
  ledger::Losses losses{};
  const Json& object = fields.object(line, "losses");
  for (unsigned kind = 0; kind < JT_LOSSES; ++kind) {
    losses[kind] = fields.whole_or_null(object, ledger::name(static_cast<jt_loss>(kind)));
    if (losses[kind].value_or(0) > max_per_run) {
      fields.wrong("\"losses\" has a number that cannot be real");
    }
  }
  return losses;
}

/// "5.3.0-0-g54eaed1d" and "5.3.0" are one version; a process with two has both named.
std::string versions_of(Fields& fields, const Json& target) {
  const Json& images = fields.member(target, "images");
  if (!images.is_array() || images.size() > 64) {
    fields.wrong("\"images\" is no list of images");
    return {};
  }
  std::vector<std::string> versions;
  for (const Json& image : images) {
    const std::string version = fields.string_or_null(image, "version");
    versions.push_back(version.empty() ? "unknown" : version.substr(0, version.find('-')));
  }
  std::sort(versions.begin(), versions.end());
  versions.erase(std::unique(versions.begin(), versions.end()), versions.end());
  std::string all = fmt::format("{}", fmt::join(versions, "+"));
  if (all.size() > max_text) {
    fields.wrong("\"images\" has very long versions");
  }
  return all == "unknown" ? std::string() : all;
}

/// Whether a line nests deeper than any of ours, which a parser would need memory for.
bool too_deep(std::string_view line) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (quoted) {
      i += c == '\\' ? 1 : 0;
      quoted = c != '"';
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      if (++depth > max_depth) {
        return true;
      }
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return false;
}

/// The line's kind, when it begins as all of ours do; there may be millions of events, not worth a parser.
std::string_view quick_type(std::string_view line) {
  constexpr std::string_view start = "{\"type\":\"";
  if (line.substr(0, start.size()) != start || line.back() != '}') {
    return {};
  }
  line.remove_prefix(start.size());
  return line.substr(0, line.find('"'));
}

bool passed_over(std::string_view type) {
  return type == "interval" || type == "transition" || type == "sweep";
}

/// Lines of bounded length.
class LineReader {
 public:
  explicit LineReader(std::FILE* file) : file_(file) {}
  enum class Got { line, last_without_newline, end, too_long };

  Got next(std::string& line) {
    line.clear();
    for (;;) {
      const char* newline = static_cast<const char*>(std::memchr(at_, '\n', static_cast<size_t>(end_ - at_)));
      line.append(at_, newline != nullptr ? newline : end_);
      if (line.size() > max_line_bytes) {
        return Got::too_long;
      }
      if (newline != nullptr) {
        at_ = newline + 1;
        return Got::line;
      }
      const size_t size = std::fread(buffer_, 1, sizeof buffer_, file_);
      at_ = buffer_;
      end_ = buffer_ + size;
      if (size == 0) {
        return line.empty() ? Got::end : Got::last_without_newline;
      }
    }
  }

 private:
  std::FILE* file_;
  char buffer_[size_t{64} << 10];
  const char* at_ = buffer_;
  const char* end_ = buffer_;
};

class Reading {
 public:
  explicit Reading(const std::string& name) : name_(escape(name)) {}

  Status take(std::string_view text, uint64_t number, bool whole) {
    number_ = number;
    if (text.find_first_not_of(" \t\r") == std::string_view::npos || passed_over(quick_type(text))) {
      return {};
    }
    if (too_deep(text)) {
      return wrong("brackets in brackets, deeper than jemtrace ever writes");
    }
    const Json line = Json::parse(text, nullptr, false);
    if (line.is_discarded()) {
      if (!whole) {
        warn("cut off here; what came before counts");
        return {};
      }
      return wrong("not JSON");
    }
    if (!line.is_object() || !line.contains("type") || !line["type"].is_string()) {
      return wrong("not a line of jemtrace: no \"type\"");
    }
    return take_line(line["type"].get_ref<const std::string&>(), line, std::hash<std::string_view>()(text));
  }

  Result<Summaries> finish(uint64_t lines) {
    number_ = lines;
    TRY(end_run());
    end_merged();
    if (read_.fleet.runs().empty()) {
      return wrong("no run of jemtrace in it", "jemtrace -f json -o FILE writes what can be merged");
    }
    return std::move(read_);
  }

 private:
  struct Target {
    std::string cgroup, version;
    bool summed_up = false;
  };

  tl::unexpected<Error> wrong(const std::string& what, const std::string& hint = {}) const {
    return fail(Errc::malformed, fmt::format("{}:{}: {}", name_, number_, what), hint);
  }
  Status at_line(Status status) const {
    if (!status) {
      Error error = std::move(status).error();
      error.what = fmt::format("{}:{}: {}", name_, number_, error.what);
      return tl::unexpected<Error>(std::move(error));
    }
    return status;
  }
  void warn(const std::string& what) {
    read_.warnings.push_back(fmt::format("{}:{}: {}", name_, number_, what));
  }

  Status take_line(const std::string& type, const Json& line, size_t hash) {
    Fields fields;
    Status status;
    if (type == "header") {
      TRY(end_run());
      end_merged();
      status = header(fields, line);
    } else if (type == "target") {
      status = target(fields, line);
    } else if (type == "summary") {
      status = summary(fields, line, hash);
    } else if (type == "merged") {
      TRY(end_run());
      end_merged();
      status = merged(fields, line);
    } else if (type == "merged_run") {
      status = merged_run(fields, line);
    } else if (type == "merged_group") {
      status = merged_group(fields, line);
    }
    if (!fields.ok()) {
      return wrong(fmt::format("{}: {}", escape(type), fields.error()));
    }
    return at_line(std::move(status));
  }

  static Status right_schema(Fields& fields, const Json& line) {
    const uint64_t schema = fields.whole(line, "schema");
    if (fields.ok() && schema != known_schema) {
      return fail(Errc::malformed, fmt::format("schema {}, and this jemtrace reads {}", schema, known_schema),
                  "use a jemtrace as new as the one that wrote it");
    }
    return {};
  }

  Status header(Fields& fields, const Json& line) {
    TRY(right_schema(fields, line));
    ledger::FleetRun run;
    run.host = fields.string_or_null(line, "host");
    run.start_unix_ns = run.end_unix_ns = fields.time(line, "start_unix_ns");
    run.jemtrace_version = fields.string(line, "jemtrace");
    run.kernel = fields.string_or_null(line, "kernel");
    run_ = run;
    run_line_ = number_;
    targets_.clear();
    seen_.clear();
    return {};
  }

  Status target(Fields& fields, const Json& line) {
    if (!run_) {
      return fail(Errc::malformed, "a target before any header",
                  "jemtrace -f json -o FILE writes what can be merged");
    }
    Target target{.cgroup = fields.string_or_null(line, "cgroup"), .version = versions_of(fields, line)};
    const std::pair<uint64_t, uint64_t> id(fields.whole(line, "pid"), fields.whole(line, "start_time_ns"));
    if (targets_.size() >= max_targets && targets_.count(id) == 0) {
      return fail(Errc::too_large, fmt::format("more than {} processes in a run", max_targets));
    }
    targets_[id] = std::move(target);
    return {};
  }

  Status summary(Fields& fields, const Json& line, size_t hash) {
    if (!run_) {
      return fail(Errc::malformed, "a summary before any header");
    }
    // A process that has replaced its program has two, but never two that are the same.
    if (!seen_.insert(hash).second) {
      return fail(Errc::usage, "this summary is in the run already");
    }
    if (seen_.size() > max_targets) {
      return fail(Errc::too_large, fmt::format("more than {} summaries in a run", max_targets));
    }
    const std::pair<uint64_t, uint64_t> id(fields.whole(line, "pid"), fields.whole(line, "start_time_ns"));
    const int64_t window_ns = fields.time(line, "window_ns");
    const ledger::Transitions transitions = read_transitions(fields, line);
    const ledger::FleetCounters counters = counters_of_summary(fields, line);
    const Json& rss = fields.object(line, "rss");
    const PartialSum rss_bytes = PartialSum::of(fields.whole_or_null(rss, "end_bytes"));
    const PartialSum lazyfree = PartialSum::of(fields.whole_or_null(rss, "lazyfree_end_bytes"));
    const ledger::Losses losses = read_losses(fields, line);
    const auto cpu_ns = static_cast<uint64_t>(fields.time(fields.object(line, "cost"), "cpu_ns"));
    const Json& exact = fields.member(line, "exact");
    if (!fields.ok()) {
      return {};
    }
    note_in_run(window_ns, exact.is_boolean() && exact.get<bool>(), losses, cpu_ns);
    Fleet& fleet = read_.fleet;
    fleet.processes += 1;
    ledger::FleetGroup group{.processes = 1, .rss_bytes = rss_bytes, .lazyfree_bytes = lazyfree};
    bool ok = add_window(window_ns) && add(fleet.transitions, transitions) && add(fleet.counters, counters) &&
              add(fleet.rss_bytes, rss_bytes) && add(fleet.lazyfree_bytes, lazyfree);
    for (const ledger::TransitionTotals& totals : transitions) {
      for (const ledger::Histogram& part : totals.by_payer) {
        ok = ok && add(group.purges, part);
      }
      const ledger::Histogram& app = totals.by_payer[JT_PAYER_APP];
      group.app_calls += app.count();
      group.app_ns += app.sum_ns();
    }
    if (!ok) {
      return fail(Errc::malformed, "a sum of counters does not fit into 64 bits");
    }
    const auto target = targets_.find(id);
    Target unknown;
    Target& about = target == targets_.end() ? unknown : target->second;
    about.summed_up = true;
    TRY(fleet.add_group(GroupKind::host, run_->host, group));
    TRY(fleet.add_group(GroupKind::cgroup, about.cgroup, group));
    return fleet.add_group(GroupKind::version, about.version, group);
  }

  bool add_window(int64_t window_ns) {
    return !__builtin_add_overflow(read_.fleet.window_ns, static_cast<uint64_t>(window_ns),
                                   &read_.fleet.window_ns);
  }

  /// Losses and jemtrace's own CPU time are of the whole run, and grow: the latest summary says the most.
  void note_in_run(int64_t window_ns, bool exact, const ledger::Losses& losses, uint64_t cpu_ns) {
    ledger::FleetRun& run = *run_;
    run.end_unix_ns = std::max(run.end_unix_ns, std::min(max_time_ns, run.start_unix_ns + window_ns));
    for (unsigned kind = 0; kind < JT_LOSSES; ++kind) {
      auto& known = run.losses[kind];
      known = run.processes == 0      ? losses[kind]
              : known && losses[kind] ? std::max(known, losses[kind])
                                      : Maybe<uint64_t>();
    }
    run.cpu_ns = std::max(run.cpu_ns.value_or(0), cpu_ns);
    run.processes += 1;
    run.exact += exact ? 1 : 0;
  }

  Status end_run() {
    if (!run_) {
      return {};
    }
    const ledger::FleetRun run = *std::exchange(run_, std::nullopt);
    const auto missing = std::count_if(targets_.begin(), targets_.end(),
                                       [](const auto& target) { return !target.second.summed_up; });
    if (run.processes == 0 || missing > 0) {
      warn(fmt::format(
          "the run that begins in line {} ends without {}", run_line_,
          run.processes == 0 ? "any summary" : fmt::format("the summaries of {} processes", missing)));
    }
    return at_line(read_.fleet.add_run(run));
  }

  Status merged(Fields& fields, const Json& line) {
    TRY(right_schema(fields, line));
    Fleet all;
    all.processes = fields.whole(line, "processes");
    all.window_ns = fields.whole(line, "window_ns");
    all.transitions = read_transitions(fields, line);
    all.counters = counters_of_merged(fields, line);
    all.rss_bytes = fields.partial(line, "rss_bytes");
    all.lazyfree_bytes = fields.partial(line, "lazyfree_bytes");
    const Json& groups = fields.object(line, "groups");
    const Json& folded = fields.object(line, "folded_groups");
    expected_groups_ = 0;
    for (size_t kind = 0; kind < ledger::group_kinds; ++kind) {
      const char* key = ledger::name(static_cast<GroupKind>(kind));
      all.folded[kind] = fields.whole(folded, key);
      expected_groups_ += fields.whole(groups, key);
    }
    expected_runs_ = fields.whole(line, "runs");
    merged_line_ = number_;
    return fields.ok() ? read_.fleet.merge(all) : Status{};
  }

  Status merged_run(Fields& fields, const Json& line) {
    if (merged_line_ == 0) {
      return fail(Errc::malformed, "merged_run without the line \"merged\" before it");
    }
    ledger::FleetRun run;
    run.host = fields.string_or_null(line, "host");
    run.start_unix_ns = fields.time(line, "start_unix_ns");
    run.end_unix_ns = fields.time(line, "end_unix_ns");
    run.jemtrace_version = fields.string(line, "jemtrace");
    run.kernel = fields.string_or_null(line, "kernel");
    run.processes = fields.whole(line, "processes");
    run.exact = fields.whole(line, "exact");
    run.losses = read_losses(fields, line);
    run.cpu_ns = fields.whole_or_null(line, "cpu_ns");
    expected_runs_ -= 1;
    return fields.ok() ? read_.fleet.add_run(run) : Status{};
  }

  Status merged_group(Fields& fields, const Json& line) {
    if (merged_line_ == 0) {
      return fail(Errc::malformed, "merged_group without the line \"merged\" before it");
    }
    const std::string by = fields.string(line, "by");
    const std::string key = fields.string_or_null(line, "key");
    ledger::FleetGroup group;
    group.processes = fields.whole(line, "processes");
    group.purges = fields.histogram(line);
    group.app_calls = fields.whole(line, "app_calls_total");
    group.app_ns = fields.whole(line, "app_ns");
    group.rss_bytes = fields.partial(line, "rss_bytes");
    group.lazyfree_bytes = fields.partial(line, "lazyfree_bytes");
    expected_groups_ -= 1;
    for (size_t kind = 0; kind < ledger::group_kinds && fields.ok(); ++kind) {
      if (by == ledger::name(static_cast<GroupKind>(kind))) {
        return read_.fleet.add_group(static_cast<GroupKind>(kind), key, group);
      }
    }
    return {};  // a kind that a newer jemtrace knows
  }

  void end_merged() {
    if (merged_line_ != 0 && (expected_runs_ != 0 || expected_groups_ != 0)) {
      warn(fmt::format(
          "what was merged in line {} is not complete: hosts, cgroups and versions are too low, and a "
          "run that is in twice may go unseen",
          merged_line_));
    }
    merged_line_ = expected_runs_ = expected_groups_ = 0;
  }

  std::string name_;
  uint64_t number_ = 0, run_line_ = 0, merged_line_ = 0;
  uint64_t expected_runs_ = 0,
           expected_groups_ = 0;  // that the line "merged" announced, and are still to come
  std::optional<ledger::FleetRun> run_;
  std::map<std::pair<uint64_t, uint64_t>, Target> targets_;  // by pid and start time
  std::unordered_set<size_t> seen_;                          // hashes of the run's summaries
  Summaries read_;
};

}  // namespace

Result<Summaries> read_summaries(std::FILE* file, const std::string& name) {
  LineReader lines(file);
  Reading reading(name);
  std::string line;
  for (uint64_t number = 1;; ++number) {
    switch (lines.next(line)) {
      case LineReader::Got::end:
        if (std::ferror(file) != 0) {
          return fail_errno("cannot read " + escape(name));
        }
        return reading.finish(number - 1);
      case LineReader::Got::too_long:
        return fail(Errc::too_large, fmt::format("{}:{}: a line of more than {} MiB", escape(name), number,
                                                 max_line_bytes >> 20));
      case LineReader::Got::line:
        TRY(reading.take(line, number, true));
        break;
      case LineReader::Got::last_without_newline:
        TRY(reading.take(line, number, false));
        break;
    }
  }
}

}  // namespace jemtrace::record
