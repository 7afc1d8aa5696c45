#include "render/json_parts.hpp"

namespace jemtrace::render {
namespace {

Json account_object(const ledger::Account& account) {
  Json resident = Json::object();
  for (size_t i = 0; i < ledger::part_count; ++i) {
    const auto part = static_cast<ledger::Part>(i);
    resident[ledger::name(part) + std::string("_bytes")] = maybe(account.part(part));
  }
  return {{"rss_bytes", account.rss_bytes},
          {"resident", resident},
          {"unexplained_bytes", account.unexplained_bytes},
          {"bound_bytes", account.bound_bytes},
          {"uncertain_bytes", account.uncertain_bytes},
          {"allocated_bytes", maybe(account.allocated_bytes)},
          {"tcache_bytes", maybe(account.tcache_bytes)},
          {"slack_bytes", maybe(account.slack_bytes)},
          {"muzzy_not_resident_bytes", maybe(account.muzzy_not_resident_bytes)},
          {"lazyfree_bytes", account.lazyfree_bytes},
          {"lazyfree_lag_bytes", account.lazyfree_lag_bytes},
          {"anon_huge_bytes", account.anon_huge_bytes},
          {"swap_bytes", account.swap_bytes},
          {"notes", account.notes}};
}

Json decay_object(const ledger::DecayReading& decay) {
  return {{"decay_ms", maybe(decay.time_ms)},
          {"limit_pages", maybe(decay.limit_pages)},
          {"npurge", maybe(decay.npurge)},
          {"nmadvise", maybe(decay.nmadvise)},
          {"purged", maybe(decay.purged_pages)}};
}

Json arena_object(const ledger::ArenaReading& arena) {
  return {{"index", arena.index},
          {"nthreads", maybe(arena.threads)},
          {"pactive", maybe(arena.active_pages)},
          {"pdirty", maybe(arena.dirty.pages)},
          {"pmuzzy", maybe(arena.muzzy.pages)},
          {"pretained", maybe(arena.retained.pages)},
          {"allocated_bytes", maybe(arena.allocated_bytes)},
          {"tcache_bytes", maybe(arena.tcache_bytes)},
          {"dirty", decay_object(arena.dirty_decay)},
          {"muzzy", decay_object(arena.muzzy_decay)}};
}

Json global_or_null(const ledger::Reading& reading) {
  if (reading.completed_by != ledger::Method::call && reading.method != ledger::Method::call) {
    return nullptr;
  }
  const ledger::Global& global = reading.global;
  return {{"allocated_bytes", maybe(global.allocated)},
          {"active_bytes", maybe(global.active)},
          {"metadata_bytes", maybe(global.metadata)},
          {"resident_bytes", maybe(global.resident)},
          {"mapped_bytes", maybe(global.mapped)},
          {"retained_bytes", maybe(global.retained)},
          {"epoch", maybe(reading.epoch)}};
}

Json classes_array(const std::vector<ledger::SizeClass>& classes) {
  Json array = Json::array();
  for (const ledger::SizeClass& size : classes) {
    array.push_back({{"bytes", size.bytes}, {"large", size.large}, {"blocks", maybe(size.blocks)}});
  }
  return array;
}

Json reading_object(const ledger::Reading& reading, uint64_t page_bytes) {
  const ledger::Reading::Total total = reading.total(page_bytes);
  Json options = Json::object();
  for (const auto& [option, value] : reading.options) {
    options[option] = text(value);
  }
  Json arenas = Json::array();
  for (const ledger::ArenaReading& arena : reading.arenas) {
    arenas.push_back(arena_object(arena));
  }
  return {{"method", ledger::name(reading.method)},
          {"completed_by", reading.completed_by ? Json(ledger::name(*reading.completed_by)) : Json(nullptr)},
          {"at_mono_ns", reading.at_ns},
          {"cost_ns", reading.cost_ns},
          {"states", states_object(ledger::states_of(reading, page_bytes))},
          {"metadata_bytes", maybe(total.base)},
          {"tcache_bytes", maybe(total.tcache)},
          {"options", options},
          {"arenas", arenas},
          {"mallctl", global_or_null(reading)},
          {"size_classes", classes_array(reading.classes)},
          {"discarded", reading.discarded},
          {"reasons", reading.reasons}};
}

Json pressure_or_null(const ledger::Maybe<ledger::Pressure>& pressure) {
  if (!pressure) {
    return nullptr;
  }
  return {{"some_avg10_percent", pressure->some_avg10},
          {"full_avg10_percent", pressure->full_avg10},
          {"some_total_us", pressure->some_total_us},
          {"full_total_us", pressure->full_total_us}};
}

Json cgroup_object(const ledger::Cgroup& cgroup) {
  return {{"path", text(cgroup.path)},
          {"version", cgroup.version},
          {"usage_bytes", maybe(cgroup.usage_bytes)},
          {"limit_bytes", maybe(cgroup.limit_bytes)},
          {"unlimited", cgroup.unlimited},
          {"anon_bytes", maybe(cgroup.anon_bytes)},
          {"inactive_file_bytes", maybe(cgroup.inactive_file_bytes)},
          {"pglazyfree_pages", maybe(cgroup.pglazyfree)},
          {"pglazyfreed_pages", maybe(cgroup.pglazyfreed)},
          {"pressure", pressure_or_null(cgroup.pressure)}};
}

Json host_object(const ledger::Host& host) {
  return {{"pglazyfree_pages", maybe(host.pglazyfree)},
          {"pglazyfreed_pages", maybe(host.pglazyfreed)},
          {"mem_total_bytes", maybe(host.mem_total_bytes)},
          {"mem_available_bytes", maybe(host.mem_available_bytes)},
          {"transparent_hugepage", text_or_null(host.thp)},
          {"nr_anon_partially_mapped", maybe(host.nr_anon_partially_mapped)},
          {"pressure", pressure_or_null(host.pressure)}};
}

}  // namespace

Json stats_line(const StatsReport& report) {
  return {{"type", "stats"},
          {"pid", report.target.pid},
          {"start_time_ns", report.target.start_time_ns},
          {"comm", text(report.target.comm)},
          {"page_bytes", report.page_bytes},
          {"account", account_object(report.account)},
          {"reading", report.reading ? reading_object(*report.reading, report.page_bytes) : Json(nullptr)},
          {"unread_because", text_or_null(report.unread_because)},
          {"cgroup", report.cgroup ? cgroup_object(*report.cgroup) : Json(nullptr)},
          {"host", host_object(report.host)},
          {"sampling_ns", report.sampling_ns}};
}

}  // namespace jemtrace::render
