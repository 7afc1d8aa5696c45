#include "serve/encode.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <protozero/pbf_reader.hpp>

#include "serve/formats.hpp"

namespace jemtrace::serve {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string number(double value) {
  std::string out;
  append_number(out, value);
  return out;
}

Exposition one(Family family) {
  Exposition exposition;
  exposition.families.push_back(std::move(family));
  return exposition;
}

Exposition one_histogram() {
  auto point = std::make_shared<HistogramPoint>();
  point->histogram.record(100'000, 2, 8192);
  point->histogram.record(3'000'000, 1, 4096);
  point->exemplar =
      Exemplar{.pid = 7, .tid = 8, .arena = 3, .latency_ns = 3'000'000, .unix_ns = 1'700'000'000'250'000'000};
  return one({"jemtrace_purge_duration_seconds",
              Type::histogram,
              "seconds",
              "Help.",
              {{.target = std::make_shared<const Labels>(Labels{{"name", "redis"}}),
                .labels = {{"payer", "app"}},
                .point = point}}});
}

TEST(AppendNumber, whole_numbers_have_no_exponent) {
  EXPECT_EQ(number(0), "0");
  EXPECT_EQ(number(1e6), "1000000");
  EXPECT_EQ(number(4503599627370497), "4503599627370497");
}

TEST(AppendNumber, fractions_read_back_as_the_same) {
  EXPECT_EQ(std::stod(number(0.1)), 0.1);
  EXPECT_EQ(number(9.5367431640625e-07), "9.5367431640625e-07");
}

TEST(EncodeText, counters_have_total_in_their_type_line) {
  const std::string text = encode(
      one({"jemtrace_sweeps", Type::counter, "", "Help.", {{.labels = {{"cause", "tick"}}, .value = 3}}}),
      Format::text);
  EXPECT_EQ(text,
            "# HELP jemtrace_sweeps_total Help.\n# TYPE jemtrace_sweeps_total counter\n"
            "jemtrace_sweeps_total{cause=\"tick\"} 3\n");
}

TEST(EncodeOpenMetrics, counters_have_no_total_in_their_type_line_and_there_is_an_end) {
  const std::string text = encode(
      one({"jemtrace_rss_bytes", Type::gauge, "bytes", "Help.", {{.value = 1.5}}}), Format::openmetrics);
  EXPECT_EQ(text,
            "# HELP jemtrace_rss_bytes Help.\n# TYPE jemtrace_rss_bytes gauge\n"
            "# UNIT jemtrace_rss_bytes bytes\njemtrace_rss_bytes 1.5\n# EOF\n");
  const std::string counter =
      encode(one({"jemtrace_sweeps", Type::counter, "", "Help.", {{.value = 3}}}), Format::openmetrics);
  EXPECT_THAT(counter, HasSubstr("# TYPE jemtrace_sweeps counter\njemtrace_sweeps_total 3\n"));
}

TEST(EncodeText, quotes_backslashes_and_newlines_are_escaped) {
  const std::string text = encode(
      one({"x", Type::gauge, "", "Help.", {{.labels = {{"name", "a\"b\\c\nd"}}, .value = 1}}}), Format::text);
  EXPECT_THAT(text, HasSubstr(R"(x{name="a\"b\\c\nd"} 1)"));
}

TEST(EncodeText, a_family_without_series_is_left_out) {
  EXPECT_EQ(encode(one({"x", Type::gauge, "", "Help."}), Format::text), "");
}

TEST(EncodeOpenMetrics, the_exemplar_stands_once_with_the_bucket_of_its_purge) {
  const std::string text = encode(one_histogram(), Format::openmetrics);
  EXPECT_THAT(text, HasSubstr("{name=\"redis\",payer=\"app\",le=\"0.00390625\"} 2 "
                              "# {pid=\"7\",tid=\"8\",arena=\"3\"} 0.003 1700000000.25\n"));
  EXPECT_EQ(text.find(" # "), text.rfind(" # "));
  EXPECT_THAT(encode(one_histogram(), Format::text), Not(HasSubstr("pid")));
}

TEST(EncodeText, bounds_of_whole_seconds_are_written_as_prometheus_does) {
  EXPECT_THAT(encode(one_histogram(), Format::text), HasSubstr("le=\"1.0\"} 2\n"));
  EXPECT_THAT(encode(one_histogram(), Format::text), HasSubstr("le=\"+Inf\"} 2\n"));
}

TEST(EncodeProtobuf, the_native_histogram_counts_what_the_classic_one_does) {
  const std::string bytes = encode(one_histogram(), Format::protobuf);
  const size_t length = (static_cast<unsigned char>(bytes[0]) & 0x7fU) | static_cast<size_t>(bytes[1]) << 7;
  ASSERT_EQ(bytes.size(), length + 2);
  protozero::pbf_reader family(bytes.data() + 2, length);
  ASSERT_TRUE(family.next(4));
  protozero::pbf_reader metric = family.get_message();
  ASSERT_TRUE(metric.next(7));
  protozero::pbf_reader histogram = metric.get_message();
  uint64_t count = 0;
  int64_t native = 0;
  int64_t bucket = 0;
  while (histogram.next()) {
    switch (histogram.tag()) {
      case 1:
        count = histogram.get_uint64();
        break;
      case 5:
        EXPECT_EQ(histogram.get_sint32(), 3);
        break;
      case 13:
        for (const int64_t delta : histogram.get_packed_sint64()) {
          bucket += delta;
          native += bucket;
        }
        break;
      default:
        histogram.skip();
    }
  }
  EXPECT_EQ(count, 2u);
  EXPECT_EQ(native, 2);
}

struct Case {
  const char* accept;
  Format format;
};

class Negotiate : public ::testing::TestWithParam<Case> {};
TEST_P(Negotiate, takes_what_is_wanted_most) {
  EXPECT_EQ(negotiate(GetParam().accept), GetParam().format) << GetParam().accept;
}
INSTANTIATE_TEST_SUITE_P(
    Accept, Negotiate,
    ::testing::Values(
        Case{"", Format::text}, Case{"*/*", Format::text}, Case{"text/html,*/*;q=0.8", Format::text},
        Case{"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,"
             "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
             Format::protobuf},
        Case{"application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
             "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
             Format::openmetrics},
        Case{"application/openmetrics-text; version=1.0.0; charset=utf-8; q=0.3, text/plain; q=0.9",
             Format::text},
        Case{"application/vnd.google.protobuf;encoding=text;proto=io.prometheus.client.MetricFamily",
             Format::text},
        Case{"APPLICATION/OpenMetrics-Text", Format::openmetrics},
        Case{"application/openmetrics-text;version=\"1.0.0\"", Format::openmetrics},
        Case{"application/openmetrics-text;q=0,text/plain;q=0.1", Format::text},
        Case{"application/openmetrics-text;q=nan", Format::text},
        Case{"application/openmetrics-text;q=7", Format::text}, Case{";;;,,,q==", Format::text}));

}  // namespace
}  // namespace jemtrace::serve
