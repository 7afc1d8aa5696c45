#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "locate/elf_file.hpp"

namespace jemtrace::locate::recover {

/// What is behind a call that leaves the image, as far as it matters here.
enum class External : uint8_t {
  none,
  madvise,
  munmap,
  mmap,
  process_madvise,
  raw_syscall,  // syscall(3): which one depends on the first argument
  clock,
  memset,
  harmless,  // what a thin wrapper may call: errno, thread locals, the stack guard
  other,
};

External external_of(std::string_view symbol);

/// The data of an image as the dynamic linker leaves it: relocations of the image against itself are applied.
/// All of it survives strip.
class DataView {
 public:
  /// Copies the segments that hold data; in sum no more than the file's size.
  static DataView read(const ElfFile& file);

  [[nodiscard]] std::optional<uint64_t> word(uint64_t vaddr) const;
  /// The NUL-terminated string at `vaddr`, at most 64 bytes; empty when there is none.
  [[nodiscard]] std::string_view text(uint64_t vaddr) const;
  /// What a pointer that the dynamic linker fills in leads to; `none` when it is the image's own.
  [[nodiscard]] External import_at(uint64_t slot) const;

  /// Calls `visit(vaddr, words, n)` for each run of aligned words.
  template <typename Visit>
  void for_each_run(Visit visit) const {
    for (const Block& block : blocks_) {
      const uint64_t skip = (8 - block.vaddr % 8) % 8;
      if (block.bytes.size() >= skip + 8) {
        visit(block.vaddr + skip, block.bytes.data() + skip, (block.bytes.size() - skip) / 8);
      }
    }
  }
  /// The addresses at which `text` ends a string: a linker stores "decay" as the end of "opt.decay" only.
  [[nodiscard]] std::vector<uint64_t> find_text(std::string_view text) const;

 private:
  struct Block {
    uint64_t vaddr = 0;
    Bytes bytes;
  };
  [[nodiscard]] const Block* block_of(uint64_t vaddr, uint64_t size) const;
  void relocate(const ElfFile& file);
  void apply(const Elf64_Rela& relocation, uint64_t symbols, uint64_t strings);
  void store(uint64_t vaddr, uint64_t value);

  std::vector<Block> blocks_;
  std::unordered_map<uint64_t, External> imports_;
};

/// The aligned word number `i` of a run.
uint64_t word_of(const uint8_t* run, size_t i);

}  // namespace jemtrace::locate::recover
