#include "locate/roles.hpp"

#include <gtest/gtest.h>

#include <set>

namespace jemtrace::locate {
namespace {

void expect_spelled(std::string_view symbol, std::string_view prefix, std::string_view role,
                    Variant variant) {
  const auto name = spelled_name(symbol);
  ASSERT_TRUE(name) << symbol;
  EXPECT_EQ(name->prefix, prefix) << symbol;
  EXPECT_EQ(name->role, role) << symbol;
  EXPECT_EQ(name->variant, variant) << symbol;
}

TEST(SpelledName, knows_the_prefixes_of_private_names) {
  expect_spelled("ecache_evict", "", "ecache_evict", Variant::plain);
  expect_spelled("je_ecache_evict", "je_", "ecache_evict", Variant::plain);
  expect_spelled("_rjem_je_ecache_evict", "_rjem_je_", "ecache_evict", Variant::plain);
  expect_spelled("__je_extents_evict", "__je_", "extents_evict", Variant::plain);
  expect_spelled("my_je_arena_decay", "my_je_", "arena_decay", Variant::plain);
}

TEST(SpelledName, knows_what_compilers_append) {
  expect_spelled("pac_decay_to_limit.part.0", "", "pac_decay_to_limit", Variant::part);
  expect_spelled("pac_decay_to_limit.llvm.1930976557498499365", "", "pac_decay_to_limit", Variant::altered);
  expect_spelled("base_unmap.constprop.0", "", "base_unmap", Variant::altered);
  expect_spelled("extents_abandon_vm.isra.0", "", "extents_abandon_vm", Variant::altered);
  expect_spelled("extent_record.lto_priv.3", "", "extent_record", Variant::altered);
  expect_spelled("pac_decay_to_limit.part.0.isra.0", "", "pac_decay_to_limit", Variant::altered);
  expect_spelled("je_pages_boot.cold", "je_", "pages_boot", Variant::cold);
  expect_spelled("pac_decay_to_limit.part.0.cold", "", "pac_decay_to_limit", Variant::cold);
}

TEST(SpelledName, refuses_other_names) {
  for (const char* symbol : {"", "main", "je_", "je_malloc", "xarena_decay", "arena_decay_ticks", "je_je_",
                             "arena.decay", "std::je_arena_decay", "je_start_thread"}) {
    EXPECT_FALSE(spelled_name(symbol)) << symbol;
  }
}

TEST(RoleTable, names_each_function_once) {
  std::set<std::string_view> seen;
  for (const RoleEntry& entry : role_table()) {
    EXPECT_TRUE(seen.insert(entry.role).second) << entry.role;
  }
}

TEST(RoleTable, holds_all_wanted_and_probed_roles) {
  for (const Family family :
       {Family::v50, Family::v51, Family::v52, Family::v53, Family::v531, Family::dev}) {
    EXPECT_FALSE(wanted_roles(family).empty());
    for (const std::string_view role : wanted_roles(family)) {
      EXPECT_NE(find_role(role), nullptr) << role;
    }
    EXPECT_NE(find_role(sweep_role(family)), nullptr);
    EXPECT_NE(find_role(evict_role(family)), nullptr);
  }
  EXPECT_TRUE(wanted_roles(Family::v4).empty());
}

}  // namespace
}  // namespace jemtrace::locate
