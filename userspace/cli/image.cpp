#include <algorithm>
#include <charconv>

#include "cli/run.hpp"
#include "collect/inspect.hpp"

namespace jemtrace::cli {
namespace {

render::StructuresReport to_report(const locate::Structures& found) {
  render::StructuresReport report{.found_by = found.found_by,
                                  .arenas = found.arenas,
                                  .options = {},
                                  .readable = {},
                                  .missing = found.missing,
                                  .evidence = found.evidence};
  const auto add = [&](bool known, std::string what) {
    if (known) {
      report.readable.push_back(std::move(what));
    }
  };
  for (const auto& [option, global] : found.options) {
    report.options[option] = global.vaddr;
  }
  const bool arenas = found.arenas && (found.ind || found.base_layout.ind);
  add(arenas && found.nactive && !found.dirty.npages.empty(),
      "active, dirty, muzzy and retained pages of each arena");
  add(arenas && found.dirty_decay.time_ms, "decay times and limits");
  add(arenas && found.dirty_counters.npurge, "counters of purges");
  add(arenas && found.extent.next && !found.dirty.lru.empty(), "ranges of the caches");
  add(arenas && found.base_layout.blocks, "metadata");
  add(!found.options.empty(), std::to_string(found.options.size()) + " options");
  return report;
}

render::ImageReport to_report(const collect::NamedImage& named) {
  const locate::Image& image = named.image;
  render::ImageReport report{.path = named.path,
                             .build_id = image.build_id,
                             .version = image.version.text,
                             .linkage = locate::name(image.linkage),
                             .tier = locate::name(image.tier),
                             .prefix = image.symbol_prefix,
                             .conf_variable = image.conf_variable(),
                             .call_sites = image.call_sites.size(),
                             .cached = named.cached,
                             .roles = {},
                             .missing = image.missing,
                             .structures = {},
                             .notes = image.notes};
  if (image.structures) {
    report.structures = to_report(*image.structures);
  }
  for (const locate::FoundRole& role : image.roles) {
    render::RoleReport row{.role = role.role,
                           .symbol = role.symbol,
                           .offset = role.offset,
                           .found_by = role.found_by,
                           .evidence = role.evidence};
    const auto probe = std::find_if(image.probes.begin(), image.probes.end(),
                                    [&](const auto& candidate) { return candidate.role == role.role; });
    if (probe != image.probes.end()) {
      row.probe_offset = probe->offset;
      row.instruction = probe->instruction;
      row.cost_class = locate::name(probe->cost);
    }
    report.roles.push_back(std::move(row));
  }
  return report;
}

Result<collect::NamedImage> find(const std::string& file_or_pid, bool rebuild) {
  pid_t pid = 0;
  const char* const last = file_or_pid.data() + file_or_pid.size();
  const auto [end, error] = std::from_chars(file_or_pid.data(), last, pid);
  if (error == std::errc{} && end == last) {
    return collect::inspect_process(ProcRoot(), pid, rebuild);
  }
  return collect::inspect_file(file_or_pid, rebuild);
}

}  // namespace

Result<int> image(const Options& options) {
  ASSIGN_OR_RETURN(const collect::NamedImage named, find(options.image, options.rebuild));
  ASSIGN_OR_RETURN(const std::unique_ptr<Results> results, Results::open(options, false));
  results->out().image(to_report(named));
  TRY(results->finish());
  return exit_status::ok;
}

}  // namespace jemtrace::cli
