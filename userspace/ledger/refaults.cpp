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

/// Pages whose fate is known: they were touched in time, or could have been.
uint64_t settled(const Refaults& all, const Touched& within) {
  return all.followed_pages - std::min(all.followed_pages, within.waiting_pages);
}

}  // namespace

Refaults refaults(const jt_refaults& counted, const Waiting& waiting, bool huge_pages) {
  Refaults out;
  out.purged_pages = counted.purged_pages;
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
  return out;
}

Maybe<double> Refaults::sampling_rate() const {
  return ratio(followed_pages, purged_pages);
}

Maybe<double> Refaults::share(const Touched& within) const {
  return ratio(within.pages, settled(*this, within));
}

Maybe<double> Refaults::most_share(const Touched& within) const {
  return ratio(within.most_pages, settled(*this, within));
}

}  // namespace jemtrace::ledger
