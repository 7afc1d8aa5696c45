#include "collect/images.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "util/parallel.hpp"
#include "util/text.hpp"

namespace jemtrace::collect {
namespace {

jt_tier to_abi(locate::Tier tier) {
  switch (tier) {
    case locate::Tier::symbols:
      return JT_TIER_SYMBOLS;
    case locate::Tier::recovered:
      return JT_TIER_RECOVERED;
    case locate::Tier::callsite:
      return JT_TIER_CALLSITE;
    case locate::Tier::syscall:
      break;
  }
  return JT_TIER_SYSCALL;
}

/// One kind of probe tells the source of a purge: the sweep, once per pass; only where the compiler left no
/// such function the eviction, once per extent.
std::vector<locate::ProbeSite> choose_probes(const locate::Image& image) {
  for (const jt_role wanted : {JT_ROLE_SWEEP, JT_ROLE_EVICT}) {
    std::vector<locate::ProbeSite> chosen;
    std::copy_if(image.probes.begin(), image.probes.end(), std::back_inserter(chosen),
                 [&](const auto& probe) { return probe.site.role == wanted; });
    if (!chosen.empty()) {
      return chosen;
    }
  }
  return {};
}

/// Since 5.3.1 jemalloc can purge many extents with one process_madvise.
bool may_use_process_madvise(const locate::Version& version) {
  return !version.known() ||
         std::tie(version.major, version.minor, version.patch) >= std::make_tuple(5, 3, 1);
}

/// The kernel sets breakpoints at the offsets of a file's probes in whatever that file holds, and then does
/// what the old instruction did: a program that is overwritten in place, by cp or a linker, would crash at
/// its next start (seen). With a lease on the file, whoever opens it for writing waits until the probes are
/// off. 0, or an errno: EAGAIN when somebody is writing already, others where there are no leases.
int take_lease(int file) {
  // The signal is one that does nothing: it is asked whether somebody waits.
  if (::fcntl(file, F_SETSIG, SIGURG) == 0 && ::fcntl(file, F_SETLEASE, F_RDLCK) == 0) {
    return 0;
  }
  const int error = errno;
  struct statfs fs {};
  // From a server a lease is not to be had for asking.
  if (error == EAGAIN && ::fstatfs(file, &fs) == 0 &&
      (fs.f_type == NFS_SUPER_MAGIC || fs.f_type == CIFS_SUPER_MAGIC || fs.f_type == SMB2_SUPER_MAGIC)) {
    return EOPNOTSUPP;
  }
  return error;
}

bool has_waiting_writer(const ImagePtr& image) {
  return image->file && ::fcntl(image->file.get(), F_GETLEASE) != F_RDLCK;
}

}  // namespace

jt_file kernel_name(const discover::Mapping& mapping) {
  // A dev_t inside the kernel: 12 bits of major, 20 of minor.
  return {.ino = mapping.inode, .dev = mapping.device_major << 20 | mapping.device_minor, .pad = 0};
}

bool is_program_text(const discover::Mapping& mapping) {
  return mapping.executable && mapping.inode != 0;
}

Result<Fd> open_mapped(const ProcRoot& proc, pid_t pid, const discover::Mapping& mapping) {
  auto file = open_file(discover::map_file_path(proc, pid, mapping), O_RDONLY | O_NONBLOCK);
  if (!file && (file.error().sys == EPERM || file.error().sys == EACCES)) {
    // EPERM since 5.9 (12886f8ab10c), which knows CAP_CHECKPOINT_RESTORE.
    file.error().hint = "run as root, or give the program CAP_CHECKPOINT_RESTORE and CAP_SYS_PTRACE";
  }
  return file;
}

std::string file_path(const discover::Mapping& mapping) {
  constexpr std::string_view deleted = " (deleted)";
  std::string_view path = mapping.path;
  if (path.size() > deleted.size() && path.substr(path.size() - deleted.size()) == deleted) {
    path.remove_suffix(deleted.size());
  }
  return std::string(path);
}

Result<std::vector<jt_target_image>> Images::mapped_by(const ProcRoot& proc, pid_t pid) {
  ASSIGN_OR_RETURN(const discover::Mappings mappings, discover::Mappings::read(proc, pid));
  std::vector<jt_target_image> found;
  std::vector<ImagePtr> kept;  // the kernel side does not know yet that they are in use
  for (const auto& mapping : mappings.all()) {
    if (!is_program_text(mapping)) {
      continue;
    }
    const jt_file name = kernel_name(mapping);
    if (!knows(name)) {
      auto file = open_mapped(proc, pid, mapping);
      if (!file) {
        if (file.error().sys == EPERM) {
          return tl::unexpected(std::move(file).error());  // we may not look at any
        }
        if (file.error().sys == EACCES) {
          refuse(file_path(mapping) + ": " + file.error().message());  // hidden from root: NFS, FUSE
        }
        continue;  // or unmapped meanwhile
      }
      TRY(look_at(std::move(*file), name, file_path(mapping)));
    }
    const TracedImage* image = find(name);
    if (image == nullptr) {
      continue;
    }
    const auto& text = image->image.text;
    const bool overlaps = mapping.file_offset < text.offset + text.size &&
                          text.offset < mapping.file_offset + (mapping.end - mapping.start);
    if (overlaps && found.size() < JT_MAX_TARGET_IMAGES) {
      kept.push_back(by_index(image->index));
      found.push_back({.start = mapping.start,
                       .end = mapping.end,
                       .file_offset = mapping.file_offset,
                       .image = image->index,
                       .wrapper_words = image->image.musl ? 1U : 0U});
    }
  }
  return found;
}

bool Images::knows(const jt_file& name) const {
  return by_name_.contains({name.dev, name.ino});
}

const TracedImage* Images::find(const jt_file& name) const {
  const auto it = by_name_.find({name.dev, name.ino});
  return it == by_name_.end() ? nullptr : it->second;
}

ImagePtr Images::by_index(uint32_t index) const {
  return index < images_.size() ? images_[index] : nullptr;
}

Status Images::announce(const jt_file& name, const TracedImage* image, uint64_t file_size) {
  jt_file_info info{.image = JT_NO_IMAGE, .size = file_size};
  if (image != nullptr) {
    info.image = image->index;
    info.wrapper_words = image->image.musl ? 1 : 0;
    info.exe_code_vaddr = image->image.exe_code_vaddr;
    info.text_vaddr = image->image.text.vaddr;
    info.text_offset = image->image.text.offset;
    info.text_len = image->image.text.size;
  }
  return bpf_->set_file(name, info);
}

Result<locate::Located> Images::find_inside(int file, bool regular, const std::string& path) {
  if (auto known = regular && !rebuild_ ? locator_.recall(file, path) : std::nullopt) {
    return std::move(*known);
  }
  const auto may_hold = regular ? locate::may_hold_jemalloc(file) : Result<bool>(false);
  if (!may_hold || !*may_hold) {
    return locate::Located{};
  }
  return locator_.locate(file, path, rebuild_);
}

void Images::refuse(const std::string& why) {
  constexpr size_t max_refused = 100;
  const std::string sentence = escape(why);
  if (refused_.size() < max_refused &&
      std::find(refused_.begin(), refused_.end(), sentence) == refused_.end()) {
    refused_.push_back(sentence);
  }
}

/// A file that cannot be read or parsed is no reason to lose the others: it counts as holding no jemalloc.
locate::Located Images::look_inside(int file, bool regular, const std::string& path) {
  auto located = find_inside(file, regular, path);
  if (located && located->image && located->image->text.size == 0) {
    const locate::Image& image = *located->image;
    located = fail(Errc::unsupported, fmt::format("jemalloc {}: {}", image.version.text,
                                                  image.notes.empty() ? path : image.notes.back()));
  }
  if (!located) {
    refuse(located.error().message());
    return {};
  }
  return std::move(*located);
}

Result<const TracedImage*> Images::look_at(Fd file, const jt_file& name, const std::string& path) {
  struct stat st {};
  if (::fstat(file.get(), &st) != 0) {
    return fail_errno("cannot stat " + path);
  }
  const auto file_size = static_cast<uint64_t>(st.st_size);
  const FileIdentity identity{st.st_dev, st.st_ino, st.st_size,
                              st.st_ctim.tv_sec * 1'000'000'000 + st.st_ctim.tv_nsec};
  TracedImage* image = nullptr;
  if (const auto known = by_file_.find(identity); known != by_file_.end()) {
    image = known->second;
  } else {
    if (auto found = look_inside(file.get(), S_ISREG(st.st_mode), path); found.image) {
      if (auto added = add(std::move(file), path, std::move(found))) {
        image = *added;
      } else {
        refuse(added.error().message());
      }
    }
    by_file_[identity] = image;
  }
  if (bpf_ != nullptr) {
    TRY(announce(name, image, file_size));
  }
  // Programs are updated, containers come and go: over months there are many files without a jemalloc. Looked
  // at again, they are found not to have one again.
  constexpr size_t most_files = 65536;
  if (by_name_.size() >= most_files || by_file_.size() >= most_files) {
    std::erase_if(by_name_, [](const auto& known) { return known.second == nullptr; });
    std::erase_if(by_file_, [](const auto& known) { return known.second == nullptr; });
  }
  by_name_[{name.dev, name.ino}] = image;
  return image;
}

void Images::also_named(const jt_file& name, const TracedImage* image) {
  by_name_[{name.dev, name.ino}] = image;
}

std::string objection(const jt_image_checks& checks) {
  constexpr uint64_t few = 2;
  constexpr uint64_t many = 16;
  if (checks.bad_arguments >= few && checks.bad_arguments * 10 > checks.hits) {
    return fmt::format("{} of {} times no argument was a cache", checks.bad_arguments, checks.hits);
  }
  if (checks.disagreed >= few && checks.disagreed * 10 > checks.agreed) {
    return fmt::format("{} purges cannot come from the cache that it saw ({} can)", checks.disagreed,
                       checks.agreed);
  }
  if (checks.hits == 0 && checks.unannounced >= many) {
    return fmt::format("{} purges came without passing it", checks.unannounced);
  }
  return {};
}

jt_image Images::kernel_view(const TracedImage& traced) {
  return {.cache_state_offset = traced.image.cache_state_offset,
          .cache_ind_offset = traced.image.cache_ind_offset,
          .tier = static_cast<uint8_t>(to_abi(traced.image.tier)),
          .pad = {}};
}

void Images::drop_wrong_probes() {
  for (const auto& image : images_) {
    const auto checks = image->probes ? bpf_->checks(image->index) : std::nullopt;
    const std::string wrong = checks ? objection(*checks) : std::string();
    if (wrong.empty()) {
      continue;
    }
    take_off(*image, "it disagrees with what it should see: " + wrong);
  }
}

bool Images::writers_wait() const {
  return std::any_of(images_.begin(), images_.end(), has_waiting_writer);
}

void Images::let_writers_in() {
  for (const auto& image : images_) {
    if (has_waiting_writer(image)) {
      image->mallctl_probes.reset();
      take_off(*image, "its file is about to be written to");
      forget_names_of(*image);
      image->file.reset();  // and the lease with it
    }
  }
}

void Images::take_off(TracedImage& traced, const std::string& why) {
  if (!traced.probed.empty()) {
    traced.distrust =
        fmt::format("the probe on {} was taken off, as {}; from then on the source of purges is unknown",
                    traced.probed.front().role, why);
  }
  traced.probes.reset();
  traced.probed.clear();
  traced.image.tier = locate::Tier::callsite;
  if (const auto status = bpf_->set_image(traced.index, kernel_view(traced), {}); !status) {
    traced.distrust += " (" + status.error().message() + ")";
  }
}

/// Whoever maps the file next maps something else, even where it is as large as before.
void Images::forget_names_of(const TracedImage& traced) {
  std::erase_if(by_name_, [&](const auto& known) {
    if (known.second != &traced) {
      return false;
    }
    bpf_->forget_file({.ino = known.first.second, .dev = known.first.first, .pad = 0});
    return true;
  });
  std::erase_if(by_file_, [&](const auto& known) { return known.second == &traced; });
}

void Images::watch_mallctl(TracedImage& traced, int file) {
  static const std::map<std::string, jt_api> known = {{"mallctl", JT_API_MALLCTL},
                                                      {"mallctlbymib", JT_API_BYMIB},
                                                      {"mallctlnametomib", JT_API_NAMETOMIB},
                                                      {"malloc_stats_print", JT_API_STATS_PRINT}};
  constexpr std::array<uint8_t, 4> endbr64 = {0xf3, 0x0f, 0x1e, 0xfa};
  const locate::TextSegment& text = traced.image.text;
  std::vector<std::pair<uint64_t, jt_api>> functions;
  for (const auto& [name, vaddr] : traced.image.api) {
    const auto api = known.find(name);
    if (api == known.end() || vaddr < text.vaddr || vaddr - text.vaddr >= text.size) {
      continue;
    }
    uint64_t offset = vaddr - text.vaddr + text.offset;
    // A breakpoint on endbr64 would have to be single-stepped.
    std::array<uint8_t, 4> code{};
    if (read_at(file, offset, code.data(), code.size()) && code == endbr64) {
      offset += code.size();
    }
    functions.emplace_back(offset, api->second);
  }
  if (functions.empty()) {
    traced.image.notes.emplace_back("passive: no symbol names its mallctl");
    return;
  }
  auto probes = bpf_->attach_mallctl(file, functions);
  if (probes) {
    traced.mallctl_probes = std::move(*probes);
  } else {
    traced.image.notes.push_back("passive: " + probes.error().message());
  }
}

void Images::probe(TracedImage& traced, int file, const std::vector<std::pair<uint64_t, jt_site>>& sites) {
  auto probes = bpf_->attach_probes(file, traced.index, sites);
  if (probes) {
    traced.probes = std::move(*probes);
  } else {
    traced.probe_error = probes.error().message();
    traced.probed.clear();
  }
}

Status Images::trace(TracedImage& traced, Fd file) {
  std::vector<std::pair<uint64_t, jt_site>> sites;
  sites.reserve(traced.image.call_sites.size() + 4);
  for (const auto& call : traced.image.call_sites) {
    sites.emplace_back(call.return_offset, call.site);
  }
  std::vector<std::pair<uint64_t, jt_site>> probed;
  for (const auto& probe : choose_probes(traced.image)) {
    sites.emplace_back(probe.offset, probe.site);
    probed.emplace_back(probe.offset, probe.site);
    traced.probed.push_back(probe);
  }
  if (!follows_process_madvise_ && may_use_process_madvise(traced.image.version)) {
    follows_process_madvise_ = true;
    if (auto status = bpf_->attach_process_madvise(); !status) {
      traced.image.notes.push_back("batched purges by process_madvise are not seen: " +
                                   status.error().message());
    }
  }
  TRY(bpf_->set_image(traced.index, kernel_view(traced), sites));
  if (probed.empty() && !passive_) {
    return {};
  }
  const int error = take_lease(file.get());
  if (error == EAGAIN) {
    traced.probe_error = "its file is being written to";
    traced.probed.clear();
    return {};
  }
  if (error != 0) {
    traced.image.notes.push_back(
        fmt::format("the file must not be overwritten in place while it is probed: no lease on it ({})",
                    strerror(error)));
  }
  if (!probed.empty()) {
    probe(traced, file.get(), probed);
  }
  if (passive_) {
    watch_mallctl(traced, file.get());
  }
  if (error == 0 && (traced.probes || traced.mallctl_probes)) {
    traced.file = std::move(file);
  }
  return {};
}

/// Programs are built and deployed anew: over months there are more images than places for them.
std::optional<uint32_t> Images::free_place() {
  if (bpf_ == nullptr || images_.size() < bpf_->max_images()) {
    return static_cast<uint32_t>(images_.size());
  }
  const std::vector<bool> mapped = bpf_->mapped_images();
  for (size_t i = 0; i < images_.size(); ++i) {
    const auto& image = images_[retired_++ % images_.size()];
    if (retire(image, mapped)) {
      return image->index;
    }
  }
  return std::nullopt;
}

bool Images::retire(const std::shared_ptr<TracedImage>& image, const std::vector<bool>& mapped) {
  if (image.use_count() > 1 || mapped[image->index]) {
    return false;
  }
  forget_names_of(*image);
  if (bpf_->mapped_images()[image->index]) {
    return false;  // a moment before nobody could any more
  }
  image->probes.reset();
  image->mallctl_probes.reset();
  image->file.reset();
  bpf_->forget_image(image->index);
  return true;
}

Result<TracedImage*> Images::add(Fd file, const std::string& path, locate::Located located) {
  const auto place = free_place();
  if (!place) {
    return fail(Errc::too_large, fmt::format("{} is not traced: there are {} other images of jemalloc in use",
                                             path, images_.size()));
  }
  auto traced = std::make_shared<TracedImage>();
  traced->index = *place;
  traced->path = path;
  traced->image = std::move(*located.image);
  traced->cached = located.cached;

  if (bpf_ != nullptr) {
    TRY(trace(*traced, std::move(file)));
  }
  images_.resize(std::max<size_t>(images_.size(), *place + 1));
  images_[*place] = std::move(traced);
  return images_[*place].get();
}

void Images::detach_probes() {
  std::vector<std::optional<attach::Uprobes>*> all;
  for (const auto& image : images_) {
    all.push_back(&image->probes);
    all.push_back(&image->mallctl_probes);
  }
  std::erase_if(all, [](const auto* probes) { return !probes->has_value(); });
  // Each waits for the kernel's grace periods: together they take as long as one.
  in_parallel(all.size(), all.size(), [&](size_t i) { all[i]->reset(); });
}

}  // namespace jemtrace::collect
