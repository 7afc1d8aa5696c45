#include "render/words.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <utility>

#include "render/reports.hpp"
#include "util/text.hpp"

namespace jemtrace::render {
namespace {

std::optional<int64_t> whole_number(const std::string& text) {
  int64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  return error == std::errc{} && rest == end && !text.empty() ? std::optional(value) : std::nullopt;
}

}  // namespace

bool sources_known(const ledger::TargetInfo& target) {
  return !target.images.empty() &&
         std::none_of(target.images.begin(), target.images.end(),
                      [](const auto& image) { return image.tier == "syscall" || image.tier == "callsite"; });
}

bool purges_unproven(const ledger::TargetInfo& target) {
  return std::any_of(target.images.begin(), target.images.end(),
                     [](const auto& image) { return image.tier == "syscall"; });
}

std::string setting(const ledger::TargetInfo& target, const char* option) {
  const auto found = target.conf.find(option);
  return found == target.conf.end() ? std::string() : found->second.value;
}

std::string tier_words(const std::string& tier) {
  if (tier == "symbols") {
    return "symbols found";
  }
  if (tier == "recovered") {
    return "stripped: recovered";
  }
  if (tier == "callsite") {
    return "stripped: call sites only";
  }
  if (tier == "syscall") {
    return "stripped: system calls only";
  }
  return "not analysed";
}

// jemalloc writes "5.3.0-0-g<40 digits>": version, commits since its tag, commit.
std::string short_version(const std::string& version) {
  const size_t commits = version.find('-');
  const size_t commit = commits == std::string::npos ? commits : version.find("-g", commits + 1);
  if (commit == std::string::npos) {
    return escape(version);
  }
  const bool released = version.substr(commits, commit - commits) == "-0";
  return escape(released ? version.substr(0, commits) : version.substr(0, commit + 2 + 7));
}

std::string base_name(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  return escape(slash == std::string::npos || slash + 1 == path.size() ? path : path.substr(slash + 1));
}

const char* cause_words(jt_cause cause) {
  static constexpr std::array<const char*, JT_CAUSES> words = {
      "of unknown cause",   "on a tick of malloc or free", "background",          "by arena.<i>.decay",
      "by arena.<i>.purge", "at once (decay time 0)",      "of oversize extents", "at thread exit",
  };
  return words[cause < JT_CAUSES ? cause : JT_CAUSE_UNKNOWN];
}

const char* loss_words(jt_loss loss) {
  static constexpr std::array<const char*, JT_LOSSES> words = {
      "events (ring full)",
      "process events (ring full; /proc was scanned again)",
      "updates of full tables",
      "calls without storage",
      "calls that began before tracing",
      "unread stacks (purpose unknown)",
      "unread address lists of process_madvise",
      "unread caches (source unknown)",
      "unread RSS counters",
      "processes or images beyond the limit",
      "runs of a program that the kernel skipped",
  };
  return loss < JT_LOSSES ? words[loss] : "of an unknown kind";
}

std::string advice_name(int advice) {
  static constexpr std::array<std::pair<int, const char*>, 13> names = {{
      {3, "MADV_WILLNEED"},
      {4, "MADV_DONTNEED"},
      {8, "MADV_FREE"},
      {9, "MADV_REMOVE"},
      {12, "MADV_MERGEABLE"},
      {14, "MADV_HUGEPAGE"},
      {15, "MADV_NOHUGEPAGE"},
      {16, "MADV_DONTDUMP"},
      {17, "MADV_DODUMP"},
      {20, "MADV_COLD"},
      {21, "MADV_PAGEOUT"},
      {23, "MADV_POPULATE_WRITE"},
      {25, "MADV_COLLAPSE"},
  }};
  for (const auto& [number, text] : names) {
    if (number == advice) {
      return text;
    }
  }
  return fmt::format("advice {}", advice);
}

std::string call_name(jt_syscall syscall, int advice) {
  return syscall == JT_SYS_MADVISE || syscall == JT_SYS_PROCESS_MADVISE ? advice_name(advice)
                                                                        : ledger::name(syscall);
}

std::string bytes_or_dash(const ledger::Maybe<uint64_t>& bytes) {
  return bytes ? human_bytes(*bytes) : "-";
}

std::string bytes_or_dash(const ledger::Maybe<ledger::Sampled>& bytes) {
  return bytes ? human_bytes(bytes->value) : "-";
}

std::string percent(uint64_t part, uint64_t whole) {
  if (part == 0 || whole == 0) {
    return "0 %";
  }
  const double share = 100.0 * static_cast<double>(part) / static_cast<double>(whole);
  if (share < 1) {
    return "<1 %";
  }
  if (part < whole && share > 99) {
    return ">99 %";
  }
  return fmt::format("{:.0f} %", share);
}

std::string seconds(uint64_t ns) {
  if (ns < 60'000'000'000) {
    return fmt::format("{:.1f} s", static_cast<double>(ns) / 1e9);
  }
  const uint64_t s = ns / 1'000'000'000;
  if (s < 3600) {
    return fmt::format("{} min {} s", s / 60, s % 60);
  }
  return fmt::format("{} h {} min", s / 3600, s / 60 % 60);
}

std::string decay_time(const std::string& ms) {
  const auto value = whole_number(ms);
  if (!value) {
    return ms.empty() ? "-" : escape(ms);
  }
  if (*value < 0) {
    return "never";
  }
  if (*value == 0) {
    return "0";
  }
  return *value % 1000 == 0 ? fmt::format("{} s", *value / 1000) : fmt::format("{} ms", *value);
}

std::string size_words(const std::string& bytes) {
  constexpr int64_t mib = int64_t{1} << 20;
  const auto value = whole_number(bytes);
  if (!value || *value < 0) {
    return escape(bytes);
  }
  return *value >= mib && *value % mib == 0 ? fmt::format("{} MiB", *value / mib)
                                            : human_bytes(static_cast<uint64_t>(*value));
}

const char* name(CheckStatus status) {
  switch (status) {
    case CheckStatus::ok:
      return "ok";
    case CheckStatus::warn:
      return "warn";
    case CheckStatus::fail:
      break;
  }
  return "fail";
}

std::string what_missing_costs(const std::string& role) {
  const auto has = [&](const char* part) { return role.find(part) != std::string::npos; };
  if (has("evict")) {
    return "which cache a range came from (dirty or muzzy) and its arena stay unknown";
  }
  if (has("decay_to_limit")) {
    return "sweeps and their causes are not seen";
  }
  if (has("maximally_purge") || has("extent_record")) {
    return "oversize extents purged inside free() are not told from other purges";
  }
  if (has("purge_lazy") || has("purge_forced")) {
    return "purges are not told from other calls of the same advice";
  }
  if (has("dalloc") || has("unmap") || has("destroy")) {
    return "why memory was unmapped stays unknown";
  }
  if (has("zero")) {
    return "zero fills are not told from purges";
  }
  return "system calls made through it may stay unclassified";
}

}  // namespace jemtrace::render
