#include "render/diagnosis.hpp"

#include <gtest/gtest.h>

#include <sstream>

#include "render/output.hpp"
#include "render/text_table.hpp"
#include "samples.hpp"

namespace jemtrace::render {
namespace {

std::string print(const DiagnosisReport& report) {
  StringSink sink;
  make_text(sink, {})->diagnosis(report);
  return sink.text();
}

DiagnosisReport inflated() {
  DiagnosisReport report{.target = samples::target(), .window_ns = 30'000'000'000};
  report.findings.push_back({.id = "LAZYFREE_INFLATED",
                             .pid = 4242,
                             .severity = ledger::Severity::warning,
                             .title = "RSS overstates by 205 MB",
                             .evidence = {{"lazyfree", 205.0 * (1 << 20), "bytes", 64.0 * (1 << 20)},
                                          {"psi_some_avg10", std::nullopt, "percent", 1.0}},
                             .remedy = "Set muzzy_decay_ms:0.",
                             .settings = {"MALLOC_CONF=\"muzzy_decay_ms:0\"", "MALLOC_CONF=\"thp:never\""},
                             .commands = {"jemtrace diagnose --flush-lazyfree -p 4242"},
                             .confidence = 0.9,
                             .unmeasured = {"how short memory is"}});
  report.unmeasured = {{"FRAGMENTED", "how much is allocated is not known"}};
  report.purging = PurgeCost{.calls = 3,
                             .bytes = 1 << 20,
                             .time_ns = 30'000,
                             .max_ns = 20'000,
                             .app_calls = 3,
                             .app_time_ns = 30'000,
                             .app_p99_ns = 20'000,
                             .waits = {.lock_ns = 15'000, .locks = 2},
                             .ns_per_page = 117,
                             .baseline_ns_per_page = 103,
                             .touched_again = 0.5};
  return report;
}

TEST(TextDiagnosis, says_what_was_seen_what_to_do_and_how_sure_it_is) {
  const std::string text = print(inflated());
  for (const char* part :
       {"!  RSS overstates by 205 MB\n", "seen       lazyfree 205 MB (limit 64.0 MB)",
        "unknown (limit 1.0 %)", "do         Set muzzy_decay_ms:0.",
        "   next start, one of\n      MALLOC_CONF=\"muzzy_decay_ms:0\"\n      MALLOC_CONF=\"thp:never\"\n",
        "   now\n      jemtrace diagnose --flush-lazyfree -p 4242\n", "not seen   how short memory is",
        "LAZYFREE_INFLATED, 90 % sure", "paid by    3 purges of 1.00 MB took 30 us",
        "waiting    50 % for the mmap lock", "work       117 ns per 4 KiB page; this host takes 103 ns",
        "worth it   50 % of it was touched again",
        "not judged FRAGMENTED (how much is allocated is not known)", "watched    30.0 s"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in\n" << text;
  }
}

TEST(TextDiagnosis, where_nothing_fits_and_nothing_is_known_it_says_so) {
  EXPECT_NE(print({}).find("not enough could be seen to call it healthy"), std::string::npos);
}

TEST(TextDiagnosis, says_of_which_time_the_numbers_of_an_ended_process_are) {
  DiagnosisReport report = inflated();
  EXPECT_EQ(print(report).find("of its last second"), std::string::npos);
  report.exited = true;
  EXPECT_NE(print(report).find("of its last second"), std::string::npos);
}

TEST(TextDiagnosis, is_no_wider_than_80_columns_and_escapes_what_targets_say) {
  DiagnosisReport report = inflated();
  report.findings[0].title = report.findings[0].remedy = report.findings[0].settings[0] = samples::evil;
  report.unmeasured[0].second = std::string(300, 'x');
  report.target.comm = samples::evil;
  report.memory = samples::stats_report();
  std::istringstream lines(print(report));
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(display_width(line), 80u) << line;
    EXPECT_EQ(line.find('\x1b'), std::string::npos) << line;
  }
}

TEST(TextDiagnosis, a_flush_says_what_was_before_and_after) {
  StringSink sink;
  make_text(sink, {})->flush({.pid = 42,
                              .comm = "held",
                              .lazyfree_before_bytes = uint64_t{256} << 20,
                              .lazyfree_after_bytes = 0,
                              .rss_before_bytes = uint64_t{300} << 20,
                              .rss_after_bytes = uint64_t{44} << 20,
                              .advised_bytes = uint64_t{256} << 20,
                              .ranges = 3,
                              .took_ns = 50'000'000});
  EXPECT_NE(sink.text().find("LazyFree 256 MB -> 0 B, RSS 300 MB -> 44.0 MB"), std::string::npos)
      << sink.text();
}

}  // namespace
}  // namespace jemtrace::render
