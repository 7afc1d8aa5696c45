#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// As much of HTTP/1.1 (RFC 9112) as somebody needs who is only asked for pages. Pure. Whoever asks is not
/// trusted: what is unusual is refused.
namespace jemtrace::serve {

struct Request {
  std::string method;
  std::string path, query;                     // as sent, undecoded
  std::map<std::string, std::string> headers;  // names in lower case
  bool keep_alive = true;

  /// Empty when absent.
  [[nodiscard]] std::string_view header(const std::string& lower_case_name) const;
};

struct Response {
  int status = 200;
  std::string type = "text/plain; charset=utf-8";
  std::shared_ptr<const std::string> body;  // shared by all who get the same
  std::vector<std::pair<std::string, std::string>> headers = {};
};
/// A line of text that explains a status.
Response make_response(int status, std::string text);

constexpr size_t max_request_bytes = 16384;

/// What stands at the beginning of `bytes`.
struct ParsedRequest {
  enum class State { incomplete, complete, refused } state = State::incomplete;
  Request request;   // complete
  size_t bytes = 0;  // complete: that it took
  Response refusal;  // refused: what to answer before closing
};
ParsedRequest parse_request(std::string_view bytes);

/// The head of a response, with the empty line behind it.
std::string response_head(const Response& response, bool keep_alive);

/// "Bearer TOKEN" of an Authorization header against the token, in a time that does not tell how much of it
/// was right.
bool token_matches(std::string_view authorization, std::string_view token);

}  // namespace jemtrace::serve
