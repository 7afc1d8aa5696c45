#pragma once

#include <bpf/bpf.h>
#include <sched.h>

#include <cerrno>
#include <cstdint>
#include <utility>
#include <vector>

/// bpf(2) on maps.
namespace jemtrace::attach {

/// While bpf(2) works on a map, the kernel runs no tracing program on that CPU. Should a target preempt us in
/// there, its calls would be skipped (seen: 30 of 800 on a busy CPU). A real-time thread is not preempted by
/// an ordinary one, and each of these calls takes a few microseconds. Where that is not allowed it stays as
/// it is, and what is skipped is counted.
class Undisturbed {
 public:
  Undisturbed() : before_(::sched_getscheduler(0) | SCHED_RESET_ON_FORK) {
    const sched_param first{.sched_priority = 1};
    const int policy = before_ & ~SCHED_RESET_ON_FORK;
    raised_ = policy != SCHED_FIFO && policy != SCHED_RR &&
              ::sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &first) == 0;
  }
  ~Undisturbed() {
    if (raised_) {
      const sched_param ordinary{.sched_priority = 0};
      ::sched_setscheduler(0, before_,
                           &ordinary);  // only CAP_SYS_NICE may take SCHED_RESET_ON_FORK off again
    }
  }
  Undisturbed(const Undisturbed&) = delete;
  Undisturbed& operator=(const Undisturbed&) = delete;

 private:
  int before_;
  bool raised_ = false;
};

int lookup(int fd, const void* key, void* value);
int update(int fd, const void* key, const void* value, uint64_t flags);
int remove(int fd, const void* key);
int next_key(int fd, const void* key, void* next);

/// One by one, where many at a time are not to be had.
template <typename Key, typename Value, typename Visit>
void each_by_key(int fd, Visit visit) {
  Key key{};
  Key next{};
  Value value{};
  for (int more = next_key(fd, nullptr, &next); more == 0; more = next_key(fd, &key, &next)) {
    key = next;
    if (lookup(fd, &key, &value) == 0) {
      visit(key, value);
    }
  }
}

/// All elements of a hash, some at a time: the kernel goes from bucket to bucket, so that none that stays in
/// the map is left out or comes twice. A batch has to hold the fullest bucket.
template <typename Key, typename Value, typename Visit>
void each_element(int fd, Visit visit) {
  constexpr uint32_t at_a_time = 64;
  std::vector<Key> keys(at_a_time);
  std::vector<Value> values(at_a_time);
  uint32_t position = 0;  // of the next bucket
  bool first = true;
  for (bool more = true; more; first = false) {
    uint32_t count = at_a_time;
    int status = 0;
    {
      const Undisturbed here;
      status = bpf_map_lookup_batch(fd, first ? nullptr : &position, &position, keys.data(), values.data(),
                                    &count, nullptr);
    }
    more = status == 0;
    if (!more && errno != ENOENT) {  // that is the end
      if (first) {
        each_by_key<Key, Value>(fd, visit);
      }
      return;
    }
    for (uint32_t i = 0; i < count; ++i) {
      visit(keys[i], values[i]);
    }
  }
}

template <typename Key, typename Value>
std::vector<std::pair<Key, Value>> read_all_elements(int fd) {
  std::vector<std::pair<Key, Value>> out;
  each_element<Key, Value>(fd, [&](const Key& key, const Value& value) { out.emplace_back(key, value); });
  return out;
}

}  // namespace jemtrace::attach
