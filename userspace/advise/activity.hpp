#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "ledger/reading.hpp"

/// What a process does with its memory over a time: the input of the simulator.
namespace jemtrace::advise {

struct ArenaActivity;

/// Blocks of one size: slabs and large ones.
using Asked = ledger::Taken::Size;

/// An arena at a moment at which something of it had changed since the one before.
struct Point {
  uint32_t at = 0;                            // index into Activity::times_ns
  uint64_t active = 0, dirty = 0, muzzy = 0;  // pages
  // Since the arena was first seen: what has left these states, and what was asked of them.
  std::optional<uint64_t> gone, taken;
};

/// What was asked for between two points, and what was freed. At least what active pages became more, and
/// less; all of it where it is counted.
std::vector<Asked> asked_between(const ledger::Taken& first, const ledger::Taken& now);
uint64_t taken_between(const Point& before, const Point& now);
uint64_t freed_between(const Point& before, const Point& now);

/// The program itself purged all that the arena held (arena.<i>.purge), as Redis does after FLUSHALL: much
/// was there or was freed, and nothing is left. Decay takes about 4 MiB at a time.
bool purged_all(const ArenaActivity& arena, const Point& before, const Point& now);

/// How often an arena gives its decay a chance to run. It does so once in about 1000 ticks, and nothing
/// outside sees ticks; but an epoch that is over and has not been ended yet is seen: it waits for a chance.
struct Chances {
  // From one reading to the next with an epoch that waits at the first: how often, how long in all, and how
  // often it was ended.
  uint64_t tries = 0, tries_ns = 0, came = 0;
  uint64_t taken = 0, waited_ns = 0;  // epochs that ended between two readings, and the time that they waited
};
/// Chances per second while pages move, from the share of tries that came. nullopt: too few to tell.
std::optional<double> busy_rate(const Chances& chances);
/// While none do: what is waited for and comes. 0: it never came.
std::optional<double> idle_rate(const Chances& chances);

/// Whether an arena had a chance to decay between a reading and the one before.
enum class Chance : char {
  unknown = '?',
  none = '0',  // an epoch waited all the time
  taken = '1',
};

struct ArenaActivity {
  uint32_t index = 0;
  int64_t dirty_ms = 0, muzzy_ms = 0;                    // its decay times at the end
  std::vector<Point> points;                             // the first: when it was first seen
  ledger::DecayReading dirty_start, muzzy_start;         // at the first point, with backlog where it was read
  std::optional<uint64_t> dirty_purged, muzzy_purged;    // pages, within the time
  std::vector<Asked> asked;                              // within the time; empty: not known
  std::optional<uint64_t> dirty_extents, muzzy_extents;  // nmadvise, within the time
  std::vector<Chance> chances;  // by index into times_ns; what is beyond its end is unknown
  Chances busy, idle;           // while its pages moved between two readings, and while they did not
  uint64_t busy_ns = 0;
};

struct Activity {
  uint64_t page_bytes = 4096;
  std::vector<uint64_t> times_ns;  // of the readings, CLOCK_MONOTONIC
  std::vector<ArenaActivity> arenas;
  uint64_t unread = 0;      // readings that were left out as some arena could not be read
  bool from_start = false;  // the first reading was taken when the program had just begun

  [[nodiscard]] uint64_t span_ns() const {
    return times_ns.size() < 2 ? 0 : times_ns.back() - times_ns.front();
  }
  /// The sum over arenas at each of times_ns.
  [[nodiscard]] std::vector<Point> totals() const;
  [[nodiscard]] std::optional<uint64_t> purged_pages() const;
  /// Active, dirty and muzzy, over time.
  [[nodiscard]] double mean_resident_pages() const;
};

/// Purged pages that were taken again. nullopt: not known.
std::optional<double> returned_pages(const Activity& activity);
/// Of these, those that faulted: blocks are larger than what was asked for, and not all of them is touched. 1
/// where too few came back to tell.
double touched_share(double returned_pages, uint64_t refaulted_pages);

/// Makes it of readings that come one after the other.
class Recorder {
 public:
  explicit Recorder(uint64_t page_bytes) { activity_.page_bytes = page_bytes; }
  /// A reading in which an arena is unknown says nothing of the whole: it is counted and left out.
  void add(const ledger::Reading& reading);
  [[nodiscard]] size_t readings() const { return activity_.times_ns.size(); }
  [[nodiscard]] Activity take();

 private:
  struct Seen {
    size_t arena = 0;
    Point last;
    ledger::ArenaReading first, now;
    uint64_t at_ns = 0;
  };
  using Key = std::pair<uint32_t, uint32_t>;  // two images of a process may have arenas of the same index

  void begin(const Key& key, const ledger::ArenaReading& reading, uint64_t at_ns);
  void go_on(Seen& seen, const ledger::ArenaReading& reading, uint64_t at_ns);

  Activity activity_;
  std::map<Key, Seen> seen_;
};

}  // namespace jemtrace::advise
