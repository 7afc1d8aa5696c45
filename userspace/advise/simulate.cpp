#include "advise/simulate.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "advise/decay.hpp"

namespace jemtrace::advise {
namespace {

constexpr uint64_t finest_ns = 1'000'000;
constexpr uint64_t most_pieces = 250;             // of the time between two readings
constexpr uint64_t defer_threshold = 1024;        // ARENA_DEFERRED_PURGE_NPAGES_THRESHOLD
constexpr uint64_t oversize_pages = 2048;         // oversize_threshold: no fewer make one extent of that size
constexpr uint64_t least_sleep_ns = 100'000'000;  // BACKGROUND_THREAD_MIN_INTERVAL_NS
constexpr uint64_t forever = Decay::never;
constexpr uint64_t settle_ns = 40'000'000'000;
constexpr unsigned most_passes = 8;

/// Decay passes on application threads, by how long they took.
class Stalls {
 public:
  void add(double ns, uint64_t times) {
    if (times > 0 && ns > 0) {
      stalls_.push_back({ns, times});
      times_ += times;
    }
  }
  void clear() {
    stalls_.clear();
    times_ = 0;
  }
  [[nodiscard]] std::optional<double> quantile(double q) {
    if (times_ == 0) {
      return std::nullopt;
    }
    std::sort(stalls_.begin(), stalls_.end(), [](const auto& a, const auto& b) { return a.ns < b.ns; });
    auto rank = static_cast<uint64_t>(std::ceil(q * static_cast<double>(times_)));
    for (const Stall& stall : stalls_) {
      if (rank <= stall.times) {
        return stall.ns;
      }
      rank -= stall.times;
    }
    return stalls_.back().ns;
  }

 private:
  struct Stall {
    double ns;
    uint64_t times;
  };
  std::vector<Stall> stalls_;
  uint64_t times_ = 0;
};

struct Arena {
  const ArenaActivity* from;
  std::optional<double> miss_pages;
  Settings settings;
  Decay dirty_decay, muzzy_decay;
  uint64_t active = 0, dirty = 0, muzzy = 0;
  uint64_t gone = 0;  // purged by MADV_DONTNEED and not taken again
  double oversize_rest = 0, missing_rest = 0;
  size_t next = 0;  // of its points
  // While its pages move from one point to the next:
  bool had_chance = false, purges_all = false;
  uint64_t moves_from = 0, moves_to = 0, takes = 0;
};

struct Thread {
  std::vector<size_t> arenas;
  uint64_t wakes_ns = forever;
  uint64_t purge_new = 0;  // npages_to_purge_new
};

class Simulation {
 public:
  Simulation(const Activity& activity, const Settings& settings, const Model& model, const Costs& costs)
      : activity_(activity), settings_(settings), model_(model), costs_(costs) {}

  Outcome run(Begin begin) {
    begin_ns_ = activity_.times_ns.front();
    make_arenas(begin);
    const uint64_t span = std::max<uint64_t>(activity_.span_ns(), 1);
    const unsigned passes =
        begin != Begin::settled
            ? 1
            : std::clamp(static_cast<unsigned>(1 + (settle_ns + span - 1) / span), 2U, most_passes);
    last_ns_ = begin_ns_;
    for (unsigned pass = 0; pass < passes; ++pass) {
      if (pass + 1 == passes) {
        forget();
      }
      // A step of the length of one reading joins the end to the beginning.
      const uint64_t joint = pass == 0 ? 0 : span / std::max<size_t>(activity_.times_ns.size() - 1, 1);
      play(pass * span + (pass > 0 ? pass * joint : 0), joint);
    }
    integrate(last_ns_);
    return finish();
  }

 private:
  Settings settings_of(const ArenaActivity& arena) const {
    Settings own = settings_;
    if (model_.usual &&
        (arena.dirty_ms != model_.usual->dirty_ms || arena.muzzy_ms != model_.usual->muzzy_ms)) {
      own.dirty_ms = arena.dirty_ms;
      own.muzzy_ms = arena.muzzy_ms;
    }
    return own;
  }

  void make_arenas(Begin begin) {
    for (const ArenaActivity& from : activity_.arenas) {
      const Settings own = settings_of(from);
      const uint64_t seed = 2 * arenas_.size();
      Arena arena{&from, miss_pages(from), own, Decay(own.dirty_ms, begin_ns_, seed),
                  Decay(own.muzzy_ms, begin_ns_, seed + 1)};
      const Point& first = from.points.front();
      if (begin != Begin::empty && first.at == 0) {
        arena.active = first.active;
        arena.dirty = first.dirty;
        arena.muzzy = first.muzzy;
        arena.next = 1;
        if (begin == Begin::as_read) {
          arena.dirty_decay.resume(from.dirty_start);
          arena.muzzy_decay.resume(from.muzzy_start);
        }
      }
      total_ += arena.active + arena.dirty + arena.muzzy;
      arenas_.push_back(arena);
    }
    if (settings_.background) {
      std::map<uint32_t, Thread> threads;
      for (size_t i = 0; i < arenas_.size(); ++i) {
        threads[arenas_[i].from->index % std::max(1U, model_.background_threads)].arenas.push_back(i);
      }
      for (auto& [number, thread] : threads) {
        // One that was started long ago is somewhere in its sleep.
        thread.wakes_ns = begin == Begin::as_read ? begin_ns_ + least_sleep_ns : forever;
        threads_.push_back(std::move(thread));
      }
    }
  }

  void play(uint64_t shift_ns, uint64_t joint_ns) {
    const auto& times = activity_.times_ns;
    for (Arena& arena : arenas_) {
      if (shift_ns > 0 || joint_ns > 0) {
        arena.next = 0;
      }
    }
    uint64_t before = joint_ns > 0 ? times.front() + shift_ns - joint_ns : times.front();
    for (uint32_t at = 0; at < times.size(); ++at) {
      const uint64_t now = times[at] + shift_ns;
      step(at, before, now);
      before = now;
    }
  }

  /// From one reading to the next.
  void step(uint32_t at, uint64_t from_ns, uint64_t to_ns) {
    moving_.clear();
    for (Arena& arena : arenas_) {
      const auto& points = arena.from->points;
      if (arena.next < points.size() && points[arena.next].at == at) {
        arena.moves_from = arena.active;
        arena.moves_to = points[arena.next].active;
        arena.takes = arena.next == 0 ? 0 : taken_between(points[arena.next - 1], points[arena.next]);
        arena.purges_all =
            arena.next > 0 && purged_all(*arena.from, points[arena.next - 1], points[arena.next]);
        arena.next += 1;
        moving_.push_back(&arena);
      }
    }
    const uint64_t length = to_ns - from_ns;
    const uint64_t pieces =
        moving_.empty() || length == 0 ? 1 : std::clamp<uint64_t>(length / finest_ns, 1, most_pieces);
    for (uint64_t piece = 1; piece <= pieces; ++piece) {
      const uint64_t now = from_ns + length * piece / pieces;
      wake_threads(now);
      integrate(now);
      for (Arena* arena : moving_) {
        const auto share = static_cast<double>(piece) / static_cast<double>(pieces);
        const double target =
            static_cast<double>(arena->moves_from) +
            (static_cast<double>(arena->moves_to) - static_cast<double>(arena->moves_from)) * share;
        const uint64_t takes = arena->takes * piece / pieces - arena->takes * (piece - 1) / pieces;
        move_to(*arena, static_cast<uint64_t>(std::llround(target)), takes);
        arena->had_chance |= try_tick(*arena, at, now, length / pieces);
      }
    }
    for (Arena* arena : moving_) {
      if (arena->purges_all) {
        purge_all(*arena);
      }
    }
    for (Arena& arena : arenas_) {
      const bool moved = std::find(moving_.begin(), moving_.end(), &arena) != moving_.end();
      const Chance seen = chance_of(arena, at);
      // What was seen to happen happens, once at least.
      if (seen == Chance::taken
              ? !arena.had_chance
              : !moved && seen == Chance::unknown && comes(model_.idle_chances.value_or(0), length)) {
        tick(arena, to_ns);
      }
      arena.had_chance = false;
    }
  }

  static Chance chance_of(const Arena& arena, uint32_t at) {
    return at < arena.from->chances.size() ? arena.from->chances[at] : Chance::unknown;
  }

  /// Of an arena whose pages move, in a piece of the time between two readings.
  bool try_tick(Arena& arena, uint32_t at, uint64_t now, uint64_t length_ns) {
    if (chance_of(arena, at) == Chance::none ||
        (model_.busy_chances && !comes(*model_.busy_chances, length_ns))) {
      return false;
    }
    tick(arena, now);
    return true;
  }

  bool comes(double per_second, uint64_t within_ns) {
    return random_.unit() < 1 - std::exp(-per_second * static_cast<double>(within_ns) / 1e9);
  }

  void integrate(uint64_t now) {
    page_ns_ += static_cast<double>(total_) * static_cast<double>(now - last_ns_);
    last_ns_ = now;
    out_.peak_resident = std::max(out_.peak_resident, total_);
  }

  void forget() {
    out_ = {};
    returned_ = 0;
    page_ns_ = 0;
    stalls_.clear();
    counted_from_ns_ = last_ns_;
  }

  // ---- allocation

  /// Frees, and takes `pages` or as many as it needs to have `active`.
  void move_to(Arena& arena, uint64_t active, uint64_t pages) {
    pages = std::max(pages, active > arena.active ? active - arena.active : 0);
    // Blocks come and go one by one: what is freed meanwhile does not help at large.
    const double missing =
        arena.miss_pages ? std::exp(-static_cast<double>(arena.dirty + arena.muzzy) / *arena.miss_pages) : 0;
    arena.missing_rest += missing * static_cast<double>(pages);
    const uint64_t past = std::min(pages, static_cast<uint64_t>(arena.missing_rest));
    arena.missing_rest -= static_cast<double>(past);
    give(arena, std::min(arena.active, arena.active + pages - active));
    take(arena, pages, past);
    out_.peak_resident = std::max(out_.peak_resident, total_);
  }

  /// ecache_alloc: the dirty cache first, then the muzzy one, then the retained one. `missing` of the pages
  /// find no extent in the first two.
  void take(Arena& arena, uint64_t pages, uint64_t missing) {
    arena.active += pages;
    take_back(arena, missing);
    pages -= missing;
    const uint64_t dirty = std::min(pages, arena.dirty);
    arena.dirty -= dirty;
    pages -= dirty;
    const uint64_t muzzy = std::min(pages, arena.muzzy);
    arena.muzzy -= muzzy;
    out_.lazily_reused += muzzy;
    take_back(arena, pages - muzzy);
  }

  /// From what was purged, then new memory.
  void take_back(Arena& arena, uint64_t pages) {
    const uint64_t back = std::min(pages, arena.gone);
    arena.gone -= back;
    total_ += pages;
    returned_ += back;
  }

  void give(Arena& arena, uint64_t pages) {
    arena.active -= pages;
    arena.dirty += pages;
    const Settings& own = arena.settings;
    const bool oversize =
        own.dirty_ms != -1 && own.muzzy_ms != -1 && !(model_.background_ends_oversize && own.background);
    if (own.dirty_ms == 0) {
      // arena_handle_deferred_work: on every free, all, and past the muzzy cache.
      purge(arena, arena.dirty, false, false);
    } else if (oversize && model_.oversize_share > 0 && arena.dirty >= oversize_pages) {
      arena.oversize_rest += static_cast<double>(pages) * model_.oversize_share;
      const uint64_t whole = std::min(arena.dirty, static_cast<uint64_t>(arena.oversize_rest));
      arena.oversize_rest -= static_cast<double>(whole);
      purge(arena, whole, false, false);
    }
  }

  /// Dirty pages, whole extents: into the muzzy cache or away. What it took, in ns.
  double purge(Arena& arena, uint64_t pages, bool lazily, bool background) {
    arena.dirty -= pages;
    double ns = static_cast<double>(pages);
    if (lazily) {
      arena.muzzy += pages;
      out_.lazy += pages;
      ns *= costs_.lazy_ns;
    } else {
      ns *= costs_.forced_ns;
      away(arena, pages);
    }
    const bool by_extent = arena.settings.dirty_ms == 0 && !background;
    account(ns, background);
    if (by_extent) {
      const auto extents =
          static_cast<uint64_t>(std::ceil(static_cast<double>(pages) / extent_pages(arena, pages)));
      stalls_.add(extents == 0 ? 0 : ns / static_cast<double>(extents), extents);
    }
    return ns;
  }

  /// arena.<i>.purge, on a thread of the program: past the muzzy state.
  void purge_all(Arena& arena) {
    arena.dirty += arena.muzzy;
    arena.muzzy = 0;
    purge(arena, arena.dirty, false, false);
  }

  void away(Arena& arena, uint64_t pages) {
    arena.gone += pages;
    total_ -= pages;
    out_.forced += pages;
  }

  void account(double ns, bool background) {
    (background ? out_.background_purge_ns : out_.app_purge_ns) += ns;
  }

  // ---- decay

  /// arena_decay on an application's thread.
  void tick(Arena& arena, uint64_t now) {
    double ns = 0;
    for (const bool muzzy : {false, true}) {
      Decay& decay = muzzy ? arena.muzzy_decay : arena.dirty_decay;
      if (muzzy && arena.muzzy == 0 && !decay.gradual()) {
        continue;  // pa_shard_dont_decay_muzzy
      }
      const uint64_t pages = muzzy ? arena.muzzy : arena.dirty;
      const bool advanced = decay.maybe_advance(now, pages);
      if (settings_.background) {
        if (advanced) {
          maybe_wake(arena, decay, now);
        }
      } else if (decay.at_once()) {
        ns += to_limit(arena, muzzy, 0, false);
      } else if (advanced) {
        ns += to_limit(arena, muzzy, decay.limit(), false);
      }
    }
    if (ns > 0) {
      stalls_.add(ns, 1);
    }
  }

  /// Neighbours are joined: where blocks lie in any order, `held` unused pages beside the used ones make
  /// extents of so many blocks.
  [[nodiscard]] double extent_pages(const Arena& arena, uint64_t held) const {
    if (!arena.from->block_pages) {
      return model_.extent_pages;
    }
    const double active = std::max(1.0, static_cast<double>(arena.active));
    return std::max(1.0, *arena.from->block_pages * (static_cast<double>(held) + active) / active);
  }

  /// pac_decay_to_limit: whole extents, so it overshoots.
  double to_limit(Arena& arena, bool muzzy, uint64_t limit, bool background) {
    uint64_t& held = muzzy ? arena.muzzy : arena.dirty;
    if (held <= limit) {
      return 0;
    }
    const double extent = extent_pages(arena, held);
    const double extents = std::ceil(static_cast<double>(held - limit) / extent);
    const uint64_t pages = std::min(held, static_cast<uint64_t>(std::llround(extents * extent)));
    if (!muzzy) {
      return purge(arena, pages, arena.settings.muzzy_ms != 0, background);
    }
    held -= pages;
    away(arena, pages);
    const double ns = static_cast<double>(pages) * costs_.forced_ns;
    account(ns, background);
    return ns;
  }

  // ---- background threads

  Thread& thread_of(const Arena& arena) {
    const size_t number = static_cast<size_t>(&arena - arenas_.data());
    return *std::find_if(threads_.begin(), threads_.end(), [&](const Thread& thread) {
      return std::find(thread.arenas.begin(), thread.arenas.end(), number) != thread.arenas.end();
    });
  }

  /// arena_maybe_do_deferred_work, on an application's thread that began an epoch.
  void maybe_wake(const Arena& arena, const Decay& decay, uint64_t now) {
    Thread& thread = thread_of(arena);
    if (thread.wakes_ns == forever) {
      if (model_.first_wake_schedules) {
        plan(thread, now);
      } else {
        work(thread, now);
      }
      return;
    }
    if (thread.wakes_ns <= decay.epoch_ns()) {
      return;
    }
    const uint64_t remaining = thread.wakes_ns - decay.epoch_ns();
    thread.purge_new += decay.purged_within(remaining, decay.newest());
    if (thread.purge_new > defer_threshold) {
      thread.purge_new = 0;
      if (remaining >= least_sleep_ns) {
        work(thread, now);
      }
    }
  }

  void wake_threads(uint64_t until) {
    for (Thread& thread : threads_) {
      while (thread.wakes_ns <= until) {
        const uint64_t now = std::max(thread.wakes_ns, last_ns_);
        integrate(now);
        work(thread, now);
      }
    }
  }

  void work(Thread& thread, uint64_t now) {
    for (const size_t number : thread.arenas) {
      Arena& arena = arenas_[number];
      arena.dirty_decay.maybe_advance(now, arena.dirty);
      if (arena.dirty_decay.gradual()) {
        to_limit(arena, false, arena.dirty_decay.limit(), true);
      }
      if (arena.muzzy_decay.gradual()) {
        arena.muzzy_decay.maybe_advance(now, arena.muzzy);
        to_limit(arena, true, arena.muzzy_decay.limit(), true);
      } else if (arena.muzzy_decay.at_once()) {
        to_limit(arena, true, 0, true);
      }
    }
    plan(thread, now);
  }

  void plan(Thread& thread, uint64_t now) {
    uint64_t until = forever;
    for (const size_t number : thread.arenas) {
      const Arena& arena = arenas_[number];
      until = std::min({until, arena.dirty_decay.ns_until_purge(arena.dirty, defer_threshold),
                        arena.muzzy_decay.ns_until_purge(arena.muzzy, defer_threshold)});
    }
    thread.wakes_ns = until == forever ? forever : now + std::max(until, least_sleep_ns);
    thread.purge_new = 0;
  }

  [[nodiscard]] bool all_counted() const {
    return std::all_of(activity_.arenas.begin(), activity_.arenas.end(),
                       [](const ArenaActivity& arena) { return arena.points.back().taken.has_value(); });
  }

  Outcome finish() {
    const uint64_t counted_ns = last_ns_ - counted_from_ns_.value_or(begin_ns_);
    out_.seconds = static_cast<double>(counted_ns) / 1e9;
    out_.mean_resident = counted_ns == 0 ? 0 : page_ns_ / static_cast<double>(counted_ns);
    const double refaulted = static_cast<double>(returned_) * model_.touched_share;
    out_.refaulted = static_cast<uint64_t>(std::llround(refaulted));
    out_.fault_ns = refaulted * costs_.fault_ns;
    out_.stall_p99_ns = stalls_.quantile(0.99);
    out_.at_least = settings_.dirty_ms == 0 && !all_counted();
    return out_;
  }

  const Activity& activity_;
  const Settings& settings_;
  const Model& model_;
  const Costs& costs_;
  std::vector<Arena> arenas_;
  std::vector<Thread> threads_;
  std::vector<Arena*> moving_;
  Random random_{0x6a656d74};
  Stalls stalls_;
  Outcome out_;
  double page_ns_ = 0;
  uint64_t total_ = 0;     // resident pages
  uint64_t returned_ = 0;  // purged by MADV_DONTNEED, and taken again
  uint64_t begin_ns_ = 0, last_ns_ = 0;
  std::optional<uint64_t> counted_from_ns_;
};

}  // namespace

Outcome simulate(const Activity& activity, const Settings& settings, const Model& model, const Costs& costs,
                 Begin begin) {
  return Simulation(activity, settings, model, costs).run(begin);
}

}  // namespace jemtrace::advise
