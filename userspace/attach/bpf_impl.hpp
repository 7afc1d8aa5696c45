#pragma once

#include <bpf/libbpf.h>

#include <memory>
#include <optional>
#include <vector>

#include "attach/load.hpp"
#include "attach/mapped_array.hpp"
#include "attach/tracefs.hpp"
#include "attach/works.hpp"
#include "util/fd.hpp"

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
  /// Each for itself: a flood of calls must not keep anybody from hearing of lives.
  struct Ring {
    std::unique_ptr<ring_buffer, CloseRing> ring;
    const Handler* handler = nullptr;
    size_t left = 0;  // to be handed over before control returns

    Status map(int map_fd, int wait_fd);
    static int on_event(void* context, void* data, size_t size);
  };
  Ring lifecycle, calls;
  Fd wait;  // epoll
  std::optional<Tracefs> tracefs;
  ChunkSets chunk_sets;
  Works works;

  Status attach_tracepoint(bpf_program* program, const char* name);
  Status attach_raw(bpf_program* program, const char* name);
};

}  // namespace jemtrace::attach
