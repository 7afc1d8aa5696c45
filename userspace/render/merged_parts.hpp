#pragma once

#include <string>
#include <utility>
#include <vector>

#include "ledger/fleet.hpp"

/// What the text and the HTML about a fleet have in common.
namespace jemtrace::render {

using FleetEntry = std::pair<const std::string*, const ledger::FleetGroup*>;

/// The groups whose program threads paid the most time for purges, then those with the most purge time.
std::vector<FleetEntry> top_groups(const ledger::Fleet& fleet, ledger::GroupKind kind, size_t at_most);

std::string group_label(ledger::GroupKind kind, const std::string& key);  // "unknown" for the empty key
std::string transition_label(jt_transition transition);                   // "dirty -> muzzy"

/// "3 hosts, 4 runs, 12 processes, 2 h 5 min of their time".
std::string fleet_words(const ledger::Fleet& fleet);
/// Label and sentence: who paid, what came back, what was lost.
std::vector<std::pair<std::string, std::string>> fleet_facts(const ledger::Fleet& fleet);

constexpr size_t groups_shown = 10;

}  // namespace jemtrace::render
