#include "read/conf_variables.hpp"

#include <algorithm>
#include <array>

namespace jemtrace::read {
namespace {

constexpr size_t page = 4096;
constexpr size_t max_text = 4096;
constexpr uint64_t max_address = uint64_t{1} << 57;

std::optional<uint64_t> word_at(const Memory& memory, uint64_t address) {
  uint64_t value = 0;
  std::array<Memory::Piece, 1> piece = {{{address, {reinterpret_cast<uint8_t*>(&value), sizeof value}}}};
  const bool sound = address != 0 && address < max_address && memory.read(piece) && piece[0].whole;
  return sound ? std::optional(value) : std::nullopt;
}

}  // namespace

std::optional<std::string> read_conf_variable(const Memory& memory, const locate::ConfVariable& variable,
                                              uint64_t bias) {
  std::optional<uint64_t> at = variable.vaddr + bias;
  if (variable.through_got) {
    at = word_at(memory, *at);
  }
  const auto text_at = at ? word_at(memory, *at) : std::nullopt;
  if (!text_at || *text_at == 0 || *text_at >= max_address) {
    return std::nullopt;
  }
  // It may end just before a page that is not there.
  std::array<uint8_t, max_text> bytes{};
  const size_t in_page = page - *text_at % page;
  std::array<Memory::Piece, 2> pieces = {
      {{*text_at, std::span(bytes).first(in_page)}, {*text_at + in_page, std::span(bytes).subspan(in_page)}}};
  const size_t n = in_page < max_text ? 2 : 1;
  if (!memory.read(std::span(pieces).first(n)) || !pieces[0].whole) {
    return std::nullopt;
  }
  const auto last = bytes.begin() + static_cast<ptrdiff_t>(n == 2 && !pieces[1].whole ? in_page : max_text);
  const auto end = std::find(bytes.begin(), last, 0);
  const bool text = end != last && end != bytes.begin() &&
                    std::all_of(bytes.begin(), end, [](uint8_t c) { return c >= ' ' && c < 0x7f; });
  return text ? std::optional(std::string(bytes.begin(), end)) : std::nullopt;
}

}  // namespace jemtrace::read
