#pragma once

#include <cstdio>
#include <string>
#include <string_view>

namespace jemtrace::render {

/// Where output goes. Remembers the first failure and takes no more after it, so that a reader who has seen
/// enough
/// (`| head`) ends the program quietly: ask failed() between lines. The program must ignore SIGPIPE.
class Sink {
 public:
  Sink() = default;
  Sink(const Sink&) = delete;
  Sink& operator=(const Sink&) = delete;
  virtual ~Sink() = default;

  void write(std::string_view text);
  /// Hands over what is buffered: people and pipes wait for a line of an interval.
  void flush();

  [[nodiscard]] bool failed() const { return error_ != 0; }
  [[nodiscard]] int error() const { return error_; }  // errno; 0 when all was written

 protected:
  /// Both return 0 or an errno.
  virtual int put(std::string_view text) = 0;
  virtual int push() { return 0; }

 private:
  int error_ = 0;
};

/// A stdio stream, not owned.
class FileSink final : public Sink {
 public:
  explicit FileSink(std::FILE* file) : file_(file) {}

 private:
  int put(std::string_view text) override;
  int push() override;
  std::FILE* file_;
};

class StringSink final : public Sink {
 public:
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  int put(std::string_view text) override;
  std::string text_;
};

}  // namespace jemtrace::render
