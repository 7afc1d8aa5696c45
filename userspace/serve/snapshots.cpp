#include "serve/snapshots.hpp"

#include <sys/eventfd.h>

#include "util/clock.hpp"

namespace jemtrace::serve {

Snapshots::Snapshots(uint64_t stuck_after_ms)
    : wanted_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), stuck_after_ns_(stuck_after_ms * 1'000'000) {}

bool Snapshots::stuck_locked() const {
  return latest_ && asked_ns_ != 0 && monotonic_ns() - asked_ns_ > stuck_after_ns_;
}

bool Snapshots::stuck() const {
  const std::lock_guard lock(mutex_);
  return stuck_locked();
}

std::shared_ptr<const Exposition> Snapshots::get(uint64_t max_age_ms, uint64_t patience_ms) {
  std::unique_lock lock(mutex_);
  const auto is_fresh = [&] {
    return latest_ && monotonic_ns() - latest_->made_mono_ns <= max_age_ms * 1'000'000;
  };
  if (!is_fresh()) {
    asked_ns_ = asked_ns_ == 0 ? monotonic_ns() : asked_ns_;
    (void)::eventfd_write(wanted_.get(), 1);
    published_.wait_for(lock, std::chrono::milliseconds(patience_ms), is_fresh);
  }
  return stuck_locked() ? nullptr : latest_;
}

std::shared_ptr<const std::string> Snapshots::get_encoded(Format format, uint64_t max_age_ms,
                                                          uint64_t patience_ms) {
  const std::shared_ptr<const Exposition> exposition = get(max_age_ms, patience_ms);
  if (!exposition) {
    return nullptr;
  }
  {
    const std::lock_guard lock(mutex_);
    if (auto& known = encoded_[static_cast<size_t>(format)]; known && latest_ == exposition) {
      return known;
    }
  }
  auto encoded = std::make_shared<const std::string>(encode(*exposition, format));
  const std::lock_guard lock(mutex_);
  if (latest_ == exposition) {
    encoded_[static_cast<size_t>(format)] = encoded;
  }
  return encoded;
}

void Snapshots::publish(Exposition exposition) {
  auto next = std::make_shared<const Exposition>(std::move(exposition));
  eventfd_t asked = 0;
  const std::lock_guard lock(mutex_);
  (void)::eventfd_read(wanted_.get(), &asked);
  asked_ns_ = 0;
  latest_.swap(next);
  encoded_ = {};
  published_.notify_all();
}

}  // namespace jemtrace::serve
