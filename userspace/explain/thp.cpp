// Huge pages that bring purged memory back, or keep it from going.
#include <fmt/format.h>

#include <algorithm>

#include "explain/remedy.hpp"
#include "explain/rules.hpp"
#include "explain/thresholds.hpp"
#include "util/text.hpp"

namespace jemtrace::explain {
namespace {

constexpr uint64_t huge_bytes = 2 * mib;

/// Charged to the cgroup, and in none of its statistics: parts of huge pages that nobody maps any more.
Maybe<uint64_t> ghost_of_cgroup(const ledger::Cgroup& cgroup) {
  if (!cgroup.usage_bytes || !cgroup.anon_bytes || !cgroup.file_bytes || cgroup.path == "/") {
    return std::nullopt;  // the root's usage is a sum of statistics, not of charges
  }
  const uint64_t known = *cgroup.anon_bytes + *cgroup.file_bytes + cgroup.kernel_bytes.value_or(0);
  return *cgroup.usage_bytes - std::min(known, *cgroup.usage_bytes);
}

}  // namespace

Verdict khugepaged_refill(const Inputs& in) {
  if (!in.end.rss || !in.end.anon_huge) {
    return cannot("huge pages of the process are not known");
  }
  const uint64_t limit = matters(*in.end.rss);
  const uint64_t refilled = in.end.retained_resident.value_or(0);
  const bool resident_again =
      refilled >= limit &&
      static_cast<double>(*in.end.anon_huge) >= refilled_huge_share * static_cast<double>(refilled) &&
      in.end.locked.value_or(0) < refilled / 2;
  const uint64_t grew = grown(in.start.rss, in.end.rss).value_or(0);
  const uint64_t filled = in.collapses ? in.collapses->filled_bytes : 0;
  const bool grows =
      grew >= limit && static_cast<double>(filled) >= refill_growth_share * static_cast<double>(grew);
  if (!resident_again && !grows) {
    return in.end.retained_resident || in.collapses
               ? no()
               : cannot("what is resident of the retained memory is not known");
  }
  Draft draft(in, ledger::Severity::warning,
              fmt::format("{} that was given back is resident again, in huge pages that khugepaged made",
                          human_bytes(resident_again ? refilled : grew)));
  draft.bytes("retained_resident", in.end.retained_resident, limit)
      .bytes("anon_huge", in.end.anon_huge)
      .bytes("rss_growth", grew)
      .bytes("filled_by_collapse", in.collapses ? Maybe<uint64_t>(filled) : std::nullopt)
      .count("collapsed_on_host", grown(in.start.host.thp_collapse_alloc, in.end.host.thp_collapse_alloc));
  if (!in.collapses) {
    draft.unmeasured("which process khugepaged worked on", 0.1);
  }
  draft.remedy(
      "khugepaged makes a huge page of a range of which as little as one page is in use (max_ptes_none 511): "
      "it fills the holes that purging made.");
  if (has(in, thp_since)) {
    draft.remedy("Keep huge pages out of jemalloc's memory: thp:never.")
        .set(has(in, metadata_thp_since) ? "thp:never,metadata_thp:disabled" : "thp:never", thp_since);
  }
  draft.remedy(
      "Or for the host: transparent_hugepage/enabled to madvise, or transparent_hugepage/khugepaged/"
      "max_ptes_none to 64 or less.");
  if (in.version.known() && has(in, hpa_since)) {
    draft.remedy("Or let jemalloc manage huge pages whole: hpa:true.").set("hpa:true", hpa_since);
  }
  return draft.yes();
}

Verdict ghost_thp(const Inputs& in) {
  const auto& gauge = in.end.host.nr_anon_partially_mapped;
  if (gauge && *gauge * huge_bytes < ghost_least_bytes) {
    return no();  // whatever is charged beyond the statistics, it is not this
  }
  if (!in.end.cgroup) {
    return cannot("its cgroup is not known");
  }
  const auto ghost = ghost_of_cgroup(*in.end.cgroup);
  if (!ghost) {
    return cannot(in.end.cgroup->path == "/" ? "it is in the root cgroup, whose usage is not what is charged"
                                             : "what its cgroup is charged for is not known");
  }
  const uint64_t limit =
      std::max(ghost_least_bytes,
               static_cast<uint64_t>(ghost_share * static_cast<double>(*in.end.cgroup->usage_bytes)));
  if (*ghost < limit) {
    return no();
  }
  if (!gauge &&
      grown(in.start.host.thp_deferred_split_page, in.end.host.thp_deferred_split_page).value_or(0) == 0) {
    return cannot("whether huge pages are mapped in part: that is counted since Linux 6.12");
  }
  Draft draft(
      in, ledger::Severity::warning,
      fmt::format("RSS fell, the memory did not come free: {} are parts of huge pages", human_bytes(*ghost)));
  draft.bytes("charged_and_not_mapped", ghost, limit)
      .bytes("cgroup_usage", in.end.cgroup->usage_bytes)
      .bytes("cgroup_anon", in.end.cgroup->anon_bytes)
      .bytes("rss", in.end.rss)
      .count("partially_mapped_huge_pages_on_host", gauge, ghost_least_bytes / huge_bytes)
      .count("deferred_splits_on_host",
             grown(in.start.host.thp_deferred_split_page, in.end.host.thp_deferred_split_page))
      .unmeasured("whose parts they are: the kernel counts them for the cgroup and for the host", 0.1)
      .remedy(
          "The kernel keeps a huge page whole until it is short of memory, even when most of it was given "
          "back. It frees itself under pressure; writing to memory.reclaim of the cgroup forces it. Do not "
          "size limits by RSS here.");
  if (has(in, thp_since)) {
    return draft.remedy("Avoid it: thp:never.").set("thp:never", thp_since).yes();
  }
  return draft.remedy("Avoid it: transparent_hugepage/enabled to madvise.").yes();
}

}  // namespace jemtrace::explain
