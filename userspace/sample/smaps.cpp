#include "sample/smaps.hpp"

#include <charconv>

#include "sample/fields.hpp"

namespace jemtrace::sample {
namespace {

using ledger::Vma;

constexpr size_t text_limit = size_t{128} << 20;

bool starts_with(std::string_view text, std::string_view prefix) {
  return text.substr(0, prefix.size()) == prefix;
}

Vma::Kind kind_of(std::string_view path) {
  if (path.empty() || starts_with(path, "[anon:")) {
    return Vma::Kind::anonymous;
  }
  if (path == "[heap]") {
    return Vma::Kind::heap;
  }
  if (path == "[stack]") {
    return Vma::Kind::stack;
  }
  return path.front() == '[' ? Vma::Kind::other : Vma::Kind::file;
}

/// "start-end perms offset dev inode    path": true when the line is one.
bool parse_head(std::string_view line, Vma& vma) {
  const char* const last = line.data() + line.size();
  const auto [dash, error] = std::from_chars(line.data(), last, vma.start, 16);
  if (error != std::errc{} || dash == last || *dash != '-') {
    return false;
  }
  const auto [blank, error2] = std::from_chars(dash + 1, last, vma.end, 16);
  if (error2 != std::errc{} || blank == last || *blank != ' ' || vma.end <= vma.start) {
    return false;
  }
  // perms, offset, dev, inode; then the path, which may hold blanks.
  std::string_view rest(blank, static_cast<size_t>(last - blank));
  for (int field = 0; field < 4; ++field) {
    rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
    rest.remove_prefix(std::min(rest.find(' '), rest.size()));
  }
  rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
  vma.kind = kind_of(rest);
  return true;
}

void take_field(std::string_view line, Vma& vma) {
  struct Field {
    std::string_view name;
    uint64_t Vma::*bytes;
  };
  static constexpr Field fields[] = {
      {"Rss:", &Vma::rss_bytes},
      {"Anonymous:", &Vma::anonymous_bytes},
      {"LazyFree:", &Vma::lazyfree_bytes},
      {"AnonHugePages:", &Vma::anon_huge_bytes},
      {"Swap:", &Vma::swap_bytes},
      {"Shared_Clean:", &Vma::shared_bytes},
      {"Shared_Dirty:", &Vma::shared_bytes},
  };
  for (const Field& field : fields) {
    if (starts_with(line, field.name)) {
      vma.*field.bytes += field_bytes(line, field.name).value_or(0);
    }
  }
}

}  // namespace

std::vector<ledger::Vma> parse_smaps(std::string_view text) {
  std::vector<Vma> all;
  while (!text.empty()) {
    const std::string_view line = take_line(text);
    // A head begins with a lower-case hexadecimal digit, a field with an upper-case letter.
    if (line.empty() || (line.front() >= 'A' && line.front() <= 'Z')) {
      if (!all.empty()) {
        take_field(line, all.back());
      }
      continue;
    }
    Vma vma;
    if (!parse_head(line, vma)) {
      continue;
    }
    vma.zero_fill = vma.kind == Vma::Kind::anonymous && !all.empty() && all.back().end == vma.start &&
                    all.back().kind == Vma::Kind::file;
    all.push_back(vma);
  }
  return all;
}

Result<std::vector<ledger::Vma>> read_smaps(const ProcRoot& proc, pid_t pid) {
  ASSIGN_OR_RETURN(const std::string text, proc.read(pid, "smaps", text_limit));
  return parse_smaps(text);
}

}  // namespace jemtrace::sample
