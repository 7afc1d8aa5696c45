#pragma once

#include <array>
#include <memory>
#include <string>

#include "attach/bpf_object.hpp"
#include "jemtrace.skel.h"

/// From the programs in this binary to programs in the kernel.
namespace jemtrace::attach {

struct CloseSkeleton {
  void operator()(jemtrace_bpf* skeleton) const { jemtrace_bpf__destroy(skeleton); }
};
using Skeleton = std::unique_ptr<jemtrace_bpf, CloseSkeleton>;

/// The programs that only do what others were not let to.
std::array<bpf_program*, 4> copies(const jemtrace_bpf& skeleton);

/// With all that this kernel has: `features` says what that is.
Result<Skeleton> load_skeleton(LoadOptions options, Features& features);

/// What libbpf and the verifier said since the last try.
const std::string& load_log();

}  // namespace jemtrace::attach
