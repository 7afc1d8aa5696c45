#pragma once

#include <cstdint>
#include <vector>

#include "util/fd.hpp"
#include "util/result.hpp"

namespace jemtrace::attach {

// include/uapi/linux/bpf.h: newer than the headers of Debian 12.
constexpr uint32_t trace_uprobe_multi = 48;    // BPF_TRACE_UPROBE_MULTI, Linux 6.6
constexpr uint32_t trace_uprobe_session = 57;  // BPF_TRACE_UPROBE_SESSION, Linux 6.13

/// Whether this kernel has uprobe_multi links (6.6), found out by trying to create one.
bool has_uprobe_multi();

/// Uprobes on one file, at any number of offsets, until this object dies. With uprobe_multi that is one link,
/// and leaving takes ~30 ms whatever the number of sites; without, each site is a perf event and takes ~100
/// ms.
class Uprobes {
 public:
  /// `file`: the open file, so that deleted and replaced files are met, and no path is trusted. The probes
  /// hit in every process that maps it, now or later. The pages are read first: installing a breakpoint must
  /// not have to wait for the disk inside another process's exec.
  /// `cookies`: one for each offset; only with `multi` the program gets them.
  static Result<Uprobes> attach(int prog_fd, int file, const std::vector<uint64_t>& offsets,
                                const std::vector<uint64_t>& cookies, bool multi);

  /// One program at the entry and, where its answer there is 0, at the return of each function (a uprobe
  /// session, Linux 6.13). `offsets`: where the return address is still on top of the stack. `cookies`: one
  /// for each offset.
  static Result<Uprobes> attach_session(int prog_fd, int file, const std::vector<uint64_t>& offsets,
                                        const std::vector<uint64_t>& cookies);

 private:
  std::vector<Fd> links_;
};

}  // namespace jemtrace::attach
