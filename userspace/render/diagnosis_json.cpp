#include "render/diagnosis.hpp"
#include "render/json_parts.hpp"

namespace jemtrace::render {
namespace {

Json evidence_array(const std::vector<ledger::Evidence>& all) {
  Json array = Json::array();
  for (const ledger::Evidence& one : all) {
    array.push_back({{"name", one.name},
                     {"value", maybe(one.value)},
                     {"unit", one.unit},
                     {"threshold", maybe(one.threshold)}});
  }
  return array;
}

Json texts(const std::vector<std::string>& all) {
  Json array = Json::array();
  for (const std::string& one : all) {
    array.push_back(text(one));
  }
  return array;
}

Json purging_or_null(const ledger::Maybe<PurgeCost>& cost) {
  if (!cost) {
    return nullptr;
  }
  return {{"calls", cost->calls},
          {"bytes", cost->bytes},
          {"time_ns", cost->time_ns},
          {"max_ns", cost->max_ns},
          {"app_calls", cost->app_calls},
          {"app_time_ns", cost->app_time_ns},
          {"app_p99_ns", cost->app_calls > 0 ? Json(cost->app_p99_ns) : Json(nullptr)},
          {"oversize_calls", cost->oversize_calls},
          {"oversize_time_ns", cost->oversize_time_ns},
          {"lock_wait_ns", maybe(cost->waits.lock_ns)},
          {"remote_tlb_flushes", maybe(cost->waits.remote_flushes)},
          {"direct_reclaim_ns", maybe(cost->waits.reclaim_ns)},
          {"per_page_ns", maybe(cost->ns_per_page)},
          {"baseline_per_page_ns", maybe(cost->baseline_ns_per_page)},
          {"touched_again_share", maybe(cost->touched_again)}};
}

}  // namespace

Json finding_line(const ledger::Finding& finding) {
  return {{"type", "finding"},
          {"id", finding.id},
          {"pid", finding.pid},
          {"severity", name(finding.severity)},
          {"title", text(finding.title)},
          {"evidence", evidence_array(finding.evidence)},
          {"remedy", text(finding.remedy)},
          {"settings", texts(finding.settings)},
          {"commands", texts(finding.commands)},
          {"confidence", finding.confidence},
          {"unmeasured", texts(finding.unmeasured)}};
}

Json diagnosis_line(const DiagnosisReport& report) {
  Json ids = Json::array();
  for (const ledger::Finding& finding : report.findings) {
    ids.push_back(finding.id);
  }
  Json unmeasured = Json::array();
  for (const auto& [id, because] : report.unmeasured) {
    unmeasured.push_back({{"id", id}, {"because", text(because)}});
  }
  return {{"type", "diagnosis"},
          {"pid", report.target.pid},
          {"window_ns", report.window_ns},
          {"exited", report.exited},
          {"findings", ids},
          {"not_judged", unmeasured},
          {"lazily_taken_bytes", maybe(report.lazily_taken_bytes)},
          {"purging", purging_or_null(report.purging)}};
}

Json flush_line(const FlushReport& report) {
  return {{"type", "flush"},
          {"pid", report.pid},
          {"comm", text(report.comm)},
          {"lazyfree_before_bytes", maybe(report.lazyfree_before_bytes)},
          {"lazyfree_after_bytes", maybe(report.lazyfree_after_bytes)},
          {"rss_before_bytes", report.rss_before_bytes},
          {"rss_after_bytes", report.rss_after_bytes},
          {"advised_bytes", report.advised_bytes},
          {"ranges", report.ranges},
          {"took_ns", report.took_ns}};
}

}  // namespace jemtrace::render
