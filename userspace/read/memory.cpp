#include "read/memory.hpp"

#include <fmt/format.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>

namespace jemtrace::read {

Status ProcessMemory::read(std::span<Piece> pieces) const {
  constexpr size_t most = 512;  // of UIO_MAXIOV's 1024; their 16 kB are on the stack
  std::array<iovec, most> ours;
  std::array<iovec, most> theirs;
  for (size_t at = 0; at < pieces.size();) {
    const size_t n = std::min(most, pieces.size() - at);
    for (size_t i = 0; i < n; ++i) {
      const Piece& piece = pieces[at + i];
      ours[i] = {piece.into.data(), piece.into.size()};
      // An address of the target, which is no pointer here. NOLINTNEXTLINE(performance-no-int-to-ptr)
      theirs[i].iov_base = reinterpret_cast<void*>(piece.address);
      theirs[i].iov_len = piece.into.size();
    }
    const ssize_t got = ::process_vm_readv(pid_, ours.data(), n, theirs.data(), n, 0);
    if (got < 0 && errno != EFAULT) {
      return fail_errno(fmt::format("cannot read the memory of process {}", pid_));
    }
    // It stops at the first byte that is not there: that piece is left out, and what follows is tried again.
    auto left = static_cast<size_t>(std::max<ssize_t>(got, 0));
    size_t done = 0;
    while (done < n && left >= pieces[at + done].into.size()) {
      left -= pieces[at + done].into.size();
      pieces[at + done].whole = true;
      ++done;
    }
    at += done < n ? done + 1 : done;
  }
  return {};
}

}  // namespace jemtrace::read
