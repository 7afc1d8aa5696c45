#include "attach/map_calls.hpp"

namespace jemtrace::attach {

int lookup(int fd, const void* key, void* value) {
  const Undisturbed here;
  return bpf_map_lookup_elem(fd, key, value);
}

int update(int fd, const void* key, const void* value, uint64_t flags) {
  const Undisturbed here;
  return bpf_map_update_elem(fd, key, value, flags);
}

int remove(int fd, const void* key) {
  const Undisturbed here;
  return bpf_map_delete_elem(fd, key);
}

int next_key(int fd, const void* key, void* next) {
  const Undisturbed here;
  return bpf_map_get_next_key(fd, key, next);
}

}  // namespace jemtrace::attach
