#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <numeric>

#include "attach/bpf_impl.hpp"
#include "attach/map_calls.hpp"
#include "util/clock.hpp"

namespace jemtrace::attach {
namespace {

/// nullopt: a kernel before 5.12, whose bpf_prog_info ends before the field.
std::optional<uint64_t> recursion_misses(int prog_fd) {
  constexpr size_t end = offsetof(bpf_prog_info, recursion_misses) + sizeof(bpf_prog_info::recursion_misses);
  bpf_prog_info info{};
  uint32_t size = sizeof info;
  if (bpf_obj_get_info_by_fd(prog_fd, &info, &size) != 0 || size < end) {
    return std::nullopt;
  }
  return info.recursion_misses;
}

bool same(const jt_target_id& a, const jt_target_id& b) {
  return a.born_ns == b.born_ns && a.tgid == b.tgid;
}

}  // namespace

Status BpfObject::set_file(const jt_file& file, const jt_file_info& info) {
  if (update(bpf_map__fd(impl_->skeleton->maps.files), &file, &info, BPF_ANY) != 0) {
    return fail_errno("cannot tell the kernel side about a file");
  }
  return {};
}

void BpfObject::forget_file(const jt_file& file) {
  remove(bpf_map__fd(impl_->skeleton->maps.files), &file);
}

uint32_t BpfObject::max_images() const {
  return bpf_map__max_entries(impl_->skeleton->maps.images);
}

std::vector<bool> BpfObject::mapped_images() const {
  std::vector<bool> mapped(max_images());
  each_element<uint32_t, jt_target>(
      bpf_map__fd(impl_->skeleton->maps.targets), [&](uint32_t, const jt_target& target) {
        for (uint32_t i = 0; i < target.n_images && i < JT_MAX_TARGET_IMAGES; ++i) {
          if (target.images[i].image < mapped.size()) {
            mapped[target.images[i].image] = true;
          }
        }
      });
  return mapped;
}

void BpfObject::forget_image(uint32_t index) {
  const jt_image_checks none{};
  remove(bpf_map__fd(impl_->skeleton->maps.sites), &index);
  update(bpf_map__fd(impl_->skeleton->maps.checks), &index, &none, BPF_ANY);
}

Status BpfObject::set_image(uint32_t index, const jt_image& image,
                            const std::vector<std::pair<uint64_t, jt_site>>& sites) {
  if (!sites.empty()) {
    const Fd inner(bpf_map_create(BPF_MAP_TYPE_HASH, "jt_image_sites", sizeof(uint64_t), sizeof(jt_site),
                                  static_cast<uint32_t>(sites.size()), nullptr));
    if (!inner) {
      return fail_errno("cannot create the map of an image's call sites");
    }
    for (const auto& [offset, site] : sites) {
      if (update(inner.get(), &offset, &site, BPF_ANY) != 0) {
        return fail_errno("cannot fill the map of an image's call sites");
      }
    }
    const int fd = inner.get();
    if (update(bpf_map__fd(impl_->skeleton->maps.sites), &index, &fd, BPF_ANY) != 0) {
      return fail_errno("cannot install the map of an image's call sites");
    }
  }
  if (update(bpf_map__fd(impl_->skeleton->maps.images), &index, &image, BPF_ANY) != 0) {
    return fail_errno("cannot tell the kernel side about an image");
  }
  tell_threads();
  return {};
}

Result<bool> BpfObject::add_target(const jt_target& target) {
  if (update(bpf_map__fd(impl_->skeleton->maps.targets), &target.id.tgid, &target, BPF_NOEXIST) == 0) {
    return true;
  }
  if (errno == EEXIST) {
    return false;
  }
  return fail_errno(fmt::format("cannot add pid {} to the targets", target.id.tgid));
}

Status BpfObject::replace_target(const jt_target& target) {
  if (update(bpf_map__fd(impl_->skeleton->maps.targets), &target.id.tgid, &target, BPF_EXIST) != 0) {
    return fail_errno(fmt::format("cannot change the target with pid {}", target.id.tgid));
  }
  tell_threads();
  return {};
}

void BpfObject::remove_target(uint32_t tgid) {
  remove(bpf_map__fd(impl_->skeleton->maps.targets), &tgid);
  tell_threads();
}

/// Each thread keeps what it needs to know of its target.
void BpfObject::tell_threads() {
  __atomic_fetch_add(&impl_->skeleton->bss->targets_version, 1, __ATOMIC_RELEASE);
}

std::optional<jt_target> BpfObject::target(uint32_t tgid) const {
  jt_target target{};
  if (lookup(bpf_map__fd(impl_->skeleton->maps.targets), &tgid, &target) != 0) {
    return std::nullopt;
  }
  return target;
}

std::optional<jt_counters> BpfObject::counters(const jt_target_id& id) const {
  jt_counters counters{};
  if (lookup(bpf_map__fd(impl_->skeleton->maps.counters), &id, &counters) != 0) {
    return std::nullopt;
  }
  return counters;
}

void BpfObject::each_work(const jt_target_id& id, const WorkVisit& visit) const {
  impl_->works.each_of(id, visit);
}

void BpfObject::each_work(const WorkVisit& visit) const {
  impl_->works.each(visit);
}

std::optional<jt_waits> BpfObject::waits(const jt_target_id& id) const {
  jt_waits waits{};
  const int map = bpf_map__fd(impl_->skeleton->maps.waits_by_target);
  if (map < 0 || lookup(map, &id, &waits) != 0) {
    return std::nullopt;
  }
  return waits;
}

void BpfObject::each_counters(
    const std::function<void(const jt_target_id&, const jt_counters&)>& visit) const {
  each_element<jt_target_id, jt_counters>(bpf_map__fd(impl_->skeleton->maps.counters), visit);
}

std::vector<std::pair<jt_callsite_key, jt_calls>> BpfObject::callsites() const {
  return read_all_elements<jt_callsite_key, jt_calls>(bpf_map__fd(impl_->skeleton->maps.callsites));
}

std::optional<jt_image_checks> BpfObject::checks(uint32_t image) const {
  jt_image_checks checks{};
  if (lookup(bpf_map__fd(impl_->skeleton->maps.checks), &image, &checks) != 0) {
    return std::nullopt;
  }
  return checks;
}

// With copies a skipped run is no loss yet: what all programs of an enter and of its exit missed is. No more
// than the one that missed the fewest, and no more than the first ones missed and no copy made up for.
std::optional<uint64_t> BpfObject::missed_runs() const {
  if (!features_.uprobe_multi) {
    return std::nullopt;  // the kernel counts what it skips on a perf event, as the probe is, since 6.7 only
  }
  const auto& programs = impl_->skeleton->progs;
  const auto after = copies(*impl_->skeleton);
  uint64_t missed = 0;  // by the first ones
  uint64_t least = std::numeric_limits<uint64_t>::max();
  uint64_t others = 0;
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, impl_->skeleton->obj) {
    if (!bpf_program__autoload(program)) {
      continue;
    }
    const auto count = recursion_misses(bpf_program__fd(program));
    if (!count) {
      return std::nullopt;
    }
    const bool first = program == programs.enter_first || program == programs.exit_first;
    if (first || std::find(after.begin(), after.end(), program) != after.end()) {
      missed += first ? *count : 0;
      least = std::min(least, *count);
    } else {
      others += *count;
    }
  }
  const auto rescued = sum_of_cpus(JT_RESCUED_RUN);
  if (!rescued) {
    return std::nullopt;
  }
  missed -= std::min(missed, *rescued);
  return others + (features_.preemptible ? std::min(missed, least) : missed);
}

uint64_t BpfObject::skipped_lifecycles() const {
  uint64_t skipped = 0;
  const auto& programs = impl_->skeleton->progs;
  for (const bpf_program* program : {programs.on_fork, programs.on_exec, programs.on_exit}) {
    skipped += features_.preemptible ? recursion_misses(bpf_program__fd(program)).value_or(0) : 0;
  }
  return skipped;
}

std::optional<uint64_t> BpfObject::sum_of_cpus(uint32_t slot) const {
  const int cpus = libbpf_num_possible_cpus();
  if (cpus <= 0) {
    return std::nullopt;
  }
  std::vector<uint64_t> per_cpu(static_cast<size_t>(cpus));
  if (lookup(bpf_map__fd(impl_->skeleton->maps.losses), &slot, per_cpu.data()) != 0) {
    return std::nullopt;
  }
  return std::accumulate(per_cpu.begin(), per_cpu.end(), uint64_t{0});
}

std::optional<uint64_t> BpfObject::loss(jt_loss kind) const {
  return kind == JT_LOSS_MISSED_RUN ? missed_runs() : sum_of_cpus(kind);
}

ledger::Waiting BpfObject::waiting_pages(const jt_target_id& id) const {
  constexpr std::array<uint64_t, JT_REFAULT_LATER> limits_ns = {1'000'000'000, 10'000'000'000,
                                                                60'000'000'000};
  const auto now = static_cast<uint32_t>(monotonic_ns() >> JT_STAMP_SHIFT & JT_STAMP_MASK);
  ledger::Waiting waiting;
  jt_chunk_pages chunk{};
  impl_->chunk_sets.for_each_of(id, [&](uint32_t slot, const jt_chunk_set& set, uint32_t way) {
    if (const uint32_t huge = set.huge[way]; huge > 0 && huge <= JT_REFAULT_AGES) {
      waiting.maybe_huge[huge - 1] += 1;
    }
    if (set.marked[way] == 0 || lookup(bpf_map__fd(impl_->skeleton->maps.chunk_pages), &slot, &chunk) != 0) {
      return;
    }
    for (const uint32_t stamp : chunk.stamp) {
      const uint32_t age = (now - (stamp >> 2)) & JT_STAMP_MASK;
      for (size_t i = 0; stamp != 0 && i < limits_ns.size(); ++i) {
        waiting.pages[i] += age <= limits_ns[i] >> JT_STAMP_SHIFT ? 1 : 0;
      }
    }
  });
  return waiting;
}

void BpfObject::set_sampling(uint32_t shift) {
  impl_->skeleton->bss->follow_shift = shift;
}

void BpfObject::forget_counters(const jt_target_id& id) {
  remove(bpf_map__fd(impl_->skeleton->maps.counters), &id);
}

void BpfObject::forget(const jt_target_id& id) {
  impl_->chunk_sets.for_each_of(
      id, [](uint32_t, jt_chunk_set& set, uint32_t way) { set.key[way] = set.born_ns[way] = 0; });
  auto& maps = impl_->skeleton->maps;
  forget_counters(id);
  if (const int map = bpf_map__fd(maps.waits_by_target); map >= 0) {
    remove(map, &id);
  }
  impl_->works.forget(id);
  if (!impl_->skeleton->rodata->keeps_details) {
    return;
  }
  for (const auto& [key, calls] : callsites()) {
    if (same(key.id, id)) {
      remove(bpf_map__fd(maps.callsites), &key);
    }
  }
}

}  // namespace jemtrace::attach
