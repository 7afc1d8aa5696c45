#include "locate/recover/function_scan.hpp"

#include <algorithm>
#include <array>
#include <map>

namespace jemtrace::locate::recover {
namespace {

constexpr size_t max_references = 20000;
constexpr uint16_t caller_saved =
    1U << rax | 1U << rcx | 1U << rdx | 1U << rsi | 1U << rdi | 1U << r8 | 1U << r9 | 1U << 10 | 1U << 11;
constexpr int result_window = 6;     // instructions between a call and the test of its result
constexpr size_t merge_window = 16;  // instructions between a label and the call behind it
constexpr uint64_t last_member = 8;
constexpr int64_t least_member = 0x600;       // smaller ones are everywhere
constexpr int64_t last_far_member = 0x40000;  // arena_t comes to 0x18940

struct Value {
  std::optional<uint32_t> constant;
  std::optional<uint8_t> member;
};

/// The addresses that branches of this code lead to: where the constants of one path mean nothing.
std::vector<uint64_t> labels_of(const std::vector<Instruction>& code) {
  std::vector<uint64_t> labels;
  for (const Instruction& in : code) {
    if (in.target != 0 && in.kind != Instruction::Kind::call) {
      labels.push_back(in.target);
    }
  }
  std::sort(labels.begin(), labels.end());
  return labels;
}

class Machine {
 public:
  Machine(uint64_t start, uint64_t end, bool absolute) : start_(start), end_(end), absolute_(absolute) {}

  void step(const Instruction& in, Scan& out) {
    note_arguments(in, out);
    note_references(in, out);
    note_members(in, out);
    note_transfer(in, out);
    move(in);
    previous_ = in;
  }

  void forget_constants() {
    for (Value& value : values_) {
      value.constant.reset();
    }
    stacked_.reset();
  }

 private:
  void note_arguments(const Instruction& in, Scan& out) {
    if (seen_call_) {
      return;
    }
    // A push only saves the register.
    const bool saves = in.writes == 1U << rsp;
    out.arguments |= saves ? 0 : in.reads & ~written_;
    written_ |= in.writes;
    seen_call_ = in.kind == Instruction::Kind::call;
  }

  void note_references(const Instruction& in, Scan& out) const {
    const bool leaves = in.kind == Instruction::Kind::call || in.kind == Instruction::Kind::jump;
    if (out.references.size() >= max_references) {
      return;
    }
    if (in.address != 0 && !leaves) {
      out.references.push_back(in.address);
    }
    if (absolute_ && in.immediate && *in.immediate >= 0x1000 && *in.immediate <= 0x7fffffff) {
      out.references.push_back(*in.immediate);
    }
  }

  static void note_members(const Instruction& in, Scan& out) {
    const bool relative = in.base != no_register || in.array != no_register;
    const int64_t distance = in.adds_constant             ? static_cast<int64_t>(in.immediate.value_or(0))
                             : relative && in.base != rsp ? in.displacement
                                                          : 0;
    if (distance >= least_member && distance <= last_far_member && out.members.size() < max_references) {
      out.members.push_back(static_cast<uint32_t>(distance));
    }
  }

  void note_transfer(const Instruction& in, Scan& out) const {
    const bool call = in.kind == Instruction::Kind::call;
    const bool jump = in.kind == Instruction::Kind::jump || in.kind == Instruction::Kind::branch;
    const bool inside = in.target >= start_ && in.target < end_;
    if (in.kind == Instruction::Kind::syscall) {
      Transfer transfer = with_arguments(in);
      transfer.return_vaddr = in.next();
      transfer.system_call = true;
      out.transfers.push_back(transfer);
      return;
    }
    if ((!call && !jump) || (jump && in.target != 0 && inside) || (in.target == 0 && in.indexed)) {
      return;
    }
    Transfer transfer = with_arguments(in);
    transfer.return_vaddr = call ? in.next() : 0;
    transfer.target = in.target;
    transfer.pointer = in.target == 0 ? in.address : 0;
    transfer.conditional = in.kind == Instruction::Kind::branch;
    if (in.target == 0 && in.address == 0) {
      transfer.member = in.has_memory ? loaded(in).member : value_of(in.from).member;
    }
    out.transfers.push_back(transfer);
  }

  [[nodiscard]] Transfer with_arguments(const Instruction& in) const {
    Transfer transfer;
    transfer.vaddr = in.vaddr;
    transfer.number = values_[rax].constant;
    transfer.rdi = values_[rdi].constant;
    transfer.rdx = values_[rdx].constant;
    transfer.rcx = values_[rcx].constant;
    transfer.r9 = values_[r9].constant;
    transfer.stacked = stacked_;
    return transfer;
  }

  [[nodiscard]] Value value_of(uint8_t reg) const { return reg < values_.size() ? values_[reg] : Value{}; }

  /// What a load from memory yields: a spilled value, or a member of a struct.
  [[nodiscard]] Value loaded(const Instruction& in) const {
    if (in.base == no_register || in.indexed) {
      return {};
    }
    if (in.base == rsp || in.base == rbp) {
      const auto spill = spills_.find({in.base, in.displacement});
      if (spill != spills_.end() || in.base == rsp) {
        return spill == spills_.end() ? Value{} : Value{{}, spill->second};
      }
    }
    const auto displacement = static_cast<uint64_t>(in.displacement);
    if (displacement % 8 == 0 && displacement / 8 <= last_member) {
      return {{}, static_cast<uint8_t>(displacement / 8)};
    }
    return {};
  }

  void move(const Instruction& in) {
    Value value;
    switch (in.move) {
      case Instruction::Move::constant:
        value.constant = static_cast<uint32_t>(in.immediate.value_or(0));
        break;
      case Instruction::Move::copy:
        value = value_of(in.from);
        break;
      case Instruction::Move::load:
        value = loaded(in);
        break;
      case Instruction::Move::pop:
        if (previous_.move == Instruction::Move::push_constant) {
          value.constant = static_cast<uint32_t>(previous_.immediate.value_or(0));
        }
        break;
      default:
        break;
    }
    if (in.move == Instruction::Move::store && (in.base == rsp || in.base == rbp)) {
      const auto member = value_of(in.from).member;
      if (member) {
        spills_[{in.base, in.displacement}] = *member;
      } else {
        spills_.erase({in.base, in.displacement});
      }
    }
    note_stacked(in);
    const uint16_t clobbered = in.kind == Instruction::Kind::call ? caller_saved : in.writes;
    for (size_t reg = 0; reg < values_.size(); ++reg) {
      if ((clobbered >> reg & 1) != 0) {
        values_[reg] = {};
      }
    }
    if (in.to < values_.size() && in.move != Instruction::Move::store) {
      values_[in.to] = value;
    }
    if (in.kind == Instruction::Kind::jump || in.kind == Instruction::Kind::ret) {
      forget_constants();
    }
  }

  /// push 1, or mov dword [rsp], 1.
  void note_stacked(const Instruction& in) {
    const bool at_top = in.has_memory && in.base == rsp && in.displacement == 0;
    const bool call = in.kind == Instruction::Kind::call;
    const bool pushed = in.move == Instruction::Move::push_constant || (at_top && in.stores_constant);
    if (pushed && !call) {
      stacked_ = static_cast<uint32_t>(in.immediate.value_or(0));
    } else if (call || at_top || (in.writes >> rsp & 1) != 0) {
      stacked_.reset();
    }
  }

  uint64_t start_, end_;
  bool absolute_;
  std::optional<uint32_t> stacked_;
  bool seen_call_ = false;
  uint16_t written_ = 0;
  Instruction previous_;
  std::array<Value, 16> values_;
  std::map<std::pair<uint8_t, int64_t>, uint8_t> spills_;
};

void note_tested_results(const std::vector<Instruction>& code, Scan& out) {
  size_t next = 0;
  for (size_t i = 0; i < code.size() && next < out.transfers.size(); ++i) {
    if (code[i].vaddr != out.transfers[next].vaddr) {
      continue;
    }
    Transfer& transfer = out.transfers[next++];
    for (size_t j = i + 1; j < code.size() && j <= i + result_window; ++j) {
      if (code[j].kind == Instruction::Kind::call) {
        break;
      }
      transfer.result_tested =
          transfer.result_tested || (transfer.return_vaddr != 0 && code[j].tests_pointer);
    }
  }
}

/// Whether the block that ends with the jump code[at] sets ecx to 1.
bool sets_rcx_to_one(const std::vector<Instruction>& code, size_t at) {
  for (size_t back = 1; back <= merge_window && back <= at; ++back) {
    const Instruction& in = code[at - back];
    if ((in.writes >> rcx & 1) != 0) {
      return in.move == Instruction::Move::constant && in.immediate == 1U;
    }
    if (in.kind != Instruction::Kind::other) {
      return false;
    }
  }
  return false;
}

/// Two tail calls that differ in one constant become one, behind a label that the other path jumps to.
void note_merged_paths(const std::vector<Instruction>& code, Scan& out) {
  std::multimap<uint64_t, size_t> jumps;
  for (size_t i = 0; i < code.size(); ++i) {
    if (code[i].kind == Instruction::Kind::jump && code[i].target != 0) {
      jumps.emplace(code[i].target, i);
    }
  }
  size_t next = 0;
  for (size_t i = 0; i < code.size() && next < out.transfers.size(); ++i) {
    if (code[i].vaddr != out.transfers[next].vaddr) {
      continue;
    }
    Transfer& transfer = out.transfers[next++];
    for (size_t back = 0; back <= merge_window && back <= i && !transfer.rcx; ++back) {
      const Instruction& in = code[i - back];
      const bool ends = (in.writes >> rcx & 1) != 0 || in.kind == Instruction::Kind::call;
      if (back > 0 && ends) {
        break;
      }
      const auto [first, last] = jumps.equal_range(in.vaddr);
      transfer.rcx_may_be_one = transfer.rcx_may_be_one || std::any_of(first, last, [&](const auto& jump) {
                                  return sets_rcx_to_one(code, jump.second);
                                });
    }
  }
}

void sort_unique(auto& all) {
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
}

}  // namespace

Scan scan(std::span<const uint8_t> code, uint64_t vaddr, bool absolute_addresses) {
  Scan out;
  const std::vector<Instruction> instructions = decode(code, vaddr);
  const std::vector<uint64_t> labels = labels_of(instructions);
  Machine machine(vaddr, vaddr + code.size(), absolute_addresses);
  for (const Instruction& in : instructions) {
    if (std::binary_search(labels.begin(), labels.end(), in.vaddr)) {
      machine.forget_constants();
    }
    machine.step(in, out);
  }
  note_tested_results(instructions, out);
  note_merged_paths(instructions, out);
  sort_unique(out.references);
  sort_unique(out.members);
  out.whole = !instructions.empty() && instructions.back().next() == vaddr + code.size();
  return out;
}

}  // namespace jemtrace::locate::recover
