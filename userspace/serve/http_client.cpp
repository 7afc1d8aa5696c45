#include "serve/http_client.hpp"

#include <fmt/format.h>
#include <netdb.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <memory>
#include <system_error>
#include <thread>

#include "util/clock.hpp"
#include "util/fd.hpp"
#include "util/text.hpp"

namespace jemtrace::serve {
namespace {

/// Waiting, but for no longer than all of it may take.
class Patience {
 public:
  Patience(int ms, int stop) : end_ns_(monotonic_ns() + static_cast<uint64_t>(ms) * 1'000'000), stop_(stop) {}
  [[nodiscard]] Status wait(int fd, short events, const std::string& what) const {
    for (;;) {
      const uint64_t now = monotonic_ns();
      if (now >= end_ns_) {
        return fail(Errc::system, what + ": it takes too long");
      }
      std::array<pollfd, 2> fds{
          {{.fd = fd, .events = events, .revents = 0}, {.fd = stop_, .events = POLLIN, .revents = 0}}};
      ::poll(fds.data(), fds.size(), static_cast<int>((end_ns_ - now) / 1'000'000 + 1));
      if (fds[1].revents != 0) {
        return fail(Errc::system, what + ": jemtrace is to end");
      }
      if (fds[0].revents != 0) {
        return {};
      }
    }
  }

 private:
  uint64_t end_ns_;
  int stop_;
};

using Addresses = std::unique_ptr<addrinfo, void (*)(addrinfo*)>;

/// getaddrinfo(3) keeps on for 10 s and more when no name server answers, and cannot be interrupted. So a
/// thread of its own asks, and who has no patience left goes on without it.
Result<Addresses> look_up(const Url& url, const std::string& what, const Patience& patience) {
  struct Lookup {
    std::string host, port;
    Fd done;
    int error = 0;
    Addresses found{nullptr, ::freeaddrinfo};
  };
  const auto lookup = std::make_shared<Lookup>();
  lookup->host = url.host;
  lookup->port = std::to_string(url.port);
  lookup->done = Fd(::eventfd(0, EFD_CLOEXEC));
  if (!lookup->done) {
    return fail_errno(what);
  }
  try {
    std::thread([lookup] {
      addrinfo hints{};
      hints.ai_socktype = SOCK_STREAM;
      addrinfo* found = nullptr;
      lookup->error = ::getaddrinfo(lookup->host.c_str(), lookup->port.c_str(), &hints, &found);
      lookup->found.reset(found);
      (void)::eventfd_write(lookup->done.get(), 1);
    }).detach();
  } catch (const std::system_error& error) {
    return fail_errno(what, error.code().value());
  }
  TRY(patience.wait(lookup->done.get(), POLLIN, what));
  if (lookup->error != 0) {
    return fail(Errc::system, what + ": " + ::gai_strerror(lookup->error));
  }
  return std::move(lookup->found);
}

Result<Fd> connect_to(const Url& url, const std::string& what, const Patience& patience) {
  ASSIGN_OR_RETURN(const Addresses found, look_up(url, what, patience));
  int last_error = ECONNREFUSED;
  for (const addrinfo* one = found.get(); one != nullptr; one = one->ai_next) {
    Fd socket(::socket(one->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket) {
      last_error = errno;
      continue;
    }
    if (::connect(socket.get(), one->ai_addr, one->ai_addrlen) != 0 && errno != EINPROGRESS) {
      last_error = errno;
      continue;
    }
    TRY(patience.wait(socket.get(), POLLOUT, what));
    socklen_t size = sizeof last_error;
    ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &last_error, &size);
    if (last_error == 0) {
      return socket;
    }
  }
  return fail_errno(what, last_error);
}

}  // namespace

Result<Url> parse_url(std::string_view text) {
  const auto malformed = [&] {
    return fail(Errc::usage, fmt::format("'{}' is no URL to push to", escape(text)),
                "http://HOST:4318/v1/metrics; for TLS let a collector on this host pass it on");
  };
  constexpr std::string_view scheme = "http://";
  if (text.substr(0, scheme.size()) != scheme) {
    return malformed();
  }
  text.remove_prefix(scheme.size());
  const size_t slash = text.find('/');
  Url url;
  std::string_view host = text.substr(0, slash);
  url.path = slash == std::string_view::npos ? "/" : std::string(text.substr(slash));
  const size_t bracket = host.find(']');
  const size_t colon = host.find(':', bracket == std::string_view::npos ? 0 : bracket);
  if (colon != std::string_view::npos) {
    const std::string_view port = host.substr(colon + 1);
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), url.port);
    if (error != std::errc{} || end != port.data() + port.size() || url.port == 0) {
      return malformed();
    }
    host = host.substr(0, colon);
  }
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  const auto bad = [](char c) { return c <= 0x20 || c >= 0x7f; };
  if (host.empty() || host.find('@') != std::string_view::npos ||
      std::any_of(text.begin(), text.end(), bad)) {
    return malformed();
  }
  url.host = host;
  return url;
}

std::optional<Reply> parse_reply(std::string_view head) {
  const size_t end = head.find("\r\n\r\n");
  constexpr std::string_view protocol = "HTTP/1.";
  if (end == std::string_view::npos || head.substr(0, protocol.size()) != protocol || head.size() < 12) {
    return std::nullopt;
  }
  Reply reply;
  std::from_chars(head.data() + 9, head.data() + 12, reply.status);
  if (reply.status < 100) {
    return std::nullopt;
  }
  head = head.substr(0, end + 2);
  for (size_t at = head.find("\r\n"); at != std::string_view::npos; at = head.find("\r\n", at + 2)) {
    constexpr std::string_view name = "retry-after:";
    std::string line(head.substr(at + 2, head.find("\r\n", at + 2) - at - 2));
    std::transform(line.begin(), line.end(), line.begin(), [](unsigned char c) { return std::tolower(c); });
    uint64_t seconds = 0;
    if (line.compare(0, name.size(), name) == 0) {
      const size_t digits = line.find_first_not_of(' ', name.size());
      if (digits != std::string::npos &&
          std::from_chars(line.data() + digits, line.data() + line.size(), seconds).ec == std::errc{}) {
        reply.retry_after_s = seconds;  // a date is none: then our own patience has to do
      }
    }
  }
  return reply;
}

Result<Reply> post(const Url& url, std::string_view body, const char* type, int patience_ms, int stop) {
  const Patience patience(patience_ms, stop);
  const std::string what = fmt::format("cannot push to {}:{}", escape(url.host), url.port);
  ASSIGN_OR_RETURN(const Fd socket, connect_to(url, what, patience));
  std::string request = fmt::format(
      "POST {} HTTP/1.1\r\nHost: {}:{}\r\nUser-Agent: jemtrace\r\nContent-Type: {}\r\nContent-Length: {}\r\n"
      "Connection: close\r\n\r\n",
      url.path, url.host, url.port, type, body.size());
  request += body;
  for (std::string_view rest = request; !rest.empty();) {
    TRY(patience.wait(socket.get(), POLLOUT, what));
    const ssize_t sent = ::send(socket.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
    if (sent > 0) {
      rest.remove_prefix(static_cast<size_t>(sent));
    } else if (errno != EAGAIN && errno != EINTR) {
      return fail_errno(what);
    }
  }
  constexpr size_t longest_head = 65536;
  std::string answer;
  std::array<char, 4096> buffer;
  while (answer.size() < longest_head) {
    TRY(patience.wait(socket.get(), POLLIN, what));
    const ssize_t received = ::recv(socket.get(), buffer.data(), buffer.size(), 0);
    if (received == 0 || (received < 0 && errno != EAGAIN && errno != EINTR)) {
      break;
    }
    answer.append(buffer.data(), static_cast<size_t>(std::max<ssize_t>(received, 0)));
    if (const auto reply = parse_reply(answer)) {
      return *reply;
    }
  }
  return fail(Errc::malformed, what + ": the answer is not HTTP");
}

}  // namespace jemtrace::serve
