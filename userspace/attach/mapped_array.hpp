#pragma once

#include <bpf/libbpf.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>

#include "util/result.hpp"

namespace jemtrace::attach {

/// A BPF_MAP_TYPE_ARRAY with BPF_F_MMAPABLE, where the kernel side writes to it.
template <typename Element>
class MappedArray {
 public:
  MappedArray() = default;
  ~MappedArray() { unmap(); }
  MappedArray(const MappedArray&) = delete;
  MappedArray& operator=(const MappedArray&) = delete;

  /// Its first `count` elements, in place of those that were mapped before.
  Status map(const bpf_map* map, size_t count) {
    static_assert(sizeof(Element) % 8 == 0, "the kernel rounds up");
    unmap();
    const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    const size_t bytes = (count * sizeof(Element) + page - 1) / page * page;
    void* elements = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);
    if (elements == MAP_FAILED) {
      return fail_errno(fmt::format("cannot map the kernel side's table {}", bpf_map__name(map)));
    }
    elements_ = static_cast<Element*>(elements);
    count_ = count;
    bytes_ = bytes;
    return {};
  }

  [[nodiscard]] size_t size() const { return count_; }
  [[nodiscard]] Element& operator[](size_t index) const { return elements_[index]; }

 private:
  void unmap() {
    if (elements_ != nullptr) {
      ::munmap(elements_, bytes_);
    }
    elements_ = nullptr;
    count_ = bytes_ = 0;
  }

  Element* elements_ = nullptr;
  size_t count_ = 0;
  size_t bytes_ = 0;
};

}  // namespace jemtrace::attach
