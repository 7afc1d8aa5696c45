#include "collect/tracer.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <thread>

#include "discover/maps.hpp"
#include "util/clock.hpp"
#include "util/text.hpp"

namespace jemtrace::collect {
namespace {

constexpr size_t most_lives = 10'000;          // at once: a full ring of them, and some
constexpr uint32_t call_ring_bytes = 8 << 20;  // mapped twice in a row: counts twice in our RSS

class Stopwatch {
 public:
  explicit Stopwatch(uint64_t& out) : out_(out), begin_(monotonic_ns()) {}
  ~Stopwatch() { out_ += monotonic_ns() - begin_; }

 private:
  uint64_t& out_;
  uint64_t begin_;
};

/// Lets a process go on that the kernel side stopped for us. The signal may still be on its way there: one
/// that comes after ours would stop it for good, so it is waited for, up to a second.
void release(const ProcRoot& proc, pid_t pid) {
  for (int i = 0; i < 1000 && discover::is_stopped(proc, pid) == false; ++i) {
    ::usleep(1000);
  }
  ::kill(pid, SIGCONT);
}

attach::LoadOptions load_options(const TracerOptions& options) {
  attach::LoadOptions load;
  load.register_all = !options.launch && !options.selection.only_pids();
  load.time_mmap = options.time_mmap;
  load.details = options.details;
  load.mremap = options.every_event;
  load.context = options.context;
  load.events = options.every_event ? attach::Events::all : attach::Events::none;
  load.mallctl = options.passive;
  load.event_ring_bytes = call_ring_bytes;
  if (options.slow_ns && !options.every_event) {
    load.events = attach::Events::slow;
    load.slow_ns = *options.slow_ns;
    load.event_ring_bytes = 1 << 20;
  }
  load.chunks =
      options.refaults ? 4096 : 0;  // 8 MiB of kernel memory, for what 8 GiB purged in the last minute
  load.max_images = options.launch ? 32 : JT_MAX_IMAGES;
  if (!load.register_all) {
    load.max_targets = options.launch ? 1024 : 256;  // maps are preallocated: kernel memory for what can come
  }
  return load;
}

/// What fails before any process is looked at is the host's.
tl::unexpected<Error> of_the_host(Error error) {
  if (error.code == Errc::denied || error.code == Errc::unsupported) {
    error.code = Errc::cannot_trace;
  }
  return tl::unexpected(std::move(error));
}

}  // namespace

Tracer::Tracer(TracerOptions options, Listener listener, ProcRoot proc,
               std::unique_ptr<attach::BpfObject> bpf)
    : options_(std::move(options)),
      listener_(std::move(listener)),
      proc_(std::move(proc)),
      bpf_(std::move(bpf)),
      images_(bpf_.get(), false, options_.passive) {}

Tracer::~Tracer() {
  stop();
  wait_until_detached();
}

Result<std::unique_ptr<Tracer>> Tracer::start(TracerOptions options, Listener listener, ProcRoot proc) {
  Timings timings;
  Result<std::unique_ptr<attach::BpfObject>> bpf = [&] {
    const Stopwatch watch(timings.load_ns);
    return attach::BpfObject::load(load_options(options));
  }();
  if (!bpf) {
    return of_the_host(std::move(bpf).error());
  }
  std::unique_ptr<Tracer> tracer(
      new Tracer(std::move(options), std::move(listener), std::move(proc), std::move(*bpf)));
  tracer->timings_ = timings;
  {
    const Stopwatch watch(tracer->timings_.attach_ns);
    if (tracer->options_.refaults && !tracer->bpf_->attach_page_faults()) {
      tracer->options_.refaults = false;  // not on this kernel: the summary says unknown
    }
    (void)tracer->bpf_->attach_collapses();  // without huge pages in this kernel: the summary says unknown
    if (auto status =
            tracer->bpf_->attach_lifecycle().and_then([&] { return tracer->bpf_->attach_syscalls(); });
        !status) {
      return of_the_host(std::move(status).error());
    }
    tracer->context_ = tracer->bpf_->attach_context();
  }
  {
    const Stopwatch watch(tracer->timings_.scan_ns);
    TRY(tracer->scan());
  }
  return tracer;
}

// ---- which processes ----

bool Tracer::wanted(const discover::Process& process) const {
  return options_.launch || options_.selection.matches(process);
}

Status Tracer::scan() {
  if (options_.launch) {
    const jt_target target{
        .id = {.born_ns = monotonic_ns(), .tgid = static_cast<uint32_t>(*options_.launch), .pad = 0},
        .n_images = 0,
        .flags = JT_TARGET_TREE | JT_TARGET_HOLD | JT_TARGET_PINNED,
        .images = {}};
    ASSIGN_OR_RETURN([[maybe_unused]] const bool added, bpf_->add_target(target));
    return {};
  }
  if (options_.selection.only_pids()) {
    for (const pid_t pid : options_.selection.pids) {
      TRY(scan_process(pid, true));
    }
    return {};
  }
  // Looking at a file takes a while: what a process forked before it became a target is in the next list.
  constexpr int most_rounds = 5;
  unreadable_ = 0;
  std::set<pid_t> seen;
  for (int round = 0; round < most_rounds; ++round) {
    const size_t before = seen.size();
    ASSIGN_OR_RETURN(const std::vector<pid_t> pids, proc_.pids());
    for (const pid_t pid : pids) {
      if (!seen.insert(pid).second) {
        continue;
      }
      const bool named = std::find(options_.selection.pids.begin(), options_.selection.pids.end(), pid) !=
                         options_.selection.pids.end();
      auto status = scan_process(pid, named);
      if (!status && named) {
        return status;  // a process that merely passed by may fail, one that was asked for may not
      }
      unreadable_ += !status && status.error().code == Errc::denied ? 1 : 0;
    }
    if (seen.size() == before) {
      break;
    }
  }
  return {};
}

Status Tracer::scan_process(pid_t pid, bool required) {
  if (pid == ::getpid()) {
    return {};
  }
  ASSIGN_OR_RETURN(const discover::Process process, discover::read_process(proc_, pid));
  const auto images = images_.mapped_by(proc_, pid);
  if (!images) {
    return tl::unexpected(images.error());
  }
  if (!wanted(process)) {
    return {};  // its files are known now, though: others may map them later
  }
  if (images->empty()) {
    if (required && discover::has_ended(proc_, process)) {
      return fail(Errc::gone, fmt::format("pid {} ({}) has ended", pid, escape(process.comm)));
    }
    if (required && !images_.refused().empty()) {
      return fail(Errc::no_target, fmt::format("pid {} ({}) uses no jemalloc that can be traced: {}", pid,
                                               escape(process.comm), images_.refused().back()));
    }
    if (required) {
      return fail(Errc::no_target,
                  fmt::format("pid {} ({}) does not use jemalloc", pid, escape(process.comm)),
                  "jemtrace list shows the processes that do");
    }
    return {};
  }
  jt_target target{.id = {.born_ns = monotonic_ns(), .tgid = static_cast<uint32_t>(pid), .pad = 0},
                   .n_images = static_cast<uint32_t>(images->size()),
                   .flags = 0,
                   .images = {}};
  if (options_.selection.only_pids()) {
    target.flags = JT_TARGET_PINNED;
  }
  std::copy(images->begin(), images->end(), target.images);
  ASSIGN_OR_RETURN(const bool added, bpf_->add_target(target));
  if (added && discover::has_ended(proc_, process)) {
    bpf_->remove_target(target.id.tgid);  // before the kernel side could tell
    bpf_->forget(target.id);
    return fail(Errc::gone, fmt::format("pid {} ({}) has ended", pid, escape(process.comm)));
  }
  if (added) {
    adopt(target, false);
  }
  return {};
}

/// Kept until the end: for a trace of weeks there is a limit.
void Tracer::note(std::string text) {
  constexpr size_t most = 100;
  if (notes_.size() < most) {
    notes_.push_back(std::move(text));
  }
}

Target* Tracer::find(uint64_t born_ns) const {
  const auto it = targets_.find(born_ns);
  return it == targets_.end() ? nullptr : it->second.get();
}

void Tracer::adopt(const jt_target& kernel, bool from_its_start, const jt_event_header* event) {
  Target* target = find(kernel.id.born_ns);
  if (target == nullptr) {
    auto process = discover::read_process(proc_, static_cast<pid_t>(kernel.id.tgid));
    if (!process) {
      // It has exited already: what it did is in the maps, who it was is only known by its number and name.
      process = discover::Process{.pid = static_cast<pid_t>(kernel.id.tgid)};
      if (event != nullptr) {
        process->comm = std::string(event->comm, ::strnlen(event->comm, sizeof event->comm));
      }
    }
    if (!wanted(*process)) {
      bpf_->remove_target(kernel.id.tgid);
      bpf_->forget(kernel.id);
      return;
    }
    auto owned = std::make_unique<Target>(proc_, std::move(*process));
    target = owned.get();
    target->id = kernel.id;
    target->from_its_start = from_its_start;
    target->began_ns = from_its_start ? kernel.id.born_ns : monotonic_ns();
    targets_[kernel.id.born_ns] = std::move(owned);
  }
  const size_t known = target->images.size();
  for (uint32_t i = static_cast<uint32_t>(known); i < kernel.n_images && i < JT_MAX_TARGET_IMAGES; ++i) {
    if (ImagePtr image = images_.by_index(kernel.images[i].image)) {
      target->images.push_back(std::move(image));
    }
  }
  if (target->images.size() == known) {
    return;
  }
  target->read = reader_of(target->process.pid, images_, std::span(kernel.images, kernel.n_images));
  target->read_backlog =
      reader_of(target->process.pid, images_, std::span(kernel.images, kernel.n_images), true);
  target->program_conf =
      program_conf(target->process.pid, images_, std::span(kernel.images, kernel.n_images));
  target->info = describe(proc_, *target);
  if (known == 0) {
    sample(*target, totals(*target));
    target->rss.start_bytes = target->rss.end_bytes;
    target->pressed_at_start = kernel_memory(proc_, target->process.pid, cgroup_mounts_);
    if (listener_.on_target) {
      listener_.on_target(*target);
    }
  }
}

// ---- what happened ----

Status Tracer::take_lifecycle() {
  return bpf_
      ->take(attach::BpfObject::Ring::lifecycle, most_lives,
             [this](const jt_event_header& event) { handle(event); })
      .map([](bool) {});
}

/// Births before their calls, and these before the ends. True: there may be more.
Result<bool> Tracer::take_events() {
  constexpr size_t most = 2000;  // to write them takes less than a tenth of a second
  TRY(take_lifecycle());
  const size_t known_ends = ends_.size();
  ASSIGN_OR_RETURN(const bool more,
                   bpf_->take(attach::BpfObject::Ring::calls, most, [this](const jt_event_header& event) {
                     ++taken_calls_;
                     handle(event);
                   }));
  end_those_told(more ? 0 : known_ends);
  return more;
}

/// The first `all_told` of the ends, and those that are older than anything in the ring of calls can be.
void Tracer::end_those_told(size_t all_told) {
  constexpr uint64_t most_in_ring = call_ring_bytes / sizeof(jt_event_header);
  for (; !ends_.empty() && (all_told > 0 || taken_calls_ - ends_.front().taken_calls > most_in_ring);
       all_told -= std::min<size_t>(all_told, 1)) {
    const End one = ends_.front();
    ends_.pop_front();
    end(one.id, one.by_exec);
  }
}

Status Tracer::poll() {
  TRY(take_events());
  if (const uint64_t now = monotonic_ns(); now - probes_checked_ns_ >= check_every_ns) {
    probes_checked_ns_ = now;
    images_.drop_wrong_probes();
    if (images_.writers_wait()) {
      TRY(take_events());  // who had ended before has lost nothing
      images_.let_writers_in();
    }
  }
  set_sampling(monotonic_ns());
  rescan_after_loss();
  return {};
}

void Tracer::handle(const jt_event_header& event) {
  const auto& lifecycle = reinterpret_cast<const jt_lifecycle_event&>(event);
  switch (event.type) {
    case JT_EV_CALL:
      on_call(reinterpret_cast<const jt_call_event&>(event));
      break;
    case JT_EV_FORK:
      on_fork(lifecycle);
      break;
    case JT_EV_EXEC:
      ends_.push_back({{lifecycle.addr, event.id.tgid, 0}, true, taken_calls_});
      break;
    case JT_EV_EXIT:
      ends_.push_back({event.id, false, taken_calls_});
      break;
    case JT_EV_NEW_FILE:
      on_new_file(lifecycle);
      break;
    case JT_EV_NEW_IMAGE:
      if (const auto target = bpf_->target(event.id.tgid); target && target->id.born_ns == event.id.born_ns) {
        adopt(*target, true, &event);
      } else if (images_.by_index(lifecycle.image) != nullptr) {
        // It has ended since: its own record says which image it had.
        jt_target past{.id = event.id, .n_images = 1, .flags = 0, .images = {}};
        past.images[0].image = lifecycle.image;
        adopt(past, true, &event);
      }
      break;
    case JT_EV_OOM:
      if (listener_.on_oom) {
        const jt_event_header& h = lifecycle.h;
        listener_.on_oom({.pid = static_cast<pid_t>(lifecycle.parent),
                          .comm = std::string(h.comm, ::strnlen(h.comm, sizeof h.comm)),
                          .at_ns = h.ts_ns,
                          .anon_rss_bytes = {},
                          .file_rss_bytes = {},
                          .source = "oom:mark_victim"});
      }
      break;
    case JT_EV_MALLCTL:
      on_mallctl(reinterpret_cast<const jt_mallctl_event&>(event));
      break;
    default:
      break;
  }
}

/// What the program asked is compared with its structures where both are of the same moment.
void Tracer::on_mallctl(const jt_mallctl_event& event) {
  Target* target = find(event.h.id.born_ns);
  if (target == nullptr) {
    return;
  }
  target->passive.add(event);
  if (target->passive.is_fresh_active(event) && read_states(*target) && target->states.active_bytes) {
    target->passive.compare(event.value, *target->states.active_bytes);
  }
}

void Tracer::on_call(const jt_call_event& event) {
  Target* target = find(event.h.id.born_ns);
  if (target == nullptr && take_lifecycle()) {
    target = find(event.h.id.born_ns);  // born since that ring was read
  }
  if (target != nullptr && listener_.on_call) {
    listener_.on_call(*target, event);
  }
}

void Tracer::on_fork(const jt_lifecycle_event& event) {
  if (const auto target = bpf_->target(event.h.id.tgid);
      target && target->id.born_ns == event.h.id.born_ns && target->n_images > 0) {
    adopt(*target, true, &event.h);
    return;
  }
  // Gone already; it had its parent's images.
  for (const auto& [born, parent] : targets_) {
    if (parent->id.tgid == event.parent && !parent->images.empty()) {
      jt_target past{.id = event.h.id, .n_images = 0, .flags = 0, .images = {}};
      for (const ImagePtr& image : parent->images) {
        past.images[past.n_images++].image = image->index;
      }
      adopt(past, true, &event.h);
      return;
    }
  }
}

void Tracer::look_at_mapping(const jt_lifecycle_event& event) {
  const auto pid = static_cast<pid_t>(event.h.id.tgid);
  const auto mappings = discover::Mappings::read(proc_, pid);
  if (!mappings) {
    return;  // it is gone; when the file is mapped again it is asked about again
  }
  for (const auto& mapping : mappings->all()) {
    if (!is_program_text(mapping) || (event.addr != 0 && mapping.start != event.addr)) {
      continue;
    }
    // At exec the program is asked about: its inode is the one of the event.
    if (event.addr == 0 && mapping.inode != event.file.ino) {
      continue;
    }
    auto file = open_mapped(proc_, pid, mapping);
    if (!file) {
      return;
    }
    // Something else may be mapped there by now: then it is asked about again. An overlay shows other inodes
    // before Linux 6.8.
    struct stat st {};
    if (::fstat(file->get(), &st) != 0 ||
        (mapping.inode != event.file.ino && static_cast<uint64_t>(st.st_size) != event.file_size)) {
      return;
    }
    const auto image = images_.look_at(std::move(*file), event.file, file_path(mapping));
    if (image) {
      images_.also_named(kernel_name(mapping), *image);
    } else {
      note(fmt::format("{}: {}", escape(mapping.path), image.error().message()));
    }
    return;
  }
}

void Tracer::on_new_file(const jt_lifecycle_event& event) {
  if (stopping_) {
    if (event.held != 0) {
      release(proc_, static_cast<pid_t>(event.h.id.tgid));
    }
    return;
  }
  // A name that is known may be another file's by now: the kernel side compares sizes.
  look_at_mapping(event);
  const TracedImage* image = images_.find(event.file);
  const auto pid = static_cast<pid_t>(event.h.id.tgid);
  if (image != nullptr) {
    const auto known = bpf_->target(event.h.id.tgid);
    const auto found = images_.mapped_by(proc_, pid);
    const auto still = bpf_->target(event.h.id.tgid);
    // Had it exec'd or ended meanwhile, these would be the mappings of another life.
    const bool same_life =
        known ? still && still->id.born_ns == known->id.born_ns : !still && event.h.id.born_ns == 0;
    if (same_life && found && !found->empty()) {
      jt_target target =
          known.value_or(jt_target{.id = {.born_ns = monotonic_ns(), .tgid = event.h.id.tgid, .pad = 0},
                                   .n_images = 0,
                                   .flags = 0,
                                   .images = {}});
      std::copy(found->begin(), found->end(), target.images);
      target.n_images = static_cast<uint32_t>(found->size());
      const Result<bool> placed =
          known ? bpf_->replace_target(target).map([] { return true; }) : bpf_->add_target(target);
      if (placed && *placed) {
        adopt(target, event.held != 0);
      } else if (!placed) {
        note(placed.error().message());
      }
    }
  }
  if (event.held != 0) {
    release(proc_, pid);
  }
}

void Tracer::end(const jt_target_id& id, bool by_exec) {
  const auto it = targets_.find(id.born_ns);
  if (it == targets_.end()) {
    bpf_->forget_counters(id);  // any unmapping of the command's descendants is counted: they are many
    return;
  }
  std::unique_ptr<Target> target = std::move(it->second);
  targets_.erase(it);
  if (!stopping_) {
    images_.drop_wrong_probes();  // a short run has not had its turn
  }
  finish(*target, !by_exec);
  target->final_waiting.pages = {};  // nobody is left to touch them
  target->ended = true;
  untimed_of_ended_ += target->final_totals.counters.untimed_calls;
  bpf_->forget(target->id);
  if (listener_.on_end) {
    listener_.on_end(*target);
  }
}

void Tracer::rescan_after_loss() {
  const uint64_t lost = bpf_->loss(JT_LOSS_LIFECYCLE).value_or(0) + bpf_->skipped_lifecycles();
  if (lost == lifecycle_losses_ || stopped_) {
    return;
  }
  lifecycle_losses_ = lost;
  // Something came or went unheard: what is gone is ended, what is new is found.
  std::vector<End> gone;
  for (const auto& [born, target] : targets_) {
    const auto kernel = bpf_->target(target->id.tgid);
    if (!kernel || kernel->id.born_ns != born) {
      gone.push_back({target->id, kernel.has_value(), 0});
    } else if (discover::has_ended(proc_, target->process)) {
      bpf_->remove_target(target->id.tgid);
      gone.push_back({target->id, false, 0});
    }
  }
  for (const End& one : gone) {
    end(one.id, one.by_exec);
  }
  if (const auto pids = proc_.pids()) {
    for (const pid_t pid : *pids) {
      if (const auto kernel = bpf_->target(static_cast<uint32_t>(pid)); kernel && kernel->n_images > 0) {
        adopt(*kernel, true);  // the kernel side has it, and could not tell
      }
    }
  }
  if (options_.launch) {
    return;
  }
  if (auto status = scan(); !status) {
    note(status.error().message());
  }
}

// A fault on a followed page costs about 0.1 us more, and a chunk takes room: both are bounded by following
// only some of the chunks.
void Tracer::set_sampling(uint64_t now_ns) {
  constexpr uint64_t every_ns = 1'000'000'000;
  constexpr uint64_t most_touched_per_s = 200'000;
  constexpr uint32_t last_shift = 6;
  const uint64_t passed_ns = now_ns - sampling_.set_ns;
  if (!bpf_->features().page_faults || passed_ns < every_ns) {
    return;
  }
  const uint64_t touched = bpf_->touched_pages().value_or(0);
  const uint64_t evicted = bpf_->evicted_chunks().value_or(0);
  const uint64_t per_s = (touched - sampling_.touched_pages) * 1000 / (passed_ns / 1'000'000);
  if ((per_s > most_touched_per_s || evicted > sampling_.evicted_chunks) && sampling_.shift < last_shift) {
    sampling_.shift += 1;
    bpf_->set_sampling(sampling_.shift);
  }
  sampling_.set_ns = now_ns;
  sampling_.touched_pages = touched;
  sampling_.evicted_chunks = evicted;
}

void Tracer::stop() {
  if (stopped_) {
    return;
  }
  const Stopwatch watch(timings_.stop_ns);
  images_.drop_wrong_probes();
  stopping_ = true;  // from here on the links and probes are the other thread's
  bpf_->stop_counting();
  detaching_ = std::thread([this] {
    const Stopwatch detach(timings_.detach_ns);
    std::thread probes([this] { images_.detach_probes(); });  // each side waits for the kernel: together
    bpf_->detach();
    probes.join();
  });
  bpf_->wait_for_running();
  // What is still in the rings: last calls, and whoever was stopped for us and must go on.
  for (Result<bool> more = true; more && *more;) {
    more = take_events();
  }
  end_those_told(ends_.size());
  for (const auto& [born, target] : targets_) {
    finish(*target, true);
  }
  stopped_ = true;
}

void Tracer::wait_until_detached() {
  if (detaching_.joinable()) {
    detaching_.join();
    // From Linux 7.0 on a program may have been interrupted before it stopped somebody for us.
    (void)bpf_->take(attach::BpfObject::Ring::lifecycle, most_lives, [this](const jt_event_header& event) {
      if (event.type == JT_EV_NEW_FILE) {
        handle(event);
      }
    });
  }
}

}  // namespace jemtrace::collect
