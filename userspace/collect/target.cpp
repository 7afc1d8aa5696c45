#include "collect/target.hpp"

#include "read/conf.hpp"

namespace jemtrace::collect {

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

ledger::TargetInfo describe(const ProcRoot& proc, const Target& target) {
  ledger::TargetInfo info;
  info.pid = target.process.pid;
  info.start_time_ns = target.process.start_time_ns;
  info.comm = target.process.comm;
  info.exe = target.process.exe;
  info.cgroup = target.process.cgroup;
  for (const TracedImage* image : target.images) {
    info.images.push_back(describe(*image));
  }
  if (!target.images.empty()) {
    const locate::Image& image = target.images.front()->image;
    const read::Conf conf = read::read_conf(proc, target.process.pid, image.version.text,
                                            image.conf_variable(), image.symbol_prefix);
    for (const auto& [key, setting] : conf.settings) {
      info.conf[key] = {setting.value, setting.source};
    }
    info.conf_unknown_because = conf.unknown_because;
  }
  return info;
}

}  // namespace jemtrace::collect
