#include "collect/inspect.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "collect/images.hpp"
#include "collect/target.hpp"
#include "read/structures.hpp"
#include "util/text.hpp"

namespace jemtrace::collect {
namespace {

/// Fills in `target` when the process uses jemalloc.
Result<bool> look_at_process(const ProcRoot& proc, Images& images, Target& target) {
  ASSIGN_OR_RETURN(const auto mapped, images.mapped_by(proc, target.process.pid));
  for (const jt_target_image& image : mapped) {
    target.images.push_back(images.by_index(image.image));
  }
  target.program_conf = program_conf(target.process.pid, images, mapped);
  target.read = reader_of(target.process.pid, images, mapped);
  return !mapped.empty();
}

Error no_jemalloc(const std::string& what) {
  return {Errc::no_target, what + " does not use jemalloc", 0, "jemtrace list shows the processes that do"};
}

/// A process that uses jemalloc.
Result<Target> target_with_images(const ProcRoot& proc, pid_t pid, Images& images) {
  ASSIGN_OR_RETURN(auto process, discover::read_process(proc, pid));
  Target target(proc, std::move(process));
  ASSIGN_OR_RETURN(const bool uses, look_at_process(proc, images, target));
  if (!uses) {
    if (!images.refused().empty()) {
      return fail(Errc::unsupported, images.refused().front());
    }
    return tl::unexpected(no_jemalloc(fmt::format("pid {} ({})", pid, escape(target.process.comm))));
  }
  return target;
}

}  // namespace

std::string describe_unreadable(size_t processes) {
  return plural(processes, "process", "processes") + " could not be looked at: permission denied";
}

Error Inspection::nothing() const {
  if (!images->refused().empty()) {
    return {Errc::no_target, "nothing selected uses a jemalloc that can be read", 0, ""};
  }
  if (unreadable > 0) {
    return {Errc::no_target, "nothing selected that could be looked at uses jemalloc", 0,
            ::geteuid() == 0
                ? "the rest is hidden even from root: a process that protects itself, or a sandbox"
                : "the rest may: run as root"};
  }
  return {Errc::no_target, "nothing selected uses jemalloc", 0, "jemtrace list shows the processes that do"};
}

Result<Inspection> inspect(const ProcRoot& proc, const discover::Selection& selection) {
  Inspection out;
  out.images = std::make_shared<Images>(nullptr);
  Images& images = *out.images;
  std::vector<pid_t> pids = selection.pids;
  const bool all = !selection.only_pids();
  if (all) {
    ASSIGN_OR_RETURN(pids, proc.pids());
  }
  for (const pid_t pid : pids) {
    auto process = discover::read_process(proc, pid);
    if (!process) {
      if (!all) {
        return tl::unexpected(std::move(process).error());
      }
      continue;  // gone meanwhile
    }
    if (!selection.matches(*process)) {
      continue;
    }
    Target target(proc, std::move(*process));
    const auto uses = look_at_process(proc, images, target);
    if (!uses) {
      if (!all && pids.size() == 1 && uses.error().code == Errc::denied) {
        return tl::unexpected(uses.error());  // whether it uses jemalloc is not known
      }
      out.unreadable += uses.error().code == Errc::denied ? 1 : 0;
    } else if (*uses) {
      out.processes.push_back({describe(proc, target), std::move(target.read)});
    }
  }
  out.notes = images.refused();
  if (out.unreadable > 0) {
    out.notes.push_back(describe_unreadable(out.unreadable));
  }
  return out;
}

Result<NamedImage> inspect_file(const std::string& path, bool rebuild) {
  ASSIGN_OR_RETURN(const Fd file, open_file(path, O_RDONLY | O_NONBLOCK));
  ASSIGN_OR_RETURN(auto located, locate::Locator::standard().locate(file.get(), path, rebuild));
  if (!located.image) {
    return fail(Errc::no_target, fmt::format("{} holds no jemalloc", escape(path)));
  }
  return NamedImage{path, std::move(*located.image), located.cached};
}

Result<NamedImage> inspect_process(const ProcRoot& proc, pid_t pid, bool rebuild) {
  Images images(nullptr, rebuild);
  ASSIGN_OR_RETURN(const Target target, target_with_images(proc, pid, images));
  const TracedImage& first = *target.images.front();
  return NamedImage{first.path, first.image, first.cached};
}

Result<PlacedImages> inspect_placed(const ProcRoot& proc, pid_t pid) {
  Images images(nullptr);
  ASSIGN_OR_RETURN(Target target, target_with_images(proc, pid, images));
  ASSIGN_OR_RETURN(const auto mapped, images.mapped_by(proc, pid));
  PlacedImages placed{.process = std::move(target.process), .images = {}};
  for (const jt_target_image& mapping : mapped) {
    const ImagePtr found = images.by_index(mapping.image);
    placed.images.push_back({.named = {found->path, found->image, found->cached},
                             .bias = read::load_bias(found->image, mapping.start, mapping.file_offset)});
  }
  return placed;
}

}  // namespace jemtrace::collect
