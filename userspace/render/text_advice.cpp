#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "advise/advice.hpp"
#include "render/text_parts.hpp"
#include "render/words.hpp"
#include "util/text.hpp"

namespace jemtrace::render {
namespace {

using advise::Advice;
using advise::Candidate;
using advise::Goal;
using advise::Outcome;
using advise::Settings;

std::string bytes(double amount) {
  return human_bytes(static_cast<uint64_t>(std::max(0.0, amount)));
}

/// In a sentence.
std::string bytes_words(double amount) {
  return glue(bytes(amount));
}

std::string ms_words(int64_t ms) {
  return decay_time(std::to_string(ms));
}

std::string per_second(double pages) {
  return human_count(static_cast<uint64_t>(std::llround(pages)));
}

/// Of one CPU.
std::string cpu(double share) {
  const double hundredths = share * 100;
  return hundredths <= 0     ? "0 %"
         : hundredths < 0.01 ? "<0.01 %"
                             : fmt::format("{:.{}f} %", hundredths, hundredths < 10 ? 2 : 0);
}

std::string stall(const std::optional<double>& ns) {
  return ns ? human_ns(static_cast<uint64_t>(*ns)) : "-";
}

std::string settings_words(const Settings& s) {
  return fmt::format("dirty {}, muzzy {}, background threads {}", ms_words(s.dirty_ms), ms_words(s.muzzy_ms),
                     s.background ? "on" : "off");
}

double resident(const Advice& advice, size_t candidate) {
  return advice.candidates[candidate].outcome.mean_resident *
         static_cast<double>(advice.input.activity.page_bytes);
}

/// What recommends a candidate: "M", "B", "L".
std::string marks_of(const Advice& advice, size_t candidate) {
  std::string marks = candidate == advice.current ? "*" : "";
  for (const auto& one : advice.recommendations) {
    if (one.candidate == candidate) {
      marks += one.goal == Goal::memory ? 'M' : one.goal == Goal::balanced ? 'B' : 'L';
    }
  }
  return marks;
}

std::string page_cost(double ns) {
  return glue(fmt::format("{:.0f} ns", ns));
}

std::string watched(const Advice& advice, const TextOptions& options) {
  const advise::Input& in = advice.input;
  std::string out =
      wrap("watched",
           fmt::format("{} (pid {}) for {}, its states every {}", cut_middle(escape(in.comm), 40), in.pid,
                       seconds(in.activity.span_ns()), human_ns(in.period_ns)),
           options.width, label_width);
  out += wrap("now", settings_words(in.current), options.width, label_width);
  const auto origin = [](advise::CostSource source) {
    return source == advise::CostSource::measured ? "measured in it" : "tried on this host";
  };
  return out +
         wrap("costs",
              fmt::format("a page: MADV_FREE {} ({}), MADV_DONTNEED {} ({}), touched again {} (tried on this "
                          "host: threads that wait for each other pay more)",
                          page_cost(in.costs.lazy_ns), origin(in.origins.lazy), page_cost(in.costs.forced_ns),
                          origin(in.origins.forced), page_cost(in.costs.fault_ns)),
              options.width, label_width);
}

std::string count_or_unknown(const std::optional<uint64_t>& count) {
  return count ? glue(human_count(*count)) : "unknown";
}

/// How far the simulator is to be trusted.
std::string fit_text(const Advice& advice, const TextOptions& options) {
  const advise::Fit& fit = advice.fit;
  return wrap(
      "fit",
      fmt::format("with the present settings the simulator says {} resident (measured: {}), {} pages purged "
                  "({}), {} touched again ({}): off by {}{}",
                  bytes_words(fit.simulated_resident_bytes), bytes_words(fit.measured_resident_bytes),
                  glue(human_count(fit.simulated_purged_pages)), count_or_unknown(fit.measured_purged_pages),
                  glue(human_count(fit.simulated_refaulted_pages)),
                  count_or_unknown(fit.measured_refaulted_pages),
                  glue(fmt::format("{:.0f} %", fit.error * 100)),
                  fit.error > 0.25 ? "; take the rest as a hint, and try it with jemtrace sweep" : ""),
      options.width, label_width);
}

/// The front, the present settings and what is recommended, from least memory to most.
std::vector<size_t> worth_showing(const Advice& advice) {
  std::vector<size_t> shown;
  for (size_t i = 0; i < advice.candidates.size(); ++i) {
    if (advice.candidates[i].front || !marks_of(advice, i).empty()) {
      shown.push_back(i);
    }
  }
  std::stable_sort(shown.begin(), shown.end(),
                   [&](size_t a, size_t b) { return resident(advice, a) < resident(advice, b); });
  constexpr size_t most = 16;
  while (shown.size() > most) {
    // The one that is nearest to its neighbour says least.
    size_t nearest = 0;
    double least = -1;
    for (size_t i = 1; i + 1 < shown.size(); ++i) {
      const double gap = resident(advice, shown[i + 1]) - resident(advice, shown[i]);
      if (marks_of(advice, shown[i]).empty() && (least < 0 || gap < least)) {
        least = gap;
        nearest = i;
      }
    }
    if (least < 0) {
      break;
    }
    shown.erase(shown.begin() + static_cast<std::ptrdiff_t>(nearest));
  }
  return shown;
}

std::string candidates_table(const Advice& advice, const TextOptions& options) {
  std::vector<std::vector<std::string>> rows;
  bool at_least = false;
  for (const size_t i : worth_showing(advice)) {
    const Candidate& candidate = advice.candidates[i];
    const Outcome& out = candidate.outcome;
    const char* more = out.at_least ? ">" : "";
    at_least |= out.at_least;
    rows.push_back({marks_of(advice, i), ms_words(candidate.settings.dirty_ms),
                    ms_words(candidate.settings.muzzy_ms), candidate.settings.background ? "on" : "off",
                    bytes(resident(advice, i)),
                    bytes(static_cast<double>(out.peak_resident * advice.input.activity.page_bytes)),
                    more + per_second(static_cast<double>(out.purged()) / out.seconds),
                    more + per_second(static_cast<double>(out.refaulted) / out.seconds),
                    more + cpu(out.cost()), stall(out.stall_p99_ns)});
  }
  std::string out = table({{"", 0, true},
                           {"DIRTY"},
                           {"MUZZY"},
                           {"BG"},
                           {"RESIDENT"},
                           {"PEAK"},
                           {"PURGES/s"},
                           {"REFAULTS/s"},
                           {"CPU"},
                           {"STALL P99"}},
                          rows, options);
  out += dim("RESIDENT: active, dirty and muzzy; the kernel is taken not to reclaim. PURGES/s,", options) +
         '\n' +
         dim("REFAULTS/s: pages. CPU: of one, for both. STALL: a decay pass on a thread of the", options) +
         '\n' + dim("program. * now; recommended for M memory, B balance, L latency.", options) + '\n';
  if (at_least) {
    out += dim("> At least: with 0 all that is freed and taken again between two readings counts.", options) +
           '\n';
  }
  return out;
}

/// Resident memory against CPU, which grows by powers of ten.
class Plot {
 public:
  static constexpr size_t columns = 62, lines = 12;
  static constexpr double least_cpu = 1e-5, decades = 5;  // 0.001 % to 100 %

  explicit Plot(const Advice& advice) : advice_(advice) {
    for (size_t i = 0; i < advice.candidates.size(); ++i) {
      low_ = i == 0 ? resident(advice, i) : std::min(low_, resident(advice, i));
      high_ = std::max(high_, resident(advice, i));
    }
    for (auto& line : canvas_) {
      line.assign(columns, ' ');
    }
    for (const int rank : {0, 1, 2, 3}) {
      for (size_t i = 0; i < advice.candidates.size(); ++i) {
        draw(i, rank);
      }
    }
  }

  [[nodiscard]] std::string text() const {
    std::string out;
    for (size_t line = 0; line < lines; ++line) {
      const bool labelled = line == 0 || line + 1 == lines || line == lines / 2;
      const double value = high_ - (high_ - low_) * static_cast<double>(line) / (lines - 1);
      std::string row = pad_left(labelled ? bytes(value) : "", 10) + " |" + canvas_[line];
      row.erase(row.find_last_not_of(' ') + 1);
      out += row + '\n';
    }
    out += std::string(11, ' ') + '+' + std::string(columns, '-') + '\n' + std::string(11, ' ');
    std::string axis(columns + 8, ' ');
    const std::array<const char*, 6> ticks = {"0.001 %", "0.01 %", "0.1 %", "1 %", "10 %", "100 %"};
    for (size_t i = 0; i < ticks.size(); ++i) {
      const std::string tick = ticks[i];
      const size_t at = std::min(1 + i * (columns - 1) / 5, columns + 1 - tick.size());
      axis.replace(at, tick.size(), tick);
    }
    axis.erase(axis.find_last_not_of(' ') + 1);
    return out + axis + '\n';
  }

 private:
  void draw(size_t i, int rank) {
    const std::string marks = marks_of(advice_, i);
    const std::string goals = marks.empty() || marks.front() != '*' ? marks : marks.substr(1);
    const int own = !goals.empty() ? 2 : !marks.empty() ? 3 : advice_.candidates[i].front ? 1 : 0;
    if (own != rank) {
      return;
    }
    const char mark = rank == 3 ? '*' : rank == 2 ? goals.front() : rank == 1 ? 'o' : '.';
    const double cost = std::max(advice_.candidates[i].outcome.cost(), least_cpu);
    const double x = std::clamp(std::log10(cost / least_cpu) / decades, 0.0, 1.0);
    const double y = high_ > low_ ? (high_ - resident(advice_, i)) / (high_ - low_) : 1;
    const auto line = static_cast<size_t>(std::lround(y * (lines - 1)));
    const auto column = static_cast<size_t>(std::lround(x * (columns - 1)));
    canvas_.at(line).at(column) = mark;
  }

  const Advice& advice_;
  double low_ = 0, high_ = 0;
  std::array<std::string, lines> canvas_;
};

std::string recommendations_text(const Advice& advice, const TextOptions& options) {
  std::string out;
  const Outcome& now = advice.candidates[advice.current].outcome;
  for (const auto& one : advice.recommendations) {
    const Outcome& then = advice.candidates[one.candidate].outcome;
    const bool latency = one.goal == Goal::latency;
    const std::string change = fmt::format(
        "holds {} (now {}) for {} of a CPU{} (now {})", bytes_words(resident(advice, one.candidate)),
        bytes_words(resident(advice, advice.current)), glue(cpu(latency ? then.app_cost() : then.cost())),
        latency ? " of the program's threads" : "", glue(cpu(latency ? now.app_cost() : now.cost())));
    out += wrap(name(one.goal), one.keep ? "stay with the present settings" : change, options.width,
                label_width);
    if (!one.keep) {
      out += "  " + escape(one.conf) + '\n';  // to be copied: never broken
    }
  }
  return out;
}

std::string rhythm_text(const advise::Rhythm& rhythm, const TextOptions& options) {
  std::string text = fmt::format("every {:.1f} s; active memory goes from {} to {}", rhythm.period_s,
                                 bytes_words(static_cast<double>(rhythm.low_bytes)),
                                 bytes_words(static_cast<double>(rhythm.high_bytes)));
  if (rhythm.gives_back_ms) {
    text += fmt::format(
        "; with dirty_decay_ms of {} or less a batch's memory goes back in between, and is faulted "
        "in by the next one",
        *rhythm.gives_back_ms);
  }
  if (rhythm.keeps_ms) {
    text += fmt::format("; with {} or more the next batch finds it still there", *rhythm.keeps_ms);
  }
  return wrap("batches", text, options.width, label_width);
}

std::string relative(double predicted, double measured) {
  return measured <= 0 ? "-" : fmt::format("{:+.0f} %", (predicted - measured) / measured * 100);
}

}  // namespace

std::string advice_text(const Advice& advice, const TextOptions& options) {
  std::string out = "\n" + watched(advice, options) + fit_text(advice, options);
  for (const std::string& why : advice.futile) {
    out += wrap("no help", why, options.width, label_width);
  }
  if (advice.rhythm) {
    out += rhythm_text(*advice.rhythm, options);
  }
  for (const std::string& caveat : advice.input.caveats) {
    out += wrap("but", caveat, options.width, label_width);
  }
  if (advice.recommendations.empty()) {
    return out;
  }
  out += '\n' + candidates_table(advice, options);
  out += fmt::format("\n{}\n{}{}\n", bold("RESIDENT against CPU (o: nothing needs less of both)", options),
                     Plot(advice).text(), dim("           CPU, of one", options));
  return out + '\n' + recommendations_text(advice, options);
}

std::string sweep_text(const advise::SweepReport& report, const TextOptions& options) {
  std::vector<std::vector<std::string>> rows;
  for (const advise::Trial& trial : report.trials) {
    const advise::Measured& m = trial.measured;
    const bool ran = trial.runs > 0;
    const auto cell = [&](std::string text) { return ran ? std::move(text) : std::string("-"); };
    rows.push_back({ms_words(trial.settings.dirty_ms), ms_words(trial.settings.muzzy_ms),
                    trial.settings.background ? "on" : "off", cell(bytes(m.mean_rss_bytes)),
                    bytes(trial.predicted_rss_bytes), cell(bytes(static_cast<double>(m.max_rss_bytes))),
                    cell(fmt::format("{:.2f} s", trial.cpu_s)),
                    cell(human_ns(static_cast<uint64_t>(m.app_purge_ns + m.background_purge_ns))),
                    cell(count_or_unknown(m.refaulted_pages)),
                    trial.predicted ? human_count(trial.predicted->refaulted) : "-",
                    ran ? relative(trial.predicted_rss_bytes, m.mean_rss_bytes) : "-"});
  }
  std::string out =
      fmt::format("{}: {} runs of each setting, given in {}\n\n", escape(report.comm),
                  report.trials.empty() ? 0 : report.trials.front().runs, escape(report.conf_variable));
  out += table({{"DIRTY"},
                {"MUZZY"},
                {"BG"},
                {"RSS"},
                {"(PRED)"},
                {"MAX"},
                {"CPU", 0, false, 1},
                {"PURGING"},
                {"REFAULTS"},
                {"(PRED)"},
                {"OFF", 0, false, 2}},
               rows, options);
  out += dim("RSS: mean. (PRED): predicted from two runs. PURGING: time in madvise. REFAULTS:", options) +
         '\n' + dim("pages purged and touched again. OFF: by how much the predicted RSS is off.", options) +
         '\n';
  for (const std::string& caveat : report.caveats) {
    out += wrap("but", caveat, options.width, label_width);
  }
  return out;
}

}  // namespace jemtrace::render
