#include "read/call/memory.hpp"

#include <fmt/format.h>
#include <sys/uio.h>

#include <algorithm>

namespace jemtrace::read {
namespace {

constexpr size_t page = 4096;  // the smallest: what is readable ends at a multiple of it

iovec remote(uint64_t address, size_t size) {
  return {reinterpret_cast<void*>(address), size};  // NOLINT(performance-no-int-to-ptr)
}

}  // namespace

std::vector<uint8_t> TargetMemory::read_some(uint64_t address, size_t size) const {
  std::vector<uint8_t> bytes(size);
  size_t done = 0;
  while (done < size) {
    // A page that is not there ends the transfer before it, or fails it when it comes first.
    const iovec local{bytes.data() + done, size - done};
    const iovec there = remote(address + done, size - done);
    const ssize_t n = ::process_vm_readv(pid_, &local, 1, &there, 1, 0);
    if (n <= 0) {
      break;
    }
    done += static_cast<size_t>(n);
  }
  bytes.resize(done);
  return bytes;
}

Status TargetMemory::read(uint64_t address, void* to, size_t size) const {
  const iovec local{to, size};
  const iovec there = remote(address, size);
  const ssize_t n = ::process_vm_readv(pid_, &local, 1, &there, 1, 0);
  if (n < 0) {
    return fail_errno(fmt::format("cannot read the memory of pid {}", pid_));
  }
  if (static_cast<size_t>(n) != size) {
    return fail_errno(fmt::format("cannot read the memory of pid {}", pid_), EFAULT);
  }
  return {};
}

Status TargetMemory::write(uint64_t address, std::span<const uint8_t> bytes) const {
  // process_vm_writev reads from it only.
  const iovec local{const_cast<uint8_t*>(bytes.data()), bytes.size()};  // NOLINT
  const iovec there = remote(address, bytes.size());
  const ssize_t n = ::process_vm_writev(pid_, &local, 1, &there, 1, 0);
  if (n < 0 || static_cast<size_t>(n) != bytes.size()) {
    return fail_errno(fmt::format("cannot write to the stack of pid {}", pid_), n < 0 ? errno : EFAULT);
  }
  return {};
}

Result<std::string> TargetMemory::read_text(uint64_t address, size_t limit) const {
  std::string text;
  while (text.size() < limit) {
    const size_t piece = std::min(page - (address + text.size()) % page, limit - text.size());
    const auto bytes = read_some(address + text.size(), piece);
    const auto end = std::find(bytes.begin(), bytes.end(), 0);
    text.append(bytes.begin(), end);
    if (end != bytes.end()) {
      return text;
    }
    if (bytes.size() < piece) {
      return fail_errno(fmt::format("cannot read the memory of pid {}", pid_), EFAULT);
    }
  }
  return text;
}

}  // namespace jemtrace::read
