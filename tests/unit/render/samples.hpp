#pragma once

#include <cstring>
#include <string>

#include "ledger/model.hpp"
#include "render/reports.hpp"

/// Made-up results with round numbers, for golden output.
namespace jemtrace::render::samples {

constexpr uint64_t kib = 1024;
constexpr uint64_t mib = 1024 * kib;
constexpr uint64_t second = 1'000'000'000;

/// What a target can be called: a terminal escape, bytes that are no UTF-8, quotes, a backslash.
inline const std::string evil = "\x1b[31m\xff\xc0\"\\\n";

inline ledger::ImageInfo image(const std::string& tier) {
  ledger::ImageInfo i;
  i.path = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2";
  i.build_id = "0123456789abcdef";
  i.version = "5.3.0-0-g54eaed1d8b56b1aa528be3bdd1877e59c56fa90c";
  i.linkage = "shared";
  i.tier = tier;
  if (tier != "syscall") {
    i.roles["ecache_evict"] = {0x1a2b0, "symtab", "entry", "emulated"};
    i.roles["pages_purge_lazy"] = {0x1c000, "symtab", "none", {}};
  }
  return i;
}

inline ledger::TargetInfo target(const std::string& tier = "symbols") {
  ledger::TargetInfo t;
  t.pid = 4242;
  t.start_time_ns = 5 * second;
  t.comm = "redis-server";
  t.exe = "/usr/bin/redis-server";
  t.cgroup = "/system.slice/redis.service";
  t.images = {image(tier)};
  const std::string from = "MALLOC_CONF in its environment";
  t.conf = {{"dirty_decay_ms", {"500", from}},
            {"muzzy_decay_ms", {"500", from}},
            {"background_thread", {"true", from}},
            {"narenas", {"5", "default of 5.3.0"}},
            {"retain", {"true", "default of 5.3.0"}}};
  return t;
}

inline void add(ledger::Totals& totals, jt_transition transition, jt_payer payer, unsigned calls,
                uint64_t latency_ns) {
  for (unsigned i = 0; i < calls; ++i) {
    totals.transitions[transition].by_payer[payer].record(latency_ns + i * latency_ns / 10, 1, 256 * kib);
  }
}

/// 5760 pages purged in 90 extents; of 5000 followed ones 2 % came back within 1 s, 6 % within 10 s, 9 %
/// within a minute.
inline ledger::Refaults refaults() {
  jt_refaults counted{};
  counted.unfollowed_pages = 760;
  counted.followed_pages[JT_STATE_DIRTY] = 1000;
  counted.followed_pages[JT_STATE_MUZZY] = 4000;
  counted.touched_pages[JT_STATE_DIRTY][JT_REFAULT_1S] = 100;
  counted.touched_pages[JT_STATE_MUZZY][JT_REFAULT_10S] = 200;
  counted.touched_pages[JT_STATE_MUZZY][JT_REFAULT_60S] = 100;
  counted.touched_pages[JT_STATE_MUZZY][JT_REFAULT_LATER] = 7;
  ledger::Waiting waiting;
  waiting.pages = {0, 100, 500};
  return ledger::refaults(counted, waiting, 60'000'000'000, false);
}

inline ledger::Summary summary(const std::string& tier = "symbols") {
  ledger::Summary s;
  s.losses.fill(0);
  s.target = target(tier);
  s.window_ns = 30 * second;
  add(s.totals, JT_DIRTY_MUZZY, JT_PAYER_BACKGROUND, 100, 6'000);
  add(s.totals, JT_MUZZY_RETAINED, JT_PAYER_BACKGROUND, 80, 9'000);
  add(s.totals, JT_DIRTY_RETAINED, JT_PAYER_APP, 10, 40'000);
  jt_counters& c = s.totals.counters;
  c.decay[JT_STATE_DIRTY] = {37, 110, 7040};
  c.decay[JT_STATE_MUZZY] = {35, 80, 5120};
  c.sweeps[JT_STATE_DIRTY][JT_CAUSE_BACKGROUND] = 31;
  c.sweeps[JT_STATE_DIRTY][JT_CAUSE_CTL_PURGE] = 6;
  c.sweeps[JT_STATE_MUZZY][JT_CAUSE_BACKGROUND] = 35;
  c.by_purpose[JT_PURGE_OVERSIZE] = {10, 2560 * kib, s.totals.transitions[JT_DIRTY_RETAINED].total().sum_ns(),
                                     0};
  c.oversize_extents = 10;
  s.payers = {{4250, "jemalloc_bg_thd", JT_PAYER_BACKGROUND, 180, 7'000'000, 45 * mib},
              {4242, "redis-server", JT_PAYER_APP, 10, 580'000, 2560 * kib}};
  s.rss = {1200 * mib, 1160 * mib, 1310 * mib, 205 * mib, -40 * static_cast<int64_t>(mib), 2 * mib};
  s.refaults = refaults();
  s.cost = {9'000'000, 250, 60, 3'000'000, 11'000'000, 14 * mib};
  s.exact = true;
  return s;
}

/// Stripped, with a call site that has no name.
inline ledger::Summary stripped_summary() {
  ledger::Summary s = summary("syscall");
  s.target.conf.clear();
  s.totals = {};
  add(s.totals, JT_UNKNOWN_RETAINED, JT_PAYER_APP, 12, 9'000);
  s.totals.counters.decay[JT_STATE_UNKNOWN] = {0, 12, 768};
  s.totals.counters.by_purpose[JT_PURGE_UNPROVEN] = {12, 3072 * kib, 200'000, 0};
  s.payers = {{4242, "redis-server", JT_PAYER_APP, 12, 200'000, 3072 * kib}};
  ledger::CallSiteTotals site;
  site.image = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2";
  site.frames = {0x1a2b3, 0x1b000, 0};
  site.syscall = JT_SYS_MADVISE;
  site.advice = 4;
  site.purpose = JT_PURGE_UNPROVEN;
  site.calls = 12;
  site.bytes = 3072 * kib;
  s.callsites.assign(7, site);
  s.refaults.reset();
  s.rss.lazyfree_end_bytes.reset();
  s.rss.purge_delta_bytes.reset();
  s.exact = false;
  s.exited = true;
  return s;
}

inline ledger::Interval interval() {
  ledger::Interval i;
  i.pid = 4242;
  i.comm = "redis-server";
  i.unix_ns = 1'700'000'000 * static_cast<int64_t>(second);  // 22:13:20 UTC
  i.window_ns = second;
  add(i.delta, JT_DIRTY_MUZZY, JT_PAYER_BACKGROUND, 98, 6'000);
  add(i.delta, JT_DIRTY_RETAINED, JT_PAYER_APP, 2, 6'000);
  i.sample.rss_bytes = ledger::Sampled{1160 * mib, "statm", 0};
  i.sample.lazyfree_bytes = ledger::Sampled{205 * mib, "smaps_rollup", 700};
  return i;
}

inline ledger::Header header() {
  return {"0.1.0",      "6.1.0-18-amd64",          "db1", 1'700'000'000 * static_cast<int64_t>(second),
          100 * second, {"jemtrace", "-p", "4242"}};
}

inline ledger::TransitionEvent transition_event() {
  ledger::TransitionEvent e{};
  e.raw.h.ts_ns = 101 * second + 5'000'000;
  e.raw.h.id.tgid = 4242;
  e.raw.h.tid = 4250;
  std::memcpy(e.raw.h.comm, "jemalloc_bg_thd", 16);
  e.raw.addr = 0x7f0012345000;
  e.raw.len = 256 * kib;
  e.raw.latency_ns = 6'100;
  e.raw.rss_delta_bytes = -4096;
  e.raw.has_rss_delta = 1;
  e.raw.arena = 3;
  e.raw.syscall = JT_SYS_MADVISE;
  e.raw.advice = 8;
  e.raw.purpose = JT_PURGE_SWEEP;
  e.raw.from = JT_STATE_DIRTY;
  e.raw.cause = JT_CAUSE_BACKGROUND;
  e.raw.payer = JT_PAYER_BACKGROUND;
  e.raw.transition = JT_DIRTY_MUZZY;
  return e;
}

/// Everything unknown, and no transition.
inline ledger::TransitionEvent unknown_event() {
  ledger::TransitionEvent e{};
  e.raw.h.ts_ns = 101 * second;
  e.raw.h.id.tgid = 4242;
  e.raw.h.tid = 4242;
  std::memcpy(e.raw.h.comm, "\x1b[2J\xff\xfe", 6);
  e.raw.len = 8 * mib;
  e.raw.latency_ns = 900;
  e.raw.ret = -22;
  e.raw.arena = JT_NO_ARENA;
  e.raw.syscall = JT_SYS_MUNMAP;
  e.raw.purpose = JT_FOREIGN;
  e.raw.transition = JT_TRANSITIONS;
  return e;
}

inline ledger::SweepEvent sweep_event() {
  ledger::SweepEvent e;
  e.ts_ns = 101 * second;
  e.pid = 4242;
  e.tid = 4250;
  e.comm = "jemalloc_bg_thd";
  e.state = JT_STATE_DIRTY;
  e.cause = JT_CAUSE_BACKGROUND;
  e.arena = 3;
  e.limit_pages = 100;
  e.extents = 12;
  e.bytes = 3 * mib;
  e.latency_ns = 90'000;
  return e;
}

inline ImageReport image_report() {
  ImageReport r;
  r.path = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2";
  r.build_id = "0123456789abcdef0123456789abcdef01234567";
  r.version = "5.3.0-0-g54eaed1d8b56b1aa528be3bdd1877e59c56fa90c";
  r.linkage = "shared";
  r.tier = "symbols";
  r.conf_variable = "MALLOC_CONF";
  r.call_sites = 31;
  r.roles = {{"ecache_evict", "je_ecache_evict", 0x1a2b0, "debuglink", 0x1a2b4, "push r15", "emulated"},
             {"pac_decay_to_limit", "pac_decay_to_limit.part.0.constprop.0", 0x2b3c0, "minidebuginfo",
              0x2b3c0, "sub rsp, 0x18", "single_step"},
             {"pages_purge_lazy", "je_pages_purge_lazy", 0x1c000, "debuglink", {}, "", {}}};
  r.missing = {"extent_record"};
  r.structures = {.found_by = "known layout of 5.3.0",
                  .arenas = 0xcd6c0,
                  .options = {{"dirty_decay_ms", 0xcd380}},
                  .readable = {"decay times and limits", "metadata"},
                  .missing = {"counters: built without statistics"},
                  .evidence = {"layout of 5.3.0: 11 of 12 of its distances are in the code"}};
  r.notes = {"The separate debug file was built from another source tree."};
  return r;
}

inline std::vector<CheckItem> check_items() {
  return {{"kernel", CheckStatus::ok, "6.1.0-18-amd64", ""},
          {"uprobe_multi", CheckStatus::warn, "missing: the kernel is older than 6.6",
           "nothing to do: perf uprobes are used, detaching takes about 100 ms for each"},
          {"CAP_BPF", CheckStatus::fail, "not in the effective set",
           "run as root, or give the program CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE"}};
}

/// 3.2 GB of RSS, 900 MB of it allocated.
inline StatsReport stats_report() {
  using ledger::Part;
  StatsReport r;
  r.target = target();
  ledger::Account& a = r.account;
  const auto set = [&](Part part, uint64_t bytes) { a.resident[static_cast<size_t>(part)] = bytes; };
  a.rss_bytes = 3276 * mib;
  set(Part::active, 1200 * mib);
  set(Part::dirty, 300 * mib);
  set(Part::lazyfree, 1500 * mib);
  set(Part::redirtied, 20 * mib);
  set(Part::retained, 64 * mib);
  set(Part::metadata, 30 * mib);
  set(Part::other_heap, 100 * mib);
  set(Part::stacks, 1 * mib);
  set(Part::files, 60 * mib);
  a.unexplained_bytes = mib;
  a.bound_bytes = 2 * mib;
  a.uncertain_bytes = 40 * mib;
  a.active.bytes = 1300 * mib;
  a.dirty.bytes = 300 * mib;
  a.muzzy.bytes = 1800 * mib;
  a.retained.bytes = 2048 * mib;
  a.metadata.bytes = 31 * mib;
  a.allocated_bytes = 900 * mib;
  a.tcache_bytes = 3 * mib;
  a.slack_bytes = 400 * mib;
  a.muzzy_not_resident_bytes = 280 * mib;
  ledger::ArenaReading arena;
  arena.threads = 4;
  arena.active_pages = 1300 * mib / 4096;
  arena.dirty.pages = 300 * mib / 4096;
  arena.muzzy.pages = 1800 * mib / 4096;
  arena.retained.pages = 2048 * mib / 4096;
  arena.dirty_decay = {
      .time_ms = 500, .limit_pages = 70000, .npurge = 12, .nmadvise = 340, .purged_pages = 56789};
  arena.muzzy_decay.time_ms = -1;
  r.reading.emplace();
  r.reading->arenas = {arena};
  r.reading->options = {{"dirty_decay_ms", "500"}};
  r.reading->discarded = 2;
  r.reading->completed_by = ledger::Method::call;
  r.reading->global = {.allocated = 900 * mib,
                       .active = 1300 * mib,
                       .metadata = 31 * mib,
                       .resident = 1650 * mib,
                       .mapped = 3431 * mib,
                       .retained = 2048 * mib};
  r.reading->epoch = 2;
  r.reading->classes = {{64, false, 1'000'000}, {4096, false, 0}, {8 * mib, true, 100}, {16 * mib, true, {}}};
  r.cgroup = ledger::Cgroup{
      .path = "/system.slice/redis.service", .usage_bytes = 3300 * mib, .limit_bytes = 8192 * mib};
  r.host.pressure = ledger::Pressure{};
  r.sampling_ns = 4'200'000;
  return r;
}

}  // namespace jemtrace::render::samples
