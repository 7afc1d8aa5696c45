#include "read/call/frames.hpp"

#include <fcntl.h>

#include <algorithm>

#include "locate/frame_rules.hpp"

namespace jemtrace::read {
namespace {

constexpr size_t max_frames = 4096;
constexpr uint64_t word = sizeof(uint64_t);

std::optional<uint64_t> word_at(const Stack& stack, uint64_t address) {
  if (address < stack.start || (address - stack.start) % word != 0 ||
      (address - stack.start) / word >= stack.words.size()) {
    return std::nullopt;
  }
  return stack.words[(address - stack.start) / word];
}

/// The file's name for a place in its code; nullopt for the vdso and for code without a file.
std::optional<std::pair<std::pair<uint64_t, uint64_t>, uint64_t>> place_of(const discover::Mappings& maps,
                                                                           uint64_t pc) {
  const discover::Mapping* const code = mapping_of(maps, pc);
  if (code == nullptr || !code->executable || code->inode == 0) {
    return std::nullopt;
  }
  const uint64_t device = uint64_t{code->device_major} << 32 | code->device_minor;
  return std::pair{std::pair{device, code->inode}, pc - code->start + code->file_offset};
}

}  // namespace

const discover::Mapping* mapping_of(const discover::Mappings& maps, uint64_t address) {
  const auto& all = maps.all();
  const auto behind = std::upper_bound(all.begin(), all.end(), address,
                                       [](uint64_t at, const auto& mapping) { return at < mapping.end; });
  return behind == all.end() || address < behind->start ? nullptr : &*behind;
}

Walked walk(const Stack& stack, uint64_t pc, uint64_t bp, const RuleAt& rule_at) {
  Walked walked{.return_slots = {}, .end = stack.start};
  uint64_t sp = stack.start;
  for (size_t i = 0; i < max_frames && pc != 0; ++i) {
    // Behind a call that never returns begins another function: what matters is the call itself.
    const auto rule = rule_at(pc - 1);
    if (!rule || rule->cfa_register == JT_CFA_NONE) {
      break;
    }
    const uint64_t base = rule->cfa_register == JT_CFA_SP ? sp : bp;
    const uint64_t cfa = base + static_cast<uint64_t>(rule->cfa_offset);
    const auto caller = word_at(stack, cfa - word);
    if (cfa <= sp || !caller) {
      break;
    }
    if (rule->saved_bp != 0) {
      const auto saved = word_at(stack, cfa + static_cast<uint64_t>(int64_t{rule->saved_bp}));
      if (!saved) {
        break;
      }
      bp = *saved;
    }
    walked.return_slots.insert(cfa - word);
    walked.end = cfa;
    sp = cfa;
    pc = *caller;
  }
  return walked;
}

std::optional<uint64_t> find_live_return(const Stack& stack, const Walked& walked,
                                         std::span<const CodeRange> code) {
  for (size_t i = 0; i < stack.words.size(); ++i) {
    const uint64_t at = stack.start + i * word;
    const bool left_over = at < walked.end && !walked.return_slots.contains(at);
    if (!left_over && find_return(stack.words.subspan(i, 1), code)) {
      return stack.words[i];
    }
  }
  return std::nullopt;
}

std::optional<locate::FrameRule> FrameRules::at(const discover::Mappings& maps, uint64_t pc) const {
  const auto place = place_of(maps, pc);
  const auto it = place ? rules_.find(*place) : rules_.end();
  return it == rules_.end() ? std::nullopt : it->second;
}

bool FrameRules::know(const discover::Mappings& maps, const std::set<uint64_t>& pcs) const {
  return std::all_of(pcs.begin(), pcs.end(), [&](uint64_t pc) {
    const auto place = place_of(maps, pc);
    return !place || rules_.contains(*place);
  });
}

void FrameRules::learn(const ProcRoot& proc, pid_t pid, const discover::Mappings& maps,
                       const std::set<uint64_t>& pcs) {
  struct Wanted {
    const discover::Mapping* mapping = nullptr;
    std::vector<uint64_t> offsets;
  };
  std::map<File, Wanted> files;
  for (const uint64_t pc : pcs) {
    const auto place = place_of(maps, pc);
    if (place && !rules_.contains(*place)) {
      Wanted& wanted = files[place->first];
      wanted.mapping = mapping_of(maps, pc);
      wanted.offsets.push_back(place->second);
    }
  }
  for (const auto& [file, wanted] : files) {
    const auto opened = open_file(discover::map_file_path(proc, pid, *wanted.mapping), O_RDONLY | O_NONBLOCK);
    const auto rules = opened ? locate::frame_rules_isolated(opened->get(), std::string(wanted.mapping->path),
                                                             wanted.offsets)
                              : tl::unexpected(opened.error());
    // What cannot be learned is without rules for good: asking again would be answered the same.
    for (size_t i = 0; i < wanted.offsets.size(); ++i) {
      rules_[{file, wanted.offsets[i]}] = rules ? (*rules)[i] : std::nullopt;
    }
  }
}

}  // namespace jemtrace::read
