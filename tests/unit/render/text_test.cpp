#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <sstream>

#include "render/output.hpp"
#include "render/text_table.hpp"
#include "render/words.hpp"
#include "samples.hpp"

namespace jemtrace::render {
namespace {

class Text : public testing::Test {
 protected:
  void SetUp() override {
    setenv("TZ", "UTC", 1);
    tzset();
  }

  static std::string print(const std::function<void(Output&)>& what, const TextOptions& options = {}) {
    StringSink sink;
    what(*make_text(sink, options));
    return "\n" + sink.text();
  }

  static std::string target(const ledger::TargetInfo& t) {
    return print([&](Output& out) { out.target(t); });
  }
  static std::string summary(const ledger::Summary& s, const TextOptions& options = {}) {
    return print([&](Output& out) { out.summary(s); }, options);
  }
  static size_t widest(const std::string& text) {
    size_t width = 0;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      width = std::max(width, display_width(line));
    }
    return width;
  }
};

ledger::Summary without_muzzy() {
  ledger::Summary s = samples::summary();
  s.target.conf["muzzy_decay_ms"] = {"0", "default of 5.3.0"};
  s.totals.transitions[JT_DIRTY_MUZZY] = {};
  s.totals.transitions[JT_MUZZY_RETAINED] = {};
  return s;
}

TEST_F(Text, target_has_two_header_lines) {
  EXPECT_EQ(target(samples::target()), R"(
redis-server (4242)  jemalloc 5.3.0 in libjemalloc.so.2, shared, symbols found,
                     2 of 2 sites
dirty_decay_ms 500, muzzy_decay_ms 500, background_thread on (MALLOC_CONF in its
environment); 5 arenas (default of 5.3.0)
)");
}

TEST_F(Text, target_names_what_is_missing_and_what_is_unknown) {
  ledger::TargetInfo t = samples::target();
  t.images[0].missing = {"extent_record"};
  t.images[0].version.clear();
  t.conf.clear();
  EXPECT_EQ(target(t), R"(
redis-server (4242)  jemalloc of unknown version in libjemalloc.so.2, shared,
                     symbols found, 2 of 3 sites (see jemtrace image 4242)
settings unknown
)");
}

TEST_F(Text, target_shows_every_image_and_hostile_names_escaped) {
  ledger::TargetInfo t = samples::target();
  t.comm = samples::evil;
  t.images.push_back(samples::image("syscall"));
  t.images[1].path = "/opt/" + std::string(200, 'x') + ".so";
  t.images[1].linkage = "static";
  EXPECT_EQ(target(t), R"(
\x1b[31m\xff\xc0"\x5c\x0a (4242)  jemalloc 5.3.0 in libjemalloc.so.2, shared,
                        symbols found, 2 of 2 sites
    and jemalloc 5.3.0 in xxxxxxxxxxxxxxxxxxxx…xxxxxxxxxxxxxxxx.so, static,
    stripped: system calls only
dirty_decay_ms 500, muzzy_decay_ms 500, background_thread on (MALLOC_CONF in its
environment); 5 arenas (default of 5.3.0)
)");
}

TEST_F(Text, interval_leaves_out_the_states_when_none_is_known) {
  EXPECT_EQ(print([](Output& out) {
              out.interval(samples::interval());
              ledger::Interval quiet = samples::interval();
              quiet.delta = {};
              quiet.sample = {};
              out.interval(quiet);
            }),
            R"(

TIME          RSS  LAZYFREE  PURGES/s  PURGED/s     P99  APP PAYS
22:13:20  1.13 GB    205 MB       100   25.0 MB   63 us      <1 %
22:13:20        -         -         0
)");
}

TEST_F(Text, interval_shows_the_states_when_one_is_known) {
  EXPECT_EQ(print([](Output& out) {
              ledger::Interval i = samples::interval();
              i.states.active_bytes = 812 * samples::mib;
              i.states.dirty_bytes = 96 * samples::mib;
              out.interval(i);
            }),
            R"(

TIME      ACTIVE   DIRTY   MUZZY RETAINED     RSS LAZYFREE PURGES/s    P99   APP
22:13:20  812 MB 96.0 MB       -        - 1.13 GB   205 MB      100  63 us  <1 %
)");
}

TEST_F(Text, interval_of_several_targets_names_them) {
  EXPECT_EQ(print(
                [](Output& out) {
                  ledger::Interval i = samples::interval();
                  out.interval(i);
                  i.comm = samples::evil;
                  out.interval(i);
                },
                {.several_targets = true}),
            R"(

TIME         PID NAME                RSS LAZYFREE PURGES/s PURGED/s    P99   APP
22:13:20    4242 redis-server    1.13 GB   205 MB      100  25.0 MB  63 us  <1 %
22:13:20    4242 \x1b[31…x5c\x0a 1.13 GB   205 MB      100  25.0 MB  63 us  <1 %
)");
}

TEST_F(Text, header_comes_again_only_when_asked) {
  const auto thirty = [](Output& out) {
    for (int i = 0; i < 30; ++i) {
      out.interval(samples::interval());
    }
  };
  const auto headers = [](const std::string& text) {
    size_t count = 0;
    for (size_t at = text.find("TIME"); at != std::string::npos; at = text.find("TIME", at + 1)) {
      ++count;
    }
    return count;
  };
  EXPECT_EQ(headers(print(thirty)), 1u);
  EXPECT_EQ(headers(print(thirty, {.repeat_header = true})), 2u);
}

TEST_F(Text, events_fit_the_width) {
  EXPECT_EQ(print([](Output& out) {
              out.header(samples::header());
              out.transition(samples::transition_event());
              out.transition(samples::unknown_event());
              out.sweep(samples::sweep_event());
            }),
            R"(

TIME             TID THREAD      WHAT                BYTES   TOOK ARENA CAUSE
22:13:21.005    4250 jemal…g_thd dirty -> muzzy     256 kB 6.1 us     3 bg
22:13:21.000    4242 \x1b[…f\xfe foreign           8.00 MB 900 ns     - errno 22
22:13:21.000    4250 jemal…g_thd dirty sweep, 12   3.00 MB  90 us     3 bg
)");
}

TEST_F(Text, summary_of_a_target_with_symbols) {
  EXPECT_EQ(summary(samples::summary()), R"(

30.0 s traced                        EXTENTS   BYTES    P50    P90    P99    MAX
dirty -> muzzy       MADV_FREE           100 25.0 MB  35 us  58 us  63 us  65 us
muzzy -> retained    MADV_DONTNEED        80 20.0 MB  45 us  76 us  80 us  80 us
dirty -> retained    MADV_DONTNEED        10 2.50 MB  58 us  70 us  76 us  76 us
returned             munmap                0

paid by    jemalloc_bg_thd 92 %, redis-server 8 %
           7.7 ms in all, 8 % (580 us) on application threads, all of it
           oversize extents purged inside free()
RSS        1.17 GB -> 1.13 GB, max 1.28 GB; 205 MB of it LazyFree: the kernel
           takes that when memory gets short, 955 MB without it
           purge calls took 40.0 MB out of RSS (+-2.00 MB)
came back  6 % of the purged pages were touched again within 10 s (8 % within
           60 s, 2 % within 1 s)
           an estimate: 10 % were watched for less than 60 s
           an estimate: 87 % of the purged pages were followed
           MADV_FREE is not in it: until the kernel takes a page, a touch of it
           raises no fault
sweeps     37 dirty, 35 muzzy: 66 background, 6 by arena.<i>.purge
lost       nothing: every purge was counted
cost       about 9.0 ms in the kernel (<1 % of one CPU), 11 ms of jemtrace's
           own, 3.0 ms reading /proc, 14.0 MB
dirty: freed, kept; muzzy: the kernel may take it; retained: only addresses kept
)");
}

TEST_F(Text, summary_says_why_madv_free_was_not_used) {
  const std::string text = summary(without_muzzy());
  EXPECT_NE(text.find("MADV_FREE was not used: muzzy_decay_ms is 0 (the default since 5.2), dirty pages\n"
                      "go straight to retained.\n"),
            std::string::npos)
      << text;
  EXPECT_EQ(text.find("dirty -> muzzy"), std::string::npos);
  EXPECT_EQ(text.find("muzzy -> retained"), std::string::npos);
}

TEST_F(Text, summary_does_not_call_a_set_value_a_default) {
  ledger::Summary s = without_muzzy();
  s.target.conf["muzzy_decay_ms"].source = "MALLOC_CONF in its environment";
  EXPECT_EQ(summary(s).find("the default"), std::string::npos);
}

TEST_F(Text, summary_shows_muzzy_rows_when_they_happened_in_spite_of_the_setting) {
  ledger::Summary s = samples::summary();  // arena.<i>.muzzy_decay_ms may differ
  s.target.conf["muzzy_decay_ms"] = {"0", "default of 5.3.0"};
  EXPECT_NE(summary(s).find("dirty -> muzzy"), std::string::npos);
  EXPECT_EQ(summary(s).find("was not used"), std::string::npos);
}

TEST_F(Text, summary_without_retain_says_unmapped) {
  ledger::Summary s = without_muzzy();
  s.target.conf["retain"].value = "false";
  s.totals.transitions[JT_DIRTY_RETAINED] = {};
  samples::add(s.totals, JT_DIRTY_RETURNED, JT_PAYER_APP, 3, 5'000);
  const std::string text = summary(s);
  EXPECT_NE(text.find("dirty pages\nare unmapped."), std::string::npos) << text;
  EXPECT_NE(text.find("dirty -> returned    munmap                3"), std::string::npos) << text;
  EXPECT_EQ(text.find("dirty -> retained"), std::string::npos);
}

TEST_F(Text, summary_names_decommit_where_the_host_does_not_overcommit) {
  ledger::Summary s = samples::summary();
  s.decommit = true;
  EXPECT_NE(summary(s).find("dirty -> retained    PROT_NONE"), std::string::npos);
  EXPECT_EQ(summary(s).find("MADV_DONTNEED"), std::string::npos);
}

TEST_F(Text, summary_of_a_stripped_target_says_what_is_not_known) {
  EXPECT_EQ(summary(samples::stripped_summary()), R"(

30.0 s traced, until it exited       EXTENTS   BYTES    P50    P90    P99    MAX
unknown -> retained  MADV_DONTNEED        12 3.00 MB  13 us  17 us  19 us  19 us
returned             munmap                0
Stripped: purges are seen by their system calls alone. Which cache a range came
from (dirty or muzzy), its arena and the sweeps are not known, and a zero fill
looks like a purge.

CALLED FROM                          CALL           CALLS    BYTES
libjemalloc.so.2+0x1a2b3 < +0x1b000  MADV_DONTNEED     12  3.00 MB
libjemalloc.so.2+0x1a2b3 < +0x1b000  MADV_DONTNEED     12  3.00 MB
libjemalloc.so.2+0x1a2b3 < +0x1b000  MADV_DONTNEED     12  3.00 MB
libjemalloc.so.2+0x1a2b3 < +0x1b000  MADV_DONTNEED     12  3.00 MB
libjemalloc.so.2+0x1a2b3 < +0x1b000  MADV_DONTNEED     12  3.00 MB
and 2 more call sites (-f json lists them)

paid by    redis-server 100 %
           167 us in all, on application threads
RSS        1.17 GB -> 1.13 GB, max 1.28 GB; LazyFree unknown
came back  not measured
lost       nothing
cost       about 9.0 ms in the kernel (<1 % of one CPU), 11 ms of jemtrace's
           own, 3.0 ms reading /proc, 14.0 MB
dirty: freed, kept; muzzy: the kernel may take it; retained: only addresses kept
)");
}

TEST_F(Text, summary_reports_failures_losses_other_calls_and_caveats) {
  ledger::Summary s = without_muzzy();
  auto& by_purpose = s.totals.counters.by_purpose;
  by_purpose[JT_ZERO_FILL] = {12, 100 * samples::mib, 1, 0};
  by_purpose[JT_THREAD_STACK] = {1, 8 * samples::mib, 1, 0};
  by_purpose[JT_HPA] = {1, 8 * samples::mib, 1, 0};
  by_purpose[JT_UNCLASSIFIED] = {3, 8 * samples::mib, 1, 0};
  s.totals.counters.failed_errno_inval = 3;
  s.totals.counters.failed_errno_other = 1;
  s.losses[JT_LOSS_RING] = 12;
  s.losses[JT_LOSS_UNMATCHED_EXIT] = 3;
  s.caveats = {"Tracing began in the middle of the process's life: earlier purges are not counted."};
  s.exact = false;
  EXPECT_EQ(summary(s), R"(

30.0 s traced                        EXTENTS   BYTES    P50    P90    P99    MAX
dirty -> retained    MADV_DONTNEED        10 2.50 MB  58 us  70 us  76 us  76 us
returned             munmap                0
MADV_FREE was not used: muzzy_decay_ms is 0 (the default since 5.2), dirty pages
go straight to retained.

paid by    jemalloc_bg_thd 92 %, redis-server 8 %
           580 us in all, on application threads, all of it oversize extents
           purged inside free()
RSS        1.17 GB -> 1.13 GB, max 1.28 GB; 205 MB of it LazyFree: the kernel
           takes that when memory gets short, 955 MB without it
           purge calls took 40.0 MB out of RSS (+-2.00 MB)
came back  6 % of the purged pages were touched again within 10 s (8 % within
           60 s, 2 % within 1 s)
           an estimate: 10 % were watched for less than 60 s
           an estimate: 87 % of the purged pages were followed
sweeps     37 dirty, 35 muzzy: 66 background, 6 by arena.<i>.purge
not purges 12 zero fills (100 MB), 1 thread stack trimmed (8.00 MB)
HPA        1 call of the huge page allocator (8.00 MB), not in the table
unsorted   3 calls (8.00 MB) from functions of jemalloc that are not known: some
           may be purges
failed     3 calls with EINVAL, most often because the memory is locked (mlock,
           mlockall): the kernel does not give locked pages back
           1 call with another error
lost       12 events (ring full), 3 calls that began before tracing; on the
           whole host
cost       about 9.0 ms in the kernel (<1 % of one CPU), 11 ms of jemtrace's
           own, 3.0 ms reading /proc, 14.0 MB
caveat     Tracing began in the middle of the process's life: earlier purges are
           not counted.
dirty: freed, kept; muzzy: the kernel may take it; retained: only addresses kept
)");
}

TEST_F(Text, summary_gives_a_range_where_huge_pages_may_have_come_back) {
  ledger::Summary s = samples::summary();
  s.refaults->within_10s.most_pages = 300 + 2 * 511;
  EXPECT_NE(summary(s).find("came back  6 % to 26 % of the purged pages"), std::string::npos) << summary(s);
}

TEST_F(Text, summary_shows_what_the_program_asked) {
  ledger::Summary s = samples::summary();
  EXPECT_EQ(summary(s).find("asked"), std::string::npos);
  s.asked = ledger::Asked{.values = {{"stats.active", samples::mib, 200}, {samples::evil, 8, std::nullopt}},
                          .compared = 3,
                          .different = 1};
  EXPECT_NE(
      summary(s).find("asked      by the program itself: stats.active 1.00 MB, counted 0.2 s before the\n"
                      "           end; its structures agreed 2 of 3 times\n"),
      std::string::npos)
      << summary(s);
  s.asked = ledger::Asked();
  EXPECT_NE(summary(s).find("the program did not ask its jemalloc"), std::string::npos);
}

TEST_F(Text, summary_does_not_take_pages_for_lost_that_have_had_no_time_to_come_back) {
  ledger::Summary s = samples::summary();
  for (ledger::Touched* within : {&s.refaults->within_1s, &s.refaults->within_10s, &s.refaults->within_60s}) {
    *within = {0, 0, s.refaults->followed_pages};
  }
  EXPECT_NE(summary(s).find("came back  too early to say"), std::string::npos) << summary(s);
}

TEST_F(Text, summary_says_of_a_short_trace_what_came_back_at_least) {
  ledger::Summary s = samples::summary();
  s.refaults->watched_ns = 9 * samples::second;
  EXPECT_NE(
      summary(s).find("came back  at least 6 % of the purged pages were touched again within 10 s (2 %\n"),
      std::string::npos)
      << summary(s);
}

TEST_F(Text, summary_says_what_of_the_refaults_was_lost) {
  ledger::Summary s = samples::summary();
  s.refaults->evicted_pages = 1234;
  EXPECT_NE(summary(s).find("1 234 pages were lost sight of within a minute"), std::string::npos)
      << summary(s);
}

TEST_F(Text, summary_of_nothing_says_so_and_why) {
  ledger::Summary s;
  s.losses.fill(0);
  s.losses[JT_LOSS_MISSED_RUN] = std::nullopt;  // Linux 5.10
  s.target = samples::target();
  s.target.conf["background_thread"].value = "false";
  s.window_ns = 90 * samples::second;
  EXPECT_EQ(summary(s), R"(

1 min 30 s traced                    EXTENTS   BYTES    P50    P90    P99    MAX
dirty -> muzzy       MADV_FREE             0
muzzy -> retained    MADV_DONTNEED         0
dirty -> retained    MADV_DONTNEED         0
returned             munmap                0
No purge was seen: without background threads jemalloc purges only while the
program calls it.

RSS        unknown
sweeps     0 dirty, 0 muzzy
lost       nothing that is counted
           not known: runs of a program that the kernel skipped
cost       kernel time unknown, 0 ns of jemtrace's own, 0 ns reading /proc, 0 B
dirty: freed, kept; muzzy: the kernel may take it; retained: only addresses kept
)");
}

TEST_F(Text, legend_is_shown_once) {
  const std::string text = print([](Output& out) {
    out.summary(samples::summary());
    out.summary(samples::summary());
  });
  const size_t first = text.find("only addresses kept");
  EXPECT_NE(first, std::string::npos);
  EXPECT_EQ(text.find("only addresses kept", first + 1), std::string::npos);
}

TEST_F(Text, colour_is_off_unless_asked_and_nothing_escapes_from_names) {
  ledger::Summary s = samples::stripped_summary();
  s.target.comm = s.payers[0].comm = s.callsites[0].image = samples::evil;
  s.caveats = {samples::evil};
  const TextOptions plain{.several_targets = true};
  const TextOptions coloured{.colour = true, .several_targets = true};
  EXPECT_EQ(summary(s, plain).find('\x1b'), std::string::npos);
  std::string text = summary(s, coloured);
  EXPECT_NE(text.find("\x1b[1m"), std::string::npos);
  EXPECT_EQ(text.find("\x1b[31m"), std::string::npos);  // the target's own
}

TEST_F(Text, list_fits_the_width_and_shows_unknown_as_a_dash) {
  EXPECT_EQ(print([](Output& out) {
              ListRow known{samples::target(), samples::interval().sample};
              ListRow odd = known;
              odd.target.comm = samples::evil;
              odd.target.images.push_back(samples::image("syscall"));
              odd.target.conf.clear();
              odd.sample = {};
              out.list({known, odd});
            }),
            R"(
 PID NAME              VERSION LINKAGE TIER     DIRTY  MUZZY BG     RSS LAZYFREE
4242 redis-server      5.3.0   shared  symbols 500 ms 500 ms on 1.13 GB   205 MB
4242 \x1b[31m…\x5c\x0a 5.3.0   shared  symbols      -      -  -       -        -
4242 \x1b[31m…\x5c\x0a 5.3.0   shared  syscall
DIRTY, MUZZY: decay times. BG: background_thread. - is unknown.
)");
}

TEST_F(Text, image_report) {
  EXPECT_EQ(print([](Output& out) { out.image(samples::image_report()); }), R"(
image      /usr/lib/x86_64-linux-gnu/libjemalloc.so.2
jemalloc   5.3.0
linkage    shared
tier       symbols found
prefix     none
settings   read from $MALLOC_CONF
build-id   0123456789abcdef0123456789abcdef01234567
call sites 31 known

ROLE               SYMBOL              OFFSET FOUND BY      PROBE ON        COST
ecache_evict       je_ecache_evict    0x1a2b0 debuglink     push r15      0.6 us
pac_decay_to_limit pac_decay…stprop.0 0x2b3c0 minidebuginfo sub rsp, 0x18  16 us
pages_purge_lazy   je_pages_…rge_lazy 0x1c000 debuglink     -                  -
COST of a probe hit: 0.6 us if the kernel emulates it, up to 16 us if it steps

MISSING
  extent_record  oversize extents purged inside free() are not told from other
                 purges

STRUCTURES
  found by known layout of 5.3.0
  readable decay times and limits; metadata
  missing  counters: built without statistics
  evidence layout of 5.3.0: 11 of 12 of its distances are in the code
note       The separate debug file was built from another source tree.
)");
}

TEST_F(Text, check_report) {
  EXPECT_EQ(print([](Output& out) { out.check(samples::check_items()); }), R"(
ok    kernel        6.1.0-18-amd64
warn  uprobe_multi  missing: the kernel is older than 6.6
                    -> nothing to do: perf uprobes are used, detaching takes
                    about 100 ms for each
fail  CAP_BPF       not in the effective set
                    -> run as root, or give the program CAP_BPF, CAP_PERFMON and
                    CAP_SYS_PTRACE
)");
}

TEST_F(Text, nothing_is_wider_than_80_columns) {
  ledger::Summary large = samples::summary();
  large.target.comm = std::string(300, 'n');
  large.payers[0].comm = std::string(300, 'p');
  large.caveats = {"See " + std::string(300, '/') + " for more."};
  for (auto& totals : large.totals.transitions) {
    for (int i = 0; i < 100; ++i) {
      totals.by_payer[0].record(999'000'000, 9'999, 999ull << 30);
    }
  }
  for (auto& calls : large.totals.counters.by_purpose) {
    calls = {123'456, 999ull << 30, 1, 0};
  }
  large.losses.fill(1'234'567);
  const std::string text = print(
      [&](Output& out) {
        out.target(large.target);
        ledger::Interval i = samples::interval();
        i.comm = large.target.comm;
        i.states.dirty_bytes = 999ull << 30;
        out.interval(i);
        out.summary(large);
        out.summary(samples::stripped_summary());
      },
      {.several_targets = true});
  EXPECT_LE(widest(text), 80u) << text;
}

TEST_F(Text, stats_lay_rss_out) {
  StatsReport report = samples::stats_report();
  report.arenas = report.classes = true;
  EXPECT_EQ(print([&](Output& out) { out.stats(report); }), R"(
redis-server (4242)  jemalloc 5.3.0 in libjemalloc.so.2, shared, symbols found,
                     2 of 2 sites
dirty_decay_ms 500, muzzy_decay_ms 500, background_thread on (MALLOC_CONF in its
environment); 5 arenas (default of 5.3.0)

[#############################ddddddd~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~!rmooof]

                    RESIDENT  OF RSS  JEMALLOC
#  active            1.17 GB    37 %   1.27 GB  in use, slack included
     allocated                          900 MB  3.00 MB of it in thread caches
     slack                              400 MB  fragmentation, 31 % of it
d  dirty              300 MB     9 %    300 MB  free, until it decays
~  muzzy, LazyFree   1.46 GB    46 %   1.76 GB  the kernel may take it
!  muzzy, not lazy   20.0 MB    <1 %            the kernel may not take it
r  retained          64.0 MB     2 %   2.00 GB  given back, there again
m  metadata          30.0 MB    <1 %   31.0 MB  jemalloc's own
o  other heap         100 MB     3 %            not jemalloc's
s  stacks            1.00 MB    <1 %
f  files             60.0 MB     2 %            programs, libraries, data
?  not explained    +1.00 MB    <1 %            at most 2.00 MB
   RSS               3.20 GB
RESIDENT: what the kernel holds. JEMALLOC: what its own books say.

overhead   RSS minus allocated is 2.32 GB, 73 % of RSS
muzzy      of 1.76 GB, 1.46 GB the kernel still may take and 280 MB are not
           resident: taken, or never touched
pressure   cgroup /system.slice/redis.service uses 3.22 GB of 8.00 GB; 0.00 %
           waited for memory in the last 10 s
read       jemalloc by structures, completed by call, 2 values thrown away as
           impossible; the kernel by smaps and pagemap; 4.2 ms in all
uncertain  40.0 MB may belong to another line: nothing tells whose these
           mappings are
mallctl    allocated 900 MB, active 1.27 GB, metadata 31.0 MB, resident 1.61 GB
           (without muzzy), mapped 3.35 GB, retained 2.00 GB

  CLASS     BLOCKS    BYTES
8.00 MB        100   800 MB  an extent each
   64 B  1 000 000  61.0 MB  in slabs
BLOCKS: allocated, or held by thread caches. The classes that hold most.
Nothing is known of 1 more.

ARENA THREADS  ACTIVE  DIRTY   MUZZY RETAINED        DECAY
    0       4 1.27 GB 300 MB 1.76 GB  2.00 GB 500 ms/never ########d~~~~~~~~~~~
By jemalloc's books. THREADS: assigned to it. DECAY: of dirty/of muzzy pages.
)");
}

TEST_F(Text, stats_name_huge_pages_where_there_are_any) {
  StatsReport report = samples::stats_report();
  report.account.anon_huge_bytes = 320 * samples::mib;
  EXPECT_NE(print([&](Output& out) { out.stats(report); }).find("huge pages 320 MB of RSS, 10 %\n"),
            std::string::npos);
}

TEST_F(Text, stats_do_not_call_it_overhead_when_less_is_resident_than_allocated) {
  StatsReport report = samples::stats_report();
  report.account.allocated_bytes = report.account.rss_bytes + 100 * samples::mib;
  EXPECT_NE(print([&](Output& out) {
              out.stats(report);
            }).find("overhead   RSS is 100 MB less than what is allocated:"),
            std::string::npos);
}

TEST(Words, percent_does_not_round_to_none_or_all) {
  EXPECT_EQ(percent(0, 1000), "0 %");
  EXPECT_EQ(percent(1, 1000), "<1 %");
  EXPECT_EQ(percent(500, 1000), "50 %");
  EXPECT_EQ(percent(999, 1000), ">99 %");
  EXPECT_EQ(percent(1000, 1000), "100 %");
  EXPECT_EQ(percent(1, 0), "0 %");
}

TEST(Words, short_version_keeps_what_tells_builds_apart) {
  EXPECT_EQ(short_version("5.3.0-0-g54eaed1d8b56b1aa528be3bdd1877e59c56fa90c"), "5.3.0");
  EXPECT_EQ(short_version("5.3.0-171-g0c6d2c8ae8b0f8e4a3c1"), "5.3.0-171-g0c6d2c8");
  EXPECT_EQ(short_version("5.2.1"), "5.2.1");
  EXPECT_EQ(short_version(""), "");
}

TEST(Words, decay_times_and_durations_are_for_people) {
  EXPECT_EQ(decay_time("10000"), "10 s");
  EXPECT_EQ(decay_time("1500"), "1500 ms");
  EXPECT_EQ(decay_time("0"), "0");
  EXPECT_EQ(decay_time("-1"), "never");
  EXPECT_EQ(decay_time(""), "-");
  EXPECT_EQ(seconds(1'500'000'000), "1.5 s");
  EXPECT_EQ(seconds(725'000'000'000), "12 min 5 s");
  EXPECT_EQ(seconds(12'000'000'000'000), "3 h 20 min");
  EXPECT_EQ(size_words("8388608"), "8 MiB");
}

TEST(Words, sources_are_known_only_with_probed_caches) {
  EXPECT_TRUE(sources_known(samples::target("symbols")));
  EXPECT_TRUE(sources_known(samples::target("recovered")));
  EXPECT_FALSE(sources_known(samples::target("callsite")));
  EXPECT_FALSE(sources_known(samples::target("syscall")));
  EXPECT_FALSE(sources_known({}));
  ledger::TargetInfo mixed = samples::target();
  mixed.images.push_back(samples::image("syscall"));
  EXPECT_FALSE(sources_known(mixed));
}

}  // namespace
}  // namespace jemtrace::render
