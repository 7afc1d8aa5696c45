#include "explain/explain.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>

#include "samples.hpp"

namespace jemtrace::explain {
namespace {

TEST(Explain, a_process_without_trouble_is_healthy_and_nothing_else) {
  const Evaluation evaluation = evaluate(well());
  ASSERT_EQ(evaluation.findings.size(), 1u);
  EXPECT_EQ(evaluation.findings[0].id, "HEALTHY");
  EXPECT_EQ(evaluation.findings[0].severity, ledger::Severity::ok);
  EXPECT_TRUE(evaluation.unmeasured.empty());
}

TEST(Explain, what_nobody_looked_at_is_not_called_healthy) {
  const Evaluation evaluation = evaluate(Inputs{});
  EXPECT_TRUE(evaluation.findings.empty());
  EXPECT_TRUE(unmeasured(Inputs{}, "HEALTHY"));
}

TEST(Explain, every_id_is_one_of_22) {
  const auto ids = all_ids();
  EXPECT_EQ(std::set(ids.begin(), ids.end()).size(), 22u);
}

TEST(Explain, every_id_has_a_section_in_the_documentation) {
  std::ifstream file(DIAGNOSES_PATH);
  std::ostringstream text;
  text << file.rdbuf();
  for (const std::string& id : all_ids()) {
    EXPECT_NE(text.str().find("\n## " + id + "\n"), std::string::npos) << id;
  }
}

TEST(Explain, an_idle_arena_is_stuck_when_its_clock_stands) {
  Inputs in = well();
  in.end.dirty = 200 * mib;
  in.arenas = {{.index = 0, .dirty = 200 * mib, .dirty_decay_ms = 10'000, .idle_ns = 60 * seconds_ns}};
  EXPECT_EQ(first_of(in), "STUCK_DIRTY");
  in.arenas[0].idle_ns = 5 * seconds_ns;  // it decays at this moment
  EXPECT_EQ(first_of(in), "HEALTHY");
  EXPECT_LT(evaluate(in).findings[0].confidence, 0.8);
}

TEST(Explain, a_decay_time_of_never_is_stuck_at_once) {
  Inputs in = well();
  in.end.dirty = 200 * mib;
  in.arenas = {{.index = 0, .dirty = 200 * mib, .dirty_decay_ms = -1, .idle_ns = {}}};
  EXPECT_EQ(first_of(in), "STUCK_DIRTY");
  EXPECT_NE(evaluate(in).findings[0].title.find("-1"), std::string::npos);
}

TEST(Explain, without_clocks_being_stuck_takes_a_window_of_two_decay_times) {
  Inputs in = well();
  in.arenas.clear();
  in.start.dirty = in.end.dirty = 200 * mib;
  EXPECT_EQ(first_of(in), "STUCK_DIRTY");
  in.window_ns = 15 * seconds_ns;
  EXPECT_TRUE(unmeasured(in, "STUCK_DIRTY"));
  in.window_ns = 30 * seconds_ns;
  purge(in, JT_PAYER_APP, 1, mib, 1000);
  EXPECT_EQ(first_of(in), "HEALTHY");
}

TEST(Explain, many_idle_arenas_are_sprawl_and_not_stuck) {
  Inputs in = well();
  in.cpus = 1;
  in.end.dirty = 320 * mib;
  in.arenas.clear();
  for (uint32_t i = 0; i < 32; ++i) {
    in.arenas.push_back(
        {.index = i, .dirty = 10 * mib, .dirty_decay_ms = 10'000, .idle_ns = 60 * seconds_ns});
  }
  const Evaluation evaluation = evaluate(in);
  ASSERT_EQ(evaluation.findings.size(), 1u);
  EXPECT_EQ(evaluation.findings[0].id, "ARENA_SPRAWL");
}

TEST(Explain, lazyfree_without_pressure_inflates_rss) {
  Inputs in = well();
  in.start.lazyfree = in.end.lazyfree = 128 * mib;
  EXPECT_EQ(first_of(in), "LAZYFREE_INFLATED");
  in.end.lazyfree = 32 * mib;
  EXPECT_EQ(first_of(in), "HEALTHY");
}

TEST(Explain, lazyfree_behind_page_cache_is_starved_and_not_inflated) {
  Inputs in = well();
  in.start.lazyfree = in.end.lazyfree = 128 * mib;
  in.end.host.pgsteal_file = 50'000 + 20'000;
  const Evaluation evaluation = evaluate(in);
  ASSERT_EQ(evaluation.findings.size(), 1u);
  EXPECT_EQ(evaluation.findings[0].id, "LAZYFREE_STARVED");
}

TEST(Explain, lazyfree_that_turns_into_huge_pages_is_cancelled) {
  Inputs in = well();
  in.start.lazyfree = 200 * mib;
  in.end.lazyfree = 20 * mib;
  in.end.anon_huge = 180 * mib;
  EXPECT_EQ(first_of(in), "LAZYFREE_CANCELLED_BY_COLLAPSE");
  in.end.rss = *in.start.rss - 180 * mib;  // it was really taken back
  EXPECT_EQ(first_of(in), "HEALTHY");
}

TEST(Explain, a_forked_child_keeps_what_is_given_back) {
  Inputs in = well();
  in.start.lazyfree = in.end.lazyfree = 128 * mib;
  in.end.shared_anonymous = 300 * mib;
  in.children = {{{.pid = 43, .rss = 390 * mib}}};
  EXPECT_EQ(first_of(in), "FORK_SHARED");
  in.children->clear();
  EXPECT_EQ(first_of(in), "LAZYFREE_INFLATED");
}

TEST(Explain, retained_memory_in_huge_pages_was_refilled) {
  Inputs in = well();
  in.end.retained_resident = 100 * mib;
  in.end.anon_huge = 100 * mib;
  EXPECT_EQ(first_of(in), "KHUGEPAGED_REFILL");
  in.end.anon_huge = 0;
  EXPECT_EQ(first_of(in), "HEALTHY");
}

TEST(Explain, growth_that_khugepaged_explains_is_a_refill) {
  Inputs in = well();
  in.end.rss = *in.start.rss + 100 * mib;
  EXPECT_EQ(first_of(in), "HEALTHY");
  in.collapses = ledger::Collapses{.huge_pages = 60, .filled_bytes = 80 * mib};
  EXPECT_EQ(first_of(in), "KHUGEPAGED_REFILL");
}

TEST(Explain, what_the_kernel_took_lazily_is_what_is_muzzy_and_gone) {
  Inputs in = well();
  in.start.muzzy_gone = 10 * mib;
  in.end.muzzy_gone = 90 * mib;
  EXPECT_EQ(lazily_taken(in), 80 * mib);
  in.end.muzzy_gone = 5 * mib;
  EXPECT_EQ(lazily_taken(in), 0u);
  in.start.muzzy_gone = {};
  EXPECT_FALSE(lazily_taken(in));
}

TEST(Explain, what_is_charged_and_nowhere_mapped_is_a_ghost) {
  Inputs in = well();
  in.end.cgroup->usage_bytes = 700 * mib;
  in.end.host.nr_anon_partially_mapped = 140;
  EXPECT_EQ(first_of(in), "GHOST_THP");
  in.end.host.nr_anon_partially_mapped = 0;
  EXPECT_EQ(first_of(in), "HEALTHY");
}

TEST(Explain, eager_oversize_stands_before_what_comes_back) {
  Inputs in = well();
  purge(in, JT_PAYER_APP, 100, 16 * mib, 3'000'000);
  in.work->counters.by_purpose[JT_PURGE_OVERSIZE] = {
      .calls = 100, .bytes = 1600 * mib, .total_ns = 300'000'000, .failed = 0};
  in.refaults->purged_pages = in.refaults->followed_pages = 400'000;
  in.refaults->within_1s.pages = in.refaults->within_10s.pages = 400'000;
  const Evaluation evaluation = evaluate(in);
  ASSERT_EQ(evaluation.findings.size(), 1u);
  EXPECT_EQ(evaluation.findings[0].id, "EAGER_OVERSIZE");
  EXPECT_NE(evaluation.findings[0].remedy.find("oversize_threshold:0"), std::string::npos);
}

TEST(Explain, who_pays_does_not_matter_when_the_work_is_undone_at_once) {
  Inputs in = well();
  purge(in, JT_PAYER_APP, 100, 16 * mib, 3'000'000);
  in.refaults->purged_pages = in.refaults->followed_pages = 400'000;
  in.refaults->within_1s.pages = in.refaults->within_10s.pages = 400'000;
  const Evaluation evaluation = evaluate(in);
  ASSERT_EQ(evaluation.findings.size(), 1u);
  EXPECT_EQ(evaluation.findings[0].id, "PURGE_THRASH");
}

TEST(Explain, many_small_calls_without_interrupts_are_work) {
  Inputs in = well();
  in.waits.remote_flushes = 0;
  purge(in, JT_PAYER_APP, 200'000, 16384, 5'000);
  const Evaluation evaluation = evaluate(in);
  ASSERT_FALSE(evaluation.findings.empty());
  EXPECT_EQ(evaluation.findings[0].id, "WORK_BOUND_PURGE");
  EXPECT_NE(evaluation.findings[0].title.find("many calls"), std::string::npos);
}

TEST(Explain, eager_oversize_that_takes_little_time_is_information) {
  Inputs in = well();
  purge(in, JT_PAYER_APP, 8, 16 * mib, 500'000);
  in.work->counters.by_purpose[JT_PURGE_OVERSIZE] = {
      .calls = 8, .bytes = 128 * mib, .total_ns = 4'000'000, .failed = 0};
  EXPECT_EQ(first_of(in), "EAGER_OVERSIZE");
  EXPECT_EQ(evaluate(in).findings[0].severity, ledger::Severity::info);
  in.window_ns = seconds_ns / 2;
  EXPECT_EQ(evaluate(in).findings[0].severity, ledger::Severity::warning);
}

TEST(Explain, what_is_set_already_is_not_advised) {
  Inputs in = well();
  purge(in, JT_PAYER_APP, 4, 12 * mib, 500'000);
  in.work->counters.by_purpose[JT_PURGE_OVERSIZE] = {
      .calls = 4, .bytes = 48 * mib, .total_ns = 2'000'000, .failed = 0};
  in.refaults->purged_pages = in.refaults->followed_pages = 400'000;
  in.refaults->within_1s.pages = in.refaults->within_10s.pages = 400'000;
  EXPECT_EQ(first_of(in), "PURGE_THRASH");
  EXPECT_FALSE(evaluate(in).findings[0].settings.empty());
  in.conf["oversize_threshold"].value = "0";
  in.version = {5, 3, 0};
  EXPECT_TRUE(evaluate(in).findings[0].settings.empty());
  EXPECT_NE(evaluate(in).findings[0].remedy.find("upgrade to 5.3.1"), std::string::npos);
}

TEST(Explain, application_threads_pay_when_their_calls_are_long) {
  Inputs in = well();
  purge(in, JT_PAYER_APP, 100, 16 * mib, 3'000'000);
  EXPECT_EQ(first_of(in), "APP_THREADS_PAY");
  Inputs background = well();
  purge(background, JT_PAYER_BACKGROUND, 100, mib, 3'000'000);
  EXPECT_EQ(first_of(background), "HEALTHY");
}

TEST(Explain, a_call_that_is_preempted_is_no_work) {
  Inputs in = well();
  purge(in, JT_PAYER_APP, 200, 16384, 5'000);
  purge(in, JT_PAYER_APP, 50, 16384, 20'000'000);
  in.waits.remote_flushes = 240;
  EXPECT_EQ(first_of(in), "HEALTHY");
  EXPECT_TRUE(unmeasured(in, "APP_THREADS_PAY"));
}

TEST(Explain, a_wait_for_the_lock_explains_the_purge_time) {
  Inputs in = well();
  purge(in, JT_PAYER_APP, 100, mib, 10'000'000);
  in.waits.lock_ns = 800'000'000;
  const Evaluation evaluation = evaluate(in);
  ASSERT_EQ(evaluation.findings.size(), 1u);
  EXPECT_EQ(evaluation.findings[0].id, "LOCK_BOUND_PURGE");
  in.waits.lock_ns = 300'000'000;  // 30 %, and 117 times the work
  EXPECT_EQ(first_of(in), "LOCK_BOUND_PURGE");
  in.waits.lock_ns = {};
  EXPECT_TRUE(unmeasured(in, "LOCK_BOUND_PURGE"));
}

TEST(Explain, long_calls_at_the_usual_price_are_work) {
  Inputs in = well();
  purge(in, JT_PAYER_BACKGROUND, 100, 400 * mib, 10'000'000);  // 98 ns a page
  EXPECT_EQ(first_of(in), "WORK_BOUND_PURGE");
  Inputs stretched = well();
  purge(stretched, JT_PAYER_BACKGROUND, 100, 100 * mib, 15'000'000);  // 586 ns: its CPU was busy
  EXPECT_EQ(first_of(stretched), "WORK_BOUND_PURGE");
  EXPECT_FALSE(evaluate(stretched).findings[0].unmeasured.empty());
}

TEST(Explain, one_long_call_of_a_few_is_no_work) {
  Inputs in = well();
  purge(in, JT_PAYER_BACKGROUND, 2, 12 * mib, 300'000);
  purge(in, JT_PAYER_BACKGROUND, 1, 12 * mib, 6'000'000);
  EXPECT_NE(first_of(in), "WORK_BOUND_PURGE");
}

TEST(Explain, small_dear_calls_with_remote_flushes_are_bound_by_shootdowns) {
  Inputs in = well();
  purge(in, JT_PAYER_APP, 100'000, 16384, 10'000);
  in.waits.remote_flushes = 90'000;
  EXPECT_EQ(first_of(in), "SHOOTDOWN_BOUND");
}

TEST(Explain, pages_that_come_back_are_thrash_and_decay_is_not_shortened) {
  Inputs in = well();
  purge(in, JT_PAYER_BACKGROUND, 1000, 2 * mib, 100'000);
  in.refaults->purged_pages = in.refaults->followed_pages = 512'000;
  in.refaults->within_1s.pages = in.refaults->within_10s.pages = 480'000;
  in.end.dirty = 200 * mib;
  in.arenas = {{.index = 0, .dirty = 200 * mib, .dirty_decay_ms = -1, .idle_ns = {}}};
  const Evaluation evaluation = evaluate(in);
  ASSERT_FALSE(evaluation.findings.empty());
  EXPECT_EQ(evaluation.findings[0].id, "PURGE_THRASH");
  for (const auto& finding : evaluation.findings) {
    EXPECT_NE(finding.id, "STUCK_DIRTY");
  }
}

TEST(Explain, holes_in_slabs_need_the_allocated_bytes) {
  Inputs in = well();
  in.end.allocated = 150 * mib;
  EXPECT_EQ(first_of(in), "FRAGMENTED");
  in.end.allocated = {};
  EXPECT_TRUE(unmeasured(in, "FRAGMENTED"));
}

TEST(Explain, of_holes_and_foreign_memory_the_larger_is_said) {
  Inputs in = well();
  in.end.allocated = 150 * mib;
  in.end.other_heap = 120 * mib;
  EXPECT_EQ(first_of(in), "FRAGMENTED");
  in.end.other_heap = 200 * mib;
  EXPECT_EQ(first_of(in), "NOT_JEMALLOC");
}

TEST(Explain, memory_whose_owner_is_uncertain_is_not_called_foreign) {
  Inputs in = well();
  in.end.other_heap = 200 * mib;
  in.end.uncertain = 180 * mib;
  EXPECT_EQ(first_of(in), "HEALTHY");
}

TEST(Explain, retained_address_space_is_no_memory) {
  Inputs in = well();
  in.end.retained = 2048 * mib;
  EXPECT_EQ(first_of(in), "VIRT_ONLY");
  in.end.retained_resident = 500 * mib;
  EXPECT_EQ(first_of(in), "HEALTHY");
}

TEST(Explain, settings_in_another_variable_are_not_applied) {
  Inputs in = well();
  in.conf_variable = "_RJEM_MALLOC_CONF";
  in.requests = {{{.variable = "MALLOC_CONF", .options = {{"background_thread", "true"}}}}};
  const Evaluation evaluation = evaluate(in);
  ASSERT_FALSE(evaluation.findings.empty());
  EXPECT_EQ(evaluation.findings[0].id, "CONF_NOT_APPLIED");
  EXPECT_NE(evaluation.findings[0].settings.at(0).find("_RJEM_MALLOC_CONF=\"background_thread:true\""),
            std::string::npos);
}

TEST(Explain, a_misspelt_option_is_not_applied) {
  Inputs in = well();
  in.requests = {{{.variable = "MALLOC_CONF", .options = {{"dirty_decay", "1000"}}}}};
  EXPECT_EQ(first_of(in), "CONF_NOT_APPLIED");
  in.requests = {{{.variable = "MALLOC_CONF", .options = {{"dirty_decay_ms", "1000"}}}}};
  EXPECT_EQ(first_of(in), "HEALTHY");
  in.boot_options = {{"dirty_decay_ms", "10000"}};
  EXPECT_EQ(first_of(in), "CONF_NOT_APPLIED");
}

TEST(Explain, half_of_the_mappings_is_a_warning_and_most_of_them_critical) {
  Inputs in = well();
  in.end.vmas = 40'000;
  EXPECT_EQ(first_of(in), "VMA_EXPLOSION");
  EXPECT_EQ(evaluate(in).findings[0].severity, ledger::Severity::warning);
  in.end.vmas = 60'000;
  EXPECT_EQ(evaluate(in).findings[0].severity, ledger::Severity::critical);
}

TEST(Explain, locked_memory_cannot_be_purged) {
  Inputs in = well();
  in.end.locked = 390 * mib;
  EXPECT_EQ(first_of(in), "MLOCKED");
  in.end.locked = 64 * 1024;
  in.work->counters.failed_errno_inval = 3;
  EXPECT_EQ(first_of(in), "HEALTHY");
}

TEST(Explain, an_oom_kill_stands_before_all_else) {
  Inputs in = well();
  in.end.dirty = 200 * mib;
  in.arenas[0] = {.index = 0, .dirty = 200 * mib, .dirty_decay_ms = -1, .idle_ns = {}};
  in.ooms = {{.pid = 42, .comm = "app", .anon_rss_bytes = 400 * mib, .source = "a test"}};
  EXPECT_EQ(first_of(in), "OOM_CONTEXT");
  EXPECT_EQ(evaluate(in).findings.size(), 1u);
  EXPECT_NE(evaluate(in).findings[0].remedy.find("200 MB"), std::string::npos);
  in.ooms[0].pid = 7;  // another one was killed: what is wrong here still is
  EXPECT_EQ(first_of(in), "STUCK_DIRTY");
}

TEST(Explain, advice_names_only_what_the_version_has) {
  Inputs in = well();
  in.end.retained_resident = in.end.anon_huge = 100 * mib;
  in.version = {5, 0, 1};
  EXPECT_EQ(evaluate(in).findings[0].remedy.find("thp:never"), std::string::npos);
  in.version = {5, 1, 0};
  EXPECT_NE(evaluate(in).findings[0].remedy.find("thp:never"), std::string::npos);
  EXPECT_EQ(evaluate(in).findings[0].remedy.find("hpa:true"), std::string::npos);
  in.version = {5, 3, 0};
  EXPECT_NE(evaluate(in).findings[0].remedy.find("hpa:true"), std::string::npos);
}

Inputs stuck_for_ever() {
  Inputs in = well();
  in.end.dirty = 200 * mib;
  in.arenas[0] = {.index = 0, .dirty = 200 * mib, .dirty_decay_ms = -1, .idle_ns = {}};
  return in;
}

TEST(Explain, a_setting_keeps_what_the_process_has_set_beside_it) {
  Inputs in = stuck_for_ever();
  in.requests = {
      {{.variable = "MALLOC_CONF", .options = {{"dirty_decay_ms", "-1"}, {"narenas", "4"}, {"thp", "never"}}},
       {.variable = "_RJEM_MALLOC_CONF", .options = {{"retain", "false"}}}}};
  EXPECT_EQ(evaluate(in).findings[0].settings,
            (std::vector<std::string>{"MALLOC_CONF=\"narenas:4,thp:never,dirty_decay_ms:10000\""}));
}

TEST(Explain, a_setting_has_nothing_in_it_that_a_shell_would_run) {
  Inputs in = stuck_for_ever();
  in.requests = {{{.variable = "MALLOC_CONF",
                   .options = {{"prof_prefix", "$(reboot)"},
                               {"dss", "\";reboot;\""},
                               {"stats_print_opts", "`reboot`"},
                               {"zero_realloc", "a\nb"},
                               {"narenas", "4"}}}}};
  EXPECT_EQ(evaluate(in).findings[0].settings,
            (std::vector<std::string>{"MALLOC_CONF=\"narenas:4,dirty_decay_ms:10000\""}));
}

TEST(Explain, a_process_that_has_ended_gets_no_commands) {
  Inputs in = stuck_for_ever();
  EXPECT_EQ(evaluate(in).findings[0].commands,
            (std::vector<std::string>{"jemtrace stats -p 42 --mallctl=call --set dirty_decay_ms=10000"}));
  in.exited = true;
  EXPECT_TRUE(evaluate(in).findings[0].commands.empty());
  EXPECT_FALSE(evaluate(in).findings[0].settings.empty());
}

TEST(Explain, every_finding_has_evidence_a_remedy_and_a_confidence) {
  Inputs in = well();
  in.start.lazyfree = in.end.lazyfree = 128 * mib;
  in.end.locked = 390 * mib;
  in.end.vmas = 40'000;
  in.end.retained = 2048 * mib;
  in.end.allocated = 150 * mib;
  purge(in, JT_PAYER_APP, 100, 16 * mib, 3'000'000);
  const Evaluation evaluation = evaluate(in);
  EXPECT_GE(evaluation.findings.size(), 6u);
  for (const auto& finding : evaluation.findings) {
    EXPECT_EQ(finding.pid, 42);
    EXPECT_FALSE(finding.evidence.empty()) << finding.id;
    EXPECT_FALSE(finding.remedy.empty()) << finding.id;
    EXPECT_FALSE(finding.title.empty()) << finding.id;
    EXPECT_GT(finding.confidence, 0.3) << finding.id;
    EXPECT_LE(finding.confidence, 1.0) << finding.id;
  }
}

TEST(Explain, the_numbers_of_an_interval_are_enough_for_some_rules) {
  ledger::TargetInfo target;
  target.pid = 42;
  target.images = {{.path = {}, .build_id = {}, .version = "5.3.0-0-g54eaed1d", .prefix = {}}};
  const ledger::Totals delta;
  const ledger::Sample sample{.rss_bytes = ledger::Sampled{400 * mib, "statm", 0},
                              .lazyfree_bytes = ledger::Sampled{128 * mib, "smaps_rollup", 0}};
  const ledger::States states{.active_bytes = 200 * mib, .dirty_bytes = 10 * mib};
  const Inputs in = inputs_of({.target = target,
                               .window_ns = seconds_ns,
                               .delta = delta,
                               .first_sample = sample,
                               .last_sample = sample,
                               .first_states = states,
                               .last_states = states});
  EXPECT_EQ(first_of(in), "LAZYFREE_INFLATED");
  EXPECT_TRUE(unmeasured(in, "FRAGMENTED"));
  EXPECT_TRUE(unmeasured(in, "VMA_EXPLOSION"));
}

TEST(ParseVersion, takes_what_is_there) {
  EXPECT_EQ(parse_version("5.3.0-0-g54eaed1d"), (Version{5, 3, 0}));
  EXPECT_EQ(parse_version("5.3.1"), (Version{5, 3, 1}));
  EXPECT_EQ(parse_version("5.3"), (Version{5, 3, 0}));
  EXPECT_FALSE(parse_version("").known());
}

}  // namespace
}  // namespace jemtrace::explain
