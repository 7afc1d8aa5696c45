#include "advise/simulate.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <type_traits>

#include "advise/decay.hpp"
#include "advise/heap.hpp"

namespace jemtrace::advise {
namespace {

constexpr uint64_t finest_ns = 1'000'000;
constexpr uint64_t most_pieces = 250;             // of the time between two readings
constexpr uint64_t defer_threshold = 1024;        // ARENA_DEFERRED_PURGE_NPAGES_THRESHOLD
constexpr uint64_t least_sleep_ns = 100'000'000;  // BACKGROUND_THREAD_MIN_INTERVAL_NS
constexpr uint64_t forever = Decay::never;
constexpr uint64_t settle_ns = 20'000'000'000;
constexpr unsigned most_passes = 8;
// A heap of more blocks, or that takes more in all, is played as a smaller one of the same kind. Not a
// smaller one than need be: the fewer unused extents there are, the fewer blocks one is found for.
constexpr double most_blocks = 20'000, most_takes = 1'000'000, most_pages = 1 << 26;
constexpr double slack = 0.25;  // of the pages that take part in the replacing: more or fewer at times

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

/// The blocks that are in use, and which of them is freed next: one of those that are replaced all the time,
/// or of those that stay.
class Blocks {
 public:
  explicit Blocks(double changing_pages) : changing_pages_(changing_pages) {}

  [[nodiscard]] bool empty() const { return changing_.empty() && staying_.empty(); }
  void add(Heap::Id block, uint64_t pages, bool replaces) {
    if (replaces || held_ < changing_pages_ * (1 + slack)) {
      changing_.push_back(block);
      held_ += static_cast<double>(pages);
    } else {
      staying_.push_back(block);
    }
  }
  /// Not empty.
  Heap::Id pick(const Heap& heap, Random& random, bool replaced) {
    const bool changes =
        staying_.empty() || (!changing_.empty() && (replaced || held_ > changing_pages_ * (1 - slack)));
    std::vector<Heap::Id>& blocks = changes ? changing_ : staying_;
    std::swap(blocks[random.below(blocks.size())], blocks.back());
    const Heap::Id block = blocks.back();
    blocks.pop_back();
    held_ -= changes ? static_cast<double>(heap.pages_of(block)) : 0;
    return block;
  }

 private:
  double changing_pages_;
  double held_ = 0;  // by those that change
  std::vector<Heap::Id> changing_, staying_;
};

/// Draws sizes of blocks as often as they were asked for. Where it is not known: pages.
class Sizes {
 public:
  explicit Sizes(const std::vector<Asked>& asked) {
    uint64_t extents = 0;
    for (const Asked& one : asked) {
      pages_ += static_cast<double>(one.pages) * static_cast<double>(one.extents);
      extents += one.extents;
      sizes_.emplace_back(extents, one.pages);
    }
    if (extents == 0) {
      sizes_ = {{1, 1}};
      pages_ = 1;
    }
  }
  [[nodiscard]] double mean() const { return pages_ / static_cast<double>(sizes_.back().first); }
  uint64_t draw(Random& random) const {
    return std::upper_bound(sizes_.begin(), sizes_.end(), std::pair(random.below(sizes_.back().first), most))
        ->second;
  }

 private:
  static constexpr uint64_t most = std::numeric_limits<uint64_t>::max();
  std::vector<std::pair<uint64_t, uint64_t>> sizes_;  // up to how many of all, pages
  double pages_ = 0;
};

struct Arena {
  const ArenaActivity* from;
  Settings settings;
  Sizes sizes;
  uint64_t scale;  // of its pages, one is played
  Decay dirty_decay, muzzy_decay;
  Heap heap;
  Blocks blocks;
  // As the heap has them, by the scale:
  uint64_t active = 0, dirty = 0, muzzy = 0;
  double owed = 0;             // to be taken, not scaled
  double line = 0, grown = 0;  // where its active pages should be, and how much of the way is left
  size_t next = 0;             // of its points
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
  Simulation(const Activity& activity, const Settings& settings, const Model& model, const Costs& costs,
             uint64_t seed)
      : activity_(activity), settings_(settings), model_(model), costs_(costs), random_(seed) {}

  Outcome run(Begin begin) {
    begin_ns_ = last_ns_ = activity_.times_ns.front();
    const uint64_t span = std::max<uint64_t>(activity_.span_ns(), 1);
    const unsigned passes =
        begin == Begin::empty ? 1
        : begin == Begin::as_read
            ? 2
            : std::clamp(static_cast<unsigned>(1 + (settle_ns + span - 1) / span), 2U, most_passes);
    make_arenas(begin, passes);
    for (unsigned pass = 0; pass < passes; ++pass) {
      if (pass + 1 == passes && pass > 0) {
        if (begin == Begin::as_read) {
          rewind();
        }
        forget();
      }
      // A step of the length of one reading joins the end to the beginning.
      const bool joined = pass > 0 && begin == Begin::settled;
      const uint64_t joint = joined ? span / std::max<size_t>(activity_.times_ns.size() - 1, 1) : 0;
      play(joined ? pass * (span + joint) : 0, joint);
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

  void make_arenas(Begin begin, unsigned passes) {
    const uint64_t scale = scale_of(passes);
    for (const ArenaActivity& from : activity_.arenas) {
      const Settings own = settings_of(from);
      const uint64_t seed = 2 * arenas_.size();
      uint64_t most_active = 0;
      for (const Point& point : from.points) {
        most_active = std::max(most_active, point.active);
      }
      Arena arena{
          &from,
          own,
          Sizes(from.asked),
          scale,
          Decay(own.dirty_ms, begin_ns_, seed),
          Decay(own.muzzy_ms, begin_ns_, seed + 1),
          Heap(oversize_pages(own)),
          Blocks(model_.changing_share < 1
                     ? model_.changing_share * static_cast<double>(most_active) / static_cast<double>(scale)
                     : std::numeric_limits<double>::infinity())};
      if (begin != Begin::empty && from.points.front().at == 0) {
        place(arena);
      }
      arenas_.push_back(std::move(arena));
    }
    if (settings_.background) {
      make_threads(begin);
    }
  }

  void make_threads(Begin begin) {
    std::map<uint32_t, Thread> threads;
    for (size_t i = 0; i < arenas_.size(); ++i) {
      threads[arenas_[i].from->index % std::max(1U, model_.background_threads)].arenas.push_back(i);
    }
    threads_.clear();
    for (auto& [number, thread] : threads) {
      // One that was started long ago is somewhere in its sleep.
      thread.wakes_ns = begin == Begin::as_read ? begin_ns_ + least_sleep_ns : forever;
      threads_.push_back(std::move(thread));
    }
  }

  [[nodiscard]] uint64_t oversize_pages(const Settings& own) const {
    const bool ends = model_.background_ends_oversize && own.background;
    return model_.oversize_pages && own.dirty_ms != -1 && own.muzzy_ms != -1 && !ends ? *model_.oversize_pages
                                                                                      : Heap::never;
  }

  [[nodiscard]] uint64_t scale_of(unsigned passes) const {
    double blocks = 0;
    double takes = 0;
    double pages = 0;
    for (const ArenaActivity& arena : activity_.arenas) {
      const double mean = Sizes(arena.asked).mean();
      uint64_t most_held = 0;
      for (size_t i = 0; i < arena.points.size(); ++i) {
        const Point& point = arena.points[i];
        most_held = std::max(most_held, point.active + point.dirty);
        takes += i == 0 ? 0 : static_cast<double>(taken_between(arena.points[i - 1], point)) / mean;
      }
      blocks += static_cast<double>(most_held) / mean;
      pages += static_cast<double>(most_held);
    }
    return static_cast<uint64_t>(
        std::ceil(std::max({1.0, blocks / most_blocks, takes * passes / most_takes, pages / most_pages})));
  }

  /// As many pages in each state as were read at first. Where they lie is not known: blocks that are freed in
  /// any order leave them dirty.
  void place(Arena& arena) {
    const Point& first = arena.from->points.front();
    const uint64_t active = first.active / arena.scale;
    const uint64_t dirty = first.dirty / arena.scale;
    const uint64_t muzzy = first.muzzy / arena.scale;
    while (arena.heap.pages(Heap::active) < active || held(arena.heap) < active + dirty + muzzy) {
      take_one(arena, false);
    }
    while (!arena.blocks.empty() && arena.heap.pages(Heap::active) > active) {
      free_one(arena, false);
    }
    arena.heap.evict(Heap::muzzy, muzzy, false);
    if (muzzy > 0) {
      arena.heap.evict(Heap::dirty, dirty, true);
    }
    arena.heap.evict(Heap::dirty, dirty + muzzy, false);
    arena.line = static_cast<double>(first.active) / static_cast<double>(arena.scale);
    arena.grown = arena.owed = 0;
    arena.next = 1;
    sync(arena);
  }

  static uint64_t held(const Heap& heap) {
    return heap.pages(Heap::active) + heap.pages(Heap::dirty) + heap.pages(Heap::muzzy);
  }

  /// Back to the first reading, with the heap as it has become, and decay where it was.
  void rewind() {
    last_ns_ = begin_ns_;
    for (Arena& arena : arenas_) {
      arena.next = 0;
      arena.dirty_decay = Decay(arena.settings.dirty_ms, begin_ns_, 0);
      arena.muzzy_decay = Decay(arena.settings.muzzy_ms, begin_ns_, 1);
      if (arena.from->points.front().at == 0) {
        arena.dirty_decay.resume(arena.from->dirty_start);
        arena.muzzy_decay.resume(arena.from->muzzy_start);
        place(arena);
        arena.heap.forget_purges();  // as of what was purged before somebody watched nothing is known
      }
    }
    if (settings_.background) {
      make_threads(Begin::as_read);
    }
  }

  void play(uint64_t shift_ns, uint64_t joint_ns) {
    const auto& times = activity_.times_ns;
    for (Arena& arena : arenas_) {
      if (joint_ns > 0) {
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
        arena.moves_from = static_cast<uint64_t>(std::llround(arena.line * static_cast<double>(arena.scale)));
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
        move_to(*arena, target, takes, piece == pieces);
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
    returned_before_ = returned();
    reused_before_ = reused();
    page_ns_ = 0;
    stalls_.clear();
    counted_from_ns_ = last_ns_;
  }

  // ---- allocation

  /// Blocks come and go one by one: what is taken replaces what is freed, as far as active pages do not grow
  /// or shrink to `active`. At the `last` step they are as many.
  void move_to(Arena& arena, double active, uint64_t pages, bool last) {
    const auto scale = static_cast<double>(arena.scale);
    const double mean = arena.sizes.mean();
    arena.owed += static_cast<double>(pages) / scale;
    arena.grown += active / scale - arena.line;
    arena.line = active / scale;
    while (arena.grown >= mean) {
      take_one(arena, false);
      arena.grown -= mean;
    }
    while (arena.grown <= -mean && !arena.blocks.empty()) {
      free_one(arena, false);
      arena.grown += mean;
    }
    while (arena.owed > 0) {
      if (!arena.blocks.empty()) {
        free_one(arena, true);
      }
      take_one(arena, true);
    }
    if (last) {
      const auto now = [&] { return static_cast<double>(arena.heap.pages(Heap::active)); };
      while (now() + mean / 2 < arena.line) {
        take_one(arena, false);
      }
      while (!arena.blocks.empty() && now() >= arena.line + mean / 2) {
        free_one(arena, false);
      }
      arena.grown = 0;
    }
    sync(arena);
    out_.peak_resident = std::max(out_.peak_resident, total_);
  }

  void take_one(Arena& arena, bool replaces) {
    const uint64_t pages = arena.sizes.draw(random_);
    arena.blocks.add(arena.heap.take(pages), pages, replaces);
    arena.owed -= static_cast<double>(pages);
  }

  void free_one(Arena& arena, bool replaced) {
    uint64_t gone = arena.heap.give(arena.blocks.pick(arena.heap, random_, replaced));
    if (arena.settings.dirty_ms == 0) {
      // arena_handle_deferred_work: on every free, all, and past the muzzy cache.
      gone += arena.heap.evict(Heap::dirty, 0, false);
    }
    if (gone > 0) {
      const double ns = purged(arena, gone, false, false);
      stalls_.add(ns / static_cast<double>(arena.scale), arena.scale);
    }
  }

  /// What the heap has, for all the arena.
  void sync(Arena& arena) {
    total_ -= arena.active + arena.dirty + arena.muzzy;
    arena.active = arena.heap.pages(Heap::active) * arena.scale;
    arena.dirty = arena.heap.pages(Heap::dirty) * arena.scale;
    arena.muzzy = arena.heap.pages(Heap::muzzy) * arena.scale;
    total_ += arena.active + arena.dirty + arena.muzzy;
  }

  /// Counts `pages` of the heap. What it took, in ns.
  double purged(const Arena& arena, uint64_t pages, bool lazily, bool background) {
    const uint64_t all = pages * arena.scale;
    (lazily ? out_.lazy : out_.forced) += all;
    const double ns = static_cast<double>(all) * (lazily ? costs_.lazy_ns : costs_.forced_ns);
    (background ? out_.background_purge_ns : out_.app_purge_ns) += ns;
    return ns;
  }

  /// arena.<i>.purge, on a thread of the program: past the muzzy state.
  void purge_all(Arena& arena) {
    const uint64_t muzzy = arena.heap.evict(Heap::muzzy, 0, false);
    purged(arena, muzzy + arena.heap.evict(Heap::dirty, 0, false), false, false);
    sync(arena);
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

  /// pac_decay_to_limit: whole extents, so it overshoots.
  double to_limit(Arena& arena, bool muzzy, uint64_t limit, bool background) {
    const bool lazily = !muzzy && arena.settings.muzzy_ms != 0;
    const uint64_t pages = arena.heap.evict(muzzy ? Heap::muzzy : Heap::dirty, limit / arena.scale, lazily);
    sync(arena);
    return purged(arena, pages, lazily, background);
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

  [[nodiscard]] uint64_t returned() const {
    return std::accumulate(arenas_.begin(), arenas_.end(), uint64_t{0}, [](uint64_t sum, const Arena& arena) {
      return sum + arena.heap.returned() * arena.scale;
    });
  }
  [[nodiscard]] uint64_t reused() const {
    return std::accumulate(arenas_.begin(), arenas_.end(), uint64_t{0}, [](uint64_t sum, const Arena& arena) {
      return sum + arena.heap.reused() * arena.scale;
    });
  }

  Outcome finish() {
    const uint64_t counted_ns = last_ns_ - counted_from_ns_.value_or(begin_ns_);
    out_.seconds = static_cast<double>(counted_ns) / 1e9;
    out_.mean_resident = counted_ns == 0 ? 0 : page_ns_ / static_cast<double>(counted_ns);
    const double refaulted = static_cast<double>(returned() - returned_before_) * model_.touched_share;
    out_.lazily_reused = reused() - reused_before_;
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
  Random random_;
  Stalls stalls_;
  Outcome out_;
  double page_ns_ = 0;
  uint64_t total_ = 0;                                // resident pages
  uint64_t returned_before_ = 0, reused_before_ = 0;  // what is not counted
  uint64_t begin_ns_ = 0, last_ns_ = 0;
  std::optional<uint64_t> counted_from_ns_;
};

template <typename T>
T mean_of(const std::vector<Outcome>& outcomes, T Outcome::*value) {
  double sum = 0;
  for (const Outcome& one : outcomes) {
    sum += static_cast<double>(one.*value);
  }
  const double mean = sum / static_cast<double>(outcomes.size());
  return std::is_integral_v<T> ? static_cast<T>(std::llround(mean)) : static_cast<T>(mean);
}

Outcome mean_of(const std::vector<Outcome>& outcomes) {
  Outcome mean = outcomes.front();
  for (double Outcome::*value :
       {&Outcome::mean_resident, &Outcome::app_purge_ns, &Outcome::background_purge_ns, &Outcome::fault_ns}) {
    mean.*value = mean_of(outcomes, value);
  }
  for (uint64_t Outcome::*value : {&Outcome::peak_resident, &Outcome::lazy, &Outcome::forced,
                                   &Outcome::refaulted, &Outcome::lazily_reused}) {
    mean.*value = mean_of(outcomes, value);
  }
  double stalls = 0;
  unsigned stalled = 0;
  for (const Outcome& one : outcomes) {
    stalls += one.stall_p99_ns.value_or(0);
    stalled += one.stall_p99_ns ? 1 : 0;
  }
  mean.stall_p99_ns = stalled == 0 ? std::nullopt : std::optional(stalls / stalled);
  return mean;
}

}  // namespace

Outcome simulate(const Activity& activity, const Settings& settings, const Model& model, const Costs& costs,
                 Begin begin, unsigned plays) {
  std::vector<Outcome> outcomes;
  for (uint64_t seed = 0; seed < std::max(1U, plays); ++seed) {
    outcomes.push_back(Simulation(activity, settings, model, costs, seed).run(begin));
  }
  return mean_of(outcomes);
}

}  // namespace jemtrace::advise
