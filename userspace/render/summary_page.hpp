#pragma once

#include <cstdint>
#include <string>

#include "render/text_parts.hpp"
#include "render/words.hpp"
#include "util/text.hpp"

/// What the parts of a summary's text are written with.
namespace jemtrace::render {

/// Phrases of one sentence, comma between them.
class Phrases {
 public:
  void add(const std::string& phrase) { text_ += (text_.empty() ? "" : ", ") + phrase; }
  [[nodiscard]] const std::string& text() const { return text_; }
  [[nodiscard]] bool empty() const { return text_.empty(); }

 private:
  std::string text_;
};

/// The lines of a summary, as wide as the output is.
class Page {
 public:
  explicit Page(const TextOptions& options) : options_(options) {}
  void line(const std::string& text) { out_ += text + '\n'; }
  void heading(const std::string& text) { line(bold(text, options_)); }
  void labelled(const std::string& label, const std::string& text) {
    out_ += wrap(label, text, options_.width, label_width);
  }
  void sentence(const std::string& text) { out_ += wrap("", text, options_.width, 0); }
  [[nodiscard]] const TextOptions& options() const { return options_; }
  [[nodiscard]] const std::string& text() const { return out_; }

 private:
  TextOptions options_;
  std::string out_;
};

inline std::string bytes(uint64_t n) {
  return glue(human_bytes(n));
}
inline std::string count(uint64_t n) {
  return glue(human_count(n));
}
inline std::string time(uint64_t ns) {
  return glue(human_ns(ns));
}
inline std::string share(uint64_t part, uint64_t whole) {
  return glue(percent(part, whole));
}
inline std::string calls(uint64_t n) {
  return glue(plural(n, "call", "calls"));
}

/// What memory there is, how it moved, and what of it came back. `purged`: whether any purge was seen.
void memory_lines(Page& page, const ledger::Summary& summary, bool purged);

}  // namespace jemtrace::render
