#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "util/fd.hpp"
#include "util/result.hpp"

namespace jemtrace::serve {

/// Bytes both ways over a socket that never blocks, plain or by TLS.
class Channel {
 public:
  Channel() = default;
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;
  virtual ~Channel() = default;

  enum class Outcome { moved, want_read, want_write, closed };
  struct Move {
    Outcome outcome = Outcome::closed;
    size_t bytes = 0;
  };
  virtual Move read(char* to, size_t size) = 0;
  virtual Move write(std::string_view from) = 0;
  [[nodiscard]] virtual int fd() const = 0;
};

std::unique_ptr<Channel> plain_channel(Fd socket);

/// TLS 1.2 and later with a certificate. OpenSSL is loaded when one is made: nobody else pays for it.
class Tls {
 public:
  Tls() = default;
  Tls(const Tls&) = delete;
  Tls& operator=(const Tls&) = delete;
  virtual ~Tls() = default;
  /// Files in PEM.
  static Result<std::unique_ptr<Tls>> server(const std::string& certificate, const std::string& key);
  /// The handshake happens with the first read.
  virtual std::unique_ptr<Channel> accept(Fd socket) = 0;
};

}  // namespace jemtrace::serve
