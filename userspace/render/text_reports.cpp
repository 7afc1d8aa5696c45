#include <fmt/format.h>

#include <algorithm>

#include "render/text_parts.hpp"
#include "render/words.hpp"
#include "util/text.hpp"

namespace jemtrace::render {
namespace {

std::string or_dash(const std::string& text) {
  return text.empty() ? "-" : escape(text);
}

std::string on_off(const std::string& value) {
  return value == "true" ? "on" : value == "false" ? "off" : or_dash(value);
}

std::vector<std::string> list_cells(const ListRow& row, const ledger::ImageInfo* image, bool first) {
  const ledger::TargetInfo& target = row.target;
  std::vector<std::string> cells = {std::to_string(target.pid), escape(target.comm)};
  if (image == nullptr) {
    cells.insert(cells.end(), {"-", "-", "-"});
  } else {
    const std::string version = short_version(image->version);
    cells.insert(cells.end(),
                 {version.empty() ? "-" : version, or_dash(image->linkage), or_dash(image->tier)});
  }
  if (first) {
    cells.insert(cells.end(),
                 {decay_time(setting(target, "dirty_decay_ms")),
                  decay_time(setting(target, "muzzy_decay_ms")), on_off(setting(target, "background_thread")),
                  bytes_or_dash(row.sample.rss_bytes), bytes_or_dash(row.sample.lazyfree_bytes)});
  } else {
    cells.insert(cells.end(), {"", "", "", "", ""});  // the second image of a process: its memory is above
  }
  return cells;
}

/// Measured in a virtual machine (design, the choice of the instruction).
std::string probe_cost(const RoleReport& role) {
  if (!role.cost_class) {
    return "-";
  }
  return *role.cost_class == "single_step" ? "16 us"
         : *role.cost_class == "emulated"  ? "0.6 us"
                                           : escape(*role.cost_class);
}

std::string image_heading(const ImageReport& report, const TextOptions& options) {
  const std::string version = short_version(report.version);
  std::string out = wrap("image", escape(report.path), options.width, label_width);
  out += wrap("jemalloc", version.empty() ? "version unknown: the build does not say" : version,
              options.width, label_width);
  out += wrap("linkage", or_dash(report.linkage), options.width, label_width);
  out += wrap("tier", tier_words(report.tier), options.width, label_width);
  out += wrap("prefix", report.prefix.empty() ? "none" : escape(report.prefix), options.width, label_width);
  if (!report.conf_variable.empty()) {
    out += wrap("settings", fmt::format("read from ${}", escape(report.conf_variable)), options.width,
                label_width);
  }
  out += wrap("build-id", or_dash(report.build_id), options.width, label_width);
  if (report.call_sites) {
    out += wrap("call sites", human_count(*report.call_sites) + " known", options.width, label_width);
  }
  if (report.cached) {
    out += wrap("from cache", "looked at earlier; --rebuild looks again", options.width, label_width);
  }
  return out;
}

std::string roles_table(const ImageReport& report, const TextOptions& options) {
  // Without symbols there is nothing to spell: the column would be empty.
  const bool spelled = std::any_of(report.roles.begin(), report.roles.end(),
                                   [](const RoleReport& role) { return !role.symbol.empty(); });
  std::vector<std::vector<std::string>> rows;
  bool probed = false;
  for (const RoleReport& role : report.roles) {
    probed |= role.probe_offset.has_value();
    rows.push_back({escape(role.role)});
    if (spelled) {
      rows.back().push_back(or_dash(role.symbol));
    }
    rows.back().insert(rows.back().end(),
                       {fmt::format("{:#x}", role.offset), or_dash(role.found_by),
                        role.probe_offset ? or_dash(role.instruction) : "-", probe_cost(role)});
  }
  if (rows.empty()) {
    return {};
  }
  std::vector<Column> columns = {{"ROLE", 0, true, 0, "", 18},
                                 {"OFFSET"},
                                 {"FOUND BY", 0, true},
                                 {"PROBE ON", 0, true, 0, "", 8},
                                 {"COST"}};
  if (spelled) {
    columns.insert(columns.begin() + 1, {"SYMBOL", 0, true, 0, "", 12});
  }
  std::string out = "\n";
  out += table(columns, rows, options);
  if (probed) {
    out +=
        dim("COST of a probe hit: 0.6 us if the kernel emulates it, up to 16 us if it steps", options) + '\n';
  }
  return out;
}

std::string joined(const std::vector<std::string>& facts) {
  std::string out;
  for (const std::string& fact : facts) {
    out += (out.empty() ? "" : "; ") + escape(fact);
  }
  return out;
}

/// Why a function that has no symbol is taken for the one it is.
std::string evidence_list(const ImageReport& report, const TextOptions& options) {
  std::string out;
  for (const RoleReport& role : report.roles) {
    if (!role.evidence.empty()) {
      out += wrap(fmt::format("  {}", escape(role.role)), "", options.width, 2);
      out += wrap("   ", joined(role.evidence), options.width, 4);
    }
  }
  return out.empty() ? out : fmt::format("\n{}\n{}", bold("EVIDENCE", options), out);
}

std::string missing_list(const ImageReport& report, const TextOptions& options) {
  if (report.missing.empty()) {
    return {};
  }
  size_t widest = 0;
  for (const std::string& role : report.missing) {
    widest = std::max(widest, display_width(escape(role)));
  }
  const size_t indent = 2 + std::min<size_t>(widest, 28) + 2;
  std::string out = fmt::format("\n{}\n", bold("MISSING", options));
  for (const std::string& role : report.missing) {
    out += wrap(fmt::format("  {}  ", cut_middle(escape(role), 28)), what_missing_costs(role), options.width,
                indent);
  }
  return out;
}

/// What can be read out of a process.
std::string structures_list(const ImageReport& report, const TextOptions& options) {
  if (!report.structures) {
    return {};
  }
  const StructuresReport& found = *report.structures;
  std::string out = fmt::format("\n{}\n", bold("STRUCTURES", options));
  if (!found.found_by.empty()) {
    out += wrap("  found by", escape(found.found_by), options.width, label_width);
  }
  if (!found.readable.empty()) {
    out += wrap("  readable", joined(found.readable), options.width, label_width);
  }
  if (!found.missing.empty()) {
    out += wrap("  missing", joined(found.missing), options.width, label_width);
  }
  if (!found.evidence.empty()) {
    out += wrap("  evidence", joined(found.evidence), options.width, label_width);
  }
  return out;
}

}  // namespace

std::string table(std::vector<Column> layout, const std::vector<std::vector<std::string>>& rows,
                  const TextOptions& options) {
  Columns columns(std::move(layout), options.width);
  columns.fit(rows);
  std::string out = bold(columns.header(), options) + '\n';
  for (const auto& row : rows) {
    out += columns.row(row) + '\n';
  }
  return out;
}

std::string list_text(const std::vector<ListRow>& rows, const TextOptions& options) {
  if (rows.empty()) {
    return "no process that uses jemalloc\n";
  }
  std::vector<std::vector<std::string>> cells;
  for (const ListRow& row : rows) {
    const auto& images = row.target.images;
    if (images.empty()) {
      cells.push_back(list_cells(row, nullptr, true));
    }
    for (size_t i = 0; i < images.size(); ++i) {
      cells.push_back(list_cells(row, &images[i], i == 0));
    }
  }
  return table({{"PID"},
                {"NAME", 0, true, 0, "", 8},
                {"VERSION", 0, true, 0, "", 7},
                {"LINKAGE", 0, true},
                {"TIER", 0, true},
                {"DIRTY"},
                {"MUZZY"},
                {"BG"},
                {"RSS"},
                {"LAZYFREE"}},
               cells, options) +
         dim("DIRTY, MUZZY: decay times. BG: background_thread. - is unknown.", options) + '\n';
}

std::string image_text(const ImageReport& report, const TextOptions& options) {
  std::string out = image_heading(report, options) + roles_table(report, options) +
                    evidence_list(report, options) + missing_list(report, options) +
                    structures_list(report, options);
  for (const std::string& note : report.notes) {
    out += wrap("note", escape(note), options.width, label_width);
  }
  return out;
}

std::string check_text(const std::vector<CheckItem>& items, const TextOptions& options) {
  size_t widest = 0;
  for (const CheckItem& item : items) {
    widest = std::max(widest, display_width(escape(item.name)));
  }
  const size_t name_width = std::min<size_t>(widest, 24);
  const size_t indent = 6 + name_width + 2;
  std::string out;
  for (const CheckItem& item : items) {
    const std::string label = pad_right(name(item.status), 6) + cut_middle(escape(item.name), name_width);
    out += wrap(label, escape(item.detail), options.width, indent);
    if (!item.hint.empty() && item.status != CheckStatus::ok) {
      out += wrap("", fmt::format("-> {}", escape(item.hint)), options.width, indent);
    }
  }
  return out;
}

}  // namespace jemtrace::render
