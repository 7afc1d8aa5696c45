#pragma once

#include <cstdint>
#include <functional>

#include "attach/mapped_array.hpp"
#include "jemtrace/abi.h"
#include "util/result.hpp"

struct jemtrace_bpf;  // the skeleton

namespace jemtrace::attach {

/// What the kernel side has counted of purges: `works` and what belongs to it (bpf/maps.bpf.h). Read where it
/// is, as bpf(2) would keep the programs from running on this CPU at each look.
class Works {
 public:
  using Visit = std::function<void(const jt_work_key&, const jt_work&)>;

  /// How many places there are, of which threads may have three in four for themselves if they shall. Before
  /// the load.
  static void set_size(jemtrace_bpf& skeleton, uint32_t places, bool own);
  /// Gives the places out. Before the programs run.
  Status open(jemtrace_bpf& skeleton);

  void each(const Visit& visit) const;
  void each_of(const jt_target_id& id, const Visit& visit) const;
  /// Takes back what a target that is gone had.
  void forget(const jt_target_id& id);

 private:
  /// Of one target, or of all.
  template <typename Use>
  void each_place(const jt_target_id* of, Use use) const;
  [[nodiscard]] jt_work read(uint32_t number) const;

  jemtrace_bpf* skeleton_ = nullptr;
  MappedArray<jt_work_key> keys_;
  mutable MappedArray<jt_work> works_;  // as far as they are in use: what is mapped counts as RSS
};

}  // namespace jemtrace::attach
