#include "serve/push.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace jemtrace::serve {
namespace {

std::shared_ptr<const Exposition> moment(double value, int64_t unix_ns, size_t series = 1) {
  auto exposition = std::make_shared<Exposition>();
  exposition->made_unix_ns = unix_ns;
  Family family{"jemtrace_sweeps", Type::counter, "", "Help."};
  for (size_t i = 0; i < series; ++i) {
    family.series.push_back({.labels = {{"cause", std::to_string(i)}}, .value = value, .start_unix_ns = 1});
  }
  exposition->families.push_back(std::move(family));
  return exposition;
}

TEST(Outbox, a_collector_that_is_down_for_an_hour_costs_bounded_memory) {
  constexpr size_t most = 1 << 20;
  Outbox outbox(false, most, {});
  size_t total = 0;
  for (int minute = 0; minute < 60; ++minute) {
    outbox.put(moment(minute, minute, 1000));
    ASSERT_LE(outbox.bytes(), most);
    total = std::max(total, outbox.bytes());
  }
  EXPECT_GT(total, most / 2);
  EXPECT_GT(outbox.dropped(), 10u);
  uint64_t sent = 0;
  for (; outbox.front() != nullptr; outbox.pop()) {
    ++sent;
  }
  EXPECT_EQ(sent + outbox.dropped(), 60u);
  EXPECT_EQ(outbox.bytes(), 0u);
}

TEST(Outbox, one_that_is_too_large_by_itself_is_sent_all_the_same) {
  Outbox outbox(false, 10, {});
  outbox.put(moment(1, 1));
  EXPECT_NE(outbox.front(), nullptr);
  EXPECT_EQ(outbox.dropped(), 0u);
}

TEST(Outbox, deltas_that_were_not_taken_are_part_of_the_next_one) {
  Outbox outbox(true, 1 << 20, {});
  outbox.put(moment(5, 10));
  ASSERT_NE(outbox.front(), nullptr);
  outbox.pop();
  EXPECT_EQ(outbox.front(), nullptr);
  outbox.put(moment(7, 20));
  (void)outbox.front();  // not taken
  outbox.put(moment(12, 30));
  const std::string expected = encode_otlp(*moment(12, 30), moment(5, 10).get(), {});
  EXPECT_EQ(*outbox.front(), expected);
  EXPECT_EQ(outbox.dropped(), 0u);
}

TEST(EncodeOtlp, a_clock_that_was_set_back_ends_no_time_before_its_start) {
  const auto now = moment(5, 10);
  auto late = std::make_shared<Exposition>(*now);
  late->families[0].series[0].start_unix_ns = 20;
  auto corrected = std::make_shared<Exposition>(*late);
  corrected->made_unix_ns = 20;
  EXPECT_EQ(encode_otlp(*late, nullptr, {}), encode_otlp(*corrected, nullptr, {}));
}

TEST(EncodeOtlp, what_began_anew_is_no_negative_delta) {
  EXPECT_EQ(
      encode_otlp(*moment(3, 30), moment(9, 20).get(), {}).find(encode_otlp(*moment(9, 20), nullptr, {})),
      std::string::npos);
  const Exposition nothing;
  EXPECT_EQ(encode_otlp(*moment(3, 30), moment(9, 20).get(), {}), encode_otlp(*moment(3, 30), &nothing, {}));
}

TEST(Backoff, doubles_up_to_a_minute) {
  EXPECT_EQ(backoff_ms(1, 0), 1000u);
  EXPECT_EQ(backoff_ms(2, 0), 2000u);
  EXPECT_EQ(backoff_ms(7, 0), 60'000u);
  EXPECT_EQ(backoff_ms(1'000'000, 0), 60'000u);
  EXPECT_EQ(backoff_ms(3, 1), 3000u);
}

TEST(ParseUrl, takes_host_port_and_path) {
  const auto url = parse_url("http://collector.example:4318/v1/metrics");
  ASSERT_TRUE(url);
  EXPECT_EQ(url->host, "collector.example");
  EXPECT_EQ(url->port, 4318);
  EXPECT_EQ(url->path, "/v1/metrics");
  EXPECT_EQ(parse_url("http://[::1]:4318/x")->host, "::1");
  EXPECT_EQ(parse_url("http://h")->path, "/");
}

TEST(ParseUrl, refuses_the_rest) {
  for (const char* text : {"", "https://h/x", "h:4318", "http://", "http://:4318/", "http://h:0/",
                           "http://h:99999/", "http://a@b/", "http://h/ x", "http://h/\r\nX: y"}) {
    EXPECT_FALSE(parse_url(text)) << text;
  }
}

TEST(ParseReply, reads_status_and_patience) {
  const auto reply = parse_reply("HTTP/1.1 503 Busy\r\nX: y\r\nRetry-After: 17\r\n\r\n");
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->status, 503);
  EXPECT_EQ(reply->retry_after_s, 17u);
  EXPECT_FALSE(parse_reply("HTTP/1.1 503 Busy\r\n"));
  EXPECT_FALSE(parse_reply("SMTP\r\n\r\n"));
  EXPECT_FALSE(parse_reply("HTTP/1.1 abc\r\n\r\n"));
}

}  // namespace
}  // namespace jemtrace::serve
