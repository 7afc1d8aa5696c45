#pragma once

#include <map>
#include <vector>

#include "ledger/model.hpp"

namespace jemtrace::ledger {

/// The cache that pages of this transition came from.
jt_state source_of(jt_transition transition);

/// Adds what the kernel side counted of one thread's purges to what it counts of the whole target: by
/// purpose, and as jemalloc's own counters count it, extents whether or not the kernel did what was asked.
void add(jt_counters& counters, const jt_work_key& key, const jt_work& work);
void add(Totals& totals, const jt_work_key& key, const jt_work& work);

/// Who paid, thread by thread.
class Payers {
 public:
  void add(const jt_work_key& key, const jt_work& work);
  /// Most time first. Threads that shared one place, as there was no other left, are one with tid 0.
  [[nodiscard]] std::vector<ThreadWork> sorted() const;

 private:
  std::map<uint32_t, ThreadWork> by_tid_;
};

}  // namespace jemtrace::ledger
