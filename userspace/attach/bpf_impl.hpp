#pragma once

#include <bpf/libbpf.h>

#include <memory>
#include <optional>
#include <vector>

#include "attach/load.hpp"
#include "attach/mapped_array.hpp"
#include "attach/tracefs.hpp"
#include "attach/works.hpp"

/// What a BpfObject holds: of its own files only.
namespace jemtrace::attach {

struct CloseRing {
  void operator()(ring_buffer* ring) const { ring_buffer__free(ring); }
};
struct CloseLink {
  void operator()(bpf_link* link) const { bpf_link__destroy(link); }
};
using Link = std::unique_ptr<bpf_link, CloseLink>;

/// The kernel side's table of chunks, mapped: bpf(2) would keep it from running on this CPU at each look.
class ChunkSets {
 public:
  Status map(const bpf_map* map) { return sets_.map(map, bpf_map__max_entries(map)); }

  /// Calls `use(slot, set, way)` for each chunk of this target.
  template <typename Use>
  void for_each_of(const jt_target_id& id, Use use) const {
    for (uint32_t i = 0; i < sets_.size(); ++i) {
      for (uint32_t way = 0; way < JT_CHUNK_WAYS; ++way) {
        if (sets_[i].born_ns[way] == id.born_ns && (sets_[i].key[way] & JT_TGID_MASK) == id.tgid) {
          use(i * JT_CHUNK_WAYS + way, sets_[i], way);
        }
      }
    }
  }

 private:
  MappedArray<jt_chunk_set> sets_;
};

struct BpfObject::Impl {
  Skeleton skeleton;
  std::vector<Link> links;
  std::unique_ptr<ring_buffer, CloseRing> rings;
  std::optional<Tracefs> tracefs;
  const Handler* handler = nullptr;
  ChunkSets chunk_sets;
  Works works;

  static int on_event(void* context, void* data, size_t size) {
    auto* self = static_cast<Impl*>(context);
    if (size >= sizeof(jt_event_header)) {
      (*self->handler)(*static_cast<const jt_event_header*>(data));
    }
    return 0;
  }

  Status attach_tracepoint(bpf_program* program, const char* name);
  Status attach_raw(bpf_program* program, const char* name);
};

}  // namespace jemtrace::attach
