// What the setting up of the process and its surroundings did.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <iterator>
#include <set>

#include "explain/remedy.hpp"
#include "explain/rules.hpp"
#include "explain/thresholds.hpp"
#include "util/text.hpp"

namespace jemtrace::explain {
namespace {

/// Every option of 5.0 to 5.3.1 and dev, those of debug and experimental builds included.
const std::set<std::string>& known_options() {
  static const std::set<std::string> names = {
      "abort",
      "abort_conf",
      "background_thread",
      "batch_madvise",
      "bin_shards",
      "cache_oblivious",
      "calloc_madvise_threshold",
      "confirm_conf",
      "debug_double_free_max_scan",
      "dirty_decay_ms",
      "disable_large_size_classes",
      "dss",
      "experimental_hpa_max_purge_nhp",
      "experimental_hpa_start_huge_if_thp_always",
      "experimental_hpa_enforce_hugify",
      "experimental_hpa_strict_min_purge_interval",
      "experimental_infallible_new",
      "experimental_huge_threshold",
      "experimental_tcache_gc",
      "experimental_use_sys_thread_name",
      "hpa",
      "hpa_dirty_mult",
      "hpa_hugification_threshold",
      "hpa_hugification_threshold_ratio",
      "hpa_hugify_delay_ms",
      "hpa_hugify_style",
      "hpa_hugify_sync",
      "hpa_min_purge_delay_ms",
      "hpa_min_purge_interval_ms",
      "hpa_purge_threshold",
      "hpa_sec_batch_fill_extra",
      "hpa_sec_bytes_after_flush",
      "hpa_sec_max_alloc",
      "hpa_sec_max_bytes",
      "hpa_sec_nshards",
      "hpa_slab_max_alloc",
      "huge_arena_pac_thp",
      "inspect_stat_options",
      "junk",
      "lg_extent_max_active_fit",
      "lg_prof_interval",
      "lg_prof_sample",
      "lg_san_uaf_align",
      "lg_tcache_flush_large_div",
      "lg_tcache_flush_small_div",
      "lg_tcache_max",
      "lg_tcache_nslots_mul",
      "lg_dirty_mult",
      "lg_chunk",
      "max_background_threads",
      "metadata_thp",
      "muzzy_decay_ms",
      "mutex_max_spin",
      "narenas",
      "narenas_ratio",
      "oversize_threshold",
      "page_id",
      "percpu_arena",
      "process_madvise_max_batch",
      "prof",
      "prof_accum",
      "prof_active",
      "prof_bt_max",
      "prof_final",
      "prof_gdump",
      "prof_leak",
      "prof_leak_error",
      "prof_log",
      "prof_pid_namespace",
      "prof_prefix",
      "prof_recent_alloc_max",
      "prof_stats",
      "prof_sys_thread_name",
      "prof_thread_active_init",
      "prof_time_resolution",
      "prof_unbias",
      "remote_free_max",
      "remote_free_max_batch",
      "retain",
      "san_guard_large",
      "san_guard_small",
      "slab_sizes",
      "stats_interval",
      "stats_interval_opts",
      "stats_print",
      "stats_print_opts",
      "tcache",
      "tcache_gc_delay_bytes",
      "tcache_gc_incr_bytes",
      "tcache_max",
      "tcache_ncached_max",
      "tcache_nslots_large",
      "tcache_nslots_small_max",
      "tcache_nslots_small_min",
      "thp",
      "trust_madvise",
      "utrace",
      "xmalloc",
      "zero",
      "zero_realloc",
      "malloc_conf",
      "decay_time",
      "purge",
  };
  return names;
}

bool is_number(const std::string& text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size();
}

bool is_plain(const std::string& text) {
  return text == "true" || text == "false" || is_number(text);
}

/// What is wrong with a request of the right name, in words; empty: nothing that shows.
std::string refused(const Inputs& in, const Request& request) {
  std::string out;
  const auto add = [&out](const std::string& words) { out += (out.empty() ? "" : "; ") + words; };
  for (const auto& [name, value] : request.options) {
    if (!known_options().contains(name)) {
      add(fmt::format("{} is no option of jemalloc's", name.substr(0, 60)));
      continue;
    }
    const auto effective = in.boot_options.find(name);
    if (effective != in.boot_options.end() && is_plain(value) && is_plain(effective->second) &&
        value != effective->second) {
      add(fmt::format("{}:{} was asked for, {} it is", name, value, effective->second));
    }
  }
  return out;
}

}  // namespace

Verdict conf_not_applied(const Inputs& in) {
  if (!in.requests) {
    return cannot("its environment could not be read");
  }
  if (in.many_images || in.conf_variable.empty()) {
    return in.many_images ? cannot("it has several jemallocs")
                          : cannot("which variable it reads is not known");
  }
  const Request* wrong = nullptr;
  const Request* right = nullptr;
  for (const Request& request : *in.requests) {
    (request.variable == in.conf_variable ? right : wrong) = &request;
  }
  if (right != nullptr) {
    const std::string words = refused(in, *right);
    if (words.empty()) {
      return no();  // another one beside it is meant for another program
    }
    const bool misspelt = words.find("is no option") != std::string::npos;
    return Draft(in, ledger::Severity::warning, fmt::format("settings are not in effect: {}", words))
        .count("options_requested", right->options.size())
        .confidence(misspelt && in.boot_options.empty() ? 0.7 : 0.9)
        .remedy(fmt::format(
            "Correct {}; at its start jemalloc writes \"Invalid conf pair\" to standard error, and "
            "with abort_conf:true it ends there.",
            in.conf_variable))
        .yes();
  }
  if (wrong == nullptr) {
    return no();
  }
  Draft draft(
      in, ledger::Severity::warning,
      fmt::format("{} is set, but this jemalloc reads {}", wrong->variable.substr(0, 60), in.conf_variable));
  draft.count("options_requested", wrong->options.size())
      .remedy(fmt::format("Set {} instead.", in.conf_variable));
  draft.set(wrong->options);
  if (!in.conf_is_effective) {
    draft.unmeasured("the options that jemalloc runs with");
  }
  return draft.yes();
}

Verdict vma_explosion(const Inputs& in) {
  if (!in.end.vmas || !in.max_map_count) {
    return cannot("the number of mappings is not known");
  }
  const double share =
      static_cast<double>(*in.end.vmas) / static_cast<double>(std::max<uint64_t>(1, *in.max_map_count));
  if (share < vma_share) {
    return no();
  }
  Draft draft(in, share >= vma_critical_share ? ledger::Severity::critical : ledger::Severity::warning,
              fmt::format("{} mappings, of {} that it may have: beyond, mmap and munmap fail",
                          human_count(*in.end.vmas), human_count(*in.max_map_count)));
  draft
      .count("mappings", in.end.vmas,
             static_cast<uint64_t>(vma_share * static_cast<double>(*in.max_map_count)))
      .count("max_map_count", in.max_map_count)
      .count("mappings_gained", grown(in.start.vmas, in.end.vmas));
  if (in.option("retain") == "false") {
    draft
        .remedy(
            "retain is off, so that what is given back is unmapped, which cuts mappings in pieces: "
            "retain:true.")
        .set("retain:true");
  } else {
    draft.remedy(
        "Mappings are cut by munmap(2), by advice on parts (MADV_NOHUGEPAGE, MADV_DONTDUMP), and by "
        "PROT_NONE where vm.overcommit_memory is 2.");
  }
  return draft.remedy("Meanwhile: raise vm.max_map_count.").yes();
}

Verdict mlocked(const Inputs& in) {
  if (!in.end.locked || !in.end.rss) {
    return cannot("how much is locked in memory is not known");
  }
  const double share =
      static_cast<double>(*in.end.locked) / static_cast<double>(std::max<uint64_t>(1, *in.end.rss));
  const uint64_t failed = in.work ? in.work->counters.failed_errno_inval : 0;
  const bool most = *in.end.locked >= least_bytes && share >= locked_share;
  if (!most && (failed == 0 || *in.end.locked < mib)) {
    return no();
  }
  Draft draft(in, ledger::Severity::warning,
              failed > 0 ? fmt::format("{} purges failed: the memory is locked (mlock)", human_count(failed))
                         : fmt::format("{} are locked in memory (mlock): purging them fails",
                                       human_bytes(*in.end.locked)));
  draft.bytes("locked", in.end.locked, least_bytes)
      .share("locked_of_rss", share, locked_share)
      .count("failed_purges", in.work ? Maybe<uint64_t>(failed) : std::nullopt)
      .bytes("retained_resident", in.end.retained_resident)
      .remedy(
          "madvise(2) refuses locked memory. jemalloc then takes the pages for given back, so that its "
          "retained memory is resident after all. Do without mlockall(MCL_FUTURE), or lock only what has to "
          "be; MCL_ONFAULT makes no difference to purging.");
  return draft.yes();
}

Verdict oom_context(const Inputs& in) {
  if (in.ooms.empty()) {
    return no();
  }
  const ledger::OomKill& oom = in.ooms.front();
  const bool was_target = oom.pid == in.pid;
  const Moment& known = in.end.rss ? in.end : in.start;
  const uint64_t held = known.dirty.value_or(0) + known.muzzy.value_or(0);
  Draft draft(in, was_target ? ledger::Severity::critical : ledger::Severity::info,
              was_target
                  ? std::string("the kernel killed this process for want of memory")
                  : fmt::format("the kernel killed {} (pid {}) for want of memory", oom.comm, oom.pid));
  draft.bytes("victim_anon_rss", oom.anon_rss_bytes)
      .bytes("victim_file_rss", oom.file_rss_bytes)
      .ns("ago", in.now_ns > oom.at_ns ? Maybe<uint64_t>(in.now_ns - oom.at_ns) : std::nullopt)
      .bytes("last_known_rss", known.rss)
      .bytes("last_known_dirty", known.dirty)
      .bytes("last_known_lazyfree", known.lazyfree);
  if (known.cgroup) {
    draft.bytes("cgroup_usage", known.cgroup->usage_bytes).bytes("cgroup_limit", known.cgroup->limit_bytes);
  }
  if (!known.dirty) {
    draft.unmeasured("what jemalloc held");
  }
  if (held >= least_bytes) {
    draft
        .remedy(fmt::format("It held {} of freed memory; a shorter decay, by a background thread, gives back "
                            "sooner.",
                            human_bytes(held)))
        .set("dirty_decay_ms:1000,background_thread:true");
  } else if (known.dirty) {
    draft.remedy("jemalloc held little that was free: the program itself needed the memory.");
  }
  return draft
      .remedy("LazyFree is not the cause: the kernel takes such pages before it kills for a cgroup's limit.")
      .remedy("This was read from " + oom.source + ".")
      .yes();
}

}  // namespace jemtrace::explain
