#include "locate/eh_frame.hpp"

#include <dwarf.h>

#include <algorithm>
#include <cstring>
#include <limits>

namespace jemtrace::locate {
namespace {

constexpr uint64_t max_eh_frame = uint64_t{512} << 20;
constexpr size_t max_entries = size_t{4} << 20;
constexpr int max_steps = 4096;  // call frame instructions of one entry; the longest seen in rustc: ~300
constexpr int64_t max_frame = 64 << 10;
constexpr size_t max_remembered = 16;

// x86-64 psABI, figure 3.36.
constexpr uint64_t dwarf_rbp = 6;
constexpr uint64_t dwarf_rsp = 7;

/// Reads numbers off a range of bytes; once it has run over the end, `ok` stays false and all reads give 0.
class Reader {
 public:
  Reader(const Bytes& bytes, uint64_t at, uint64_t end)
      : bytes_(bytes), at_(at), end_(std::min<uint64_t>(end, bytes.size())) {
    ok = at_ <= end_;
  }

  bool ok = true;
  [[nodiscard]] uint64_t at() const { return at_; }
  [[nodiscard]] bool at_end() const { return !ok || at_ >= end_; }

  template <typename T>
  T number() {
    T value{};
    if (!ok || end_ - at_ < sizeof value) {
      ok = false;
      return value;
    }
    std::memcpy(&value, bytes_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }
  uint8_t byte() { return number<uint8_t>(); }

  uint64_t uleb() { return leb().value; }
  int64_t sleb() {
    const Leb read = leb();
    const bool negative = read.bits < 64 && (read.last & 0x40) != 0;
    return static_cast<int64_t>(negative ? read.value | ~uint64_t{0} << read.bits : read.value);
  }
  void skip(uint64_t size) {
    if (!ok || size > end_ - at_) {
      ok = false;
      return;
    }
    at_ += size;
  }
  /// A pointer as DW_EH_PE_* says; `vaddr` is the section's address. Only absolute and pc-relative ones occur
  /// on x86-64 ELF.
  uint64_t pointer(uint8_t encoding, uint64_t vaddr) {
    const uint64_t here = vaddr + at_;
    uint64_t value = 0;
    switch (encoding & 0x0f) {
      case DW_EH_PE_absptr:
      case DW_EH_PE_udata8:
      case DW_EH_PE_sdata8:
        value = number<uint64_t>();
        break;
      case DW_EH_PE_udata4:
        value = number<uint32_t>();
        break;
      case DW_EH_PE_sdata4:
        value = static_cast<uint64_t>(int64_t{number<int32_t>()});
        break;
      case DW_EH_PE_udata2:
        value = number<uint16_t>();
        break;
      case DW_EH_PE_sdata2:
        value = static_cast<uint64_t>(int64_t{number<int16_t>()});
        break;
      case DW_EH_PE_uleb128:
        value = uleb();
        break;
      case DW_EH_PE_sleb128:
        value = static_cast<uint64_t>(sleb());
        break;
      default:
        ok = false;
    }
    switch (encoding & 0x70) {
      case DW_EH_PE_absptr:
        return value;
      case DW_EH_PE_pcrel:
        return here + value;
      default:
        ok = false;
        return 0;
    }
  }

 private:
  struct Leb {
    uint64_t value = 0;
    unsigned bits = 0;  // of the value that were written down
    uint8_t last = 0;
  };

  Leb leb() {
    Leb read;
    for (; read.bits < 70; read.bits += 7) {
      read.last = byte();
      if (read.bits < 64) {
        read.value |= static_cast<uint64_t>(read.last & 0x7f) << read.bits;
      }
      if ((read.last & 0x80) == 0) {
        read.bits += 7;
        return read;
      }
    }
    ok = false;
    return {};
  }

  const Bytes& bytes_;
  uint64_t at_, end_;
};

enum class Saved { unchanged, at_offset, elsewhere };

/// The two rules that matter, at one address.
struct Row {
  bool cfa_known = false;
  uint64_t cfa_register = 0;
  int64_t cfa_offset = 0;
  Saved bp = Saved::unchanged;
  int64_t bp_offset = 0;
};

/// Runs call frame instructions up to an address.
class Machine {
 public:
  Machine(uint64_t code_alignment, int64_t data_alignment) : code_(code_alignment), data_(data_alignment) {}

  Row row;

  void keep_initial() { initial_ = row; }

  /// Runs until the instructions end or go past `target`; `row` is then the one for `target`. False: no sense
  /// in them.
  bool run(Reader in, uint8_t pointer_encoding, uint64_t section_vaddr, uint64_t location, uint64_t target) {
    encoding_ = pointer_encoding;
    section_ = section_vaddr;
    location_ = location;
    for (int step = 0; !in.at_end() && location_ <= target; ++step) {
      if (step >= max_steps || !execute(in) || !in.ok) {
        return false;
      }
    }
    return in.ok;
  }

 private:
  bool execute(Reader& in) {
    const uint8_t opcode = in.byte();
    const uint8_t low = opcode & 0x3f;
    switch (opcode & 0xc0) {
      case DW_CFA_advance_loc:
        return advance(low);
      case DW_CFA_offset:
        save(low, static_cast<int64_t>(in.uleb()));
        return true;
      case DW_CFA_restore:
        restore(low);
        return true;
      default:
        return execute_extended(low, in);
    }
  }

  bool execute_extended(uint8_t opcode, Reader& in) {
    switch (opcode) {
      case DW_CFA_nop:
        return true;
      case DW_CFA_set_loc:
        location_ = in.pointer(encoding_, section_);
        return true;
      case DW_CFA_advance_loc1:
        return advance(in.number<uint8_t>());
      case DW_CFA_advance_loc2:
        return advance(in.number<uint16_t>());
      case DW_CFA_advance_loc4:
        return advance(in.number<uint32_t>());
      case DW_CFA_offset_extended: {
        const uint64_t reg = in.uleb();
        save(reg, static_cast<int64_t>(in.uleb()));
        return true;
      }
      case DW_CFA_offset_extended_sf: {
        const uint64_t reg = in.uleb();
        save(reg, in.sleb());
        return true;
      }
      case DW_CFA_restore_extended:
        restore(in.uleb());
        return true;
      case DW_CFA_undefined:
      case DW_CFA_same_value:
        forget(in.uleb(), Saved::unchanged);
        return true;
      case DW_CFA_register: {
        const uint64_t reg = in.uleb();
        in.uleb();
        forget(reg, Saved::elsewhere);
        return true;
      }
      case DW_CFA_expression:
      case DW_CFA_val_expression: {
        const uint64_t reg = in.uleb();
        in.skip(in.uleb());
        forget(reg, Saved::elsewhere);
        return true;
      }
      case DW_CFA_val_offset:
      case DW_CFA_val_offset_sf: {
        const uint64_t reg = in.uleb();
        in.uleb();
        forget(reg, Saved::elsewhere);
        return true;
      }
      case DW_CFA_remember_state:
        if (remembered_.size() >= max_remembered) {
          return false;
        }
        remembered_.push_back(row);
        return true;
      case DW_CFA_restore_state:
        if (remembered_.empty()) {
          return false;
        }
        row = remembered_.back();
        remembered_.pop_back();
        return true;
      case DW_CFA_def_cfa: {
        const uint64_t reg = in.uleb();
        define(reg, in.uleb());
        return true;
      }
      case DW_CFA_def_cfa_sf: {
        const uint64_t reg = in.uleb();
        define(reg, static_cast<uint64_t>(in.sleb()) * static_cast<uint64_t>(data_));
        return true;
      }
      case DW_CFA_def_cfa_register:
        row.cfa_register = in.uleb();
        return true;
      case DW_CFA_def_cfa_offset:
        row.cfa_offset = static_cast<int64_t>(in.uleb());
        return true;
      case DW_CFA_def_cfa_offset_sf:
        row.cfa_offset =
            static_cast<int64_t>(static_cast<uint64_t>(in.sleb()) * static_cast<uint64_t>(data_));
        return true;
      case DW_CFA_def_cfa_expression:
        in.skip(in.uleb());
        row.cfa_known = false;
        return true;
      case DW_CFA_GNU_args_size:
        in.uleb();
        return true;
      default:
        return false;
    }
  }

  bool advance(uint64_t delta) {
    location_ += delta * code_;
    return true;
  }
  void define(uint64_t reg, uint64_t offset) {
    row.cfa_known = true;
    row.cfa_register = reg;
    row.cfa_offset = static_cast<int64_t>(offset);
  }
  void save(uint64_t reg, int64_t factored) {
    if (reg == dwarf_rbp) {
      row.bp = Saved::at_offset;
      // Unsigned, as a hostile file may make it overflow; the bounds are checked at the end.
      row.bp_offset = static_cast<int64_t>(static_cast<uint64_t>(factored) * static_cast<uint64_t>(data_));
    }
  }
  void restore(uint64_t reg) {
    if (reg == dwarf_rbp) {
      row.bp = initial_.bp;
      row.bp_offset = initial_.bp_offset;
    }
  }
  void forget(uint64_t reg, Saved how) {
    if (reg == dwarf_rbp) {
      row.bp = how;
    }
  }

  uint64_t code_;
  int64_t data_;
  uint8_t encoding_ = 0;
  uint64_t section_ = 0;
  uint64_t location_ = 0;
  Row initial_;
  std::vector<Row> remembered_;
};

FrameRule rule_of(const Row& row) {
  FrameRule rule;
  const bool sound = row.cfa_known && row.cfa_offset >= 0 && row.cfa_offset < max_frame &&
                     row.bp != Saved::elsewhere &&
                     (row.bp == Saved::unchanged || (row.bp_offset < 0 && row.bp_offset > -max_frame));
  if (!sound || (row.cfa_register != dwarf_rsp && row.cfa_register != dwarf_rbp)) {
    return rule;
  }
  rule.cfa_register = row.cfa_register == dwarf_rsp ? JT_CFA_SP : JT_CFA_BP;
  rule.cfa_offset = static_cast<int32_t>(row.cfa_offset);
  rule.saved_bp = row.bp == Saved::at_offset ? static_cast<int32_t>(row.bp_offset) : 0;
  return rule;
}

struct Place {
  uint64_t offset = 0, size = 0, vaddr = 0;
};

/// Without section headers: the pointer in PT_GNU_EH_FRAME leads to .eh_frame, whose end is a terminator.
std::optional<Place> by_segment(const ElfFile& file) {
  for (const Elf64_Phdr& segment : file.segments()) {
    if (segment.p_type != PT_GNU_EH_FRAME) {
      continue;
    }
    const auto header = file.read(segment.p_offset, std::min<uint64_t>(segment.p_filesz, 16), 16);
    if (!header || header->size() < 8 || (*header)[0] != 1) {
      continue;
    }
    Reader in(*header, 4, header->size());
    const uint64_t vaddr = in.pointer((*header)[1], segment.p_vaddr);
    const Elf64_Phdr* holder = file.segment_of(vaddr);
    if (!in.ok || holder == nullptr) {
      continue;
    }
    const uint64_t into = vaddr - holder->p_vaddr;
    return Place{holder->p_offset + into, holder->p_filesz - into, vaddr};
  }
  return std::nullopt;
}

std::optional<Place> place_of(const ElfFile& file) {
  // gold and lld mark it SHT_X86_64_UNWIND. strip --only-keep-debug leaves it as NOBITS.
  const auto* section = file.section(".eh_frame");
  if (section != nullptr && section->header.sh_type != SHT_NOBITS) {
    return Place{section->header.sh_offset, section->header.sh_size, section->header.sh_addr};
  }
  return by_segment(file);
}

}  // namespace

Result<CallFrames> CallFrames::read(const ElfFile& file) {
  const auto place = place_of(file);
  if (!place) {
    return fail(Errc::unsupported, file.path() + " has no call frame information");
  }
  CallFrames frames;
  ASSIGN_OR_RETURN(frames.bytes_, file.read(place->offset, place->size, max_eh_frame));
  frames.vaddr_ = place->vaddr;
  frames.parse();
  return frames;
}

void CallFrames::parse() {
  uint64_t at = 0;
  while (at + 8 <= bytes_.size() && entries_.size() < max_entries) {
    Reader in(bytes_, at, bytes_.size());
    const uint32_t length = in.number<uint32_t>();
    // 0 ends the section; 0xffffffff would be the 64-bit format, which no linker emits for .eh_frame.
    if (length < 4 || length > bytes_.size() - at - 4) {
      break;
    }
    const uint64_t end = at + 4 + length;
    const uint32_t id = in.number<uint32_t>();
    if (id != 0 && id <= at + 4) {
      const auto cie = cie_at(static_cast<uint32_t>(at + 4 - id));
      if (cie && cies_[*cie].sound) {
        Reader body(bytes_, at + 8, end);
        Entry entry;
        entry.cie = *cie;
        entry.start = body.pointer(cies_[*cie].pointer_encoding, vaddr_);
        entry.size = body.pointer(cies_[*cie].pointer_encoding & 0x0f, vaddr_);
        if (cies_[*cie].has_augmentation) {
          body.skip(body.uleb());
        }
        entry.instructions = static_cast<uint32_t>(body.at());
        entry.instructions_end = static_cast<uint32_t>(end);
        if (body.ok && entry.size > 0 && entry.start <= std::numeric_limits<uint64_t>::max() - entry.size) {
          entries_.push_back(entry);
        }
      }
    }
    at = end;
  }
  std::sort(entries_.begin(), entries_.end(),
            [](const Entry& a, const Entry& b) { return a.start < b.start; });
}

std::optional<uint32_t> CallFrames::cie_at(uint32_t offset) {
  const auto found = std::lower_bound(cies_.begin(), cies_.end(), offset,
                                      [](const Cie& cie, uint32_t wanted) { return cie.offset < wanted; });
  const auto index = static_cast<uint32_t>(found - cies_.begin());
  if (found != cies_.end() && found->offset == offset) {
    return index;
  }
  // A CIE comes before its FDEs, so new ones are appended; one out of order would move the indices of others.
  if (found != cies_.end()) {
    return std::nullopt;
  }
  cies_.push_back(parse_cie(offset));
  return index;
}

CallFrames::Cie CallFrames::parse_cie(uint32_t offset) const {
  Cie cie;
  cie.offset = offset;
  Reader header(bytes_, offset, bytes_.size());
  const uint32_t length = header.number<uint32_t>();
  if (!header.ok || length < 8 || length > bytes_.size() - offset - 4 || header.number<uint32_t>() != 0) {
    return cie;
  }
  Reader in(bytes_, offset + 8, uint64_t{offset} + 4 + length);
  const uint8_t version = in.byte();
  const std::string_view augmentation = string_at(bytes_, in.at());
  in.skip(augmentation.size() + 1);
  if ((version != 1 && version != 3) || augmentation.size() > 8) {
    return cie;
  }
  cie.code_alignment = in.uleb();
  cie.data_alignment = in.sleb();
  cie.return_register = version == 1 ? in.byte() : in.uleb();
  for (const char c : augmentation) {
    switch (c) {
      case 'z':
        cie.has_augmentation = true;
        in.uleb();
        break;
      case 'R':
        cie.pointer_encoding = in.byte();
        break;
      case 'L':
        in.byte();
        break;
      case 'P': {
        const uint8_t encoding = in.byte();
        in.pointer(encoding & 0x7f, vaddr_);
        break;
      }
      case 'S':
        cie.signal_frame = true;
        break;
      default:
        return cie;
    }
  }
  cie.instructions = static_cast<uint32_t>(in.at());
  cie.instructions_end = static_cast<uint32_t>(uint64_t{offset} + 4 + length);
  cie.sound = in.ok && cie.return_register == 16 && !cie.signal_frame;
  return cie;
}

const CallFrames::Entry* CallFrames::entry_of(uint64_t vaddr) const {
  auto after = std::upper_bound(entries_.begin(), entries_.end(), vaddr,
                                [](uint64_t wanted, const Entry& entry) { return wanted < entry.start; });
  if (after == entries_.begin()) {
    return nullptr;
  }
  --after;
  return vaddr - after->start < after->size ? &*after : nullptr;
}

std::optional<FrameRule> CallFrames::rule_at(uint64_t vaddr) const {
  const Entry* entry = entry_of(vaddr);
  if (entry == nullptr) {
    return std::nullopt;
  }
  const Cie& cie = cies_[entry->cie];
  Machine machine(cie.code_alignment, cie.data_alignment);
  const uint64_t start = entry->start;
  const bool sound = machine.run(Reader(bytes_, cie.instructions, cie.instructions_end), cie.pointer_encoding,
                                 vaddr_, start, start) &&
                     (machine.keep_initial(), true) &&
                     machine.run(Reader(bytes_, entry->instructions, entry->instructions_end),
                                 cie.pointer_encoding, vaddr_, start, vaddr);
  return sound ? rule_of(machine.row) : FrameRule{};
}

}  // namespace jemtrace::locate
