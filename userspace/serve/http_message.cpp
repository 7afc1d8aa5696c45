#include "serve/http_message.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace jemtrace::serve {
namespace {

constexpr size_t max_target = 2048;
constexpr size_t max_headers = 100;

bool is_token_char(char c) {
  // RFC 9110, 5.6.2
  constexpr std::string_view marks = "!#$%&'*+-.^_`|~";
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         marks.find(c) != std::string_view::npos;
}

bool is_token(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), is_token_char);
}

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), [](char c) { return lower(c); });
  return out;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) {
    text.remove_prefix(1);
  }
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) {
    text.remove_suffix(1);
  }
  return text;
}

const char* reason(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 431:
      return "Request Header Fields Too Large";
    case 503:
      return "Service Unavailable";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "";
  }
}

/// nullopt: fine.
std::optional<Response> parse_request_line(std::string_view line, Request& request, bool& is_1_0) {
  const size_t first = line.find(' ');
  const size_t last = line.rfind(' ');
  if (first == std::string_view::npos || first == last || !is_token(line.substr(0, first))) {
    return make_response(400, "this is not HTTP");
  }
  const std::string_view target = line.substr(first + 1, last - first - 1);
  const std::string_view version = line.substr(last + 1);
  if (version != "HTTP/1.1" && version != "HTTP/1.0") {
    const bool other = version.substr(0, 5) == "HTTP/";
    return make_response(other ? 505 : 400, other ? "HTTP/1.1 is spoken here" : "this is not HTTP");
  }
  if (target.size() > max_target) {
    return make_response(414, "the path is too long");
  }
  const bool printable =
      std::all_of(target.begin(), target.end(), [](char c) { return c > 0x20 && c < 0x7f; });
  if (target.empty() || target.front() != '/' || !printable) {
    return make_response(400, "the path makes no sense");
  }
  is_1_0 = version == "HTTP/1.0";
  request.method = line.substr(0, first);
  request.path = target.substr(0, target.find('?'));
  request.query = target.substr(std::min(target.size(), request.path.size() + 1));
  return std::nullopt;
}

std::optional<Response> parse_header(std::string_view line, Request& request) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || !is_token(line.substr(0, colon))) {
    return make_response(400, "a header makes no sense");  // also one that goes on in the next line
  }
  const std::string_view value = trim(line.substr(colon + 1));
  const bool clean = std::none_of(value.begin(), value.end(), [](char c) {
    return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f;
  });
  const std::string name = lower(line.substr(0, colon));
  const auto [at, is_new] = request.headers.try_emplace(name, value);
  if (!clean || (!is_new && (name == "host" || name == "content-length" || name == "authorization"))) {
    return make_response(400, "a header makes no sense");
  }
  if (!is_new) {
    at->second.append(", ").append(value);
  }
  return std::nullopt;
}

std::optional<Response> parse_head(std::string_view head, Request& request) {
  bool is_1_0 = false;
  for (size_t lines = 0; !head.empty(); ++lines) {
    const size_t end = head.find("\r\n");
    const std::string_view line = head.substr(0, end);
    head.remove_prefix(end + 2);
    if (lines > max_headers) {
      return make_response(431, "too many headers");
    }
    if (auto refusal = lines == 0 ? parse_request_line(line, request, is_1_0) : parse_header(line, request)) {
      return refusal;
    }
  }
  if (!is_1_0 && !request.headers.contains("host")) {
    return make_response(400, "there is no Host header");
  }
  const std::string_view length = request.header("content-length");
  if (request.headers.contains("transfer-encoding") || (!length.empty() && length != "0")) {
    return make_response(413, "nothing is uploaded here");
  }
  const std::string connection = lower(request.header("connection"));
  request.keep_alive = is_1_0 ? connection == "keep-alive" : connection.find("close") == std::string::npos;
  return std::nullopt;
}

}  // namespace

std::string_view Request::header(const std::string& lower_case_name) const {
  const auto found = headers.find(lower_case_name);
  return found == headers.end() ? std::string_view{} : std::string_view(found->second);
}

Response make_response(int status, std::string text) {
  return {.status = status, .body = std::make_shared<const std::string>(std::move(text) + "\n")};
}

ParsedRequest parse_request(std::string_view bytes) {
  ParsedRequest parsed;
  const auto refuse = [&](Response response) {
    parsed.state = ParsedRequest::State::refused;
    parsed.refusal = std::move(response);
    return parsed;
  };
  size_t skipped = 0;  // RFC 9112, 2.2: an empty line before the request is ignored
  if (bytes.substr(0, 2) == "\r\n") {
    skipped = 2;
    bytes.remove_prefix(2);
  }
  const size_t end = bytes.find("\r\n\r\n");
  if (end == std::string_view::npos || end > max_request_bytes) {
    if (bytes.size() > max_request_bytes) {
      return refuse(make_response(431, "the request is too long"));
    }
    // Whoever speaks something else (TLS, say) need not wait for the end of his patience.
    const std::string_view word = bytes.substr(0, bytes.find(' '));
    if (!word.empty() && (word.size() > 32 || !is_token(word))) {
      return refuse(make_response(400, "this is not HTTP"));
    }
    return parsed;
  }
  if (auto refusal = parse_head(bytes.substr(0, end + 2), parsed.request)) {
    return refuse(std::move(*refusal));
  }
  parsed.state = ParsedRequest::State::complete;
  parsed.bytes = skipped + end + 4;
  return parsed;
}

std::string response_head(const Response& response, bool keep_alive) {
  std::string head =
      fmt::format("HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: {}\r\n",
                  response.status, reason(response.status), response.type,
                  response.body ? response.body->size() : 0, keep_alive ? "keep-alive" : "close");
  head += "X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n";
  for (const auto& [name, value] : response.headers) {
    head += fmt::format("{}: {}\r\n", name, value);
  }
  return head + "\r\n";
}

bool token_matches(std::string_view authorization, std::string_view token) {
  constexpr std::string_view scheme = "bearer ";
  const std::string_view said = authorization.substr(0, scheme.size());
  if (token.empty() || lower(said) != scheme) {
    return false;
  }
  const std::string_view given = trim(authorization.substr(scheme.size()));
  size_t differences = given.size() ^ token.size();
  for (size_t i = 0; i < given.size(); ++i) {
    differences |= static_cast<unsigned char>(given[i]) ^ static_cast<unsigned char>(token[i % token.size()]);
  }
  return differences == 0;
}

}  // namespace jemtrace::serve
