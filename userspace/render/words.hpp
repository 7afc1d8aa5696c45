#pragma once

#include <cstdint>
#include <string>

#include "ledger/model.hpp"

/// Plain words for what the model says in codes, shared by the renderers.
namespace jemtrace::render {

/// Whether the cache that a purged range came from can be known: not when an image of the target is
/// understood by its system calls or call sites alone, or when nothing is known of it.
bool sources_known(const ledger::TargetInfo& target);
/// Whether an image is understood by its system calls alone, so that a purge may be mistaken.
bool purges_unproven(const ledger::TargetInfo& target);

/// The setting's value, or "" when it is not known.
std::string setting(const ledger::TargetInfo& target, const char* option);

std::string tier_words(const std::string& tier);        // "stripped: recovered"
std::string short_version(const std::string& version);  // "5.3.0-0-g54eaed1d..." -> "5.3.0"; escaped
std::string base_name(const std::string& path);         // escaped
const char* cause_words(jt_cause cause);                // "by arena.<i>.purge"
const char* loss_words(jt_loss loss);                   // "events that found the ring full"
std::string advice_name(int advice);                    // "MADV_FREE"; "advice 42"
/// What a call asked for, in one word: the advice of madvise and process_madvise, else the call's name.
std::string call_name(jt_syscall syscall, int advice);

/// "-" when unknown.
std::string bytes_or_dash(const ledger::Maybe<uint64_t>& bytes);
std::string bytes_or_dash(const ledger::Maybe<ledger::Sampled>& bytes);

std::string percent(uint64_t part, uint64_t whole);  // "92 %"; "<1 %" and ">99 %" where rounding would lie
std::string seconds(uint64_t ns);                    // "30.0 s", "12 min 5 s", "3 h 20 min"
std::string decay_time(const std::string& ms);     // "10000" -> "10 s", "0", "-1" -> "never"; "-" when empty
std::string size_words(const std::string& bytes);  // "8388608" -> "8 MiB"

}  // namespace jemtrace::render
