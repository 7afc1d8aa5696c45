#pragma once

#include <deque>
#include <unordered_set>

#include "locate/recover/code_graph.hpp"

namespace jemtrace::locate::recover {

/// Reads pieces of code, resolves where they lead and puts functions together.
class GraphBuilder {
 public:
  GraphBuilder(const ElfFile& file, const CallFrames& frames, const DataView& data)
      : file_(file), frames_(frames), data_(data) {}

  CodeGraph build(uint64_t low, uint64_t high);

 private:
  struct Piece {
    uint64_t start = 0, size = 0;
    Scan scan;
    std::unordered_set<uint64_t> jumped_from;  // starts of the pieces that jump to its start
    bool branched_to = false;                  // one of these jumps is conditional
    bool called = false;
    bool mid_frame = false;  // it begins with a frame on the stack
  };
  struct Target {
    External external = External::none;
    uint64_t local = 0;
  };

  void read_window(uint64_t low, uint64_t high);
  void read_hot_part(uint64_t low, uint64_t high);
  void read_piece(const CallFrames::Entry& entry);
  void follow_jumps();
  void note_jump(const Piece& from, const Transfer& transfer);
  [[nodiscard]] bool is_stub_table(std::span<const uint8_t> code) const;
  Target resolve(const Transfer& transfer);
  Target resolve_address(uint64_t vaddr);
  Target through_pointer(uint64_t slot) const;
  std::optional<Target> through_stub(uint64_t vaddr) const;
  External wrapper_at(uint64_t vaddr) const;
  void note_own_wrappers();
  void mark_called();
  void read_library();
  void note_data();
  uint64_t owner_of(uint64_t start) const;
  void assemble();
  void add_piece(const Piece& piece, CodeFunction& function);
  [[nodiscard]] bool may_be_raw_syscall(const Edge& edge) const;
  Edge edge_of(const Transfer& transfer);
  void link();

  const ElfFile& file_;
  const CallFrames& frames_;
  const DataView& data_;
  CodeGraph graph_;
  std::map<uint64_t, Piece> pieces_;
  std::deque<uint64_t> unread_jumps_;
  std::unordered_map<uint64_t, Target> targets_;
  uint64_t read_ = 0;
  size_t n_transfers_ = 0, n_references_ = 0;
  bool absolute_ = false;
};

}  // namespace jemtrace::locate::recover
