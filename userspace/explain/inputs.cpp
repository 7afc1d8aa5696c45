#include "explain/inputs.hpp"

#include <algorithm>
#include <cstdlib>

#include "ledger/histogram.hpp"

namespace jemtrace::explain {

Version parse_version(const std::string& text) {
  Version version;
  const char* at = text.c_str();
  for (int* part : {&version.major, &version.minor, &version.patch}) {
    char* end = nullptr;
    const long value = std::strtol(at, &end, 10);
    if (end == at || value < 0 || value > 10'000) {
      break;
    }
    *part = static_cast<int>(value);
    at = *end == '.' ? end + 1 : end;
  }
  return version;
}

std::string Inputs::option(const std::string& name) const {
  const auto found = conf.find(name);
  return found == conf.end() ? std::string() : found->second.value;
}

PurgeWork purge_work(const ledger::Totals& totals) {
  PurgeWork work;
  ledger::Histogram app;
  ledger::Histogram all;
  for (unsigned i = 0; i < JT_TRANSITIONS; ++i) {
    if (i != JT_RETAINED_RETURNED) {  // nothing of that is resident
      app.merge(totals.transitions[i].by_payer[JT_PAYER_APP]);
      all.merge(totals.transitions[i].total());
    }
  }
  work.calls = all.count();
  work.bytes = all.bytes();
  work.ns = all.sum_ns();
  work.p50_ns = all.quantile_ns(0.5);
  work.p99_ns = all.quantile_ns(0.99);
  work.max_ns = all.max_ns();
  work.app_calls = app.count();
  work.app_bytes = app.bytes();
  work.app_ns = app.sum_ns();
  work.app_p99_ns = app.quantile_ns(0.99);
  const jt_calls& oversize = totals.counters.by_purpose[JT_PURGE_OVERSIZE];
  work.oversize_calls = oversize.calls;
  work.oversize_bytes = oversize.bytes;
  work.oversize_ns = oversize.total_ns;
  return work;
}

Maybe<uint64_t> lazily_taken(const Inputs& in) {
  if (!in.start.muzzy_gone || !in.end.muzzy_gone) {
    return std::nullopt;
  }
  return *in.end.muzzy_gone - std::min(*in.start.muzzy_gone, *in.end.muzzy_gone);
}

Maybe<uint64_t> grown(const Maybe<uint64_t>& start, const Maybe<uint64_t>& end) {
  return start && end && *end >= *start ? Maybe<uint64_t>(*end - *start) : std::nullopt;
}

}  // namespace jemtrace::explain
