#pragma once

#include <bpf/libbpf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <vector>

#include "attach/load.hpp"
#include "attach/tracefs.hpp"

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
  ChunkSets() = default;
  ~ChunkSets() {
    if (sets_ != nullptr) {
      ::munmap(sets_, bytes_);
    }
  }
  ChunkSets(const ChunkSets&) = delete;
  ChunkSets& operator=(const ChunkSets&) = delete;

  Status map(const bpf_map* map) {
    const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    count_ = bpf_map__max_entries(map);
    bytes_ = (count_ * sizeof(jt_chunk_set) + page - 1) / page * page;
    void* sets = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);
    if (sets == MAP_FAILED) {
      return fail_errno("cannot map the table of purged pages");
    }
    sets_ = static_cast<jt_chunk_set*>(sets);
    return {};
  }

  /// Calls `use(slot, set, way)` for each chunk of this target.
  template <typename Use>
  void for_each_of(const jt_target_id& id, Use use) const {
    for (uint32_t i = 0; sets_ != nullptr && i < count_; ++i) {
      for (uint32_t way = 0; way < JT_CHUNK_WAYS; ++way) {
        if (sets_[i].born_ns[way] == id.born_ns && (sets_[i].key[way] & JT_TGID_MASK) == id.tgid) {
          use(i * JT_CHUNK_WAYS + way, sets_[i], way);
        }
      }
    }
  }

 private:
  jt_chunk_set* sets_ = nullptr;
  size_t count_ = 0;
  size_t bytes_ = 0;
};

struct BpfObject::Impl {
  Skeleton skeleton;
  std::vector<Link> links;
  std::unique_ptr<ring_buffer, CloseRing> rings;
  std::optional<Tracefs> tracefs;
  const Handler* handler = nullptr;
  ChunkSets chunk_sets;

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
