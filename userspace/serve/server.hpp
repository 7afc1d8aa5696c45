#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "serve/channel.hpp"
#include "serve/http_message.hpp"
#include "util/fd.hpp"
#include "util/result.hpp"

namespace jemtrace::serve {

/// Where to listen.
struct Address {
  std::string host;   // "127.0.0.1", "::1"; empty: all
  uint16_t port = 0;  // 0: any that is free
};
/// "127.0.0.1:9738", "[::1]:9738", ":9738". Names are resolved by listen_on.
Result<Address> parse_address(std::string_view text);

/// A listening socket, and what is known of it.
struct Listener {
  Fd socket;
  std::string address;    // "127.0.0.1:9738"
  bool loopback = false;  // only this host can connect
};
Result<Listener> listen_on(const Address& address);
/// The first socket that systemd passes (sd_listen_fds(3)); an invalid one when there is none.
Result<Listener> take_activated();

/// Serves pages to many at a time, from one thread, in bounded memory and with bounded patience: who is slow
/// waits for himself only. There is no body in requests; GET and HEAD only.
class Server {
 public:
  struct Limits {
    size_t connections = 512;             // one more takes the place of who has been idle for longest
    size_t writers = 32;                  // connections that have not yet taken all of their response
    uint64_t request_ns = 5'000'000'000;  // from the first byte, or the connection, to the end of the request
    uint64_t response_ns = 10'000'000'000;  // to take a response
    uint64_t idle_ns = 90'000'000'000;      // between two requests
    unsigned requests = 10'000;             // of one connection
  };
  /// Called on the server's thread.
  using Handler = std::function<Response(const Request&)>;
  /// May be read at any time.
  struct Counts {
    std::atomic<uint64_t> refused_requests{0}, dropped_connections{0};
  };

  Server(Fd listening, std::unique_ptr<Tls> tls, Limits limits, Handler handler);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// Until `stop` is readable.
  void run(int stop);
  [[nodiscard]] const Counts& counts() const { return counts_; }

 private:
  struct Connection;
  void accept_all(uint64_t now);
  bool make_room();
  void advance(Connection& connection, uint64_t now);
  bool receive(Connection& connection, uint64_t now);
  void answer(Connection& connection, uint64_t now);
  void respond(Connection& connection, Response response, bool head_only, bool keep, uint64_t now);
  bool send(Connection& connection, uint64_t now);
  void limit_writers(Connection& connection);

  Fd listening_;
  std::unique_ptr<Tls> tls_;
  Limits limits_;
  Handler handler_;
  std::vector<std::unique_ptr<Connection>> connections_;
  Counts counts_;
};

}  // namespace jemtrace::serve
