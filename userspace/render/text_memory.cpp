#include <fmt/format.h>

#include <array>
#include <cmath>
#include <utility>

#include "render/summary_page.hpp"

namespace jemtrace::render {
namespace {

using ledger::Summary;

std::string purge_effect(const ledger::RssAccount& rss) {
  const int64_t delta = *rss.purge_delta_bytes;
  const std::string error =
      rss.purge_delta_error_bytes == 0 ? "" : glue(" (+-" + human_bytes(rss.purge_delta_error_bytes) + ")");
  const uint64_t size = delta < 0 ? ~static_cast<uint64_t>(delta) + 1 : static_cast<uint64_t>(delta);
  if (size == 0 || size <= rss.purge_delta_error_bytes) {
    return "purge calls changed RSS by nothing that could be measured" + error;
  }
  return delta < 0 ? "purge calls took " + bytes(size) + " out of RSS" + error
                   : "RSS grew by " + bytes(size) + " during purge calls: other threads were faster" + error;
}

/// Whether memory is short now, and what the kernel did about it.
std::string pressure_words(const ledger::Pressed& pressed) {
  if (!pressed.pressure) {
    return {};
  }
  const std::string psi = glue(fmt::format("PSI {:.2f}", pressed.pressure->some_avg10));
  return fmt::format(" ({}: {})", psi, pressed.pressure->some_avg10 > 0 ? "it is" : "nothing presses it to");
}

/// jemalloc's side at the end, and the number to watch.
void state_lines(Page& page, const Summary& s) {
  const ledger::States& states = s.states;
  Phrases phrases;
  const auto add = [&](const ledger::Maybe<uint64_t>& n, const char* what) {
    if (n) {
      phrases.add(bytes(*n) + glue(std::string(" ") + what));
    }
  };
  add(states.allocated_bytes, "allocated");
  add(states.active_bytes, "active");
  add(states.dirty_bytes, "dirty");
  add(states.muzzy_bytes, "muzzy");
  add(states.retained_bytes, "retained");
  if (!phrases.empty()) {
    page.labelled("at the end", phrases.text());
  }
  const ledger::TrendReport& trend = s.overhead.trend;
  if (trend.trend == ledger::Trend::unknown) {
    return;
  }
  const std::string of =
      s.overhead.of == "rss_minus_allocated" ? "RSS beyond what is allocated" : "RSS beyond what is active";
  const std::string range = bytes(trend.low_bytes) + glue(" to ") + bytes(trend.high_bytes);
  switch (trend.trend) {
    case ledger::Trend::rhythmic:
      page.labelled("over time", fmt::format("{} goes up and down every {}, {}: work in bursts", of,
                                             seconds(static_cast<uint64_t>(*trend.period_s * 1e9)), range));
      break;
    case ledger::Trend::ratcheting:
      page.labelled("over time", fmt::format("{} ratchets up by {}/s, {}", of,
                                             bytes(static_cast<uint64_t>(trend.per_second)), range));
      break;
    case ledger::Trend::falling:
      page.labelled("over time", fmt::format("{} falls by {}/s, {}", of,
                                             bytes(static_cast<uint64_t>(-trend.per_second)), range));
      break;
    default:
      page.labelled("over time", fmt::format("{} is steady, {}", of, range));
  }
}

void rss_lines(Page& page, const Summary& s) {
  const ledger::RssAccount& rss = s.rss;
  if (!rss.start_bytes && !rss.end_bytes && !rss.max_bytes) {
    page.labelled("RSS", "unknown");
    return;
  }
  const auto value = [](const ledger::Maybe<uint64_t>& n) { return n ? bytes(*n) : std::string("-"); };
  std::string text = value(rss.start_bytes) + glue(" -> ") + value(rss.end_bytes);
  if (rss.max_bytes) {
    text += ", " + glue("max ") + bytes(*rss.max_bytes);
  }
  if (rss.lazyfree_end_bytes && *rss.lazyfree_end_bytes > 0) {
    text += fmt::format("; {} of it LazyFree: the kernel takes that when memory gets short{}",
                        bytes(*rss.lazyfree_end_bytes), pressure_words(s.pressed));
    if (rss.end_bytes && *rss.end_bytes >= *rss.lazyfree_end_bytes) {
      text += ", " + bytes(*rss.end_bytes - *rss.lazyfree_end_bytes) + " without it";
    }
  } else {
    text += rss.lazyfree_end_bytes ? "; no LazyFree" : "; LazyFree unknown";
  }
  page.labelled("RSS", text);
  if (rss.purge_delta_bytes) {
    page.labelled("", purge_effect(rss));
  }
}

// ---- what came back ----

std::string whole_percent(double share) {
  constexpr uint64_t parts = 1'000'000;
  return percent(static_cast<uint64_t>(std::lround(share * parts)), parts);
}

/// "6 %", or "6 % to 31 %" when huge pages may have come with the touched ones. Empty: too few pages have had
/// the time.
std::string touched_share(const ledger::Refaults& all, const ledger::Touched& within) {
  const auto least = all.share(within);
  const auto most = all.most_share(within);
  if (!least || !most) {
    return {};
  }
  const std::string from = whole_percent(*least);
  const std::string to = whole_percent(*most);
  return glue(from == to ? from : from + " to " + to);
}

/// The one to look at first.
std::array<std::pair<const ledger::Touched*, const char*>, 3> refault_limits(const ledger::Refaults& all) {
  return {{{&all.within_10s, "10 s"}, {&all.within_60s, "60 s"}, {&all.within_1s, "1 s"}}};
}

std::string touched_shares(const ledger::Refaults& all) {
  std::string text;
  Phrases others;
  for (const auto& [within, words] : refault_limits(all)) {
    std::string share = touched_share(all, *within);
    // What came back already is no estimate, and beside a longer time of no use.
    if (const double sure = all.least_share(*within).value_or(0);
        share.empty() && text.empty() && sure >= 0.01) {
      share = "at least " + glue(whole_percent(sure));
    }
    if (share.empty()) {
      continue;
    }
    if (text.empty()) {
      text = share + " of the purged pages were touched again within " + glue(words);
    } else {
      others.add(share + " within " + glue(words));
    }
  }
  return text + (others.empty() ? "" : " (" + others.text() + ")");
}

/// Which of the shares are estimates: pages that were watched for less are taken to be like those that were
/// not.
std::string too_early(const ledger::Refaults& all) {
  Phrases text;
  for (const auto& [within, words] : refault_limits(all)) {
    if (all.share(*within) && within->waiting_pages > all.followed_pages / 20) {
      text.add(fmt::format("{}{} for less than {}", share(within->waiting_pages, all.followed_pages),
                           text.empty() ? " were watched" : "", glue(words)));
    }
  }
  return text.empty() ? "" : "an estimate: " + text.text();
}

void refault_lines(Page& page, const Summary& s) {
  if (!s.refaults) {
    page.labelled("came back", "not measured");
    return;
  }
  const ledger::Refaults& all = *s.refaults;
  if (all.purged_pages > 0) {
    const std::string shares = touched_shares(all);
    page.labelled("came back", !shares.empty() ? shares
                               : all.followed_pages == 0
                                   ? "no purged page could be followed"
                                   : "too early to say: most was purged in the last second");
    if (const std::string early = too_early(all); !early.empty()) {
      page.labelled("", early);
    }
    if (all.followed_pages > 0 && all.followed_pages < all.purged_pages) {
      page.labelled("", fmt::format("an estimate: {} of the purged pages were followed",
                                    share(all.followed_pages, all.purged_pages)));
    }
    if (all.evicted_pages > 0) {
      page.labelled("", fmt::format("{} pages were lost sight of within a minute", count(all.evicted_pages)));
    }
  }
  if (s.totals.transitions[JT_DIRTY_MUZZY].total().count() > 0) {
    page.labelled(all.purged_pages > 0 ? "" : "came back",
                  "MADV_FREE is not in it: until the kernel takes a page, a touch of it raises no fault");
  }
}

/// Memory that comes back with nobody touching it.
void collapse_lines(Page& page, const Summary& s) {
  if (!s.collapses || s.collapses->huge_pages == 0) {
    return;
  }
  page.labelled(
      "collapsed",
      fmt::format("the kernel made {} of small ones, and {} resident that was not: purged, or never touched",
                  plural(s.collapses->huge_pages, "huge page", "huge pages"),
                  glue(human_bytes(s.collapses->filled_bytes))));
}

/// What a program said of itself, where it was asked for.
void asked_lines(Page& page, const Summary& s) {
  if (!s.asked) {
    return;
  }
  Phrases phrases;
  ledger::Maybe<uint64_t> age_ms;
  for (const ledger::Asked::Value& one : s.asked->values) {
    for (const char* name : {"stats.allocated", "stats.active", "stats.resident", "stats.retained"}) {
      if (one.name == name) {
        phrases.add(fmt::format("{} {}", one.name, glue(human_bytes(one.value))));
        age_ms = one.age_ms;
      }
    }
  }
  if (phrases.empty()) {
    page.labelled("asked", "the program did not ask its jemalloc for any of its main numbers");
    return;
  }
  std::string words = "by the program itself: " + phrases.text();
  if (age_ms) {
    words += fmt::format(", counted {} before the end", glue(seconds(*age_ms * 1'000'000)));
  }
  if (s.asked->compared > 0) {
    words += fmt::format("; its structures agreed {} of {} times", s.asked->compared - s.asked->different,
                         s.asked->compared);
  }
  page.labelled("asked", words);
}

}  // namespace

void memory_lines(Page& page, const Summary& summary, bool purged) {
  rss_lines(page, summary);
  state_lines(page, summary);
  if (purged) {
    refault_lines(page, summary);
  }
  collapse_lines(page, summary);
  asked_lines(page, summary);
}

}  // namespace jemtrace::render
