#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "render/text_parts.hpp"
#include "render/words.hpp"
#include "util/text.hpp"

namespace jemtrace::render {
namespace {

using ledger::Account;
using ledger::Part;

/// One segment of the bar and one line of the table.
struct PartWords {
  Part part;
  char mark;
  const char* label;
  const char* meaning;
};

constexpr PartWords part_words[] = {
    {Part::active, '#', "active", "in use, slack included"},
    {Part::dirty, 'd', "dirty", "free, until it decays"},
    {Part::lazyfree, '~', "muzzy, LazyFree", "the kernel may take it"},
    {Part::redirtied, '!', "muzzy, not lazy", "the kernel may not take it"},
    {Part::retained, 'r', "retained", "given back, there again"},
    {Part::metadata, 'm', "metadata", "jemalloc's own"},
    {Part::other_heap, 'o', "other heap", "not jemalloc's"},
    {Part::stacks, 's', "stacks", ""},
    {Part::files, 'f', "files", "programs, libraries, data"},
};
constexpr char unexplained_mark = '?';

uint64_t magnitude(int64_t value) {
  return value < 0 ? uint64_t{0} - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
}

std::string pages_or_dash(const ledger::Maybe<uint64_t>& pages, uint64_t page_bytes) {
  return pages ? human_bytes(*pages * page_bytes) : "-";
}

std::string number_or_dash(const ledger::Maybe<uint64_t>& number) {
  return number ? human_count(*number) : "-";
}

/// Amounts side by side as marks, `whole` as wide as `width`. Each ends where their running sum does, so that
/// rounding never adds up to another length.
class Bar {
 public:
  Bar(uint64_t whole, size_t width)
      : whole_(static_cast<double>(whole)), width_(static_cast<double>(width)) {}

  void draw(uint64_t amount, char mark) {
    so_far_ += static_cast<double>(amount);
    const auto end = whole_ > 0 ? static_cast<size_t>(std::llround(so_far_ / whole_ * width_)) : 0;
    text_.append(end - std::min(end, text_.size()), mark);
  }
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  double whole_, width_;
  double so_far_ = 0;
  std::string text_;
};

std::string rss_bar(const Account& account, size_t width) {
  uint64_t whole = account.unexplained_bytes > 0 ? magnitude(account.unexplained_bytes) : 0;
  for (const PartWords& words : part_words) {
    whole += account.part(words.part).value_or(0);
  }
  Bar bar(whole, width);
  for (const PartWords& words : part_words) {
    bar.draw(account.part(words.part).value_or(0), words.mark);
  }
  bar.draw(account.unexplained_bytes > 0 ? magnitude(account.unexplained_bytes) : 0, unexplained_mark);
  return pad_right(bar.text(), width);
}

/// What jemalloc says of the part, where that is another number than what is resident.
ledger::Maybe<uint64_t> jemalloc_says(const Account& account, Part part) {
  switch (part) {
    case Part::active:
      return account.active.bytes;
    case Part::dirty:
      return account.dirty.bytes;
    case Part::lazyfree:
      return account.muzzy.bytes;
    case Part::retained:
      return account.retained.bytes;
    case Part::metadata:
      return account.metadata.bytes;
    default:
      return std::nullopt;
  }
}

bool is_jemallocs(Part part) {
  return part == Part::active || part == Part::dirty || part == Part::lazyfree || part == Part::retained ||
         part == Part::metadata;
}

bool worth_a_line(const Account& account, Part part) {
  // Without a reading the heap is in one piece: lines of dashes would say no more than the note does.
  const bool usual =
      part == Part::active || part == Part::dirty || part == Part::lazyfree || part == Part::retained;
  return (usual && account.part(part)) || account.part(part).value_or(0) > 0;
}

/// The kernel marks lazily freed pages in batches: so little may be lazy all the same.
bool is_lag(const Account& account, Part part) {
  return part == Part::redirtied && account.part(part).value_or(0) <= account.lazyfree_lag_bytes;
}

/// What active memory is made of, by jemalloc's books.
void add_active_rows(const Account& account, std::vector<std::vector<std::string>>& rows) {
  const auto& tcache = account.tcache_bytes;
  if (account.allocated_bytes) {
    rows.push_back({"", "  allocated", "", "", human_bytes(*account.allocated_bytes),
                    tcache ? fmt::format("{} of it in thread caches", human_bytes(*tcache)) : ""});
  }
  if (account.slack_bytes && account.active.bytes) {
    rows.push_back(
        {"", "  slack", "", "", human_bytes(*account.slack_bytes),
         fmt::format("fragmentation, {} of it", percent(*account.slack_bytes, *account.active.bytes))});
  }
}

std::string parts_table(const Account& account, const TextOptions& options) {
  std::vector<std::vector<std::string>> rows;
  const bool split = account.part(Part::active).has_value();
  for (const PartWords& words : part_words) {
    if (worth_a_line(account, words.part)) {
      const auto resident = account.part(words.part);
      const bool whole_heap = words.part == Part::other_heap && !split;
      rows.push_back({std::string(1, words.mark), whole_heap ? "heap" : words.label, bytes_or_dash(resident),
                      resident ? percent(*resident, account.rss_bytes) : "-",
                      is_jemallocs(words.part) ? bytes_or_dash(jemalloc_says(account, words.part)) : "",
                      whole_heap                    ? "jemalloc's and others'"
                      : is_lag(account, words.part) ? "may be not marked lazy yet"
                                                    : words.meaning});
    }
    if (words.part == Part::active) {
      add_active_rows(account, rows);
    }
  }
  rows.push_back({std::string(1, unexplained_mark), "not explained",
                  human_bytes_delta(account.unexplained_bytes),
                  percent(magnitude(account.unexplained_bytes), account.rss_bytes), "",
                  fmt::format("at most {}", human_bytes(account.bound_bytes))});
  rows.push_back({"", "RSS", human_bytes(account.rss_bytes), "", "", ""});
  return table(
             {{"", 1, true}, {"", 0, true}, {"RESIDENT"}, {"OF RSS"}, {"JEMALLOC"}, {"", 0, true, 0, "", 20}},
             rows, options) +
         dim("RESIDENT: what the kernel holds. JEMALLOC: what its own books say.", options) + "\n\n";
}

/// What an arena holds by its books, in the marks of the bar above.
std::string arena_bar(const ledger::ArenaReading& arena, uint64_t whole, size_t width) {
  Bar bar(whole, width);
  bar.draw(arena.active_pages.value_or(0), '#');
  bar.draw(arena.dirty.pages.value_or(0), 'd');
  bar.draw(arena.muzzy.pages.value_or(0), '~');
  return bar.text();
}

uint64_t pages_held(const ledger::ArenaReading& arena) {
  return arena.active_pages.value_or(0) + arena.dirty.pages.value_or(0) + arena.muzzy.pages.value_or(0);
}

std::string arenas_table(const StatsReport& report, const TextOptions& options) {
  constexpr size_t bar_width = 20;
  std::vector<std::vector<std::string>> rows;
  const auto decay_ms = [](const ledger::DecayReading& decay) {
    return decay.time_ms ? decay_time(std::to_string(*decay.time_ms)) : "-";
  };
  uint64_t whole = 1;
  for (const ledger::ArenaReading& arena : report.reading->arenas) {
    whole = std::max(whole, pages_held(arena));
  }
  for (const ledger::ArenaReading& arena : report.reading->arenas) {
    rows.push_back({std::to_string(arena.index), number_or_dash(arena.threads),
                    pages_or_dash(arena.active_pages, report.page_bytes),
                    pages_or_dash(arena.dirty.pages, report.page_bytes),
                    pages_or_dash(arena.muzzy.pages, report.page_bytes),
                    pages_or_dash(arena.retained.pages, report.page_bytes),
                    fmt::format("{}/{}", decay_ms(arena.dirty_decay), decay_ms(arena.muzzy_decay)),
                    arena_bar(arena, whole, bar_width)});
  }
  return "\n" +
         table({{"ARENA"},
                {"THREADS", 0, false, 0, "THR"},
                {"ACTIVE"},
                {"DIRTY"},
                {"MUZZY"},
                {"RETAINED"},
                {"DECAY"},
                {"", 0, true, 0, "", 8}},
               rows, options) +
         dim("By jemalloc's books. THREADS: assigned to it. DECAY: of dirty/of muzzy pages.", options) + '\n';
}

/// The size classes that hold most.
std::string classes_table(const ledger::Reading& reading, const TextOptions& options) {
  constexpr size_t most_rows = 12;
  std::vector<ledger::SizeClass> classes = reading.classes;
  const auto held = [](const ledger::SizeClass& size) { return size.bytes * size.blocks.value_or(0); };
  std::stable_sort(classes.begin(), classes.end(),
                   [&](const auto& a, const auto& b) { return held(a) > held(b); });
  const auto unknown = std::erase_if(classes, [](const auto& size) { return !size.blocks; });
  std::erase_if(classes, [&](const auto& size) { return held(size) == 0; });
  std::vector<std::vector<std::string>> rows;
  for (size_t i = 0; i < std::min(classes.size(), most_rows); ++i) {
    rows.push_back({human_bytes(classes[i].bytes), number_or_dash(classes[i].blocks),
                    human_bytes(held(classes[i])), classes[i].large ? "an extent each" : "in slabs"});
  }
  return "\n" + table({{"CLASS"}, {"BLOCKS"}, {"BYTES"}, {"", 0, true}}, rows, options) +
         dim("BLOCKS: allocated, or held by thread caches. The classes that hold most.", options) + '\n' +
         (unknown > 0 ? fmt::format("Nothing is known of {} more.\n", unknown) : "");
}

/// stats.* of the whole process. What `resident` means changed with 5.3.0.
std::string mallctl_words(const StatsReport& report) {
  const ledger::Global& global = report.reading->global;
  if (!global.allocated && !global.resident) {
    return {};
  }
  const std::string version = report.target.images.empty() ? "" : report.target.images.front().version;
  const bool with_muzzy =
      version.rfind("5.0", 0) == 0 || version.rfind("5.1", 0) == 0 || version.rfind("5.2", 0) == 0;
  return fmt::format("allocated {}, active {}, metadata {}, resident {} ({} muzzy), mapped {}, retained {}",
                     glue(bytes_or_dash(global.allocated)), glue(bytes_or_dash(global.active)),
                     glue(bytes_or_dash(global.metadata)), glue(bytes_or_dash(global.resident)),
                     version.empty() ? "with or without"
                     : with_muzzy    ? "with"
                                     : "without",
                     glue(bytes_or_dash(global.mapped)), glue(bytes_or_dash(global.retained)));
}

/// The number to watch, which the table lays out.
std::string overhead_words(const Account& account) {
  const auto& used = account.allocated_bytes ? account.allocated_bytes : account.active.bytes;
  if (!used) {
    return {};
  }
  const char* const what = account.allocated_bytes ? "allocated" : "active";
  if (*used > account.rss_bytes) {
    return fmt::format(
        "RSS is {} less than what is {}: at least that much was never touched, or is swapped out",
        glue(human_bytes(*used - account.rss_bytes)), what);
  }
  const uint64_t beyond = account.rss_bytes - *used;
  return fmt::format("RSS minus {} is {}, {} of RSS", what, glue(human_bytes(beyond)),
                     glue(percent(beyond, account.rss_bytes)));
}

std::string muzzy_words(const Account& account) {
  if (account.muzzy.bytes.value_or(0) == 0 || !account.muzzy_not_resident_bytes) {
    return {};
  }
  return fmt::format("of {}, {} the kernel still may take and {} are not resident: taken, or never touched",
                     glue(human_bytes(*account.muzzy.bytes)),
                     glue(human_bytes(account.part(Part::lazyfree).value_or(0))),
                     glue(human_bytes(*account.muzzy_not_resident_bytes)));
}

std::string pressure_words(const StatsReport& report) {
  std::string out;
  if (report.cgroup && report.cgroup->usage_bytes) {
    out = fmt::format("cgroup {} uses {}", escape(report.cgroup->path),
                      glue(human_bytes(*report.cgroup->usage_bytes)));
    out += report.cgroup->limit_bytes ? fmt::format(" of {}", glue(human_bytes(*report.cgroup->limit_bytes)))
                                      : ", no limit";
  }
  const auto& pressure =
      report.cgroup && report.cgroup->pressure ? report.cgroup->pressure : report.host.pressure;
  if (pressure) {
    out += fmt::format("{}{} waited for memory in the last 10 s", out.empty() ? "" : "; ",
                       glue(fmt::format("{:.2f} %", pressure->some_avg10)));
  }
  return out;
}

std::string method_words(const StatsReport& report) {
  std::string out;
  if (report.reading) {
    out = fmt::format("jemalloc by {}", ledger::name(report.reading->method));
    if (report.reading->completed_by) {
      out += fmt::format(", completed by {}", ledger::name(*report.reading->completed_by));
    }
    if (report.reading->discarded > 0) {
      out += fmt::format(", {} values thrown away as impossible", human_count(report.reading->discarded));
    }
  } else {
    out = "jemalloc not read: " + escape(report.unread_because);
  }
  return out +
         fmt::format("; the kernel by smaps and pagemap; {} in all", glue(human_ns(report.sampling_ns)));
}

}  // namespace

std::string stats_text(const StatsReport& report, const TextOptions& options) {
  const Account& account = report.account;
  std::string out = fmt::format("[{}]\n\n{}", rss_bar(account, std::min<size_t>(options.width, 100) - 2),
                                parts_table(account, options));
  const auto labelled = [&](const char* label, const std::string& words) {
    if (!words.empty()) {
      out += wrap(label, words, options.width, label_width);
    }
  };
  labelled("overhead", overhead_words(account));
  labelled("muzzy", muzzy_words(account));
  if (account.anon_huge_bytes > 0) {
    labelled("huge pages", fmt::format("{} of RSS, {}", glue(human_bytes(account.anon_huge_bytes)),
                                       glue(percent(account.anon_huge_bytes, account.rss_bytes))));
  }
  if (account.swap_bytes > 0) {
    labelled("swap", glue(human_bytes(account.swap_bytes)) + " besides");
  }
  labelled("pressure", pressure_words(report));
  labelled("read", method_words(report));
  if (account.uncertain_bytes > 0) {
    labelled("uncertain", fmt::format("{} may belong to another line: nothing tells whose these mappings are",
                                      glue(human_bytes(account.uncertain_bytes))));
  }
  for (const std::string& note : account.notes) {
    labelled("note", escape(note));
  }
  if (report.reading) {
    for (const std::string& reason : report.reading->reasons) {
      labelled("note", escape(reason));
    }
    labelled("mallctl", mallctl_words(report));
    if (report.classes && !report.reading->classes.empty()) {
      out += classes_table(*report.reading, options);
    }
    if (report.arenas) {
      out += arenas_table(report, options);
    }
  }
  return out;
}

}  // namespace jemtrace::render
