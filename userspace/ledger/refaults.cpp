#include <algorithm>
#include <numeric>

#include "ledger/model.hpp"

namespace jemtrace::ledger {
namespace {

constexpr uint64_t pages_of_huge_page = 512;

Maybe<double> ratio(uint64_t part, uint64_t whole) {
  if (whole == 0) {
    return std::nullopt;
  }
  return static_cast<double>(std::min(part, whole)) / static_cast<double>(whole);
}

}  // namespace

Refaults refaults(const jt_refaults& counted, const Waiting& waiting, uint64_t watched_ns, bool huge_pages) {
  Refaults out;
  out.watched_ns = watched_ns;
  out.evicted_pages = counted.evicted_pages;
  out.evicted_chunks = counted.evicted_chunks;
  Touched so_far;
  const std::array<Touched*, JT_REFAULT_LATER> all = {&out.within_1s, &out.within_10s, &out.within_60s};
  for (size_t age = 0; age < all.size(); ++age) {
    for (size_t state = 0; state < JT_STATES; ++state) {
      so_far.pages += counted.touched_pages[state][age];
      so_far.most_pages += counted.touched_pages[state][age];
      out.touched_from[state] += counted.touched_pages[state][age];
    }
    if (huge_pages) {
      so_far.most_pages += (counted.maybe_huge[age] + waiting.maybe_huge[age]) * (pages_of_huge_page - 1);
    }
    *all[age] = so_far;
    all[age]->waiting_pages = waiting.pages[age];
  }
  std::copy(std::begin(counted.followed_pages), std::end(counted.followed_pages), out.followed_from.begin());
  out.followed_pages = std::accumulate(out.followed_from.begin(), out.followed_from.end(), uint64_t{0});
  out.purged_pages = out.followed_pages + counted.unfollowed_pages;
  return out;
}

Maybe<double> Refaults::sampling_rate() const {
  return ratio(followed_pages, purged_pages);
}

/// A life table, as of things that may fail and are not all watched to the end: of the pages that have stayed
/// untouched up to an age, which share was touched in the next class of ages? Those whose watching ended
/// within the class count half. Leaving them out, but not the touched ones of the same age, would take the
/// share of a short trace to 100 %.
Maybe<double> Refaults::share(const Touched& within) const {
  if (followed_pages == 0 || within.waiting_pages > followed_pages / 2) {
    return std::nullopt;
  }
  if (within.waiting_pages == 0) {
    return least_share(within);
  }
  struct Limit {
    const Touched* touched;
    uint64_t seconds;
  };
  double untouched = 1;
  Touched before;
  for (const auto& [limit, seconds] :
       {Limit{&within_1s, 1}, Limit{&within_10s, 10}, Limit{&within_60s, 60}}) {
    if (watched_ns < seconds * 1'000'000'000) {
      return std::nullopt;  // to take it that none is touched at such an age would be a guess
    }
    const double watched = static_cast<double>(followed_pages) - static_cast<double>(before.pages) -
                           static_cast<double>(before.waiting_pages);
    const auto touched = static_cast<double>(limit->pages - std::min(limit->pages, before.pages));
    const auto ended =
        static_cast<double>(limit->waiting_pages - std::min(limit->waiting_pages, before.waiting_pages));
    const double at_risk = watched - ended / 2;
    untouched *= at_risk > 0 ? 1 - std::min(touched / at_risk, 1.0) : 1;
    if (limit == &within) {
      break;
    }
    before = *limit;
  }
  return 1 - untouched;
}

Maybe<double> Refaults::least_share(const Touched& within) const {
  return ratio(within.pages, followed_pages);
}

Maybe<double> Refaults::most_share(const Touched& within) const {
  const Maybe<double> known = share(within);
  if (!known || within.most_pages <= within.pages) {
    return known;
  }
  const double more =
      static_cast<double>(within.most_pages - within.pages) / static_cast<double>(followed_pages);
  return std::min(*known + more, 1.0);
}

}  // namespace jemtrace::ledger
