#include "serve/channel.hpp"

#include <sys/socket.h>

#include <cerrno>

namespace jemtrace::serve {
namespace {

class Plain final : public Channel {
 public:
  explicit Plain(Fd socket) : socket_(std::move(socket)) {}
  Move read(char* to, size_t size) override {
    return result(::recv(socket_.get(), to, size, 0), Outcome::want_read);
  }
  Move write(std::string_view from) override {
    return result(::send(socket_.get(), from.data(), from.size(), MSG_NOSIGNAL), Outcome::want_write);
  }
  [[nodiscard]] int fd() const override { return socket_.get(); }

 private:
  static Move result(ssize_t moved, Outcome blocked) {
    if (moved > 0) {
      return {Outcome::moved, static_cast<size_t>(moved)};
    }
    const bool later = moved < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
    return {later ? blocked : Outcome::closed, 0};
  }

  Fd socket_;
};

}  // namespace

std::unique_ptr<Channel> plain_channel(Fd socket) {
  return std::make_unique<Plain>(std::move(socket));
}

}  // namespace jemtrace::serve
