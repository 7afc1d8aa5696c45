#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "advise/choose.hpp"
#include "ledger/model.hpp"
#include "ledger/series.hpp"

/// What to set, what it would bring and what it would cost, as plain data: printed by render.
namespace jemtrace::advise {

/// Where a cost is from.
enum class CostSource { measured, calibrated };
const char* name(CostSource source);  // "target", "host"

struct CostOrigins {
  CostSource lazy = CostSource::calibrated, forced = CostSource::calibrated;
};

/// What happened to the process while it was watched, to hold against the simulator.
struct Measured {
  double seconds = 0;
  double mean_rss_bytes = 0;
  uint64_t max_rss_bytes = 0;
  double mean_resident_bytes = 0;  // active, dirty and muzzy, by jemalloc's own numbers
  std::optional<double> mean_allocated_bytes;
  std::optional<uint64_t> purged_pages;     // jemalloc's own count where it keeps one
  std::optional<uint64_t> refaulted_pages;  // purged by MADV_DONTNEED and touched again; an estimate where
                                            // only some of them were followed
  double app_purge_ns = 0, background_purge_ns = 0;
};

/// All that the advice follows from; can be saved and played again.
struct Input {
  pid_t pid = 0;
  std::string comm;           // untrusted
  std::string conf_variable;  // "MALLOC_CONF"; empty: unknown
  std::string version;
  Activity activity;
  Settings current;
  Model model;
  /// With shares from here to there of changing blocks (Model::changing_share) the simulator says much the
  /// same of what was recorded.
  double least_changing = 1, most_changing = 1;
  Costs costs;
  CostOrigins origins;
  Measured measured;
  uint64_t period_ns = 0;            // between two readings, on average
  std::vector<std::string> caveats;  // one sentence each
  std::vector<Input> others;         // recordings of the same program under other settings
};

/// The present settings, simulated, beside what was measured: how far to trust the rest.
struct Fit {
  double simulated_resident_bytes = 0, measured_resident_bytes = 0;
  uint64_t simulated_purged_pages = 0;
  std::optional<uint64_t> measured_purged_pages;
  uint64_t simulated_refaulted_pages = 0;
  std::optional<uint64_t> measured_refaulted_pages;
  /// The largest of their relative differences; one that costs too little CPU to matter counts as 0.
  double error = 0;
};

struct Recommendation {
  Goal goal = Goal::memory;
  size_t candidate = 0;
  bool keep = false;  // it is as it should be
  std::string conf;   // "MALLOC_CONF=dirty_decay_ms:1000"; what stays as it is is left out
};

/// Batches: a rhythm of active memory.
struct Rhythm {
  double period_s = 0;
  uint64_t low_bytes = 0, high_bytes = 0;
  /// From the longest decay time whose pages come back by a fault to the shortest one whose pages are still
  /// there for the next batch; unset: none of those tried.
  std::optional<int64_t> gives_back_ms, keeps_ms;
};

struct Advice {
  Input input;
  std::vector<Candidate> candidates;
  size_t current = 0;  // among them
  Fit fit;
  std::vector<Recommendation> recommendations;  // one for each goal; empty: nothing to recommend
  std::vector<std::string> futile;              // why tuning decay cannot help, one sentence each
  std::optional<Rhythm> rhythm;
};

/// `input.activity` has at least two readings.
Advice make_advice(Input input, const std::vector<Settings>& grid);

/// The model of a process: by its version, and by what was seen. `boot`: its options, by name.
Model make_model(const Activity& activity, const std::string& version, const Settings& current,
                 const std::map<std::string, ledger::Setting>& options);

/// Of an extent that was purged, on average, between 1 and 4096.
double purged_extent_pages(const Activity& activity);

/// What a page cost in the purges that were measured; the calibrated value stays where there were too few.
void measure_costs(const ledger::Totals& totals, uint64_t page_bytes, Costs& costs, CostOrigins& origins);

/// One setting of a sweep: what its runs measured, on average, beside what is predicted.
struct Trial {
  Settings settings;
  std::string conf;  // "MALLOC_CONF=..."; empty: the command's own environment
  unsigned runs = 0;
  int exit_status = 0;  // of the last run that failed, else 0
  Measured measured;
  double wall_s = 0, cpu_s = 0;
  // Of the runs, (largest - smallest) / their mean: of mean RSS, of refaulted pages where all know them.
  double rss_spread = 0;
  std::optional<double> refaulted_spread;
  std::optional<Outcome> predicted;
  double predicted_rss_bytes = 0;  // with what is not in the caches taken from the first run
};

struct SweepReport {
  std::string comm;  // untrusted
  std::string conf_variable;
  uint64_t page_bytes = 4096;
  std::vector<Trial> trials;
  std::vector<std::string> caveats;
};

}  // namespace jemtrace::advise
