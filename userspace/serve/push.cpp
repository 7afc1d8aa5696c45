#include "serve/push.hpp"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <random>

#include "util/clock.hpp"
#include "util/say.hpp"

namespace jemtrace::serve {

void Outbox::put(const std::shared_ptr<const Exposition>& now) {
  if (delta_) {
    latest_ = now;
    return;
  }
  waiting_.push_back(encode_otlp(*now, nullptr, resource_));
  bytes_ += waiting_.back().size();
  while (bytes_ > max_bytes_ && waiting_.size() > 1) {
    bytes_ -= waiting_.front().size();
    waiting_.pop_front();
    ++dropped_;
  }
}

const std::string* Outbox::front() {
  if (delta_ && latest_ && latest_ != sending_) {
    const Exposition nothing;  // the first one tells all since the start
    bytes_ = 0;
    waiting_.assign(1, encode_otlp(*latest_, taken_ ? taken_.get() : &nothing, resource_));
    bytes_ = waiting_.front().size();
    sending_ = latest_;
  }
  return waiting_.empty() ? nullptr : &waiting_.front();
}

void Outbox::pop() {
  if (waiting_.empty()) {
    return;
  }
  bytes_ -= waiting_.front().size();
  waiting_.pop_front();
  taken_ = sending_;
}

uint64_t backoff_ms(unsigned failures, double chance) {
  constexpr uint64_t longest_ms = 60'000;
  const uint64_t wait =
      std::min(longest_ms, uint64_t{1000} << std::min(failures == 0 ? 0 : failures - 1, 16U));
  return wait - static_cast<uint64_t>(static_cast<double>(wait) * 0.25 * chance);
}

Own::Push Pusher::counts() const {
  return {.sent = sent_,
          .failed = failed_,
          .dropped = dropped_ + refused_,
          .queued = queued_,
          .queue_bytes = queue_bytes_};
}

/// Once, and once again when it has worked in between: a collector that is down for an hour fills no log.
void Pusher::complain(const std::string& what) {
  if (failures_ == 1) {
    say("{}; it is tried again", what);
  }
}

bool Pusher::send(const std::string& body, int stop) {
  constexpr int patience_ms = 10'000;
  const auto reply = post(options_.url, body, "application/x-protobuf", patience_ms, stop);
  if (reply && reply->status >= 200 && reply->status < 300) {
    sent_ += 1;
    failures_ = 0;
    return true;
  }
  pollfd ending{.fd = stop, .events = POLLIN, .revents = 0};
  if (!reply && ::poll(&ending, 1, 0) > 0) {
    return false;  // interrupted: that says nothing about the collector
  }
  failed_ += 1;
  ++failures_;
  complain(reply ? fmt::format("the OTLP collector answers {}", reply->status) : reply.error().message());
  // OTLP, "Failures": only these are worth another try.
  constexpr std::array<int, 4> passing = {429, 502, 503, 504};
  if (reply && std::find(passing.begin(), passing.end(), reply->status) == passing.end()) {
    refused_ += 1;
    return true;
  }
  static thread_local std::minstd_rand random{std::random_device{}()};
  retry_ms_ = backoff_ms(failures_, std::uniform_real_distribution<>(0, 1)(random));
  if (reply && reply->retry_after_s) {
    retry_ms_ = std::clamp<uint64_t>(*reply->retry_after_s * 1000, retry_ms_, 600'000);
  }
  return false;
}

void Pusher::run(int stop) {
  Outbox outbox(options_.delta, options_.queue_bytes, options_.resource);
  const auto ms_now = [] { return monotonic_ns() / 1'000'000; };
  uint64_t next_put = ms_now() + std::min<uint64_t>(options_.interval_ms, 1000);
  uint64_t next_send = 0;
  for (;;) {
    const uint64_t now = ms_now();
    if (now >= next_put) {
      constexpr uint64_t max_age_ms = 250;
      constexpr uint64_t patience_ms = 1000;
      if (const auto snapshot = snapshots_.get(max_age_ms, patience_ms)) {
        outbox.put(snapshot);
      }
      next_put = std::max(next_put + options_.interval_ms, now + 1);
    }
    while (now >= next_send) {
      const std::string* body = outbox.front();
      if (body == nullptr) {
        break;
      }
      if (send(*body, stop)) {
        outbox.pop();
      } else {
        next_send = ms_now() + retry_ms_;
      }
    }
    queued_ = outbox.waiting();
    queue_bytes_ = outbox.bytes();
    dropped_ = outbox.dropped();
    const uint64_t wake = outbox.bytes() > 0 ? std::min(next_put, std::max(next_send, now)) : next_put;
    const uint64_t then = ms_now();
    pollfd end{.fd = stop, .events = POLLIN, .revents = 0};
    if (::poll(&end, 1, wake <= then ? 0 : static_cast<int>(wake - then)) > 0) {
      if (queued_ > 0) {  // in the metrics nobody can read it any more
        say("the OTLP collector did not confirm the last exports ({})", queued_.load());
      }
      return;
    }
  }
}

}  // namespace jemtrace::serve
