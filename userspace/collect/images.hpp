#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "attach/bpf_object.hpp"
#include "discover/maps.hpp"
#include "jemtrace/abi.h"
#include "locate/image.hpp"
#include "locate/locator.hpp"
#include "util/fd.hpp"
#include "util/file.hpp"
#include "util/result.hpp"

namespace jemtrace::collect {

/// An image that is being traced: what is known of it, and its probes.
struct TracedImage {
  uint32_t index = 0;  // in the kernel side's tables
  std::string path;    // where it was first seen; untrusted
  locate::Image image;
  bool cached = false;  // as it was found earlier
  Fd file;              // with a lease on it, while it has probes
  std::optional<attach::Uprobes> probes;
  std::optional<attach::Uprobes> mallctl_probes;
  std::vector<locate::ProbeSite> probed;
  std::string probe_error;  // why there are no probes, if there should be some
  std::string distrust;     // why probes were taken off again
};

using ImagePtr = std::shared_ptr<const TracedImage>;

/// What speaks against the probes of an image; empty: nothing does. A wrong site is one that hits with
/// arguments that make no sense, that says what the purges contradict, or that is never passed on the way to
/// them. Some of each is normal: a sweep was running when tracing began, or a run of a program was skipped.
std::string objection(const jt_image_checks& checks);

/// The file behind a mapping as the kernel names it.
jt_file kernel_name(const discover::Mapping& mapping);
bool is_program_text(const discover::Mapping& mapping);
/// Opens exactly what is mapped, never a path from the target: map_files leads to the inode.
Result<Fd> open_mapped(const ProcRoot& proc, pid_t pid, const discover::Mapping& mapping);
/// Without the kernel's " (deleted)".
std::string file_path(const discover::Mapping& mapping);

/// All files looked at so far, and the images among them. A file is analysed once, however many processes map
/// it.
class Images {
 public:
  /// `bpf` is told about each file and image; nullptr: only look, nothing is traced.
  /// `rebuild`: what the cache knows is not believed, and replaced.
  /// `passive`: what programs ask their jemalloc is seen, too.
  explicit Images(attach::BpfObject* bpf, bool rebuild = false, bool passive = false)
      : bpf_(bpf), locator_(locate::Locator::standard()), rebuild_(rebuild), passive_(passive) {}

  /// The images that a process maps, where it maps them. Files not seen before are looked at.
  Result<std::vector<jt_target_image>> mapped_by(const ProcRoot& proc, pid_t pid);

  /// Looks at an open file and tells the kernel side about it under the name that the kernel has for it.
  /// nullptr: it holds no jemalloc. `path` is only for messages.
  Result<const TracedImage*> look_at(Fd file, const jt_file& kernel_name, const std::string& path);

  /// The same file under another name: /proc names those of an overlay otherwise than the kernel, before 6.8.
  void also_named(const jt_file& name, const TracedImage* image);

  /// True when this name was answered before.
  [[nodiscard]] bool knows(const jt_file& kernel_name) const;
  /// Who keeps it keeps its place in the tables: that of one which nobody has is given to the next when they
  /// are full.
  [[nodiscard]] ImagePtr by_index(uint32_t index) const;
  /// The image that a file name of the kernel stands for; nullptr when none.
  [[nodiscard]] const TracedImage* find(const jt_file& kernel_name) const;
  /// Files that seem to hold a jemalloc and could not be looked at: one sentence each, fit to print.
  [[nodiscard]] const std::vector<std::string>& refused() const { return refused_; }

  /// Takes off the probes that turned out wrong: `recovered` is a proof on paper, this is the one by trial.
  /// Such an image goes on in the `callsite` tier. To be called now and then.
  void drop_wrong_probes();

  /// Somebody waits to write to the file of a probed image, until let_writers_in() has taken its probes off.
  [[nodiscard]] bool writers_wait() const;
  void let_writers_in();

  void detach_probes();

 private:
  using FileIdentity = std::tuple<dev_t, ino_t, off_t, int64_t>;  // and the time of its last change
  using KernelName = std::pair<uint32_t, uint64_t>;

  Result<TracedImage*> add(Fd file, const std::string& path, locate::Located located);
  std::optional<uint32_t> free_place();
  bool retire(const std::shared_ptr<TracedImage>& image, const std::vector<bool>& mapped);
  Status trace(TracedImage& traced, Fd file);
  void probe(TracedImage& traced, int file, const std::vector<std::pair<uint64_t, jt_site>>& sites);
  void take_off(TracedImage& traced, const std::string& why);
  void forget_names_of(const TracedImage& traced);
  void watch_mallctl(TracedImage& traced, int file);
  static jt_image kernel_view(const TracedImage& traced);
  Status announce(const jt_file& name, const TracedImage* image, uint64_t file_size);

  Result<locate::Located> find_inside(int file, bool regular, const std::string& path);
  void refuse(const std::string& why);
  locate::Located look_inside(int file, bool regular, const std::string& path);

  attach::BpfObject* bpf_;
  locate::Locator locator_;
  bool rebuild_, passive_;
  std::vector<std::string> refused_;
  bool follows_process_madvise_ = false;
  std::vector<std::shared_ptr<TracedImage>> images_;
  size_t retired_ = 0;  // where to go on looking for one that nobody has
  std::map<FileIdentity, TracedImage*> by_file_;
  std::map<KernelName, const TracedImage*> by_name_;
};

}  // namespace jemtrace::collect
