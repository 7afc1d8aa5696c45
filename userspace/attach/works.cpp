#include "attach/works.hpp"

#include <bpf/bpf.h>

#include <algorithm>
#include <iterator>
#include <numeric>

#include "attach/load.hpp"
#include "attach/map_calls.hpp"

namespace jemtrace::attach {
namespace {

/// In the map as little is added up as can be, as each addition costs the target time: see struct jt_hist.
jt_work complete(jt_work work) {
  jt_hist& done = work.done;
  done.count = std::accumulate(std::begin(done.buckets), std::end(done.buckets), uint64_t{0});
  done.extents += done.count;
  return work;
}

/// Of whom it is; 0: nobody's. The kernel side writes it last.
uint64_t owner_of(const jt_work_key& key) {
  return __atomic_load_n(&key.born_ns, __ATOMIC_ACQUIRE);
}

}  // namespace

void Works::set_size(jemtrace_bpf& skeleton, uint32_t places, bool own) {
  auto& maps = skeleton.maps;
  const uint32_t own_places = own ? places / 4 * 3 : 0;
  for (bpf_map* map : {maps.works, maps.work_keys, maps.free_works}) {
    bpf_map__set_max_entries(map, places);
  }
  bpf_map__set_max_entries(maps.shared_works, places - own_places);
  skeleton.bss->own_works = static_cast<int32_t>(own_places);
}

Status Works::open(jemtrace_bpf& skeleton) {
  skeleton_ = &skeleton;
  const uint32_t places = bpf_map__max_entries(skeleton.maps.work_keys);
  TRY(keys_.map(skeleton.maps.work_keys, places));
  const int free = bpf_map__fd(skeleton.maps.free_works);
  for (uint32_t number = places - 1; number > 0; --number) {  // the lowest is taken first
    if (bpf_map_update_elem(free, nullptr, &number, BPF_ANY) != 0) {
      return fail_errno("cannot fill the kernel side's table free_works");
    }
  }
  return {};
}

template <typename Use>
void Works::each_place(const jt_target_id* of, Use use) const {
  for (uint32_t number = 1; number < keys_.size(); ++number) {
    const uint64_t owner = owner_of(keys_[number]);
    if (owner != 0 && (of == nullptr || owner == of->born_ns)) {
      use(number);
    }
  }
}

jt_work Works::read(uint32_t number) const {
  constexpr size_t at_least = 64;
  if (number >= works_.size()) {
    const size_t want = std::min(std::max(size_t{number} * 2, at_least), keys_.size());
    (void)works_.map(skeleton_->maps.works, want);
  }
  jt_work work{};
  if (number < works_.size()) {
    work = works_[number];
  } else {  // out of memory: one by one, then
    lookup(bpf_map__fd(skeleton_->maps.works), &number, &work);
  }
  return complete(work);
}

void Works::each(const Visit& visit) const {
  each_place(nullptr, [&](uint32_t number) { visit(keys_[number], read(number)); });
}

void Works::each_of(const jt_target_id& id, const Visit& visit) const {
  each_place(&id, [&](uint32_t number) { visit(keys_[number], read(number)); });
}

void Works::forget(const jt_target_id& id) {
  const auto& maps = skeleton_->maps;
  each_place(&id, [&](uint32_t number) {
    jt_work_key& key = keys_[number];
    if ((key.who & JT_SHARED_WORK) != 0) {
      remove(bpf_map__fd(maps.shared_works), &key);
    } else {
      __atomic_fetch_add(&skeleton_->bss->own_works, 1, __ATOMIC_RELAXED);
    }
    const jt_work nothing{};
    key = {};
    update(bpf_map__fd(maps.works), &number, &nothing, BPF_ANY);
    update(bpf_map__fd(maps.free_works), nullptr, &number, BPF_ANY);
  });
}

}  // namespace jemtrace::attach
