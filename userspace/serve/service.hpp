#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

/// What systemd is told, when it is systemd that started us.
namespace jemtrace::serve {

/// "READY=1", "STOPPING=1", "WATCHDOG=1" (sd_notify(3)). Does nothing without NOTIFY_SOCKET.
void notify(std::string_view state);
/// How often WATCHDOG=1 is expected; half of that is a good interval (sd_watchdog_enabled(3)).
std::optional<uint64_t> watchdog_ns();

}  // namespace jemtrace::serve
