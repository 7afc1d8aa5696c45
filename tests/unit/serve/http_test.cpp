#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve/http_message.hpp"
#include "serve/pages.hpp"
#include "serve/server.hpp"

namespace jemtrace::serve {
namespace {

using ::testing::HasSubstr;
using State = ParsedRequest::State;

Request ask(const std::string& path, std::map<std::string, std::string> headers = {}) {
  return {.method = "GET", .path = path, .query = {}, .headers = std::move(headers)};
}

TEST(ParseRequest, reads_one_and_leaves_the_next) {
  const std::string text = "GET /a?b=c HTTP/1.1\r\nHost: x\r\nAccept:  y \r\naccept: z\r\n\r\nGET";
  const ParsedRequest parsed = parse_request(text);
  ASSERT_EQ(parsed.state, State::complete);
  EXPECT_EQ(parsed.request.path, "/a");
  EXPECT_EQ(parsed.request.query, "b=c");
  EXPECT_EQ(parsed.request.header("accept"), "y, z");
  EXPECT_TRUE(parsed.request.keep_alive);
  EXPECT_EQ(text.substr(parsed.bytes), "GET");
}

TEST(ParseRequest, waits_for_the_rest) {
  EXPECT_EQ(parse_request("").state, State::incomplete);
  EXPECT_EQ(parse_request("GET / HTTP/1.1\r\nHost: x\r\n").state, State::incomplete);
}

TEST(ParseRequest, every_prefix_of_a_good_one_is_incomplete) {
  const std::string text = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
  for (size_t i = 0; i < text.size(); ++i) {
    EXPECT_EQ(parse_request(text.substr(0, i)).state, State::incomplete) << i;
  }
}

TEST(ParseRequest, old_and_closing_clients_are_not_kept) {
  EXPECT_FALSE(parse_request("GET / HTTP/1.0\r\n\r\n").request.keep_alive);
  EXPECT_FALSE(parse_request("GET / HTTP/1.1\r\nHost: x\r\nConnection: Close\r\n\r\n").request.keep_alive);
}

TEST(TokenMatches, only_the_whole_token) {
  EXPECT_TRUE(token_matches("Bearer abc", "abc"));
  EXPECT_TRUE(token_matches("bearer  abc ", "abc"));
  for (const char* wrong :
       {"", "Bearer", "Bearer ", "Bearer ab", "Bearer abcd", "Bearer abcabc", "Basic abc", "abc"}) {
    EXPECT_FALSE(token_matches(wrong, "abc")) << wrong;
  }
  EXPECT_FALSE(token_matches("Bearer ", ""));
}

TEST(Pages, are_ready_once_there_is_a_snapshot) {
  Snapshots snapshots;
  Pages pages(snapshots, "", "1");
  EXPECT_EQ(pages(ask("/-/healthy")).status, 200);
  EXPECT_EQ(pages(ask("/-/ready")).status, 503);
  EXPECT_EQ(pages(ask("/metrics")).status, 503);
  snapshots.publish({});
  EXPECT_EQ(pages(ask("/-/ready")).status, 200);
  EXPECT_EQ(pages(ask("/metrics")).status, 200);
  EXPECT_EQ(pages(ask("/nothing")).status, 404);
  EXPECT_THAT(*pages(ask("/")).body, HasSubstr("/metrics"));
}

TEST(Pages, do_not_tell_numbers_that_stand_still) {
  Snapshots snapshots(0);
  Pages pages(snapshots, "", "1");
  snapshots.publish({});  // made long ago
  EXPECT_EQ(pages(ask("/-/healthy")).status, 200);
  EXPECT_EQ(pages(ask("/metrics")).status, 503);
  EXPECT_EQ(pages(ask("/-/healthy")).status, 503);
  snapshots.publish({});
  EXPECT_EQ(pages(ask("/-/healthy")).status, 200);
}

TEST(Pages, metrics_want_the_token_and_the_others_do_not) {
  Snapshots snapshots;
  snapshots.publish({});
  Pages pages(snapshots, "0123456789abcdef", "1");
  EXPECT_EQ(pages(ask("/metrics")).status, 401);
  EXPECT_EQ(pages(ask("/metrics", {{"authorization", "Bearer x"}})).status, 401);
  EXPECT_EQ(pages(ask("/metrics", {{"authorization", "Bearer 0123456789abcdef"}})).status, 200);
  EXPECT_EQ(pages(ask("/-/healthy")).status, 200);
}

TEST(Snapshots, one_that_is_asked_for_twice_is_encoded_once) {
  Snapshots snapshots;
  snapshots.publish({});
  const uint64_t any_age = 1'000'000;
  EXPECT_EQ(snapshots.get_encoded(Format::text, any_age, 0), snapshots.get_encoded(Format::text, any_age, 0));
  const auto before = snapshots.get_encoded(Format::text, any_age, 0);
  snapshots.publish({});
  EXPECT_NE(snapshots.get_encoded(Format::text, any_age, 0), before);
}

TEST(ParseAddress, takes_what_people_write) {
  EXPECT_EQ(parse_address("127.0.0.1:9738")->port, 9738);
  EXPECT_EQ(parse_address("[::1]:80")->host, "::1");
  EXPECT_EQ(parse_address(":80")->host, "");
  for (const char* text : {"", "9738", "::1", "a:b", "a:99999", "a:-1", "a:"}) {
    EXPECT_FALSE(parse_address(text)) << text;
  }
}

TEST(ListenOn, knows_who_can_reach_it) {
  EXPECT_TRUE(listen_on({"127.0.0.1", 0})->loopback);
  EXPECT_FALSE(listen_on({"0.0.0.0", 0})->loopback);
  EXPECT_FALSE(listen_on({"", 0})->loopback);
}

}  // namespace
}  // namespace jemtrace::serve
