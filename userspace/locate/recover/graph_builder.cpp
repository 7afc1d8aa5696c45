#include "locate/recover/graph_builder.hpp"

#include <algorithm>
#include <cstring>
#include <set>

namespace jemtrace::locate::recover {
namespace {

constexpr uint64_t window = uint64_t{1} << 20;  // jemalloc's code comes to 0.3 to 0.7 MB, ctl.o in its midst
constexpr uint64_t max_span = uint64_t{8} << 20;
constexpr uint64_t max_piece = uint64_t{1} << 18;
constexpr uint64_t max_code = uint64_t{16} << 20;
constexpr size_t max_pieces = 60000;
// 2 MiB of jemalloc and its neighbours: 40,000 transfers, 60,000 references.
constexpr size_t max_transfers = 250000;
constexpr size_t max_references = 300000;
constexpr uint64_t max_wrapper = 160;
constexpr size_t wrapper_instructions = 40;
constexpr uint32_t sys_mmap = 9;
constexpr uint32_t sys_munmap = 11;
constexpr uint32_t sys_madvise = 28;
constexpr uint32_t sys_process_madvise = 440;
constexpr size_t max_holders = 16;
constexpr size_t max_hot_windows = 4;

External external_of_number(std::optional<uint32_t> number) {
  switch (number.value_or(0)) {
    case sys_mmap:
      return External::mmap;
    case sys_munmap:
      return External::munmap;
    case sys_madvise:
      return External::madvise;
    case sys_process_madvise:
      return External::process_madvise;
    default:
      return External::none;
  }
}

}  // namespace

CodeGraph GraphBuilder::build(uint64_t low, uint64_t high) {
  absolute_ = file_.header().e_type == ET_EXEC;
  read_window(low, high);
  read_hot_part(low, high);
  follow_jumps();
  note_own_wrappers();
  mark_called();
  read_library();
  assemble();
  note_data();
  link();
  return std::move(graph_);
}

void GraphBuilder::read_window(uint64_t low, uint64_t high) {
  const uint64_t from = low > window ? low - window : 0;
  const uint64_t to = std::min(high, low + max_span) + window;
  const auto& entries = frames_.entries();
  auto entry = std::lower_bound(entries.begin(), entries.end(), from,
                                [](const CallFrames::Entry& e, uint64_t wanted) { return e.start < wanted; });
  for (; entry != entries.end() && entry->start < to; ++entry) {
    read_piece(*entry);
  }
}

/// With a profile the linker puts what runs often in a place of its own, megabytes away (rustdoc): it is
/// where the handlers call to.
void GraphBuilder::read_hot_part(uint64_t low, uint64_t high) {
  std::set<uint64_t> far;
  for (auto piece = pieces_.lower_bound(low); piece != pieces_.end() && piece->first <= high; ++piece) {
    for (const Transfer& transfer : piece->second.scan.transfers) {
      const auto* callee =
          transfer.target != 0 && transfer.return_vaddr != 0 ? frames_.entry_of(transfer.target) : nullptr;
      if (callee != nullptr && !pieces_.contains(callee->start)) {
        far.insert(callee->start);
      }
    }
  }
  size_t windows = 0;
  for (const uint64_t start : far) {
    if (!pieces_.contains(start) && windows++ < max_hot_windows) {
      read_window(start, start);
    }
  }
}

/// The PLT has one entry in .eh_frame; it is no function, and nor are its stubs.
bool GraphBuilder::is_stub_table(std::span<const uint8_t> code) const {
  constexpr uint8_t endbr64[] = {0xf3, 0x0f, 0x1e, 0xfa};
  const bool marked = code.size() >= 4 && std::equal(std::begin(endbr64), std::end(endbr64), code.begin());
  auto rest = code.subspan(marked ? 4 : 0);
  if (!rest.empty() && rest[0] == 0xf2) {
    rest = rest.subspan(1);
  }
  return rest.size() >= 6 && rest[0] == 0xff && (rest[1] == 0x35 || rest[1] == 0x25);
}

void GraphBuilder::read_piece(const CallFrames::Entry& entry) {
  if (entry.size > max_piece || read_ > max_code || pieces_.size() >= max_pieces ||
      n_transfers_ > max_transfers || n_references_ > max_references || pieces_.contains(entry.start) ||
      !file_.executable(entry.start)) {
    return;
  }
  const auto code = file_.read_vaddr(entry.start, entry.size, max_piece);
  if (!code || is_stub_table(*code)) {
    return;
  }
  read_ += entry.size;
  Piece& piece = pieces_[entry.start];
  piece.start = entry.start;
  piece.size = entry.size;
  piece.scan = scan(*code, entry.start, absolute_);
  graph_.members_.insert(piece.scan.members.begin(), piece.scan.members.end());
  piece.scan.members = {};
  n_transfers_ += piece.scan.transfers.size();
  n_references_ += piece.scan.references.size();
  const auto rule = frames_.rule_at(entry.start);
  piece.mid_frame =
      rule && rule->cfa_register != JT_CFA_NONE && (rule->cfa_register != JT_CFA_SP || rule->cfa_offset != 8);
  for (const Transfer& transfer : piece.scan.transfers) {
    if (transfer.return_vaddr == 0 && transfer.target != 0 && !frames_.entry_of(transfer.target)) {
      continue;
    }
    if (transfer.return_vaddr == 0 && transfer.target != 0) {
      unread_jumps_.push_back(frames_.entry_of(transfer.target)->start);
    }
  }
}

/// gcc puts the .cold parts of a whole program together, far from their functions.
void GraphBuilder::follow_jumps() {
  while (!unread_jumps_.empty()) {
    const uint64_t start = unread_jumps_.front();
    unread_jumps_.pop_front();
    if (pieces_.contains(start)) {
      continue;
    }
    const auto rule = frames_.rule_at(start);
    const bool mid_frame = rule && (rule->cfa_register == JT_CFA_BP || rule->cfa_offset != 8);
    if (mid_frame) {
      read_piece(*frames_.entry_of(start));
    }
  }
  for (auto& [start, piece] : pieces_) {
    for (const Transfer& transfer : piece.scan.transfers) {
      note_jump(piece, transfer);
    }
  }
}

void GraphBuilder::note_jump(const Piece& from, const Transfer& transfer) {
  const auto target = transfer.return_vaddr == 0 ? pieces_.find(transfer.target) : pieces_.end();
  if (target != pieces_.end() && target->first != from.start) {
    target->second.jumped_from.insert(from.start);
    target->second.branched_to = target->second.branched_to || transfer.conditional;
  }
}

/// A program may define madvise itself, by syscall(SYS_madvise, ...): then jemalloc calls that one.
void GraphBuilder::note_own_wrappers() {
  for (const auto& [start, piece] : pieces_) {
    for (const Transfer& transfer : piece.scan.transfers) {
      const External external = external_of_number(transfer.rdi);
      const bool own = external != External::none && external != External::process_madvise &&
                       !transfer.system_call && resolve(transfer).external == External::raw_syscall;
      if (own) {
        graph_.wrappers_.emplace(start, external);
        targets_[start] = {external, 0};
      }
    }
  }
}

void GraphBuilder::mark_called() {
  for (auto& [start, piece] : pieces_) {
    for (const Transfer& transfer : piece.scan.transfers) {
      const Target target = transfer.return_vaddr != 0 ? resolve(transfer) : Target{};
      const auto callee = pieces_.find(target.local);
      if (callee != pieces_.end()) {
        callee->second.called = true;
      }
    }
  }
}

/// The C library of a large static program lies elsewhere. It advises too: the stack of a thread that ends.
void GraphBuilder::read_library() {
  std::vector<uint64_t> advisers;
  for (const auto& [vaddr, external] : graph_.wrappers_) {
    if (external == External::madvise && !pieces_.contains(vaddr)) {
      advisers.push_back(vaddr);
    }
  }
  if (advisers.size() == 1) {
    read_window(advisers.front(), advisers.front());
    follow_jumps();
    mark_called();
  }
}

/// The start of the function that a piece is a part of.
uint64_t GraphBuilder::owner_of(uint64_t start) const {
  for (int depth = 0; depth < 8; ++depth) {
    const auto found = pieces_.find(start);
    if (found == pieces_.end()) {
      return 0;
    }
    const Piece& piece = found->second;
    const bool cold =
        !piece.called && piece.jumped_from.size() == 1 && (piece.mid_frame || piece.branched_to);
    if (!cold) {
      return start;
    }
    start = *piece.jumped_from.begin();
  }
  return 0;
}

void GraphBuilder::assemble() {
  std::map<uint64_t, std::vector<uint64_t>> parts;
  for (const auto& [start, piece] : pieces_) {
    const uint64_t owner = owner_of(start);
    if (owner != 0 && owner != start) {
      parts[owner].push_back(start);
    }
  }
  for (const auto& [start, piece] : pieces_) {
    if (owner_of(start) == start) {
      graph_.by_start_.emplace(start, static_cast<FunctionId>(graph_.functions_.size()));
      graph_.functions_.push_back({});
      graph_.functions_.back().start = start;
    }
  }
  for (CodeFunction& function : graph_.functions_) {
    const Piece& main = pieces_.at(function.start);
    function.arguments = main.scan.arguments;
    function.whole = main.scan.whole;
    add_piece(main, function);
    for (const uint64_t part : parts[function.start]) {
      add_piece(pieces_.at(part), function);
    }
    std::sort(function.references.begin(), function.references.end());
  }
}

void GraphBuilder::add_piece(const Piece& piece, CodeFunction& function) {
  function.pieces.push_back({piece.start, piece.size});
  function.references.insert(function.references.end(), piece.scan.references.begin(),
                             piece.scan.references.end());
  const bool wrapper = graph_.wrappers_.contains(piece.start);
  for (const Transfer& transfer : piece.scan.transfers) {
    if (wrapper && transfer.system_call) {
      continue;  // who calls the wrapper makes the call
    }
    Edge edge = edge_of(transfer);
    const bool jump = transfer.return_vaddr == 0;
    if (edge.callee != no_function && jump && graph_.functions_[edge.callee].start == function.start) {
      continue;  // from a .cold part back
    }
    const bool leads_somewhere =
        edge.callee != no_function || edge.external != External::none || transfer.member || !jump;
    if (leads_somewhere) {
      function.edges.push_back(edge);
    }
  }
}

/// syscall(3): imported, beyond what was read, or a function that asks the kernel for what its caller says.
bool GraphBuilder::may_be_raw_syscall(const Edge& edge) const {
  if (edge.external != External::none || edge.callee == no_function) {
    return edge.external == External::raw_syscall || edge.external == External::none;
  }
  const auto& transfers = pieces_.at(graph_.functions_[edge.callee].start).scan.transfers;
  return std::any_of(transfers.begin(), transfers.end(),
                     [](const Transfer& t) { return t.system_call && !t.number; });
}

Edge GraphBuilder::edge_of(const Transfer& transfer) {
  Edge edge;
  edge.transfer = transfer;
  const Target target = resolve(transfer);
  const auto callee = graph_.by_start_.find(target.local);
  edge.callee = callee == graph_.by_start_.end() ? no_function : callee->second;
  edge.external = target.external;
  // syscall(440, ...): the C library has no wrapper for process_madvise before 2.36, and jemalloc uses none.
  if (transfer.rdi == sys_process_madvise && transfer.target + transfer.pointer != 0 &&
      may_be_raw_syscall(edge)) {
    edge.external = External::process_madvise;
    edge.callee = no_function;
  }
  if (edge.external == External::madvise) {
    edge.advice = transfer.rdx;
  }
  return edge;
}

GraphBuilder::Target GraphBuilder::resolve(const Transfer& transfer) {
  if (transfer.system_call) {
    return {external_of_number(transfer.number), 0};
  }
  if (transfer.pointer != 0) {
    return through_pointer(transfer.pointer);
  }
  return transfer.target != 0 ? resolve_address(transfer.target) : Target{};
}

GraphBuilder::Target GraphBuilder::through_pointer(uint64_t slot) const {
  if (const External external = data_.import_at(slot); external != External::none) {
    return {external, 0};
  }
  const uint64_t local = data_.word(slot).value_or(0);
  return {External::none, file_.executable(local) ? local : 0};
}

std::optional<GraphBuilder::Target> GraphBuilder::through_stub(uint64_t vaddr) const {
  const auto code = file_.read_vaddr(vaddr, 16, 16);
  if (!code || !is_stub_table(*code)) {
    return std::nullopt;
  }
  for (const Instruction& in : decode(*code, vaddr, 2)) {
    if (in.kind == Instruction::Kind::jump && in.address != 0) {
      return through_pointer(in.address);
    }
  }
  return std::nullopt;
}

GraphBuilder::Target GraphBuilder::resolve_address(uint64_t vaddr) {
  const auto [known, fresh] = targets_.try_emplace(vaddr);
  if (fresh) {
    if (const auto target = through_stub(vaddr)) {
      known->second = *target;
    } else {
      known->second = {wrapper_at(vaddr), vaddr};
      if (known->second.external != External::none) {
        graph_.wrappers_.emplace(vaddr, known->second.external);
        known->second.local = 0;
      }
    }
  }
  return known->second;
}

/// A system call wrapper of the C library in a static program: short, and the first thing it asks of the
/// kernel is a constant. musl's have no entry in .eh_frame; there the code is followed to its last return.
External GraphBuilder::wrapper_at(uint64_t vaddr) const {
  const auto* entry = frames_.entry_of(vaddr);
  const uint64_t known_size = entry != nullptr && entry->start == vaddr ? entry->size : 0;
  const Elf64_Phdr* segment = file_.segment_of(vaddr);
  if (segment == nullptr || (entry != nullptr && entry->start != vaddr)) {
    return External::none;
  }
  const uint64_t left = segment->p_vaddr + segment->p_filesz - vaddr;
  const uint64_t size = std::min({left, max_wrapper, known_size == 0 ? max_wrapper : known_size});
  const auto code = file_.read_vaddr(vaddr, size, max_wrapper);
  if (!code) {
    return External::none;
  }
  std::optional<uint32_t> number;
  uint64_t furthest = 0;
  for (const Instruction& in : decode(*code, vaddr, wrapper_instructions)) {
    if (in.move == Instruction::Move::constant && in.to == rax) {
      number = static_cast<uint32_t>(in.immediate.value_or(0));
    } else if (in.kind == Instruction::Kind::syscall) {
      return external_of_number(number);
    }
    if (in.kind == Instruction::Kind::branch) {
      furthest = std::max(furthest, in.target);
    }
    const bool ends = in.kind == Instruction::Kind::ret || in.kind == Instruction::Kind::jump;
    if (ends && in.next() > furthest) {
      break;
    }
  }
  return External::none;
}

/// Which words of data hold the address of a function or of something a function mentions.
void GraphBuilder::note_data() {
  for (FunctionId id = 0; id < graph_.size(); ++id) {
    for (const uint64_t reference : graph_.functions_[id].references) {
      graph_.users_[reference].push_back(id);
    }
  }
  for (const auto& [mentioned, users] : graph_.users_) {
    if (const FunctionId id = graph_.find(mentioned); id != no_function) {
      graph_.taken_.insert(id);
    }
    // A pointer that code reads: what it leads to counts as mentioned.
    const uint64_t value = mentioned % 8 == 0 ? data_.word(mentioned).value_or(0) : 0;
    if (value != 0) {
      auto& holders = graph_.holders_[value];
      if (holders.size() < max_holders) {
        holders.push_back(mentioned);
      }
    }
  }
  data_.for_each_run([&](uint64_t, const uint8_t* run, size_t n) {
    for (size_t i = 0; i < n; ++i) {
      if (const FunctionId id = graph_.find(word_of(run, i)); id != no_function) {
        graph_.taken_.insert(id);
      }
    }
  });
}

void GraphBuilder::link() {
  graph_.callees_.resize(graph_.size());
  graph_.callers_.resize(graph_.size());
  for (FunctionId id = 0; id < graph_.size(); ++id) {
    for (const Edge& edge : graph_.functions_[id].edges) {
      if (edge.callee != no_function) {
        graph_.callees_[id].insert(edge.callee);
        graph_.callers_[edge.callee].insert(id);
      }
    }
  }
}

}  // namespace jemtrace::locate::recover
