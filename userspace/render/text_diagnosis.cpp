#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "render/text_parts.hpp"
#include "render/words.hpp"
#include "util/text.hpp"

namespace jemtrace::render {
namespace {

using ledger::Evidence;
using ledger::Finding;

constexpr size_t indent = 3 + label_width;

std::string number_text(double value, const std::string& unit) {
  const auto whole = [&] { return static_cast<uint64_t>(std::llround(std::max(0.0, value))); };
  if (unit == "bytes") {
    return human_bytes(whole());
  }
  if (unit == "ns") {
    return human_ns(whole());
  }
  if (unit == "percent") {
    return fmt::format("{:.{}f} %", value, value < 10 && value > 0 ? 1 : 0);
  }
  const std::string number = value == std::floor(value) ? human_count(whole()) : fmt::format("{:.2f}", value);
  return unit == "count" ? number : fmt::format("{} {}", number, unit);
}

/// "lazyfree_on_host" -> "lazyfree on host"
std::string words_of(std::string name) {
  std::replace(name.begin(), name.end(), '_', ' ');
  return name;
}

std::string evidence_text(const Evidence& evidence) {
  std::string out = words_of(evidence.name) + ' ' +
                    (evidence.value ? number_text(*evidence.value, evidence.unit) : "unknown");
  if (evidence.threshold) {
    out += fmt::format(" (limit {})", number_text(*evidence.threshold, evidence.unit));
  }
  return glue(out);
}

std::string mark(const Finding& finding) {
  switch (finding.severity) {
    case ledger::Severity::critical:
      return "!!";
    case ledger::Severity::warning:
      return "! ";
    case ledger::Severity::info:
      return "i ";
    case ledger::Severity::ok:
      break;
  }
  return "  ";
}

/// To be copied, so neither broken nor cut.
std::string whole_lines(const std::string& label, const std::vector<std::string>& lines) {
  std::string out = lines.empty() ? "" : label + '\n';
  for (const std::string& line : lines) {
    out += "      " + escape(line) + '\n';
  }
  return out;
}

std::string finding_text(const Finding& finding, const TextOptions& options) {
  std::string title = finding.title;
  if (!title.empty() && title[0] >= 'a' && title[0] <= 'z') {
    title[0] = static_cast<char>(title[0] - 'a' + 'A');
  }
  std::string out = bold(wrap(mark(finding) + " ", escape(title), options.width, 3), options);
  std::string evidence;
  for (const Evidence& one : finding.evidence) {
    evidence += (evidence.empty() ? "" : ", ") + evidence_text(one);
  }
  out += wrap("   seen", evidence, options.width, indent);
  out += wrap("   do", escape(finding.remedy), options.width, indent);
  out +=
      whole_lines(finding.settings.size() > 1 ? "   next start, one of" : "   next start", finding.settings);
  out += whole_lines("   now", finding.commands);
  if (!finding.unmeasured.empty()) {
    std::string unseen;
    for (const std::string& one : finding.unmeasured) {
      unseen += (unseen.empty() ? "" : "; ") + escape(one);
    }
    out += wrap("   not seen", unseen, options.width, indent);
  }
  return out +
         wrap("   id",
              fmt::format("{}, {}", finding.id, glue(fmt::format("{:.0f} % sure", finding.confidence * 100))),
              options.width, indent);
}

double share(uint64_t part, uint64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0;
}

std::string purge_text(const PurgeCost& cost, uint64_t window_ns, const TextOptions& options) {
  const auto line = [&](const char* label, const std::string& words) {
    return wrap(label, words, options.width, label_width);
  };
  if (cost.calls == 0) {
    return line("paid by", fmt::format("nobody: nothing was purged in {}", glue(seconds(window_ns))));
  }
  std::string out =
      line("paid by", fmt::format("{} purge{} of {} took {}, {} of a CPU; the program's own threads {}{}",
                                  glue(human_count(cost.calls)), cost.calls == 1 ? "" : "s",
                                  glue(human_bytes(cost.bytes)), glue(human_ns(cost.time_ns)),
                                  glue(fmt::format("{:.2f} %", 100 * share(cost.time_ns, window_ns))),
                                  glue(percent(cost.app_time_ns, cost.time_ns)),
                                  cost.app_calls > 0 ? (cost.app_calls < 100 ? ", the slowest of their calls "
                                                                             : ", 1 in 100 of their calls ") +
                                                           glue(human_ns(cost.app_p99_ns)) + " or more"
                                                     : ""));
  if (cost.oversize_calls > 0) {
    out += line("", fmt::format("{} of it in free(), of oversize extents",
                                glue(percent(cost.oversize_time_ns, cost.time_ns))));
  }
  out += line("waiting",
              cost.waits.lock_ns
                  ? fmt::format("{} for the mmap lock{}", glue(percent(*cost.waits.lock_ns, cost.time_ns)),
                                cost.waits.locks == uint64_t{0} ? ", which no purge took" : "")
                  : std::string("for the mmap lock: unknown, this kernel does not tell"));
  if (cost.waits.reclaims.value_or(0) > 0) {
    out += line("",
                fmt::format("its threads reclaimed memory {} times, for {}",
                            glue(human_count(*cost.waits.reclaims)), glue(human_ns(*cost.waits.reclaim_ns))));
  }
  if (cost.ns_per_page) {
    std::string work = glue(fmt::format("{:.0f} ns", *cost.ns_per_page)) + " per 4 KiB page";
    if (cost.baseline_ns_per_page) {
      work += fmt::format("; this host takes {} for one alone",
                          glue(fmt::format("{:.0f} ns", *cost.baseline_ns_per_page)));
    }
    if (cost.waits.remote_flushes) {
      work += fmt::format("; {} interrupts of other CPUs a call",
                          glue(fmt::format("{:.2f}", share(*cost.waits.remote_flushes, cost.calls))));
    }
    out += line("work", work);
  }
  return out + line("worth it",
                    cost.touched_again
                        ? fmt::format("{} of it was touched again within 10 s",
                                      glue(fmt::format("{:.0f} %", *cost.touched_again * 100)))
                        : std::string("unknown: the pages have not had their 10 s, or were not followed"));
}

}  // namespace

const char* name(ledger::Severity severity) {
  switch (severity) {
    case ledger::Severity::ok:
      return "ok";
    case ledger::Severity::info:
      return "info";
    case ledger::Severity::warning:
      return "warning";
    case ledger::Severity::critical:
      return "critical";
  }
  return "info";
}

std::string diagnosis_text(const DiagnosisReport& report, const TextOptions& options) {
  std::string out = target_text(report.target, options) + '\n';
  for (const Finding& finding : report.findings) {
    out += finding_text(finding, options) + '\n';
  }
  if (report.findings.empty()) {
    out += wrap("", "No diagnosis fits, and not enough could be seen to call it healthy.", options.width, 0) +
           '\n';
  }
  if (report.memory) {
    out += bold("Why is RSS high?", options) + '\n' + stats_text(*report.memory, options) + '\n';
  }
  if (!report.memory && report.exited) {
    out +=
        wrap("",
             "It ended before its last look: what is said of its memory is of its last second, and where RSS "
             "was cannot be shown.",
             options.width, 0) +
        '\n';
  }
  if (report.lazily_taken_bytes.value_or(0) > 0) {
    out += wrap("taken back",
                fmt::format("the kernel took {} of what was freed lazily",
                            glue(human_bytes(*report.lazily_taken_bytes))),
                options.width, label_width) +
           '\n';
  }
  if (report.purging) {
    out +=
        bold("Why is purging slow?", options) + '\n' + purge_text(*report.purging, report.window_ns, options);
  }
  const bool healthy = !report.findings.empty() && report.findings.front().severity == ledger::Severity::ok;
  if (!report.unmeasured.empty() && !healthy) {
    std::string words;
    for (const auto& [id, because] : report.unmeasured) {
      words += fmt::format("{}{} ({})", words.empty() ? "" : "; ", id, escape(because));
    }
    out += wrap("not judged", words, options.width, label_width);
  }
  return out + wrap("watched", glue(seconds(report.window_ns)) + (report.exited ? ", until it ended" : ""),
                    options.width, label_width);
}

std::string flush_text(const FlushReport& report, const TextOptions& options) {
  std::string out = fmt::format(
      "{} ({}): LazyFree {} -> {}, RSS {} -> {}", cut_middle(escape(report.comm), 40), report.pid,
      glue(bytes_or_dash(report.lazyfree_before_bytes)), glue(bytes_or_dash(report.lazyfree_after_bytes)),
      glue(human_bytes(report.rss_before_bytes)), glue(human_bytes(report.rss_after_bytes)));
  if (report.advised_bytes == 0) {
    return wrap("", out + ". Nothing of jemalloc's was freed lazily.", options.width, 0);
  }
  return wrap("",
              out + fmt::format(". The kernel looked at {} in {} ranges, in {}.",
                                glue(human_bytes(report.advised_bytes)), human_count(report.ranges),
                                glue(human_ns(report.took_ns))),
              options.width, 0);
}

}  // namespace jemtrace::render
