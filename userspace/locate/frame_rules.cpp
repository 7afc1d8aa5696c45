#include "locate/frame_rules.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <cstring>
#include <type_traits>

#include "locate/elf_file.hpp"
#include "util/confined.hpp"

namespace jemtrace::locate {
namespace {

constexpr uint64_t max_file = uint64_t{4} << 30;
constexpr size_t max_offsets = 65536;
constexpr int32_t max_frame = 64 << 10;

/// A rule on its way from the child.
struct Line {
  int32_t known = 0, cfa_register = 0, cfa_offset = 0, saved_bp = 0;
};
static_assert(std::has_unique_object_representations_v<Line>);

const Elf64_Phdr* code_at(const ElfFile& file, uint64_t offset) {
  for (const Elf64_Phdr& segment : file.segments()) {
    if (segment.p_type == PT_LOAD && (segment.p_flags & PF_X) != 0 && segment.p_offset <= offset &&
        offset - segment.p_offset < segment.p_filesz) {
      return &segment;
    }
  }
  return nullptr;
}

/// Runs in the child.
std::string rules_of(int fd, const std::string& path, std::span<const uint64_t> offsets) {
  std::string out(offsets.size() * sizeof(Line), '\0');
  const auto file = ElfFile::open(fd, path, max_file);
  const auto frames =
      file ? CallFrames::read(*file) : Result<CallFrames>(fail(Errc::malformed, "no ELF file"));
  for (size_t i = 0; frames && i < offsets.size(); ++i) {
    const Elf64_Phdr* const segment = code_at(*file, offsets[i]);
    const auto rule = segment == nullptr ? std::nullopt
                                         : frames->rule_at(offsets[i] - segment->p_offset + segment->p_vaddr);
    if (rule) {
      const Line line{1, rule->cfa_register, rule->cfa_offset, rule->saved_bp};
      std::memcpy(out.data() + i * sizeof line, &line, sizeof line);
    }
  }
  return out;
}

std::optional<FrameRule> checked(const Line& line) {
  const bool sound = line.known == 1 && (line.cfa_register == JT_CFA_SP || line.cfa_register == JT_CFA_BP) &&
                     line.cfa_offset >= 0 && line.cfa_offset <= max_frame && line.saved_bp <= 0 &&
                     line.saved_bp >= -max_frame;
  return sound ? std::optional(
                     FrameRule{static_cast<jt_cfa>(line.cfa_register), line.cfa_offset, line.saved_bp})
               : std::nullopt;
}

}  // namespace

Result<std::vector<std::optional<FrameRule>>> frame_rules_isolated(int fd, const std::string& path,
                                                                   std::span<const uint64_t> offsets) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) {
    return fail_errno("cannot stat " + path);
  }
  if (!S_ISREG(status.st_mode) || offsets.size() > max_offsets) {
    return fail(Errc::malformed, path + " is not looked at for its call frames");
  }
  const auto size = static_cast<uint64_t>(status.st_size);
  const Confinement confinement{
      .path = path,
      .file = fd,
      .budget = {.memory_bytes = (uint64_t{256} << 20) + 3 * std::min(size, max_file / 8),
                 .cpu = std::chrono::seconds(5 + size / (10 << 20))},
      .max_answer = offsets.size() * sizeof(Line)};
  const Give nothing = [](const std::string&) -> Result<Given> {
    return fail(Errc::denied, "no other file is needed");
  };
  ASSIGN_OR_RETURN(
      const std::string answer,
      run_confined(
          confinement, [&](int file, const Ask&) { return rules_of(file, path, offsets); }, nothing));
  if (answer.size() != offsets.size() * sizeof(Line)) {
    return fail(Errc::malformed, "what came of looking at " + path + " makes no sense");
  }
  std::vector<std::optional<FrameRule>> rules;
  for (size_t i = 0; i < offsets.size(); ++i) {
    Line line;
    std::memcpy(&line, answer.data() + i * sizeof line, sizeof line);
    rules.push_back(checked(line));
  }
  return rules;
}

}  // namespace jemtrace::locate
