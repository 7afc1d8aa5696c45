#include "locate/prologue.hpp"

#include <Zydis/Zydis.h>

#include <algorithm>

namespace jemtrace::locate {
namespace {

constexpr int max_lookahead = 6;

struct Decoded {
  ZydisDecodedInstruction info;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};

std::optional<Decoded> decode(std::span<const uint8_t> code) {
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  Decoded decoded;
  const ZyanStatus status =
      ZydisDecoderDecodeFull(&decoder, code.data(), code.size(), &decoded.info, decoded.operands);
  return ZYAN_SUCCESS(status) ? std::optional(decoded) : std::nullopt;
}

std::string text_of(const Decoded& decoded) {
  ZydisFormatter formatter;
  ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
  char text[96] = "";
  ZydisFormatterFormatInstruction(&formatter, &decoded.info, decoded.operands,
                                  decoded.info.operand_count_visible, text, sizeof text, 0, nullptr);
  return text;
}

/// push of a 64-bit register: what push_setup_xol_ops() takes (arch/x86/kernel/uprobes.c, since 4.19): 50 to
/// 57, alone or behind exactly the prefix 41.
bool is_emulated_push(std::span<const uint8_t> bytes) {
  const bool rex = bytes.size() == 2 && bytes[0] == 0x41;
  return (bytes.size() == 1 || rex) && bytes.back() >= 0x50 && bytes.back() <= 0x57;
}

/// nop of one byte, plain or with 66: branch_setup_xol_ops(). Longer ones (0f 1f) are single-stepped
/// before 6.18, and f3 90 is pause.
bool is_emulated_nop(std::span<const uint8_t> bytes) {
  return (bytes.size() == 1 && bytes[0] == 0x90) ||
         (bytes.size() == 2 && bytes[0] == 0x66 && bytes[1] == 0x90);
}

bool is_endbr64(std::span<const uint8_t> code) {
  constexpr uint8_t endbr64[] = {0xf3, 0x0f, 0x1e, 0xfa};
  return code.size() >= sizeof endbr64 && std::equal(std::begin(endbr64), std::end(endbr64), code.begin());
}

bool is_push(const Decoded& decoded) {
  return decoded.info.mnemonic == ZYDIS_MNEMONIC_PUSH;
}

bool is_protected(ZydisRegister reg) {
  switch (ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg)) {
    case ZYDIS_REGISTER_RDI:
    case ZYDIS_REGISTER_RSI:
    case ZYDIS_REGISTER_RDX:
    case ZYDIS_REGISTER_RCX:
    case ZYDIS_REGISTER_R8:
    case ZYDIS_REGISTER_R9:
    case ZYDIS_REGISTER_RSP:
      return true;
    default:
      return false;
  }
}

/// The instruction is always followed by the next one, and leaves the arguments and the stack pointer as they
/// are (but for a push).
bool is_harmless(const Decoded& decoded) {
  switch (decoded.info.meta.category) {
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSTEM:
      return false;
    default:
      break;
  }
  for (uint8_t i = 0; i < decoded.info.operand_count; ++i) {
    const ZydisDecodedOperand& operand = decoded.operands[i];
    const bool written = (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
    const bool own_stack = is_push(decoded) && operand.type == ZYDIS_OPERAND_TYPE_REGISTER &&
                           operand.reg.value == ZYDIS_REGISTER_RSP;
    if (written && operand.type == ZYDIS_OPERAND_TYPE_REGISTER && is_protected(operand.reg.value) &&
        !own_stack) {
      return false;
    }
  }
  return true;
}

}  // namespace

std::optional<ProbePoint> choose_probe(std::span<const uint8_t> code) {
  const uint32_t entry = is_endbr64(code) ? 4 : 0;
  std::optional<ProbePoint> fallback;
  uint32_t at = entry;
  for (int step = 0; step <= max_lookahead && at < code.size(); ++step) {
    const auto decoded = decode(code.subspan(at));
    if (!decoded) {
      break;
    }
    const auto bytes = code.subspan(at, decoded->info.length);
    // A nop further in may be the alignment of a loop's head, reached again by a jump; at the entry it is
    // not.
    if (is_emulated_push(bytes) || (at == entry && is_emulated_nop(bytes))) {
      return ProbePoint{at, CostClass::emulated, text_of(*decoded)};
    }
    if (!fallback) {
      fallback = ProbePoint{at, CostClass::single_step, text_of(*decoded)};
    }
    if (!is_harmless(*decoded)) {
      break;
    }
    at += decoded->info.length;
  }
  return fallback;
}

}  // namespace jemtrace::locate
