// What jemtrace prints is read back and adds up: through the real writer, as the files of two hosts would be.
#include "record/summaries.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>

#include "../render/samples.hpp"
#include "../render/schema_check.hpp"
#include "render/output.hpp"

namespace jemtrace::record {
namespace {

using ledger::Fleet;
using ledger::GroupKind;
using ::testing::HasSubstr;
namespace samples = render::samples;

Result<Summaries> read(const std::string& text) {
  std::FILE* file = ::fmemopen(const_cast<char*>(text.data()), text.size(), "r");
  auto result = read_summaries(file, "host.ndjson");
  std::fclose(file);
  return result;
}

std::string error_of(const std::string& text) {
  const auto result = read(text);
  return result ? "" : result.error().message();
}

struct Host {
  std::string name = "a";
  int64_t start_unix_ns = 1'700'000'000'000'000'000;
  std::string tier = "symbols", cgroup = "/web", version = "5.3.0-0-g54eaed1d";
  uint64_t latency_ns = 10'000;
  unsigned calls = 100;
};

/// The NDJSON of one run: one process with so many calls of dirty -> retained, half of them paid by the
/// program.
std::string run_of(const Host& host) {
  render::StringSink sink;
  const auto out = render::make_ndjson(sink);
  ledger::Header header = samples::header();
  header.host = host.name;
  header.start_unix_ns = host.start_unix_ns;
  out->header(header);
  ledger::Summary summary = samples::summary(host.tier);
  summary.target.cgroup = host.cgroup;
  summary.target.images[0].version = host.version;
  out->target(summary.target);
  out->interval(samples::interval());
  for (unsigned i = 0; i < host.calls; ++i) {
    const jt_payer payer = i % 2 == 0 ? JT_PAYER_APP : JT_PAYER_BACKGROUND;
    summary.totals.transitions[JT_DIRTY_RETAINED].by_payer[payer].record(host.latency_ns + i, 2, 8192);
  }
  out->summary(summary);
  return sink.text();
}

std::string merged_lines(const Fleet& fleet) {
  render::StringSink sink;
  render::make_ndjson(sink)->merged(fleet);
  return sink.text();
}

Fleet fleet_of(const std::vector<std::string>& files) {
  Fleet fleet;
  for (const std::string& file : files) {
    const auto one = read(file);
    EXPECT_TRUE(one) << one.error().message();
    const auto merged = fleet.merge(one->fleet);
    EXPECT_TRUE(merged) << merged.error().message();
  }
  return fleet;
}

const std::string a = run_of({.name = "a"});
const std::string b =
    run_of({.name = "b", .cgroup = "/db", .version = "5.2.1", .latency_ns = 900'000, .calls = 7});
const std::string c = run_of({.name = "c", .tier = "syscall", .latency_ns = 40});

TEST(Merge, adds_every_bucket_of_every_transition) {
  const Fleet fleet = fleet_of({a, b});
  ledger::Transitions expected = samples::summary().totals.transitions;
  for (auto& totals : expected) {
    for (auto& part : totals.by_payer) {
      part.merge(ledger::Histogram(part));  // a and b start from the same sample
    }
  }
  for (const auto& [latency_ns, calls] : {std::pair(10'000, 100), std::pair(900'000, 7)}) {
    for (int i = 0; i < calls; ++i) {
      expected[JT_DIRTY_RETAINED].by_payer[i % 2].record(static_cast<uint64_t>(latency_ns + i), 2, 8192);
    }
  }
  for (unsigned t = 0; t < JT_TRANSITIONS; ++t) {
    for (unsigned p = 0; p < JT_PAYERS; ++p) {
      const jt_hist& got = fleet.transitions[t].by_payer[p].raw();
      EXPECT_EQ(std::memcmp(&got, &expected[t].by_payer[p].raw(), sizeof got), 0) << t << " " << p;
    }
  }
  EXPECT_EQ(fleet.transitions[JT_DIRTY_RETAINED].total().quantile_ns(0.99),
            expected[JT_DIRTY_RETAINED].total().quantile_ns(0.99));
}

TEST(Merge, is_the_same_in_any_order_and_grouping) {
  const std::string all = merged_lines(fleet_of({a, b, c}));
  EXPECT_EQ(merged_lines(fleet_of({c, a, b})), all);
  EXPECT_EQ(merged_lines(fleet_of({merged_lines(fleet_of({a, b})), c})), all);
  EXPECT_EQ(merged_lines(fleet_of({a, merged_lines(fleet_of({b, c}))})), all);
  EXPECT_EQ(merged_lines(fleet_of({all})), all);
  EXPECT_EQ(merged_lines(fleet_of({a + b + c})), all);  // one file with several runs
}

TEST(Merge, counts_by_host_cgroup_and_version) {
  const Fleet fleet = fleet_of({a, b, c});
  EXPECT_EQ(fleet.processes, 3u);
  EXPECT_EQ(fleet.hosts(), 3u);
  EXPECT_EQ(fleet.groups(GroupKind::host).size(), 3u);
  EXPECT_EQ(fleet.groups(GroupKind::cgroup).at("/web").processes, 2u);
  EXPECT_EQ(fleet.groups(GroupKind::version).at("5.3.0").processes, 2u);
  EXPECT_EQ(fleet.groups(GroupKind::version).at("5.2.1").processes, 1u);
  uint64_t calls = 0;
  for (const auto& [host, group] : fleet.groups(GroupKind::host)) {
    calls += group.purges.count();
  }
  uint64_t expected = 0;
  for (const auto& totals : fleet.transitions) {
    expected += totals.total().count();
  }
  EXPECT_EQ(calls, expected);
}

TEST(Merge, of_something_unknown_is_a_lower_bound_that_says_so) {
  const Fleet fleet = fleet_of({a, c});  // of c only system calls are known
  const ledger::PartialSum npurge = fleet.counters.decay[JT_STATE_DIRTY].npurge;
  EXPECT_EQ(npurge.parts, 2u);
  EXPECT_EQ(npurge.unknown, 1u);
  EXPECT_EQ(npurge.sum, samples::summary().totals.counters.decay[JT_STATE_DIRTY].npurge);
  EXPECT_FALSE(fleet_of({c}).counters.decay[JT_STATE_DIRTY].npurge.known());
  const auto line =
      nlohmann::json::parse(merged_lines(fleet_of({c})).substr(0, merged_lines(fleet_of({c})).find('\n')));
  EXPECT_TRUE(line["counters"]["dirty_npurge"]["sum"].is_null());
  render::StringSink text;
  render::make_text(text, {})->merged(fleet);
  EXPECT_THAT(text.text(), HasSubstr("(unknown in 1 of 2"));
}

TEST(Merge, takes_the_losses_of_a_run_once) {
  render::StringSink sink;
  const auto out = render::make_ndjson(sink);
  out->header(samples::header());
  ledger::Summary summary = samples::summary();
  for (const uint64_t lost : {3, 5}) {  // of the whole host, and growing: not 8
    summary.losses.fill(0);
    summary.losses[JT_LOSS_RING] = lost;
    summary.losses[JT_LOSS_MISSED_RUN].reset();
    summary.window_ns += 1;
    out->target(summary.target);
    out->summary(summary);
  }
  const Fleet fleet = fleet_of({sink.text()});
  EXPECT_EQ(fleet.losses()[JT_LOSS_RING].sum, 5u);
  EXPECT_EQ(fleet.losses()[JT_LOSS_MISSED_RUN].unknown, 1u);
}

TEST(Merge, lines_validate_against_the_schema) {
  const render::SchemaCheck schema(nlohmann::json::parse(render::json_schema()));
  std::istringstream lines(merged_lines(fleet_of({a, b, c})) + merged_lines({}));
  size_t count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    EXPECT_EQ(schema.errors(nlohmann::json::parse(line)), "");
  }
  EXPECT_EQ(count, 1u + 3 + 3 + 2 + 2 + 1);
}

TEST(Merge, refuses_a_run_that_was_counted_already) {
  Fleet fleet = fleet_of({a, b});
  const auto again = fleet.merge(fleet_of({a}));
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, Errc::usage);
  EXPECT_THAT(again.error().message(), HasSubstr("host a"));
  EXPECT_EQ(fleet.processes, 2u);
  EXPECT_FALSE(
      fleet.merge(fleet_of({merged_lines(fleet_of({b, c}))})));  // also when it is inside of a merged file
  EXPECT_THAT(error_of(a + a), HasSubstr("counted already"));
}

TEST(Merge, sees_runs_of_a_host_that_overlap) {
  const uint64_t window = samples::summary().window_ns;
  const Host first{.name = "a"};
  Host second = first;
  second.start_unix_ns += static_cast<int64_t>(window) - 1;
  EXPECT_EQ(fleet_of({run_of(first), run_of(second), b}).overlaps(10).size(), 1u);
  second.start_unix_ns += 1;
  EXPECT_TRUE(fleet_of({run_of(first), run_of(second), b}).overlaps(10).empty());
}

TEST(Merge, refuses_sums_that_do_not_fit) {
  ledger::Fleet one;
  one.processes = ~uint64_t{0};
  EXPECT_TRUE(one.merge({}));
  ledger::Fleet two;
  two.processes = 1;
  EXPECT_FALSE(one.merge(two));
  jt_hist huge{};
  huge.buckets[3] = ~uint64_t{0};
  ledger::Histogram to((jt_hist{}));
  EXPECT_TRUE(add(to, ledger::Histogram(huge)));
  EXPECT_FALSE(add(to, ledger::Histogram(huge)));
}

TEST(ReadSummaries, names_file_and_line_of_what_is_wrong) {
  EXPECT_EQ(error_of("{}\n"), "host.ndjson:1: not a line of jemtrace: no \"type\"");
  EXPECT_EQ(error_of(a + "\xff\n"),
            fmt::format("host.ndjson:{}: not JSON", std::count(a.begin(), a.end(), '\n') + 1));
  EXPECT_THAT(error_of(std::string("\0\0\n", 3)), HasSubstr("host.ndjson:1: "));
  EXPECT_THAT(error_of(""), HasSubstr("no run of jemtrace"));
  EXPECT_THAT(error_of("\n"), HasSubstr("no run of jemtrace"));
  EXPECT_THAT(error_of(std::string(100, '[') + "\n"), HasSubstr("brackets in brackets"));
  EXPECT_THAT(error_of(std::string(max_line_bytes + 1, ' ') + "\n"),
              HasSubstr("host.ndjson:1: a line of more than 4 MiB"));
  EXPECT_THAT(error_of("{\"type\":7}\n"), HasSubstr("no \"type\""));
  EXPECT_THAT(error_of("{\"type\":\"merged_run\"}\n"), HasSubstr("without the line"));
  EXPECT_THAT(error_of(a.substr(a.find('\n') + 1)), HasSubstr("before any header"));
}

TEST(ReadSummaries, passes_over_what_it_does_not_know) {
  const Fleet fleet =
      fleet_of({a + "{\"type\":\"of_the_future\",\"x\":[1]}\n\n{\"type\":\"transition\",garbage}\n"});
  EXPECT_EQ(fleet.processes, 1u);
}

TEST(ReadSummaries, takes_what_came_before_the_cut) {
  for (const size_t cut : {size_t{5}, a.size() / 3, a.size() - 2}) {
    const auto result = read(b + a.substr(0, cut));
    ASSERT_TRUE(result) << result.error().message();
    EXPECT_EQ(result->fleet.processes, 1u);
    EXPECT_THAT(result->warnings, ::testing::Contains(HasSubstr("cut off here"))) << cut;
  }
  const auto whole_line = read(b + a.substr(0, a.find('\n') + 1));
  ASSERT_TRUE(whole_line);
  EXPECT_THAT(whole_line->warnings, ::testing::Contains(HasSubstr("ends without any summary")));
  const auto no_newline = read(a.substr(0, a.size() - 1));
  ASSERT_TRUE(no_newline);
  EXPECT_TRUE(no_newline->warnings.empty());
  const std::string merged = merged_lines(fleet_of({a, b}));
  const auto cut_merged = read(merged.substr(0, merged.find('\n') + 1));
  ASSERT_FALSE(cut_merged && cut_merged->warnings.empty());
}

/// The last line of `a`, changed.
std::string with_summary(const std::function<void(nlohmann::json&)>& change) {
  const size_t at = a.rfind('\n', a.size() - 2) + 1;
  auto line = nlohmann::json::parse(a.substr(at));
  change(line);
  return a.substr(0, at) + line.dump() + "\n";
}

TEST(ReadSummaries, refuses_fields_of_the_wrong_kind) {
  using Json = nlohmann::json;
  const auto refused = [](const std::function<void(Json&)>& change) {
    return error_of(with_summary(change));
  };
  EXPECT_EQ(refused([](Json&) {}), "");
  EXPECT_THAT(refused([](Json& l) { l.erase("transitions"); }), HasSubstr("no \"transitions\""));
  EXPECT_THAT(refused([](Json& l) { l["transitions"] = 3; }), HasSubstr("is no object"));
  EXPECT_THAT(refused([](Json& l) { l["window_ns"] = -1; }), HasSubstr("is no time"));
  EXPECT_THAT(refused([](Json& l) { l["counters"]["dirty_npurge"] = "1"; }), HasSubstr("is no whole number"));
  EXPECT_THAT(refused([](Json& l) { l["counters"]["dirty_npurge"] = 1.5; }), HasSubstr("is no whole number"));
  EXPECT_THAT(refused([](Json& l) { l["losses"]["ring_events"] = ~uint64_t{0}; }),
              HasSubstr("cannot be real"));
  const auto app = [](Json& l) -> Json& {
    return l["transitions"]["dirty_retained"]["by_payer"]["app"]["latency"];
  };
  for (const char* buckets :
       {"[[-193,1]]", "[[34,1]]", "[[0,1],[0,1]]", "[[1,1],[0,1]]", "[[0,-1]]", "[[0]]", "[0]", "{}",
        "[[0,1000000]]", "[[0,18446744073709551615],[1,1]]", "[[1e300,1]]"}) {
    EXPECT_THAT(refused([&](Json& l) { app(l)["buckets"] = Json::parse(buckets); }), HasSubstr("\"buckets\""))
        << buckets;
  }
  EXPECT_THAT(refused([&](Json& l) { app(l).erase("buckets"); }), HasSubstr("did not print them yet"));
  EXPECT_THAT(refused([&](Json& l) { app(l)["schema"] = 4; }), HasSubstr("another width"));
  EXPECT_THAT(error_of("{\"type\":\"header\",\"schema\":2}\n"), HasSubstr("schema 2"));
}

TEST(ReadSummaries, refuses_the_same_summary_twice) {
  EXPECT_THAT(error_of(a + a.substr(a.rfind('\n', a.size() - 2) + 1)), HasSubstr("is in the run already"));
}

TEST(MergedOutput, lets_no_name_out_unescaped) {
  const std::string hostile = run_of({.name = "<script>alert(1)</script>" + samples::evil,
                                      .cgroup = "/a\"><img src=x onerror=alert(1)>&'" + samples::evil,
                                      .version = "<b>" + samples::evil});
  const Fleet fleet = fleet_of({hostile});
  const std::string html = render::merged_html(fleet);
  EXPECT_EQ(html.find("<script"), std::string::npos);
  EXPECT_EQ(html.find("<img"), std::string::npos);
  EXPECT_EQ(html.find("<b>"), std::string::npos);
  EXPECT_THAT(html, HasSubstr("&lt;script&gt;alert(1)&lt;/script&gt;"));
  EXPECT_EQ(html.find('\x1b'), std::string::npos);
  EXPECT_EQ(html.find('\x1f'), std::string::npos);
  render::StringSink text;
  render::make_text(text, {})->merged(fleet);
  EXPECT_EQ(text.text().find('\x1b'), std::string::npos);
  EXPECT_EQ(merged_lines(fleet_of({merged_lines(fleet)})), merged_lines(fleet));  // never escaped twice
  // Raw control characters, as no jemtrace writes them.
  auto line = nlohmann::json::parse(merged_lines(fleet_of({a})).substr(0, 0) + a.substr(0, a.find('\n')));
  line["host"] = "\x1b[31m";
  const Fleet raw = fleet_of({line.dump() + a.substr(a.find('\n'))});
  EXPECT_EQ(raw.runs().begin()->first.first, "\\x1b[31m");
}

TEST(MergedOutput, keeps_to_the_width) {
  const Fleet fleet =
      fleet_of({a, b, c, run_of({.name = std::string(300, 'h'), .cgroup = "/" + std::string(300, 'c')})});
  render::StringSink text;
  render::make_text(text, {})->merged(fleet);
  std::istringstream lines(text.text());
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(line.size(), 82u) << line;  // a … has 3 bytes
  }
}

}  // namespace
}  // namespace jemtrace::record
