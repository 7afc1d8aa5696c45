#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

/// Laying out text in columns of a terminal. Widths are in columns, not bytes.
namespace jemtrace::render {

size_t display_width(std::string_view utf8);
/// Shortens to `width` columns with one … in the middle: both ends of a name or path tell it from others.
std::string cut_middle(std::string_view text, size_t width);
std::string pad_right(std::string_view text, size_t width);
std::string pad_left(std::string_view text, size_t width);

/// Marks the spaces of a value ("92 %", "1.16 GB") as no place to break a line; wrap() turns them back.
std::string glue(std::string text);

/// `label`, then `text` from column `indent` on, broken between words and indented likewise. Ends with a
/// newline. Words longer than a line are cut in the middle.
std::string wrap(std::string_view label, std::string_view text, size_t width, size_t indent);

struct Column {
  std::string header;
  size_t width = 0;               // 0: as wide as the content
  bool left = false;              // left-aligned text, which is cut where it does not fit; numbers never are
  int drop = 0;                   // leaves first when the line is too long: highest first; 0 stays
  std::string short_header = {};  // used, with its width, before any column is dropped
  size_t min_width = 0;           // how far a left column may shrink; 0: not at all
};

/// A table whose widths are fixed before its rows are known (live output), or fitted to them (fit()).
class Columns {
 public:
  Columns(std::vector<Column> columns, size_t width);
  /// Widens each column to its content, then shrinks those that may until the line fits.
  void fit(const std::vector<std::vector<std::string>>& rows);

  [[nodiscard]] std::string header() const;  // no newline
  /// One cell per column given to the constructor, dropped ones included. A number too wide for its column
  /// takes the room of its neighbours' padding.
  [[nodiscard]] std::string row(const std::vector<std::string>& cells) const;

 private:
  [[nodiscard]] size_t total() const;
  void use_short_headers();
  void drop_one();
  void widen_gap();

  std::vector<Column> columns_;
  std::vector<bool> shown_;
  size_t width_;
  size_t gap_ = 1;
};

}  // namespace jemtrace::render
