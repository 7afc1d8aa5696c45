#include "locate/recover/hooks_table.hpp"

#include <algorithm>

namespace jemtrace::locate::recover {
namespace {

constexpr uint32_t madv_dontneed = 4;
constexpr uint32_t madv_free = 8;
constexpr uint32_t madv_hugepage = 14;
constexpr uint32_t madv_nohugepage = 15;
constexpr int least_score = 4;
constexpr int near = 3;  // calls between a hook and its system call
constexpr int far = 5;   // the alloc hook's: alloc, pages_map, os_pages_map
constexpr size_t hpa_hooks = 7;

/// The functions that `n` words of data lead to; false when one is neither a function nor 0.
bool read_slots(const CodeGraph& graph, const uint8_t* run, size_t i, std::span<FunctionId> slots) {
  for (size_t k = 0; k < slots.size(); ++k) {
    const uint64_t word = word_of(run, i + k);
    slots[k] = word == 0 ? no_function : graph.find(word);
    if (word != 0 && slots[k] == no_function) {
      return false;
    }
  }
  return true;
}

struct Reach {
  FunctionSet free, dontneed, munmap, mmap, mmap_far;
};

int score_of(const HooksTable& table, const Reach& reach) {
  const auto in = [&](const FunctionSet& set, HookSlot slot) {
    return set.contains(table.slots[slot]) ? 1 : 0;
  };
  return in(reach.mmap_far, slot_alloc) + in(reach.munmap, slot_dalloc) + in(reach.munmap, slot_destroy) +
         in(reach.mmap, slot_commit) + in(reach.mmap, slot_decommit);
}

void note_users(const CodeGraph& graph, HooksTable& table) {
  for (const FunctionId id : graph.users_of(table.vaddr)) {
    std::set<uint8_t>& slots = table.users[id];
    for (const Edge& edge : graph.at(id).edges) {
      if (edge.transfer.member) {
        slots.insert(*edge.transfer.member);
      }
    }
  }
}

}  // namespace

bool HooksTable::holds(FunctionId id) const {
  return id != no_function && std::find(slots.begin(), slots.end(), id) != slots.end();
}

bool HooksTable::calls(FunctionId id, uint8_t slot) const {
  const auto user = users.find(id);
  return user != users.end() && user->second.contains(slot);
}

SystemCalls::SystemCalls(const CodeGraph& graph)
    : free(graph.advisers(madv_free)),
      dontneed(graph.advisers(madv_dontneed)),
      huge(graph.advisers(madv_hugepage)),
      nohuge(graph.advisers(madv_nohugepage)),
      munmap(graph.callers_of(External::munmap)),
      mmap(graph.callers_of(External::mmap)),
      process_madvise(graph.callers_of(External::process_madvise)) {}

std::optional<HooksTable> find_hooks(const DataView& data, const CodeGraph& graph, const SystemCalls& calls) {
  const Reach reach = {graph.reaching(calls.free, near), graph.reaching(calls.dontneed, near),
                       graph.reaching(calls.munmap, near), graph.reaching(calls.mmap, near),
                       graph.reaching(calls.mmap, far)};
  std::optional<HooksTable> best;
  bool tie = false;
  data.for_each_run([&](uint64_t vaddr, const uint8_t* run, size_t n) {
    for (size_t i = 0; i + n_slots <= n; ++i) {
      const FunctionId lazy = graph.find(word_of(run, i + slot_purge_lazy));
      if (lazy == no_function || !reach.free.contains(lazy) ||
          !reach.dontneed.contains(graph.find(word_of(run, i + slot_purge_forced)))) {
        continue;
      }
      HooksTable table;
      table.vaddr = vaddr + 8 * i;
      if (!read_slots(graph, run, i, table.slots) || table.slots[slot_alloc] == no_function) {
        continue;
      }
      table.score = score_of(table, reach);
      if (table.score < least_score || (best && table.score < best->score)) {
        continue;
      }
      tie = best && table.score == best->score;
      best = table;
    }
  });
  if (!best || tie) {
    return std::nullopt;
  }
  note_users(graph, *best);
  return best;
}

FunctionSet find_hpa_hooks(const DataView& data, const CodeGraph& graph, const SystemCalls& calls) {
  const FunctionSet mmap = graph.reaching(calls.mmap, far);
  const FunctionSet munmap = graph.reaching(calls.munmap, near);
  const FunctionSet dontneed = graph.reaching(calls.dontneed, near);
  const FunctionSet huge = graph.reaching(calls.huge, near);
  FunctionSet found;
  data.for_each_run([&](uint64_t, const uint8_t* run, size_t n) {
    std::array<FunctionId, hpa_hooks> slots{};
    for (size_t i = 0; i + hpa_hooks <= n; ++i) {
      if (!mmap.contains(graph.find(word_of(run, i))) || !read_slots(graph, run, i, slots)) {
        continue;
      }
      const bool fits = munmap.contains(slots[1]) && dontneed.contains(slots[2]) && huge.contains(slots[3]) &&
                        std::find(slots.begin(), slots.end(), no_function) == slots.end();
      if (fits) {
        found.insert(slots.begin(), slots.begin() + 5);
        // 5.3.1 appends vectorized_purge.
        const FunctionId more = i + hpa_hooks < n ? graph.find(word_of(run, i + hpa_hooks)) : no_function;
        if (more != no_function && graph.reaching(calls.process_madvise, near).contains(more)) {
          found.insert(more);
        }
      }
    }
  });
  return found;
}

}  // namespace jemtrace::locate::recover
