#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "collect/images.hpp"
#include "collect/observe.hpp"
#include "collect/passive.hpp"
#include "discover/process.hpp"
#include "jemtrace/abi.h"
#include "ledger/model.hpp"
#include "read/conf.hpp"
#include "sample/memory.hpp"

namespace jemtrace::collect {

/// One process with a jemalloc, from when it is first seen to its end. Filled by the Tracer.
struct Target {
  jt_target_id id{};
  discover::Process process;
  std::vector<ImagePtr> images;
  ledger::TargetInfo info;
  bool from_its_start = false;          // traced since exec or fork: nothing came before
  bool ended = false;                   // exited, or replaced by exec: `final_totals` holds what it did
  uint64_t began_ns = 0, ended_ns = 0;  // CLOCK_MONOTONIC

  sample::Sampler sampler;
  ledger::RssAccount rss;
  ledger::Sample last_sample;
  uint64_t muzzy_extents_at_sample = 0;

  jemtrace::read::ProgramConf program_conf;
  ReadJemalloc read;          // its numbers; empty: not known where they are
  ReadJemalloc read_backlog;  // and how old its pages are for the decay
  sample::Budget read_budget;
  Passive passive;
  ledger::States states;
  uint64_t states_ns = 0;  // CLOCK_MONOTONIC of `states`
  ledger::Series overhead;
  std::string overhead_of;
  ledger::Pressed pressed_at_start, pressed;  // the second is set when it ends

  ledger::Totals final_totals;
  ledger::Waiting final_waiting;
  jt_waits final_waits{};
  std::vector<ledger::ThreadWork> final_payers;
  std::vector<ledger::CallSiteTotals> final_callsites;
  std::vector<std::string> caveats;

  Target(const ProcRoot& proc, discover::Process p) : process(std::move(p)), sampler(proc, process.pid) {}
};

/// What is printed of a target: its identity, its images with their sites, its settings.
ledger::TargetInfo describe(const ProcRoot& proc, const Target& target);
ledger::ImageInfo describe(const TracedImage& image);

/// Settings as they are, over those that were asked for: the options as jemalloc understood them when it
/// started, and the decay times that its arenas have now. Where the two differ, both are said. False while it
/// has not started: nothing is applied.
bool apply_effective(ledger::TargetInfo& info, const ledger::Reading& reading);

/// Reads jemalloc's numbers out of the process's memory: of all its images, the arenas of one behind those of
/// the other. Fails with the reason where none of them can be read. `with_backlog`: read::ReadOptions'.
ReadJemalloc reader_of(pid_t pid, const Images& images, std::span<const jt_target_image> mapped,
                       bool with_backlog = false);
/// What the program says to the first of its jemallocs in variables of its own.
read::ProgramConf program_conf(pid_t pid, const Images& images, std::span<const jt_target_image> mapped);

}  // namespace jemtrace::collect
