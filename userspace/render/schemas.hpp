#pragma once

#include "render/schema_parts.hpp"

/// The schema of each kind of line, and of what several of them refer to ("$defs").
namespace jemtrace::render {

// trace_schema.cpp
Json header_schema();
Json target_schema();
Json image_schema();
Json transition_schema();
Json sweep_schema();
Json interval_schema();
std::vector<Property> trace_definitions();

// summary_schema.cpp
Json summary_schema();
Json merged_schema();
Json merged_run_schema();
Json merged_group_schema();
std::vector<Property> summary_definitions();

// report_schema.cpp
Json stats_schema();
Json check_schema();
Json finding_schema();
Json diagnosis_schema();
Json flush_schema();
std::vector<Property> report_definitions();

// advice_schema.cpp
Json series_schema();
Json advice_schema();
Json trial_schema();

}  // namespace jemtrace::render
