#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>

#include "render/output.hpp"
#include "samples.hpp"
#include "schema_check.hpp"

namespace jemtrace::render {
namespace {

using Json = nlohmann::ordered_json;  // the order of keys is part of the contract

std::vector<Json> lines_of(const std::function<void(Output&)>& print) {
  StringSink sink;
  print(*make_ndjson(sink));
  std::vector<Json> lines;
  std::istringstream text(sink.text());
  for (std::string line; std::getline(text, line);) {
    lines.push_back(Json::parse(line));  // throws on bad UTF-8, too
  }
  return lines;
}

Json line_of(const std::function<void(Output&)>& print) {
  const std::vector<Json> lines = lines_of(print);
  EXPECT_EQ(lines.size(), 1u);
  return lines.at(0);
}

std::vector<std::string> keys(const Json& object) {
  std::vector<std::string> all;
  for (const auto& [key, value] : object.items()) {
    all.push_back(key);
  }
  return all;
}

DiagnosisReport diagnosis() {
  DiagnosisReport report{.target = samples::target(), .window_ns = 30'000'000'000};
  report.findings.push_back(
      {.id = "LAZYFREE_INFLATED",
       .pid = 4242,
       .severity = ledger::Severity::warning,
       .title = "RSS overstates by 205 MB",
       .evidence = {{"lazyfree", 2.1e8, "bytes", 6.7e7}, {"psi_some_avg10", std::nullopt, "percent", 1.0}},
       .remedy = "Do not free lazily.",
       .settings = {"MALLOC_CONF=\"muzzy_decay_ms:0\""},
       .commands = {"jemtrace diagnose --flush-lazyfree -p 4242"},
       .confidence = 0.9,
       .unmeasured = {"how short memory is"}});
  report.unmeasured = {{"FRAGMENTED", "how much is allocated is not known"}};
  report.purging = PurgeCost{.calls = 3, .bytes = 1 << 20, .time_ns = 30'000, .max_ns = 20'000};
  return report;
}

/// Each line of output, and one of each kind in which all is unknown and all strings are hostile.
void print_everything(Output& out) {
  out.header(samples::header());
  out.header({});
  out.target(samples::target());
  out.target({});
  out.interval(samples::interval());
  out.interval({});
  out.transition(samples::transition_event());
  out.transition(samples::unknown_event());
  out.sweep(samples::sweep_event());
  out.sweep({});
  out.summary(samples::summary());
  out.summary(samples::stripped_summary());
  out.summary({});
  ledger::Summary evil = samples::stripped_summary();
  evil.target.comm = evil.payers[0].comm = evil.callsites[0].image = samples::evil;
  evil.callsites[0].functions = {samples::evil, ""};
  evil.caveats = {samples::evil};
  out.summary(evil);
  out.diagnosis(diagnosis());
  out.diagnosis({});
  DiagnosisReport evil_diagnosis = diagnosis();
  evil_diagnosis.findings[0].title = evil_diagnosis.findings[0].remedy = samples::evil;
  evil_diagnosis.findings[0].settings = {samples::evil};
  evil_diagnosis.unmeasured[0].second = samples::evil;
  out.diagnosis(evil_diagnosis);
  out.flush({.pid = 42, .comm = samples::evil});
  ledger::TargetInfo named = samples::target();
  named.comm = named.exe = named.cgroup = named.images[0].path = named.images[0].version = samples::evil;
  named.conf["stats_print"] = {"true", samples::evil};
  named.conf["percpu_arena"] = {samples::evil, ""};
  out.target(named);
  out.list({{samples::target(), samples::interval().sample}, {{}, {}}});
  out.image(samples::image_report());
  ImageReport image;
  image.path = image.prefix = samples::evil;
  image.missing = {samples::evil};
  image.roles = {{samples::evil, samples::evil, 0, "", {}, "", {}, {samples::evil}}};
  out.image(image);
  out.check(samples::check_items());
  StatsReport stats = samples::stats_report();
  out.stats(stats);
  stats.reading.reset();
  stats.target.comm = stats.unread_because = stats.cgroup->path = samples::evil;
  out.stats(stats);
  out.stats({});
}

TEST(Ndjson, lines_validate_against_the_schema) {
  const SchemaCheck schema(nlohmann::json::parse(json_schema()));
  const std::vector<Json> lines = lines_of(print_everything);
  EXPECT_EQ(lines.size(), 31u);
  for (const Json& line : lines) {
    EXPECT_EQ(schema.errors(nlohmann::json(line)), "");
  }
}

TEST(Ndjson, schema_refuses_what_the_contract_forbids) {
  const SchemaCheck schema(nlohmann::json::parse(json_schema()));
  const auto broken = [&](const std::function<void(nlohmann::json&)>& change) {
    nlohmann::json line = line_of([](Output& out) { out.target(samples::target()); });
    change(line);
    return schema.errors(line);
  };
  EXPECT_EQ(broken([](auto&) {}), "");
  EXPECT_NE(broken([](auto& l) { l.erase("pid"); }), "");
  EXPECT_NE(broken([](auto& l) { l["pid"] = "4242"; }), "");
  EXPECT_NE(broken([](auto& l) { l["pid"] = -1; }), "");
  EXPECT_NE(broken([](auto& l) { l["pid"] = nullptr; }), "");
  EXPECT_NE(broken([](auto& l) { l["surprise"] = 1; }), "");
  EXPECT_NE(broken([](auto& l) { l["type"] = "nothing"; }), "");
  EXPECT_NE(broken([](auto& l) { l["images"][0]["tier"] = "good"; }), "");
  EXPECT_EQ(broken([](auto& l) { l["images"][0]["tier"] = nullptr; }), "");
  EXPECT_NE(broken([](auto& l) { l["conf"]["dirty_decay_ms"] = 500; }), "");
}

TEST(Ndjson, type_comes_first) {
  for (const Json& line : lines_of(print_everything)) {
    EXPECT_EQ(keys(line).front(), "type");
  }
}

TEST(Ndjson, header_has_the_keys_of_the_contract_in_order) {
  const Json line = line_of([](Output& out) { out.header(samples::header()); });
  EXPECT_EQ(keys(line), (std::vector<std::string>{"type", "schema", "jemtrace", "kernel", "host",
                                                  "start_unix_ns", "clock", "command", "start_mono_ns"}));
}

TEST(Ndjson, target_names_its_container) {
  ledger::TargetInfo target = samples::target();
  EXPECT_TRUE(line_of([&](Output& out) { out.target(target); })["container"].is_null());
  target.container = {"cri-o", "4fa6e0f0c678", ""};
  EXPECT_EQ(line_of([&](Output& out) { out.target(target); })["container"].dump(),
            R"({"runtime":"cri-o","id":"4fa6e0f0c678","pod_uid":null})");
}

TEST(Ndjson, transition_has_the_keys_of_the_contract_in_order) {
  const Json line = line_of([](Output& out) { out.transition(samples::transition_event()); });
  EXPECT_EQ(keys(line),
            (std::vector<std::string>{"type", "ts_ns", "pid", "tid", "comm", "payer", "arena", "from",
                                      "from_method", "to", "addr", "bytes", "latency_ns", "syscall", "cause",
                                      "rss_delta_bytes", "errno", "advice", "purpose"}));
  EXPECT_EQ(
      line.dump(),
      R"({"type":"transition","ts_ns":101005000000,"pid":4242,"tid":4250,"comm":"jemalloc_bg_thd",)"
      R"("payer":"background","arena":3,"from":"dirty","from_method":"probe","to":"muzzy","addr":"0x7f0012345000","bytes":262144,)"
      R"("latency_ns":6100,"syscall":"madvise","cause":"background","rss_delta_bytes":-4096,"errno":0,)"
      R"("advice":"MADV_FREE","purpose":"sweep"})");
}

TEST(Ndjson, unknown_is_null_and_a_failure_has_its_errno) {
  const Json line = line_of([](Output& out) { out.transition(samples::unknown_event()); });
  for (const char* key : {"arena", "from", "from_method", "to", "cause", "rss_delta_bytes", "advice"}) {
    EXPECT_TRUE(line[key].is_null()) << key;
  }
  EXPECT_EQ(line["errno"], 22);
  EXPECT_EQ(line["comm"], "\\x1b[2J\\xff\\xfe");
}

TEST(Ndjson, sweep_has_the_keys_of_the_contract_in_order) {
  const Json line = line_of([](Output& out) { out.sweep(samples::sweep_event()); });
  EXPECT_EQ(keys(line), (std::vector<std::string>{"type", "ts_ns", "pid", "tid", "arena", "state", "cause",
                                                  "limit_pages", "extents", "bytes", "latency_ns"}));
}

TEST(Ndjson, summary_has_what_jemalloc_counts) {
  const Json line = line_of([](Output& out) { out.summary(samples::summary()); });
  EXPECT_EQ(line["counters"]["dirty_npurge"], 37);
  EXPECT_EQ(line["counters"]["dirty_nmadvise"], 110);
  EXPECT_EQ(line["counters"]["muzzy_purged"], 5120);
  EXPECT_EQ(line["sweeps"]["dirty"]["count"], 37);
  EXPECT_EQ(line["sweeps"]["dirty"]["by_cause"]["ctl_purge"], 6);
  EXPECT_EQ(line["transitions"]["dirty_muzzy"]["extents_total"], 100);
  EXPECT_EQ(line["transitions"]["dirty_muzzy"]["by_payer"]["background"]["calls_total"], 100);
  EXPECT_EQ(line["transitions"]["dirty_muzzy"]["by_payer"]["app"]["calls_total"], 0);
}

TEST(Ndjson, refaults_are_counted_without_the_pages_that_still_wait) {
  const Json refaults = line_of([](Output& out) { out.summary(samples::summary()); })["refaults"];
  EXPECT_EQ(refaults["purged_pages"], 5760);
  EXPECT_EQ(refaults["followed_pages"], 5000);
  EXPECT_EQ(
      refaults["within_1s"].dump(),
      R"({"touched_pages":100,"touched_max_pages":100,"waiting_pages":0,"share":0.02,"share_min":0.02,"share_max":0.02})");
  EXPECT_EQ(refaults["within_10s"]["touched_pages"], 300);
  // 0.98 of them stay untouched for a second, and of these all but 200 in 4850 for 10 s.
  EXPECT_NEAR(refaults["within_10s"]["share"].get<double>(), 1 - 0.98 * (1 - 200.0 / 4850), 1e-9);
  EXPECT_DOUBLE_EQ(refaults["within_10s"]["share_min"].get<double>(), 300.0 / 5000);
  EXPECT_EQ(refaults["within_60s"]["touched_pages"], 400);
  EXPECT_EQ(refaults["by_from"]["muzzy"].dump(), R"({"followed_pages":4000,"touched_pages":300})");
}

TEST(Ndjson, refaults_are_null_where_they_were_not_measured) {
  EXPECT_TRUE(line_of([](Output& out) { out.summary({}); })["refaults"].is_null());
  ledger::Summary nothing_purged;
  nothing_purged.refaults = ledger::Refaults();
  const Json refaults = line_of([&](Output& out) { out.summary(nothing_purged); })["refaults"];
  EXPECT_TRUE(refaults["sampling_rate"].is_null());
  EXPECT_TRUE(refaults["within_10s"]["share"].is_null());
}

TEST(Ndjson, what_a_program_asked_has_a_name_and_an_age) {
  ledger::Summary s = samples::summary();
  EXPECT_TRUE(line_of([&](Output& out) { out.summary(s); })["asked"].is_null());
  s.asked =
      ledger::Asked{.values = {{"stats.active", 7, 20}, {samples::evil, 8, std::nullopt}}, .compared = 3};
  const Json line = line_of([&](Output& out) { out.summary(s); });
  EXPECT_EQ(SchemaCheck(nlohmann::json::parse(json_schema())).errors(nlohmann::json(line)), "");
  EXPECT_EQ(line["asked"]["values"][0].dump(), R"({"name":"stats.active","value":7,"age_ms":20})");
  EXPECT_TRUE(line["asked"]["values"][1]["age_ms"].is_null());
  EXPECT_EQ(line["asked"]["compared_total"], 3);
}

TEST(Ndjson, a_finding_has_the_keys_of_the_contract_in_order) {
  const Json finding = lines_of([](Output& out) { out.diagnosis(diagnosis()); }).at(0);
  EXPECT_EQ(keys(finding),
            (std::vector<std::string>{"type", "id", "pid", "severity", "title", "evidence", "remedy",
                                      "settings", "commands", "confidence", "unmeasured"}));
  EXPECT_EQ(keys(finding["evidence"][0]), (std::vector<std::string>{"name", "value", "unit", "threshold"}));
  EXPECT_TRUE(finding["evidence"][1]["value"].is_null());
}

TEST(Ndjson, latencies_of_nothing_are_null) {
  const Json line = line_of([](Output& out) { out.summary({}); });
  const Json latency = line["transitions"]["dirty_muzzy"]["latency"];
  EXPECT_EQ(latency.dump(), R"({"count":0,"sum_ns":0,"min_ns":null,"p50_ns":null,"p90_ns":null,)"
                            R"("p99_ns":null,"max_ns":null,"schema":3,"buckets":[]})");
}

// Where Prometheus and OpenTelemetry put it: bucket i holds (2^((i-1)/8), 2^(i/8)] seconds.
TEST(Ndjson, buckets_are_those_of_prometheus_native_histograms) {
  ledger::Summary summary;
  ledger::Histogram& h = summary.totals.transitions[JT_DIRTY_MUZZY].by_payer[JT_PAYER_APP];
  h.record(1'000'000'000, 1, 4096);  // 1 s is the inclusive bound of bucket 0
  h.record(1'000'000'001, 1, 4096);
  h.record(1, 1, 4096);
  h.record(~uint64_t{0} >> 2, 1, 4096);
  const Json line = line_of([&](Output& out) { out.summary(summary); });
  EXPECT_EQ(line["transitions"]["dirty_muzzy"]["by_payer"]["app"]["latency"]["buckets"].dump(),
            "[[-192,1],[0,1],[1,1],[33,1]]");
  const Json interval = line_of([](Output& out) { out.interval(samples::interval()); });
  EXPECT_FALSE(interval["transitions"]["dirty_muzzy"]["latency"].contains("buckets"));
}

TEST(Ndjson, counters_are_null_where_the_source_state_cannot_be_known) {
  const Json line = line_of([](Output& out) { out.summary(samples::stripped_summary()); });
  for (const char* key : {"dirty_npurge", "dirty_nmadvise", "dirty_purged", "muzzy_npurge", "muzzy_nmadvise",
                          "muzzy_purged", "unknown_npurge"}) {
    EXPECT_TRUE(line["counters"][key].is_null()) << key;
  }
  EXPECT_EQ(line["counters"]["unknown_nmadvise"], 12);
  EXPECT_TRUE(line["sweeps"]["dirty"].is_null());
  EXPECT_TRUE(line["sweeps"]["muzzy"].is_null());
  EXPECT_TRUE(line["oversize_extents_total"].is_null());
}

TEST(Ndjson, settings_keep_their_types) {
  ledger::TargetInfo target = samples::target();
  target.conf["muzzy_decay_ms"].value = "-1";
  target.conf["thp"] = {"default", "default of 5.3.0"};
  target.conf.erase("narenas");
  const Json conf = line_of([&](Output& out) { out.target(target); })["conf"];
  EXPECT_EQ(conf["muzzy_decay_ms"]["value"], -1);
  EXPECT_EQ(conf["background_thread"]["value"], true);
  EXPECT_EQ(conf["thp"]["value"], "default");
  EXPECT_TRUE(conf["narenas"].is_null());
}

TEST(Ndjson, list_adds_memory_to_the_target) {
  const Json line = line_of([](Output& out) { out.list({{samples::target(), samples::interval().sample}}); });
  EXPECT_EQ(line["type"], "target");
  EXPECT_EQ(line["rss_bytes"], 1160 * samples::mib);
  EXPECT_EQ(line["lazyfree_bytes"], 205 * samples::mib);
}

}  // namespace
}  // namespace jemtrace::render
