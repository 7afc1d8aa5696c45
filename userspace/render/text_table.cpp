#include "render/text_table.hpp"

#include <algorithm>
#include <array>
#include <cstdint>

namespace jemtrace::render {
namespace {

constexpr char glued_space = '\x1f';  // escape() lets no such byte through from a target
constexpr std::string_view ellipsis = "\u2026";

struct Range {
  uint32_t first, last;
};

// Coarse on purpose: what the scripts and symbols of real process names need, not the whole Unicode annex 11.
constexpr std::array wide_ranges = {
    Range{0x1100, 0x115f}, Range{0x2e80, 0xa4cf},   Range{0xac00, 0xd7a3},
    Range{0xf900, 0xfaff}, Range{0xfe30, 0xfe6f},   Range{0xff00, 0xff60},
    Range{0xffe0, 0xffe6}, Range{0x1f300, 0x1faff}, Range{0x20000, 0x3fffd},
};
constexpr std::array zero_ranges = {Range{0x300, 0x36f}, Range{0x200b, 0x200f}, Range{0xfe00, 0xfe0f}};

template <size_t N>
bool contains(const std::array<Range, N>& ranges, uint32_t code) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [&](Range r) { return code >= r.first && code <= r.last; });
}

struct Glyph {
  std::string_view bytes;
  size_t width;
};

/// Splits escaped text, which is well-formed UTF-8; anything else counts a column a byte.
std::vector<Glyph> glyphs(std::string_view text) {
  std::vector<Glyph> result;
  for (size_t i = 0; i < text.size();) {
    const auto first = static_cast<unsigned char>(text[i]);
    const size_t length = first < 0xc0 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    uint32_t code = length == 1 ? first : first & (0xffu >> (length + 1));
    for (size_t k = 1; k < length && i + k < text.size(); ++k) {
      code = code << 6 | (static_cast<unsigned char>(text[i + k]) & 0x3f);
    }
    const size_t width = contains(zero_ranges, code) ? 0 : contains(wide_ranges, code) ? 2 : 1;
    result.push_back({text.substr(i, length), width});
    i += length;
  }
  return result;
}

void trim_right(std::string& text) {
  text.erase(text.find_last_not_of(' ') + 1);
}

}  // namespace

size_t display_width(std::string_view utf8) {
  size_t width = 0;
  for (const Glyph& glyph : glyphs(utf8)) {
    width += glyph.width;
  }
  return width;
}

std::string cut_middle(std::string_view text, size_t width) {
  if (display_width(text) <= width) {
    return std::string(text);
  }
  if (width == 0) {
    return {};
  }
  const std::vector<Glyph> all = glyphs(text);
  const size_t front = (width - 1 + 1) / 2;  // of an odd rest, the beginning gets one more
  const size_t back = width - 1 - front;
  std::string head;
  size_t used = 0;
  for (size_t i = 0; i < all.size() && used + all[i].width <= front; ++i) {
    head += all[i].bytes;
    used += all[i].width;
  }
  size_t begin = all.size();
  used = 0;
  while (begin > 0 && used + all[begin - 1].width <= back) {
    --begin;
    used += all[begin].width;
  }
  head += ellipsis;
  for (size_t i = begin; i < all.size(); ++i) {
    head += all[i].bytes;
  }
  return head;
}

std::string pad_right(std::string_view text, size_t width) {
  const size_t used = display_width(text);
  return std::string(text) + std::string(width > used ? width - used : 0, ' ');
}

std::string pad_left(std::string_view text, size_t width) {
  const size_t used = display_width(text);
  return std::string(width > used ? width - used : 0, ' ') + std::string(text);
}

std::string glue(std::string text) {
  std::replace(text.begin(), text.end(), ' ', glued_space);
  return text;
}

std::string wrap(std::string_view label, std::string_view text, size_t width, size_t indent) {
  std::string out = pad_right(label, indent);
  size_t column = display_width(out);
  bool line_start = true;
  while (!text.empty()) {
    const size_t end = std::min(text.find(' '), text.size());
    const std::string word = cut_middle(text.substr(0, end), width > indent ? width - indent : 1);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (word.empty()) {
      continue;
    }
    const size_t word_width = display_width(word);
    const bool has_text = !line_start || column > indent;  // a label may reach beyond the indent
    if (has_text && column + (line_start ? 0 : 1) + word_width > width) {
      trim_right(out);
      out += '\n' + std::string(indent, ' ');
      column = indent;
      line_start = true;
    }
    if (!line_start) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word_width;
    line_start = false;
  }
  std::replace(out.begin(), out.end(), glued_space, ' ');
  trim_right(out);
  return out + '\n';
}

Columns::Columns(std::vector<Column> columns, size_t width)
    : columns_(std::move(columns)), shown_(columns_.size(), true), width_(width) {
  for (Column& column : columns_) {
    column.width = std::max(column.width, display_width(column.header));
  }
  if (total() > width_) {
    use_short_headers();
  }
  while (total() > width_ &&
         std::any_of(columns_.begin(), columns_.end(), [](const Column& c) { return c.drop > 0; })) {
    drop_one();
  }
  widen_gap();
}

void Columns::fit(const std::vector<std::vector<std::string>>& rows) {
  gap_ = 1;
  for (const auto& row : rows) {
    for (size_t i = 0; i < columns_.size() && i < row.size(); ++i) {
      columns_[i].width = std::max(columns_[i].width, display_width(row[i]));
    }
  }
  while (total() > width_) {
    Column* widest = nullptr;
    for (Column& column : columns_) {
      const bool may_shrink = column.min_width > 0 && column.width > column.min_width;
      if (may_shrink && (widest == nullptr || column.width > widest->width)) {
        widest = &column;
      }
    }
    if (widest == nullptr) {
      return;
    }
    --widest->width;
  }
  widen_gap();
}

std::string Columns::header() const {
  std::vector<std::string> cells;
  for (const Column& column : columns_) {
    cells.push_back(column.header);
  }
  return row(cells);
}

std::string Columns::row(const std::vector<std::string>& cells) const {
  std::string out;
  size_t used = 0;
  size_t end = 0;  // where the column should end
  bool first = true;
  for (size_t i = 0; i < columns_.size(); ++i) {
    if (!shown_[i]) {
      continue;
    }
    end += columns_[i].width + (first ? 0 : gap_);
    const bool left = columns_[i].left;
    const std::string cell = left ? cut_middle(cells[i], columns_[i].width) : cells[i];
    const size_t width = display_width(cell);
    const size_t start = left ? end - columns_[i].width : end - std::min(end, width);
    const size_t gap = std::max<size_t>(start > used ? start - used : 0, first ? 0 : 1);
    out += std::string(gap, ' ') + cell;
    used += gap + width;
    first = false;
  }
  trim_right(out);
  return out;
}

size_t Columns::total() const {
  size_t sum = 0;
  for (size_t i = 0; i < columns_.size(); ++i) {
    sum += shown_[i] ? columns_[i].width + (sum == 0 ? 0 : gap_) : 0;
  }
  return sum;
}

void Columns::use_short_headers() {
  for (Column& column : columns_) {
    if (!column.short_header.empty()) {
      column.header = column.short_header;
      column.width = std::max<size_t>(display_width(column.header), column.min_width);
    }
  }
}

// Two spaces between columns read better, where there is room.
void Columns::widen_gap() {
  gap_ = 2;
  if (total() > width_) {
    gap_ = 1;
  }
}

void Columns::drop_one() {
  size_t victim = 0;
  for (size_t i = 0; i < columns_.size(); ++i) {
    victim = columns_[i].drop > columns_[victim].drop ? i : victim;
  }
  shown_[victim] = false;
  columns_[victim].drop = 0;
}

}  // namespace jemtrace::render
