#include "collect/target.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <memory>

#include "discover/container.hpp"
#include "read/conf.hpp"
#include "read/conf_variables.hpp"
#include "read/structures.hpp"

namespace jemtrace::collect {

namespace {

/// One image where a process maps it. Images outlive targets.
struct MappedImage {
  const locate::Structures* structures;
  uint64_t bias;
};

void append(ledger::Reading& all, ledger::Reading one) {
  std::move(one.arenas.begin(), one.arenas.end(), std::back_inserter(all.arenas));
  all.options.merge(one.options);
  all.cost_ns += one.cost_ns;
  all.discarded += one.discarded;
  std::move(one.reasons.begin(), one.reasons.end(), std::back_inserter(all.reasons));
}

}  // namespace

namespace {

/// What all arenas have; nullopt when they differ, or one is unknown.
template <typename Get>
std::optional<int64_t> common(const std::vector<ledger::ArenaReading>& arenas, Get get) {
  std::optional<int64_t> value;
  for (const ledger::ArenaReading& arena : arenas) {
    const std::optional<int64_t> one = get(arena);
    if (!one || (value && value != one)) {
      return std::nullopt;
    }
    value = one;
  }
  return value;
}

/// arena.<i>.dirty_decay_ms and its like may have been written since the start.
void apply_live(ledger::TargetInfo& info, const std::string& option, const std::optional<int64_t>& live) {
  const auto setting = info.conf.find(option);
  if (!live || (setting != info.conf.end() && setting->second.value == std::to_string(*live))) {
    return;
  }
  std::string source = "its arenas now";
  if (setting != info.conf.end()) {
    source += fmt::format(", {} at its start", setting->second.value);
  }
  info.conf[option] = {std::to_string(*live), source, setting != info.conf.end()};
}

}  // namespace

bool apply_effective(ledger::TargetInfo& info, const ledger::Reading& reading) {
  const auto defaults =
      read::default_settings(info.images.empty() ? std::string() : info.images.front().version);
  // Until its first arena exists jemalloc has not looked at its settings; their number of arenas is still 0
  // for a moment then.
  const auto narenas = reading.options.find("narenas");
  if (reading.arenas.empty() || (narenas != reading.options.end() && narenas->second == "0")) {
    return false;
  }
  for (const auto& [option, value] : reading.options) {
    const auto asked = info.conf.find(option);
    if (asked != info.conf.end() && asked->second.value == value) {
      continue;
    }
    const auto usual = defaults.find(option);
    std::string source =
        usual != defaults.end() && usual->second.value == value ? usual->second.source : "its memory";
    if (asked != info.conf.end() && asked->second.source.rfind("default", 0) != 0) {
      source += fmt::format(", against {} by {}", asked->second.value, asked->second.source);
    }
    info.conf[option] = {value, source};
  }
  info.conf_unknown_because.clear();
  apply_live(info, "dirty_decay_ms",
             common(reading.arenas, [](const ledger::ArenaReading& a) { return a.dirty_decay.time_ms; }));
  apply_live(info, "muzzy_decay_ms",
             common(reading.arenas, [](const ledger::ArenaReading& a) { return a.muzzy_decay.time_ms; }));
  return true;
}

ReadJemalloc reader_of(pid_t pid, const Images& images, std::span<const jt_target_image> mapped,
                       bool with_backlog) {
  std::vector<MappedImage> readable;
  for (const jt_target_image& image : mapped) {
    const ImagePtr traced = images.by_index(image.image);
    if (traced != nullptr && traced->image.structures) {
      readable.push_back(
          {&*traced->image.structures, read::load_bias(traced->image, image.start, image.file_offset)});
    }
  }
  const bool all_readable = readable.size() == mapped.size();
  return [pid, readable, all_readable, with_backlog](bool with_ranges) -> Result<ledger::Reading> {
    if (readable.empty()) {
      return fail(Errc::unsupported, "where this build keeps its numbers is not known");
    }
    const read::ProcessMemory memory(pid);
    std::optional<ledger::Reading> all;
    for (const MappedImage& image : readable) {
      ASSIGN_OR_RETURN(ledger::Reading one,
                       read::Reader(memory, *image.structures, image.bias)
                           .read({.with_ranges = with_ranges, .with_backlog = with_backlog}));
      if (all) {
        append(*all, std::move(one));
      } else {
        all = std::move(one);
      }
    }
    if (!all_readable) {
      // Arenas of which nothing is known: no sum over all is.
      all->arenas.emplace_back();
      all->reasons.emplace_back("one of its jemallocs keeps its numbers where nobody knows");
    }
    return std::move(*all);
  };
}

read::ProgramConf program_conf(pid_t pid, const Images& images, std::span<const jt_target_image> mapped) {
  read::ProgramConf conf;
  const ImagePtr traced = mapped.empty() ? nullptr : images.by_index(mapped.front().image);
  if (traced == nullptr) {
    return conf;
  }
  const uint64_t bias = read::load_bias(traced->image, mapped.front().start, mapped.front().file_offset);
  const read::ProcessMemory memory(pid);
  for (const locate::ConfVariable& variable : traced->image.conf_variables) {
    (variable.name == "malloc_conf" ? conf.conf : conf.harder) =
        read::read_conf_variable(memory, variable, bias);
  }
  return conf;
}

ledger::ImageInfo describe(const TracedImage& traced) {
  const locate::Image& image = traced.image;
  ledger::ImageInfo info;
  info.path = traced.path;
  info.build_id = image.build_id;
  info.version = image.version.text;
  info.prefix = image.symbol_prefix;
  info.linkage = locate::name(image.linkage);
  info.tier = locate::name(image.tier);
  info.missing = image.missing;
  info.notes = image.notes;
  if (!traced.probe_error.empty()) {
    info.notes.push_back("no probes: " + traced.probe_error);
  }
  for (const auto& role : image.roles) {
    info.roles[role.role] = {.offset = role.offset, .found_by = role.found_by};
  }
  for (const auto& probe : traced.probed) {
    auto& role = info.roles[probe.role];
    role.probe = "entry";
    role.cost_class = locate::name(probe.cost);
  }
  return info;
}

namespace {

/// Programs switch background threads on by mallctl, as redis-server does: no option says so, but a thread of
/// that name does.
void see_background_threads(const ProcRoot& proc, ledger::TargetInfo& info) {
  constexpr size_t most_threads = 4096;
  const auto setting = info.conf.find("background_thread");
  if (setting == info.conf.end() || setting->second.value != "false") {
    return;
  }
  const ProcRoot tasks(proc.of(info.pid, "task"));
  auto threads = tasks.pids().value_or(std::vector<pid_t>{});
  threads.resize(std::min(threads.size(), most_threads));
  for (const pid_t thread : threads) {
    const auto comm = tasks.read(thread, "comm", 64);
    if (comm && *comm == "jemalloc_bg_thd\n") {
      setting->second = {"true", "its threads now, off at its start", true};
      return;
    }
  }
}

}  // namespace

ledger::TargetInfo describe(const ProcRoot& proc, const Target& target) {
  ledger::TargetInfo info;
  info.pid = target.process.pid;
  info.start_time_ns = target.process.start_time_ns;
  info.comm = target.process.comm;
  info.exe = target.process.exe;
  info.cgroup = target.process.cgroup;
  if (auto container = discover::container_of(info.cgroup)) {
    info.container = {std::move(container->runtime), std::move(container->id), std::move(container->pod_uid)};
  }
  for (const ImagePtr& image : target.images) {
    info.images.push_back(describe(*image));
  }
  if (!target.images.empty()) {
    const locate::Image& image = target.images.front()->image;
    const read::Conf conf = read::read_conf(proc, target.process.pid, image.version.text,
                                            image.conf_variable(), image.symbol_prefix, target.program_conf);
    for (const auto& [key, setting] : conf.settings) {
      info.conf[key] = {setting.value, setting.source};
    }
    info.conf_unknown_because = conf.unknown_because;
  }
  if (target.read) {
    if (const auto reading = target.read(false)) {
      info.conf_is_effective = apply_effective(info, *reading);
    }
  }
  see_background_threads(proc, info);
  return info;
}

}  // namespace jemtrace::collect
