#include "locate/recover/data_uses.hpp"

#include <algorithm>
#include <array>
#include <optional>

#include "locate/recover/instructions.hpp"

namespace jemtrace::locate::recover {
namespace {

constexpr size_t max_uses = 1000;
constexpr uint16_t caller_saved =
    1U << rax | 1U << rcx | 1U << rdx | 1U << rsi | 1U << rdi | 1U << r8 | 1U << r9 | 1U << 10 | 1U << 11;
constexpr uint64_t least_address = 0x1000;
constexpr int64_t last_member = 0x40000;

struct Value {
  std::optional<uint64_t> address;
  std::optional<uint64_t> slot;        // the word of data that `address` was loaded from
  std::optional<uint64_t> element_of;  // a pointer out of the array there
};

class Follower {
 public:
  explicit Follower(const DataView& data) : data_(data) {}

  void step(const Instruction& in) {
    const Value result = follow(in);
    const uint16_t written = in.kind == Instruction::Kind::call ? caller_saved : in.writes;
    for (size_t reg = 0; reg < values_.size(); ++reg) {
      if ((written >> reg & 1) != 0) {
        values_[reg] = in.kind == Instruction::Kind::call ? Value{} : result;
      }
    }
  }

  DataUses uses;

 private:
  [[nodiscard]] Value value_of(uint8_t reg) const { return reg < values_.size() ? values_[reg] : Value{}; }

  static bool writes_one(const Instruction& in) {
    return in.writes != 0 && (in.writes & (in.writes - 1)) == 0;
  }

  Value follow(const Instruction& in) {
    if (in.has_memory) {
      return in.indexed ? indexed(in) : plain(in);
    }
    if (!writes_one(in)) {
      return {};
    }
    if (in.move == Instruction::Move::copy) {
      return value_of(in.from);
    }
    if (in.move == Instruction::Move::constant && in.immediate.value_or(0) >= least_address) {
      return {in.immediate, {}, {}};
    }
    if (in.adds_constant) {
      for (size_t reg = 0; reg < values_.size(); ++reg) {
        if ((in.writes >> reg & 1) != 0) {
          note_member(values_[reg], static_cast<int64_t>(*in.immediate));
        }
      }
    }
    return {};
  }

  Value plain(const Instruction& in) {
    std::optional<uint64_t> address;
    if (in.address != 0) {
      address = in.address;
    } else if (const Value base = value_of(in.base); base.address) {
      forget_slot(base);
      address = *base.address + static_cast<uint64_t>(in.displacement);
    } else {
      note_member(base, in.displacement);
    }
    if (!address) {
      return {};
    }
    if (in.takes_address) {
      return {address, {}, {}};
    }
    if (in.reads_bytes != 0 && in.kind == Instruction::Kind::other) {
      note_read({*address, in.reads_bytes, false});
    }
    const bool load = in.move == Instruction::Move::load;
    const auto word = load ? data_.word(*address) : std::nullopt;
    return word && *word >= least_address ? Value{word, address, {}} : Value{};
  }

  Value indexed(const Instruction& in) {
    const Value base = value_of(in.array);
    std::optional<uint64_t> array;
    if (in.array == no_register) {
      array = static_cast<uint64_t>(in.displacement);
    } else if (base.address) {
      forget_slot(base);
      array = *base.address + static_cast<uint64_t>(in.displacement);
    }
    const bool pointers = in.scale == 8 && in.reads_bytes == 8;
    if (!array || *array < least_address || !pointers || in.kind != Instruction::Kind::other) {
      return {};
    }
    note_read({*array, in.reads_bytes, true});
    return in.move == Instruction::Move::load ? Value{{}, {}, array} : Value{};
  }

  void note_read(const DataUse& read) {
    const bool known = std::any_of(uses.reads.begin(), uses.reads.end(), [&](const DataUse& other) {
      return other.vaddr == read.vaddr && other.bytes == read.bytes && other.element == read.element;
    });
    if (!known && uses.reads.size() < max_uses) {
      uses.reads.push_back(read);
    }
  }

  /// What is behind a word of the GOT is meant, not the word.
  void forget_slot(const Value& base) {
    if (base.slot) {
      std::erase_if(uses.reads, [&](const DataUse& read) { return read.vaddr == *base.slot; });
    }
  }

  void note_member(const Value& base, int64_t offset) {
    if (base.element_of && offset >= 0 && offset <= last_member && uses.members.size() < max_uses) {
      uses.members.push_back({*base.element_of, static_cast<uint32_t>(offset)});
    }
  }

  const DataView& data_;
  std::array<Value, 16> values_;
};

}  // namespace

DataUses data_uses(std::span<const uint8_t> code, uint64_t vaddr, const DataView& data) {
  Follower follower(data);
  for (const Instruction& in : decode(code, vaddr)) {
    follower.step(in);
  }
  return std::move(follower.uses);
}

}  // namespace jemtrace::locate::recover
