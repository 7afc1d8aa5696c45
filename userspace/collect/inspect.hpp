#pragma once

#include <memory>
#include <string>
#include <vector>

#include "collect/observe.hpp"
#include "discover/process.hpp"
#include "discover/selection.hpp"
#include "ledger/model.hpp"
#include "locate/image.hpp"
#include "util/file.hpp"

/// Looking without tracing: no BPF, nothing attached.
namespace jemtrace::collect {

class Images;

struct Inspected {
  ledger::TargetInfo info;
  ReadJemalloc read;  // its numbers; valid as long as the Inspection is
};

/// "3 processes could not be looked at: permission denied"
std::string describe_unreadable(size_t processes);

struct Inspection {
  std::shared_ptr<Images> images;
  std::vector<Inspected> processes;  // that use jemalloc, by pid
  size_t unreadable = 0;             // processes whose mappings we may not read
  std::vector<std::string> notes;
  [[nodiscard]] Error nothing() const;  // what to say when there are no processes
};

/// Which of the selected processes use jemalloc, and how. A pid that was asked for and does not exist is an
/// error.
Result<Inspection> inspect(const ProcRoot& proc, const discover::Selection& selection);

struct NamedImage {
  std::string path;  // untrusted
  locate::Image image;
  bool cached = false;  // as it was found earlier
};

/// The image in a file, or the first one of a process. Errc::no_target when there is no jemalloc in it.
/// `rebuild`: what the cache knows of it is not believed, and replaced.
Result<NamedImage> inspect_file(const std::string& path, bool rebuild = false);
Result<NamedImage> inspect_process(const ProcRoot& proc, pid_t pid, bool rebuild = false);

/// All images of a process. `bias`: how far from where it was linked each is mapped.
struct PlacedImage {
  NamedImage named;
  uint64_t bias = 0;
};
struct PlacedImages {
  discover::Process process;
  std::vector<PlacedImage> images;
};
Result<PlacedImages> inspect_placed(const ProcRoot& proc, pid_t pid);

}  // namespace jemtrace::collect
