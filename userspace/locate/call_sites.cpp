#include "locate/call_sites.hpp"

#include <Zydis/Zydis.h>

#include <algorithm>
#include <cstring>
#include <map>

namespace jemtrace::locate {
namespace {

constexpr uint64_t max_piece = uint64_t{1} << 20;
constexpr uint64_t max_code = uint64_t{16} << 20;  // over all functions: rustc's come to 200 kB
constexpr size_t max_sites = 20000;
constexpr uint64_t max_relocations = uint64_t{256} << 20;
constexpr uint64_t max_names = uint64_t{256} << 20;

std::string_view plain_call(std::string_view symbol) {
  if (symbol == "mmap" || symbol == "mmap64") {
    return "mmap";
  }
  return symbol == "munmap" ? "munmap" : std::string_view{};
}

/// Resolves callees to role names, "mmap", "munmap" or nothing.
class Callees {
 public:
  Callees(const ElfFile& file, const Symbols& symbols)
      : file_(file), symbols_(symbols), imports_(Imports::read(file)) {
    for (const Function& function : symbols.functions) {
      roles_.emplace(function.vaddr, function.entry->role);
    }
  }

  std::string_view of(const Call& call) {
    if (call.slot != 0) {
      return imports_.name_of_slot(call.slot);
    }
    if (call.target == 0) {
      return {};
    }
    if (const auto role = roles_.find(call.target); role != roles_.end()) {
      return role->second;
    }
    if (const auto name = symbols_.system_calls.find(call.target); name != symbols_.system_calls.end()) {
      return name->second;
    }
    const auto [stub, fresh] = stubs_.try_emplace(call.target);
    if (fresh) {
      stub->second = imports_.name_of_stub(file_, call.target);
    }
    return stub->second;
  }

 private:
  const ElfFile& file_;
  const Symbols& symbols_;
  Imports imports_;
  std::unordered_map<uint64_t, std::string_view> roles_;
  std::unordered_map<uint64_t, std::string_view> stubs_;
};

/// One address, two names: identical functions folded into one (lld --icf, rustc). The callers tell what it
/// was, so a wrapper wins; two different purposes are none.
void merge(jt_site& known, const jt_site& other) {
  if (known.purpose != other.purpose) {
    const bool pass = known.purpose == JT_PASS || other.purpose == JT_PASS;
    known.purpose = pass ? JT_PASS : JT_UNCLASSIFIED;
  }
  if (known.cause != other.cause) {
    known.cause = JT_CAUSE_UNKNOWN;
  }
}

}  // namespace

jt_site site_at(jt_purpose purpose, jt_cause cause, const FrameRule& rule) {
  jt_site site{};
  site.cfa_register = static_cast<uint8_t>(rule.cfa_register);
  site.cfa_offset = rule.cfa_offset;
  site.saved_bp = rule.saved_bp;
  site.purpose = static_cast<uint8_t>(purpose);
  site.cause = static_cast<uint8_t>(cause);
  return site;
}

std::vector<Call> find_calls(std::span<const uint8_t> code, uint64_t vaddr) {
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  std::vector<Call> calls;
  ZydisDecodedInstruction info;
  ZydisDecoderContext context;
  for (uint64_t at = 0; at < code.size(); at += info.length) {
    if (!ZYAN_SUCCESS(
            ZydisDecoderDecodeInstruction(&decoder, &context, code.data() + at, code.size() - at, &info))) {
      break;
    }
    if (info.meta.category != ZYDIS_CATEGORY_CALL) {
      continue;
    }
    Call call{vaddr + at, vaddr + at + info.length, 0, 0};
    ZydisDecodedOperand operand;
    if (ZYAN_SUCCESS(ZydisDecoderDecodeOperands(&decoder, &context, &info, &operand, 1))) {
      ZyanU64 absolute = 0;
      if (ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(&info, &operand, call.vaddr, &absolute))) {
        (operand.type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? call.target : call.slot) = absolute;
      }
    }
    calls.push_back(call);
  }
  return calls;
}

Imports Imports::read(const ElfFile& file) {
  Imports imports;
  const auto* dynamic = file.section_of_type(SHT_DYNSYM);
  if (dynamic == nullptr || dynamic->header.sh_link >= file.sections().size()) {
    return imports;
  }
  const auto symbols = file.contents(*dynamic, max_names);
  const auto names = file.contents(file.sections()[dynamic->header.sh_link], max_names);
  if (!symbols || !names) {
    return imports;
  }
  for (const ElfFile::Section& section : file.sections()) {
    if (section.header.sh_type != SHT_RELA || (section.name != ".rela.plt" && section.name != ".rela.dyn")) {
      continue;
    }
    const auto relocations = file.contents(section, max_relocations);
    for (uint64_t at = 0; relocations && at + sizeof(Elf64_Rela) <= relocations->size();
         at += sizeof(Elf64_Rela)) {
      Elf64_Rela relocation;
      std::memcpy(&relocation, relocations->data() + at, sizeof relocation);
      const uint64_t type = ELF64_R_TYPE(relocation.r_info);
      const uint64_t symbol_at = ELF64_R_SYM(relocation.r_info) * sizeof(Elf64_Sym);
      if ((type != R_X86_64_JUMP_SLOT && type != R_X86_64_GLOB_DAT) ||
          symbol_at + sizeof(Elf64_Sym) > symbols->size()) {
        continue;
      }
      Elf64_Sym symbol;
      std::memcpy(&symbol, symbols->data() + symbol_at, sizeof symbol);
      // Only what call_purpose() asks for is kept.
      const std::string_view name = plain_call(string_at(*names, symbol.st_name));
      if (!name.empty()) {
        imports.slots_.emplace(relocation.r_offset, name);
      }
    }
  }
  return imports;
}

std::string_view Imports::name_of_slot(uint64_t vaddr) const {
  const auto found = slots_.find(vaddr);
  return found == slots_.end() ? std::string_view{} : std::string_view(found->second);
}

std::string_view Imports::name_of_stub(const ElfFile& file, uint64_t vaddr) const {
  constexpr uint64_t stub_size = 16;
  if (slots_.empty()) {
    return {};
  }
  const auto code = file.read_vaddr(vaddr, stub_size, stub_size);
  if (!code) {
    return {};
  }
  constexpr uint8_t endbr64[] = {0xf3, 0x0f, 0x1e, 0xfa};
  size_t at = std::equal(std::begin(endbr64), std::end(endbr64), code->begin()) ? 4 : 0;
  at += (*code)[at] == 0xf2 ? 1 : 0;  // bnd
  if ((*code)[at] != 0xff || (*code)[at + 1] != 0x25) {
    return {};
  }
  int32_t displacement = 0;
  std::memcpy(&displacement, code->data() + at + 2, sizeof displacement);
  return name_of_slot(vaddr + at + 6 + static_cast<uint64_t>(int64_t{displacement}));
}

jt_purpose call_purpose(const RoleEntry& caller, std::string_view callee) {
  if (caller.purpose != JT_ZERO_FILL) {
    return caller.purpose;
  }
  // What allocates also maps, trims what it mapped, and undoes a merge or an extension that failed.
  const RoleEntry* role = find_role(callee);
  if (callee == "mmap" || callee == "munmap" || callee == "os_pages_unmap" || callee == "pages_unmap") {
    return JT_TRIM;
  }
  if (role != nullptr && (callee.starts_with("extent_dalloc_wrapper") || role->purpose == JT_ABANDON)) {
    return JT_ABANDON;
  }
  return JT_ZERO_FILL;
}

std::vector<CallSite> find_call_sites(const ElfFile& file, const Symbols& symbols, const CallFrames& frames) {
  Callees callees(file, symbols);
  std::map<uint64_t, jt_site> sites;
  uint64_t read = 0;
  for (const Function& function : symbols.functions) {
    if (!file.executable(function.vaddr) || read > max_code || sites.size() >= max_sites) {
      continue;
    }
    // Assembly and some .cold pieces have no size: the unwinder's entry knows where they end.
    const auto* entry = frames.entry_of(function.vaddr);
    const uint64_t size = function.size != 0 ? function.size
                          : entry != nullptr ? entry->start + entry->size - function.vaddr
                                             : 0;
    const auto code = file.read_vaddr(function.vaddr, size, max_piece);
    if (!code) {
      continue;
    }
    read += size;
    for (const Call& call : find_calls(*code, function.vaddr)) {
      if (sites.size() >= max_sites) {
        break;
      }
      const auto offset = file.file_offset(call.return_vaddr - 1);
      const auto rule = frames.rule_at(call.vaddr);
      if (!offset) {
        continue;
      }
      const jt_purpose purpose = call_purpose(*function.entry, callees.of(call));
      const jt_site site = site_at(purpose, function.entry->cause, rule.value_or(FrameRule{}));
      const auto [known, fresh] = sites.try_emplace(*offset + 1, site);
      if (!fresh) {
        merge(known->second, site);
      }
    }
  }
  std::vector<CallSite> found;
  found.reserve(sites.size());
  for (const auto& [offset, site] : sites) {
    found.push_back({offset, site});
  }
  return found;
}

}  // namespace jemtrace::locate
