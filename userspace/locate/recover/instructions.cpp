#include "locate/recover/instructions.hpp"

#include <Zydis/Zydis.h>

#include <algorithm>

namespace jemtrace::locate::recover {
namespace {

uint8_t general(ZydisRegister reg) {
  const ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
  return whole >= ZYDIS_REGISTER_RAX && whole <= ZYDIS_REGISTER_R15
             ? static_cast<uint8_t>(whole - ZYDIS_REGISTER_RAX)
             : static_cast<uint8_t>(no_register);
}

uint16_t bit(uint8_t reg) {
  return reg == no_register ? 0 : static_cast<uint16_t>(1U << reg);
}

Instruction::Kind kind_of(const ZydisDecodedInstruction& info) {
  switch (info.meta.category) {
    case ZYDIS_CATEGORY_CALL:
      return Instruction::Kind::call;
    case ZYDIS_CATEGORY_UNCOND_BR:
      return Instruction::Kind::jump;
    case ZYDIS_CATEGORY_COND_BR:
      return Instruction::Kind::branch;
    case ZYDIS_CATEGORY_RET:
      return Instruction::Kind::ret;
    case ZYDIS_CATEGORY_SYSCALL:
      return Instruction::Kind::syscall;
    default:
      return Instruction::Kind::other;
  }
}

void note_registers(const ZydisDecodedOperand& operand, Instruction& out) {
  if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER) {
    const uint16_t mask = bit(general(operand.reg.value));
    if ((operand.actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0) {
      out.reads |= mask;
    }
    if ((operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0) {
      out.writes |= mask;
    }
  } else if (operand.type == ZYDIS_OPERAND_TYPE_MEMORY) {
    out.reads |= bit(general(operand.mem.base));
    out.reads |= bit(general(operand.mem.index));
  }
}

void note_memory(const ZydisDecodedInstruction& info, const ZydisDecodedOperand& operand, Instruction& out) {
  out.has_memory = true;
  out.indexed = operand.mem.index != ZYDIS_REGISTER_NONE;
  ZyanU64 absolute = 0;
  const bool fixed = (operand.mem.base == ZYDIS_REGISTER_RIP || operand.mem.base == ZYDIS_REGISTER_NONE) &&
                     !out.indexed && operand.mem.segment != ZYDIS_REGISTER_FS;
  if (fixed && ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(&info, &operand, out.vaddr, &absolute))) {
    out.address = absolute;
  } else if (!out.indexed) {
    out.base = general(operand.mem.base);
    out.displacement = operand.mem.disp.value;
  } else {
    out.array = general(operand.mem.base);
    out.scale = operand.mem.scale;
    out.displacement = operand.mem.disp.value;
  }
  out.takes_address = operand.mem.type == ZYDIS_MEMOP_TYPE_AGEN;
  if (!out.takes_address && (operand.actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0) {
    out.reads_bytes = static_cast<uint8_t>(std::min<unsigned>(operand.size / 8U, 255U));
  }
}

bool is_register(const ZydisDecodedOperand& operand) {
  return operand.type == ZYDIS_OPERAND_TYPE_REGISTER && general(operand.reg.value) != no_register;
}

void note_move(const ZydisDecodedInstruction& info, std::span<const ZydisDecodedOperand> operands,
               Instruction& out) {
  const bool two = info.operand_count_visible == 2;
  const auto is_memory = [](const auto& operand) { return operand.type == ZYDIS_OPERAND_TYPE_MEMORY; };
  const auto is_immediate = [](const auto& operand) { return operand.type == ZYDIS_OPERAND_TYPE_IMMEDIATE; };
  if (info.mnemonic == ZYDIS_MNEMONIC_MOV && two) {
    if (is_register(operands[0])) {
      out.to = general(operands[0].reg.value);
      if (is_immediate(operands[1])) {
        out.move = info.operand_width >= 32 ? Instruction::Move::constant : Instruction::Move::none;
      } else if (is_register(operands[1])) {
        out.from = general(operands[1].reg.value);
        out.move = info.operand_width >= 32 ? Instruction::Move::copy : Instruction::Move::none;
      } else if (is_memory(operands[1])) {
        out.move = info.operand_width == 64 ? Instruction::Move::load : Instruction::Move::none;
      }
    } else if (is_memory(operands[0]) && is_immediate(operands[1])) {
      out.stores_constant = true;
    } else if (is_memory(operands[0]) && is_register(operands[1])) {
      out.from = general(operands[1].reg.value);
      out.move = info.operand_width == 64 ? Instruction::Move::store : Instruction::Move::none;
    }
  } else if (info.mnemonic == ZYDIS_MNEMONIC_XOR && two && is_register(operands[0]) &&
             is_register(operands[1]) && operands[0].reg.value == operands[1].reg.value) {
    out.move = Instruction::Move::constant;
    out.to = general(operands[0].reg.value);
    out.immediate = 0;
    out.reads = 0;
  } else if (info.mnemonic == ZYDIS_MNEMONIC_PUSH && is_immediate(operands[0])) {
    out.move = Instruction::Move::push_constant;
  } else if (info.mnemonic == ZYDIS_MNEMONIC_POP && is_register(operands[0])) {
    out.move = Instruction::Move::pop;
    out.to = general(operands[0].reg.value);
  } else if (info.mnemonic == ZYDIS_MNEMONIC_TEST && two && operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER) {
    out.tests_pointer = operands[0].reg.value == ZYDIS_REGISTER_RAX && is_register(operands[1]) &&
                        operands[1].reg.value == ZYDIS_REGISTER_RAX;
  }
}

Instruction summarise(const ZydisDecodedInstruction& info, std::span<const ZydisDecodedOperand> operands,
                      uint64_t vaddr) {
  Instruction out;
  out.vaddr = vaddr;
  out.size = info.length;
  out.kind = kind_of(info);
  if (info.mnemonic == ZYDIS_MNEMONIC_NOP || info.mnemonic == ZYDIS_MNEMONIC_ENDBR64) {
    return out;
  }
  for (const ZydisDecodedOperand& operand : operands) {
    note_registers(operand, out);
  }
  for (const ZydisDecodedOperand& operand : operands.first(info.operand_count_visible)) {
    if (operand.type == ZYDIS_OPERAND_TYPE_MEMORY) {
      note_memory(info, operand, out);
    } else if (operand.type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
      ZyanU64 absolute = 0;
      if (operand.imm.is_relative != 0) {
        if (ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(&info, &operand, vaddr, &absolute))) {
          out.target = absolute;
        }
      } else {
        out.immediate = operand.imm.value.u;
      }
    }
  }
  note_move(info, operands, out);
  out.adds_constant = info.mnemonic == ZYDIS_MNEMONIC_ADD && out.immediate && is_register(operands[0]);
  const bool indirect = (out.kind == Instruction::Kind::call || out.kind == Instruction::Kind::jump) &&
                        info.operand_count_visible > 0 && is_register(operands[0]);
  if (indirect) {
    out.from = general(operands[0].reg.value);
  }
  return out;
}

}  // namespace

std::vector<Instruction> decode(std::span<const uint8_t> code, uint64_t vaddr, size_t limit) {
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  std::vector<Instruction> out;
  ZydisDecodedInstruction info;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
  for (uint64_t at = 0; at < code.size() && out.size() < limit; at += info.length) {
    if (!ZYAN_SUCCESS(
            ZydisDecoderDecodeFull(&decoder, code.data() + at, code.size() - at, &info, operands))) {
      break;
    }
    out.push_back(summarise(info, std::span(operands, info.operand_count), vaddr + at));
  }
  return out;
}

}  // namespace jemtrace::locate::recover
