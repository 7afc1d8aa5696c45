#include "locate/roles.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <unordered_map>

namespace jemtrace::locate {
namespace {

// Read from the sources of 5.0.1, 5.1.0, 5.2.1, 5.3.0, 5.3.1 and dev (295e4894): every function from which
// madvise, process_madvise or munmap is reached without going through a function that settles the purpose
// already.
//
// A compiler inlines and makes tail calls, so a frame can be missing; what is there may be a function further
// up. Hence for each purpose the whole chain up to where a second purpose becomes possible is listed, not its
// first function only. Names end where that second purpose begins: large_dalloc, say, both returns memory and
// ticks.
constexpr RoleEntry table[] = {
    // ---- wrappers: say how, not why ----
    {"os_pages_unmap", JT_PASS},
    {"pages_unmap", JT_PASS},
    {"os_pages_commit", JT_PASS},
    {"pages_commit_impl", JT_PASS},
    {"pages_commit", JT_PASS},
    {"pages_decommit", JT_PASS},
    {"pages_purge_lazy", JT_PASS},
    {"pages_purge_forced", JT_PASS},
    {"pages_purge_process_madvise", JT_PASS},  // of the PAC and of the HPA
    {"pages_purge_process_madvise_impl", JT_PASS},
    {"ehooks_purge_lazy", JT_PASS},
    {"ehooks_purge_forced", JT_PASS},
    {"ehooks_decommit", JT_PASS},
    {"ehooks_commit", JT_PASS},
    {"ehooks_dalloc", JT_PASS},
    {"ehooks_default_purge_lazy", JT_PASS},
    {"ehooks_default_purge_lazy_impl", JT_PASS},
    {"ehooks_default_purge_forced", JT_PASS},
    {"ehooks_default_purge_forced_impl", JT_PASS},
    {"ehooks_default_decommit", JT_PASS},
    {"ehooks_default_decommit_impl", JT_PASS},
    {"ehooks_default_commit", JT_PASS},
    {"ehooks_default_commit_impl", JT_PASS},
    {"ehooks_default_dalloc", JT_PASS},
    {"ehooks_default_dalloc_impl", JT_PASS},
    {"extent_purge_lazy_default", JT_PASS},  // 5.0 to 5.2
    {"extent_purge_forced_default", JT_PASS},
    {"extent_decommit_default", JT_PASS},
    {"extent_commit_default", JT_PASS},
    {"extent_dalloc_default", JT_PASS},
    {"extent_dalloc_default_impl", JT_PASS},
    {"extent_dalloc_mmap", JT_PASS},
    {"extent_purge_lazy_wrapper", JT_PASS},
    {"extent_purge_lazy_impl", JT_PASS},
    {"extent_purge_forced_wrapper", JT_PASS},
    {"extent_purge_forced_impl", JT_PASS},
    {"extent_decommit_wrapper", JT_PASS},
    {"extent_commit_wrapper", JT_PASS},
    {"extent_commit_impl", JT_PASS},
    {"extent_dalloc_wrapper", JT_PASS},
    {"extent_dalloc_wrapper_try", JT_PASS},
    {"extent_dalloc_wrapper_finish", JT_PASS},
    {"extent_dalloc_wrapper_purged", JT_PASS},

    // ---- a decay pass ----
    {"pac_decay_to_limit", JT_PURGE_SWEEP},
    {"pac_decay_stashed", JT_PURGE_SWEEP},
    {"pac_stash_decayed", JT_PURGE_SWEEP},
    {"decay_with_process_madvise", JT_PURGE_SWEEP},
    {"pac_decay_try_purge", JT_PURGE_SWEEP},
    {"pac_maybe_decay_purge", JT_PURGE_SWEEP},
    {"pac_decay_all", JT_PURGE_SWEEP},
    {"pac_decay_ms_set", JT_PURGE_SWEEP},
    {"arena_decay_to_limit", JT_PURGE_SWEEP},  // 5.0 to 5.2
    {"arena_decay_stashed", JT_PURGE_SWEEP},
    {"arena_stash_decayed", JT_PURGE_SWEEP},
    {"arena_decay_try_purge", JT_PURGE_SWEEP},
    {"arena_decay_epoch_advance", JT_PURGE_SWEEP},
    {"arena_maybe_decay", JT_PURGE_SWEEP},
    {"arena_decay_impl", JT_PURGE_SWEEP},
    {"arena_decay_dirty", JT_PURGE_SWEEP},
    {"arena_decay_muzzy", JT_PURGE_SWEEP},
    {"arena_decay", JT_PURGE_SWEEP},

    // ---- who asked for the pass ----
    // Their own purpose is open: what reaches them without a sweep in between is not a purge known to us.
    // None is
    // listed for ticks: the callers of arena_decay_ticks are all over the allocator, so the walk that leaves
    // this
    // table above arena_decay was a tick.
    {"arena_i_purge_ctl", JT_UNCLASSIFIED, JT_CAUSE_CTL_PURGE},
    {"arena_i_decay_ctl", JT_UNCLASSIFIED, JT_CAUSE_CTL_DECAY},
    {"arena_i_decay", JT_UNCLASSIFIED},                                  // of both
    {"arena_i_decay_ms_ctl_impl", JT_UNCLASSIFIED, JT_CAUSE_CTL_DECAY},  // a new time applies at once
    {"arena_i_dirty_decay_ms_ctl", JT_UNCLASSIFIED, JT_CAUSE_CTL_DECAY},
    {"arena_i_muzzy_decay_ms_ctl", JT_UNCLASSIFIED, JT_CAUSE_CTL_DECAY},
    {"arena_decay_ms_set", JT_UNCLASSIFIED},
    {"arena_dirty_decay_ms_set", JT_UNCLASSIFIED},
    {"arena_muzzy_decay_ms_set", JT_UNCLASSIFIED},
    {"pa_decay_ms_set", JT_UNCLASSIFIED},
    {"thread_idle_ctl", JT_UNCLASSIFIED, JT_CAUSE_CTL_PURGE},
    {"arena_do_deferred_work", JT_UNCLASSIFIED, JT_CAUSE_BACKGROUND},
    {"background_work_sleep_once", JT_UNCLASSIFIED, JT_CAUSE_BACKGROUND},
    {"background_work", JT_UNCLASSIFIED, JT_CAUSE_BACKGROUND},
    {"background_thread0_work", JT_UNCLASSIFIED, JT_CAUSE_BACKGROUND},
    {"background_thread_entry", JT_UNCLASSIFIED, JT_CAUSE_BACKGROUND},
    {"arena_handle_deferred_work", JT_UNCLASSIFIED,
     JT_CAUSE_ZERO_DECAY},  // decays only when dirty_decay_ms is 0
    {"tcache_destroy", JT_UNCLASSIFIED, JT_CAUSE_THREAD_EXIT},
    {"tcache_cleanup", JT_UNCLASSIFIED, JT_CAUSE_THREAD_EXIT},
    {"arena_unbind", JT_UNCLASSIFIED, JT_CAUSE_THREAD_EXIT},
    {"arena_cleanup", JT_UNCLASSIFIED, JT_CAUSE_THREAD_EXIT},
    {"arena_migrate", JT_UNCLASSIFIED, JT_CAUSE_THREAD_EXIT},  // purges an arena that its last thread left
    {"tsd_do_data_cleanup", JT_UNCLASSIFIED, JT_CAUSE_THREAD_EXIT},
    {"tsd_cleanup", JT_UNCLASSIFIED, JT_CAUSE_THREAD_EXIT},
    {"tsd_cleanup_wrapper", JT_UNCLASSIFIED, JT_CAUSE_THREAD_EXIT},

    // ---- extent_record's shortcut for a large coalesced extent, on a thread that frees ----
    // Only for the dirty cache: pac_decay_stashed's ecache_dalloc into the muzzy cache cannot come here, as
    // only a
    // cache with delay_coalesce takes the shortcut.
    {"extent_record", JT_PURGE_OVERSIZE},
    {"extent_maximally_purge", JT_PURGE_OVERSIZE},
    {"arena_decay_extent", JT_PURGE_OVERSIZE},  // 5.2
    {"ecache_dalloc", JT_PURGE_OVERSIZE},
    {"extents_dalloc", JT_PURGE_OVERSIZE},
    {"pac_ecache_dalloc", JT_PURGE_OVERSIZE},
    {"pac_dalloc_impl", JT_PURGE_OVERSIZE},
    {"pac_dalloc", JT_PURGE_OVERSIZE},
    {"pac_shrink_impl", JT_PURGE_OVERSIZE},
    {"pac_shrink", JT_PURGE_OVERSIZE},
    {"pa_dalloc", JT_PURGE_OVERSIZE},
    {"pa_shrink", JT_PURGE_OVERSIZE},
    // Above arena_decay_dirty these three mean that dirty_decay_ms is 0 (arena_handle_deferred_work inlined).
    {"arena_extents_dirty_dalloc", JT_PURGE_OVERSIZE, JT_CAUSE_ZERO_DECAY},
    {"arena_slab_dalloc", JT_PURGE_OVERSIZE, JT_CAUSE_ZERO_DECAY},
    {"large_dalloc_finish_impl", JT_PURGE_OVERSIZE, JT_CAUSE_ZERO_DECAY},
    {"large_dalloc_finish", JT_PURGE_OVERSIZE, JT_CAUSE_ZERO_DECAY},
    {"large_dalloc", JT_PURGE_OVERSIZE},  // ticks as well
    {"large_ralloc_no_move_shrink", JT_PURGE_OVERSIZE, JT_CAUSE_ZERO_DECAY},

    // ---- arena.<i>.destroy ----
    {"extent_destroy_wrapper", JT_DESTROY},
    {"ehooks_destroy", JT_DESTROY},
    {"ehooks_default_destroy", JT_DESTROY},
    {"ehooks_default_destroy_impl", JT_DESTROY},
    {"extent_destroy_default", JT_DESTROY},
    {"extent_destroy_default_impl", JT_DESTROY},
    {"pac_destroy", JT_DESTROY},
    {"pa_shard_destroy", JT_DESTROY},
    {"arena_destroy_retained", JT_DESTROY},
    {"arena_destroy", JT_DESTROY, JT_CAUSE_CTL_PURGE},
    {"arena_i_destroy_ctl", JT_DESTROY, JT_CAUSE_CTL_PURGE},

    // ---- zeroing of memory that is handed out ----
    // All of these can also map (and trim what they mapped) and give up on memory: call_purpose() tells by
    // the callee.
    {"ehooks_default_zero_impl", JT_ZERO_FILL},
    {"ehooks_zero", JT_ZERO_FILL},
    {"extent_commit_zero", JT_ZERO_FILL},
    {"extent_recycle", JT_ZERO_FILL},
    {"extent_grow_retained", JT_ZERO_FILL},
    {"extent_alloc_retained", JT_ZERO_FILL},
    {"extents_alloc", JT_ZERO_FILL},
    {"ecache_alloc", JT_ZERO_FILL},
    {"ecache_alloc_grow", JT_ZERO_FILL},
    {"extent_alloc_wrapper", JT_ZERO_FILL},  // to 5.2 it takes from the retained extents first
    {"extent_alloc_dss", JT_ZERO_FILL},
    {"pac_alloc_real", JT_ZERO_FILL},
    {"pac_alloc_new_guarded", JT_ZERO_FILL},
    {"pac_alloc_impl", JT_ZERO_FILL},
    {"pac_alloc", JT_ZERO_FILL},
    {"pac_expand_impl", JT_ZERO_FILL},
    {"pac_expand", JT_ZERO_FILL},
    {"san_bump_alloc", JT_ZERO_FILL},
    {"pa_alloc", JT_ZERO_FILL},
    {"pa_expand", JT_ZERO_FILL},
    {"arena_extent_alloc_large", JT_ZERO_FILL},
    {"arena_slab_alloc", JT_ZERO_FILL},
    {"arena_slab_alloc_hard", JT_ZERO_FILL},
    {"large_palloc", JT_ZERO_FILL},
    {"large_ralloc_no_move_expand", JT_ZERO_FILL},

    // ---- start-up ----
    {"pages_boot", JT_BOOT_PROBE},
    {"madvise_MADV_DONTNEED_zeroes_pages", JT_BOOT_PROBE},
    {"malloc_init_hard_a0_locked", JT_BOOT_PROBE},
    {"malloc_init_hard", JT_BOOT_PROBE},

    // ---- base allocator ----
    {"base_unmap", JT_METADATA},
    {"base_delete", JT_METADATA},
    {"base_map", JT_METADATA},
    {"base_block_alloc", JT_METADATA},
    {"base_extent_alloc", JT_METADATA},
    {"base_alloc_impl", JT_METADATA},
    {"base_alloc", JT_METADATA},
    {"base_alloc_edata", JT_METADATA},
    {"base_alloc_extent", JT_METADATA},
    {"base_alloc_rtree", JT_METADATA},
    {"base_new", JT_METADATA},
    {"base_boot", JT_METADATA},

    // ---- huge page allocator ----
    {"hpa_hooks_map", JT_HPA},
    {"hpa_hooks_unmap", JT_HPA},
    {"hpa_hooks_purge", JT_HPA},
    {"hpa_hooks_hugify", JT_HPA},
    {"hpa_hooks_dehugify", JT_HPA},
    {"hpa_hooks_vectorized_purge", JT_HPA},
    {"hpa_try_vectorized_purge", JT_HPA},
    {"hpa_range_accum_flush", JT_HPA},
    {"hpa_range_accum_add", JT_HPA},
    {"hpa_range_accum_finish", JT_HPA},
    {"hpa_purge_batch", JT_HPA},
    {"hpa_purge", JT_HPA},
    {"hpa_try_purge", JT_HPA},
    {"hpa_try_hugify", JT_HPA},
    {"hpa_central_extract", JT_HPA},
    {"hpa_alloc_batch_psset", JT_HPA},
    {"hpa_try_alloc_batch_no_grow", JT_HPA},
    {"hpa_try_alloc_batch_no_grow_locked", JT_HPA},
    {"hpa_alloc_batch", JT_HPA},
    {"hpa_alloc", JT_HPA},
    {"hpa_dalloc_batch", JT_HPA},
    {"hpa_dalloc", JT_HPA},
    {"hpa_sec_flush_impl", JT_HPA},
    {"hpa_shard_flush", JT_HPA},
    {"hpa_shard_disable", JT_HPA},
    {"hpa_shard_destroy", JT_HPA},
    {"hpa_shard_maybe_do_deferred_work", JT_HPA},
    {"hpa_shard_do_deferred_work", JT_HPA},
    {"hpa_shard_set_deferral_allowed", JT_HPA},
    {"pa_shard_do_deferred_work", JT_HPA},
    {"pa_shard_set_deferral_allowed", JT_HPA},

    // ---- growth: mappings and their alignment ----
    {"os_pages_map", JT_TRIM},
    {"os_pages_trim", JT_TRIM},
    {"pages_map_slow", JT_TRIM},
    {"pages_map", JT_TRIM},
    {"extent_alloc_mmap", JT_TRIM},
    {"extent_alloc_core", JT_TRIM},
    {"extent_alloc_default", JT_TRIM},
    {"extent_alloc_default_impl", JT_TRIM},
    {"extent_alloc_wrapper_hard", JT_TRIM},
    {"ehooks_alloc", JT_TRIM},
    {"ehooks_default_alloc", JT_TRIM},
    {"ehooks_default_alloc_impl", JT_TRIM},
    {"san_bump_grow_locked", JT_TRIM},

    // ---- out of metadata memory, or a merge that failed ----
    {"extents_abandon_vm", JT_ABANDON},
    {"extents_leak", JT_ABANDON},  // its name in 5.0
    {"extent_dalloc_gap", JT_ABANDON},

    // ---- other advice ----
    {"pages_huge_impl", JT_OTHER_ADVICE},
    {"pages_huge", JT_OTHER_ADVICE},
    {"pages_huge_unaligned", JT_OTHER_ADVICE},
    {"pages_nohuge_impl", JT_OTHER_ADVICE},
    {"pages_nohuge", JT_OTHER_ADVICE},
    {"pages_nohuge_unaligned", JT_OTHER_ADVICE},
    {"pages_collapse", JT_OTHER_ADVICE},
    {"pages_set_thp_state", JT_OTHER_ADVICE},
    {"pages_dontdump", JT_OTHER_ADVICE},
    {"pages_dodump", JT_OTHER_ADVICE},
    {"pages_mark_guards", JT_OTHER_ADVICE},
    {"pages_unmark_guards", JT_OTHER_ADVICE},
    {"base_auto_thp_switch", JT_OTHER_ADVICE},
    {"extent_handle_huge_arena_thp", JT_OTHER_ADVICE},

    // ---- the C library in a static program: glibc's start_thread ends with a madvise of the thread's stack
    // ----
    {"start_thread", JT_THREAD_STACK, JT_CAUSE_UNKNOWN, false},
    {"advise_stack_range", JT_THREAD_STACK, JT_CAUSE_UNKNOWN, false},
    {"__nptl_free_stacks", JT_THREAD_STACK, JT_CAUSE_UNKNOWN, false},
    {"__nptl_deallocate_stack", JT_THREAD_STACK, JT_CAUSE_UNKNOWN, false},
    {"__free_stacks", JT_THREAD_STACK, JT_CAUSE_UNKNOWN, false},
    {"__deallocate_stack", JT_THREAD_STACK, JT_CAUSE_UNKNOWN, false},
};

struct Wanted {
  std::string_view role;
  Family from, to;
};
constexpr Wanted wanted[] = {
    {"arena_decay_to_limit", Family::v50, Family::v52},
    {"pac_decay_to_limit", Family::v53, Family::dev},
    {"extents_evict", Family::v50, Family::v52},
    {"ecache_evict", Family::v53, Family::dev},
    {"extent_dalloc_wrapper", Family::v50, Family::dev},
    // 5.0 and 5.1 have no shortcut for large extents.
    {"extent_record", Family::v52, Family::dev},
};

// On no stack of a memory system call, but probed.
constexpr RoleEntry probed_only[] = {
    {"ecache_evict", JT_UNCLASSIFIED},
    {"extents_evict", JT_UNCLASSIFIED},
};

const std::unordered_map<std::string_view, const RoleEntry*>& role_index() {
  static const auto index = [] {
    std::unordered_map<std::string_view, const RoleEntry*> map;
    for (const RoleEntry& entry : table) {
      map.emplace(entry.role, &entry);
    }
    for (const RoleEntry& entry : probed_only) {
      map.emplace(entry.role, &entry);
    }
    return map;
  }();
  return index;
}

Variant variant_of(std::string_view suffix) {
  Variant variant = Variant::plain;
  const auto has = [&](std::string_view text) { return suffix.find(text) != std::string_view::npos; };
  if (has(".cold")) {
    return Variant::cold;
  }
  if (has(".part.")) {
    variant = Variant::part;
  }
  if (has(".constprop.") || has(".isra.") || has(".llvm.") || has(".lto_priv.")) {
    variant = Variant::altered;
  }
  return variant;
}

bool is_prefix(std::string_view prefix) {
  return prefix.size() <= 32 && std::all_of(prefix.begin(), prefix.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
         });
}

}  // namespace

std::span<const RoleEntry> role_table() {
  return table;
}

const RoleEntry* find_role(std::string_view role) {
  const auto found = role_index().find(role);
  return found == role_index().end() ? nullptr : found->second;
}

std::vector<std::string_view> wanted_roles(Family family) {
  std::vector<std::string_view> roles;
  for (const Wanted& w : wanted) {
    if (family >= w.from && family <= w.to) {
      roles.push_back(w.role);
    }
  }
  return roles;
}

std::string_view sweep_role(Family family) {
  return family >= Family::v53 ? "pac_decay_to_limit" : "arena_decay_to_limit";
}

std::string_view evict_role(Family family) {
  return family >= Family::v53 ? "ecache_evict" : "extents_evict";
}

std::string_view without_suffix(std::string_view symbol) {
  const size_t dot = symbol.find('.', 1);
  return dot == std::string_view::npos ? symbol : symbol.substr(0, dot);
}

std::optional<SpelledName> spelled_name(std::string_view symbol) {
  const std::string_view base = without_suffix(symbol);
  const Variant variant = variant_of(symbol.substr(base.size()));
  if (const RoleEntry* entry = find_role(base)) {
    return SpelledName{{}, entry->role, variant};
  }
  // Private names get "je_" and, before it, what --with-private-namespace says.
  for (size_t at = base.find("je_"); at != std::string_view::npos; at = base.find("je_", at + 1)) {
    const RoleEntry* entry = find_role(base.substr(at + 3));
    if (entry != nullptr && entry->jemalloc && is_prefix(base.substr(0, at))) {
      return SpelledName{base.substr(0, at + 3), entry->role, variant};
    }
  }
  return std::nullopt;
}

}  // namespace jemtrace::locate
