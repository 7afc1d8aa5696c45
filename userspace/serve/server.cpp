#include "serve/server.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>

#include "util/clock.hpp"

namespace jemtrace::serve {

struct Server::Connection {
  std::unique_ptr<Channel> channel;
  std::string in;  // at most max_request_bytes and one read more
  std::string head;
  std::shared_ptr<const std::string> body;
  size_t sent = 0;  // of head and body
  bool writing = false;
  bool keep = true;  // after this response
  bool lost = false;
  short wanted = POLLIN;
  unsigned requests = 0;
  uint64_t since_ns = 0;  // when it began to wait for what it is waiting for
  uint64_t deadline_ns = 0;
  bool asked_before = false;  // between two requests patience is longer

  [[nodiscard]] size_t size() const { return head.size() + (body ? body->size() : 0); }
};

Server::Server(Fd listening, std::unique_ptr<Tls> tls, Limits limits, Handler handler)
    : listening_(std::move(listening)), tls_(std::move(tls)), limits_(limits), handler_(std::move(handler)) {}
Server::~Server() = default;

void Server::run(int stop) {
  std::vector<pollfd> fds;
  for (;;) {
    fds.assign({{.fd = listening_.get(), .events = POLLIN, .revents = 0},
                {.fd = stop, .events = POLLIN, .revents = 0}});
    uint64_t now = monotonic_ns();
    uint64_t wake_ns = now + 60'000'000'000;
    for (const auto& connection : connections_) {
      fds.push_back({.fd = connection->channel->fd(), .events = connection->wanted, .revents = 0});
      wake_ns = std::min(wake_ns, connection->deadline_ns);
    }
    const int timeout_ms = wake_ns <= now ? 0 : static_cast<int>((wake_ns - now) / 1'000'000 + 1);
    if (::poll(fds.data(), fds.size(), timeout_ms) < 0) {
      continue;  // a signal
    }
    if (fds[1].revents != 0) {
      return;
    }
    now = monotonic_ns();
    for (size_t i = 0; i < connections_.size(); ++i) {
      Connection& connection = *connections_[i];
      if (fds[i + 2].revents != 0) {
        advance(connection, now);
      } else if (now >= connection.deadline_ns) {
        connection.lost = true;
        // One that is idle between two requests is let go: that is no fault of his.
        counts_.dropped_connections +=
            connection.asked_before && connection.in.empty() && !connection.writing ? 0 : 1;
      }
    }
    std::erase_if(connections_, [](const auto& connection) { return connection->lost; });
    if (fds[0].revents != 0) {
      accept_all(now);
    }
  }
}

void Server::accept_all(uint64_t now) {
  constexpr int at_a_time = 64;  // others wait, too
  for (int i = 0; i < at_a_time; ++i) {
    Fd socket(::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket) {
      const bool exhausted = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
      if (!exhausted || !make_room()) {
        return;
      }
      continue;
    }
    if (connections_.size() >= limits_.connections && !make_room()) {
      counts_.dropped_connections += 1;
      continue;
    }
    auto connection = std::make_unique<Connection>();
    connection->channel = tls_ ? tls_->accept(std::move(socket)) : plain_channel(std::move(socket));
    connection->since_ns = now;
    connection->deadline_ns = now + limits_.request_ns;
    connections_.push_back(std::move(connection));
  }
}

/// Whoever has let us wait for his request for longest makes place for a new one.
bool Server::make_room() {
  auto oldest = connections_.end();
  for (auto it = connections_.begin(); it != connections_.end(); ++it) {
    if (!(*it)->writing && (oldest == connections_.end() || (*it)->since_ns < (*oldest)->since_ns)) {
      oldest = it;
    }
  }
  if (oldest == connections_.end()) {
    return false;
  }
  connections_.erase(oldest);
  counts_.dropped_connections += 1;
  return true;
}

void Server::advance(Connection& connection, uint64_t now) {
  // TLS may want to write in order to read, and the other way round; each try says what to wait for.
  for (int i = 0; i < 16 && !connection.lost; ++i) {  // then it is somebody else's turn
    if (!(connection.writing ? send(connection, now) : receive(connection, now))) {
      return;
    }
  }
  connection.wanted = connection.writing ? POLLOUT : POLLIN;
}

/// False: nothing more to do for now.
bool Server::receive(Connection& connection, uint64_t now) {
  std::array<char, 4096> buffer;
  const auto [outcome, bytes] = connection.channel->read(buffer.data(), buffer.size());
  switch (outcome) {
    case Channel::Outcome::moved:
      break;
    case Channel::Outcome::closed:
      connection.lost = true;
      return false;
    case Channel::Outcome::want_read:
    case Channel::Outcome::want_write:
      connection.wanted = outcome == Channel::Outcome::want_read ? POLLIN : POLLOUT;
      return false;
  }
  if (connection.in.empty() && connection.requests > 0) {
    connection.since_ns = now;
    connection.deadline_ns = now + limits_.request_ns;
  }
  connection.in.append(buffer.data(), bytes);
  answer(connection, now);
  return true;
}

/// If a whole request is there.
void Server::answer(Connection& connection, uint64_t now) {
  ParsedRequest parsed = parse_request(connection.in);
  switch (parsed.state) {
    case ParsedRequest::State::incomplete:
      return;
    case ParsedRequest::State::refused:
      counts_.refused_requests += 1;
      connection.in.clear();
      respond(connection, std::move(parsed.refusal), false, false, now);
      return;
    case ParsedRequest::State::complete:
      break;
  }
  connection.in.erase(0, parsed.bytes);
  connection.requests += 1;
  const Request& request = parsed.request;
  const bool head = request.method == "HEAD";
  Response response;
  if (request.method != "GET" && !head) {
    response = make_response(405, "only GET and HEAD");
    response.headers.emplace_back("Allow", "GET, HEAD");
  } else {
    response = handler_(request);
  }
  counts_.refused_requests += response.status >= 400 && response.status < 500 ? 1 : 0;
  respond(connection, std::move(response), head, request.keep_alive && connection.requests < limits_.requests,
          now);
}

void Server::respond(Connection& connection, Response response, bool head_only, bool keep, uint64_t now) {
  limit_writers(connection);
  connection.head = response_head(response, keep);
  connection.body = head_only ? nullptr : std::move(response.body);
  connection.sent = 0;
  connection.keep = keep;
  connection.writing = true;
  connection.since_ns = now;
  connection.deadline_ns = now + limits_.response_ns;
}

/// Each of them keeps a response in memory: the slowest reader has to go.
void Server::limit_writers(Connection& connection) {
  size_t writers = 0;
  Connection* slowest = nullptr;
  for (const auto& other : connections_) {
    if (other.get() != &connection && other->writing && !other->lost) {
      ++writers;
      if (slowest == nullptr || other->since_ns < slowest->since_ns) {
        slowest = other.get();
      }
    }
  }
  if (slowest != nullptr && writers >= limits_.writers) {
    slowest->lost = true;
    slowest->body.reset();
    counts_.dropped_connections += 1;
  }
}

/// False: nothing more to do for now.
bool Server::send(Connection& connection, uint64_t now) {
  const std::string_view head = connection.head;
  const std::string_view body = connection.body ? std::string_view(*connection.body) : std::string_view{};
  const std::string_view rest = connection.sent < head.size() ? head.substr(connection.sent)
                                                              : body.substr(connection.sent - head.size());
  if (!rest.empty()) {
    const auto [outcome, bytes] = connection.channel->write(rest);
    if (outcome == Channel::Outcome::closed) {
      connection.lost = true;
      return false;
    }
    if (outcome != Channel::Outcome::moved) {
      connection.wanted = outcome == Channel::Outcome::want_read ? POLLIN : POLLOUT;
      return false;
    }
    connection.sent += bytes;
    if (connection.sent < connection.size()) {
      return true;
    }
  }
  connection.writing = false;
  connection.body.reset();
  connection.wanted = POLLIN;
  if (!connection.keep) {
    connection.lost = true;
    return false;
  }
  connection.asked_before = true;
  connection.since_ns = now;
  connection.deadline_ns = now + limits_.idle_ns;
  if (!connection.in.empty()) {
    answer(connection, now);  // the next one came along with it
  }
  return true;
}

}  // namespace jemtrace::serve
