#include "render/sink.hpp"

#include <cerrno>

namespace jemtrace::render {
namespace {

// stdio sets errno on failure, but nothing says that it must.
int failure() {
  return errno != 0 ? errno : EIO;
}

}  // namespace

void Sink::write(std::string_view text) {
  if (error_ == 0 && !text.empty()) {
    error_ = put(text);
  }
}

void Sink::flush() {
  if (error_ == 0) {
    error_ = push();
  }
}

int FileSink::put(std::string_view text) {
  errno = 0;
  return std::fwrite(text.data(), 1, text.size(), file_) == text.size() ? 0 : failure();
}

int FileSink::push() {
  errno = 0;
  return std::fflush(file_) == 0 ? 0 : failure();
}

int StringSink::put(std::string_view text) {
  text_ += text;
  return 0;
}

}  // namespace jemtrace::render
