#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "util/result.hpp"

namespace jemtrace::serve {

/// Of an http:// URL.
struct Url {
  std::string host;
  uint16_t port = 80;
  std::string path = "/";
};
Result<Url> parse_url(std::string_view text);

struct Reply {
  int status = 0;
  std::optional<uint64_t> retry_after_s;
};
/// The status line and headers of a response; nullopt: not complete, or none.
std::optional<Reply> parse_reply(std::string_view head);

/// One POST on a connection of its own. Errc::system: no whole answer within `patience_ms`, or `stop` became
/// readable.
Result<Reply> post(const Url& url, std::string_view body, const char* type, int patience_ms, int stop);

}  // namespace jemtrace::serve
