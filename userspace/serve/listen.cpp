#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>

#include "serve/server.hpp"
#include "util/text.hpp"

namespace jemtrace::serve {
namespace {

/// 127.0.0.0/8, ::1 and ::ffff:127.x, and a socket in the file system: only who is here can connect.
bool is_loopback(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET) {
    return ntohl(reinterpret_cast<const sockaddr_in&>(address).sin_addr.s_addr) >> 24 == 127;
  }
  if (address.ss_family == AF_INET6) {
    const in6_addr& v6 = reinterpret_cast<const sockaddr_in6&>(address).sin6_addr;
    return IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127);
  }
  return address.ss_family == AF_UNIX;
}

Result<Listener> describe(Fd socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return fail_errno("cannot ask for the address of the socket");
  }
  Listener listener{
      .socket = std::move(socket), .address = "a local socket", .loopback = is_loopback(address)};
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  if (address.ss_family != AF_UNIX &&
      ::getnameinfo(reinterpret_cast<sockaddr*>(&address), size, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
    listener.address =
        address.ss_family == AF_INET6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
  }
  return listener;
}

}  // namespace

Result<Address> parse_address(std::string_view text) {
  Address address;
  const size_t colon = text.rfind(':');
  const auto malformed = [&] {
    return fail(Errc::usage, fmt::format("'{}' is no address to listen on", escape(text)),
                "ADDRESS:PORT, as in 127.0.0.1:9738 or [::1]:9738");
  };
  if (colon == std::string_view::npos) {
    return malformed();
  }
  std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), address.port);
  if (error != std::errc{} || end != port.data() + port.size()) {
    return malformed();
  }
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return malformed();
  }
  address.host = host;
  return address;
}

Result<Listener> listen_on(const Address& address) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const std::string port = std::to_string(address.port);
  const std::string name = fmt::format("{}:{}", address.host, port);
  if (const int error =
          ::getaddrinfo(address.host.empty() ? nullptr : address.host.c_str(), port.c_str(), &hints, &found);
      error != 0) {
    return fail(Errc::usage, fmt::format("cannot listen on {}: {}", escape(name), ::gai_strerror(error)));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> all(found, ::freeaddrinfo);
  int last_error = 0;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    Fd socket(::socket(one->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const int on = 1;
    if (socket && ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        ::bind(socket.get(), one->ai_addr, one->ai_addrlen) == 0 && ::listen(socket.get(), 256) == 0) {
      return describe(std::move(socket));
    }
    last_error = errno;
  }
  return fail_errno(
      fmt::format("cannot listen on {}", escape(name)), last_error,
      last_error == EADDRINUSE ? "another program listens there; choose with --listen ADDRESS:PORT" : "");
}

Result<Listener> take_activated() {
  constexpr int first_fd = 3;
  const char* pid = std::getenv("LISTEN_PID");
  const char* count = std::getenv("LISTEN_FDS");
  if (pid == nullptr || count == nullptr || std::atoi(pid) != ::getpid() || std::atoi(count) < 1) {
    return Listener{};
  }
  ::unsetenv("LISTEN_PID");  // not meant for children
  ::unsetenv("LISTEN_FDS");
  Fd socket(first_fd);
  int listening = 0;
  socklen_t size = sizeof listening;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0 || listening == 0) {
    return fail(Errc::usage, "what LISTEN_FDS passes is no listening socket");
  }
  ::fcntl(socket.get(), F_SETFD, FD_CLOEXEC);
  ::fcntl(socket.get(), F_SETFL, ::fcntl(socket.get(), F_GETFL) | O_NONBLOCK);
  return describe(std::move(socket));
}

}  // namespace jemtrace::serve
