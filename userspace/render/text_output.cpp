#include <fmt/format.h>

#include <optional>
#include <set>

#include "render/text_parts.hpp"
#include "render/words.hpp"
#include "util/text.hpp"

namespace jemtrace::render {
namespace {

constexpr size_t header_every_lines = 20;

bool any_known(const ledger::States& s) {
  return s.active_bytes || s.dirty_bytes || s.muzzy_bytes || s.retained_bytes;
}

std::string image_clause(const ledger::ImageInfo& image, pid_t pid) {
  const std::string version = short_version(image.version);
  std::string clause =
      fmt::format("jemalloc {} in {}, {}, {}", version.empty() ? "of unknown version" : version,
                  cut_middle(base_name(image.path), 40),
                  image.linkage.empty() ? "linkage unknown" : image.linkage, tier_words(image.tier));
  const size_t found = image.roles.size();
  const size_t wanted = found + image.missing.size();
  if (wanted > 0 && image.tier != "syscall") {
    clause += ", " + glue(fmt::format("{} of {} sites", found, wanted));
  }
  if (!image.missing.empty() && image.tier != "syscall") {
    clause += ' ' + glue(fmt::format("(see jemtrace image {})", pid));
  }
  return clause;
}

/// "dirty_decay_ms 500", "background_thread on", "5 arenas".
std::string setting_clause(const std::string& option, const std::string& value) {
  if (option == "narenas") {
    return glue(escape(value) + (value == "1" ? " arena" : " arenas"));
  }
  const std::string shown = value == "true"    ? "on"
                            : value == "false" ? "off"
                            : value == "-1"    ? "-1 (never)"
                                               : value;
  return glue(option + ' ' + escape(shown));
}

/// Whether the second header line names the option: the ones that decide about purging always, the rest when
/// somebody has set them.
bool worth_naming(const std::string& option, const ledger::Setting& setting) {
  const bool usual = option == "dirty_decay_ms" || option == "muzzy_decay_ms" ||
                     option == "background_thread" || option == "narenas";
  const bool rare = option == "retain" || option == "oversize_threshold" || option == "thp";
  return usual || (rare && setting.source.rfind("default", 0) != 0);
}

/// Settings from the same source stand together, with the source behind them.
std::string settings_line(const ledger::TargetInfo& target) {
  static constexpr const char* order[] = {"dirty_decay_ms",
                                          "muzzy_decay_ms",
                                          "background_thread",
                                          "narenas",
                                          "retain",
                                          "oversize_threshold",
                                          "thp"};
  std::string line;
  std::string source;
  for (const char* option : order) {
    const auto found = target.conf.find(option);
    if (found == target.conf.end() || !worth_naming(option, found->second)) {
      continue;
    }
    if (!line.empty() && found->second.source != source) {
      line += source.empty() ? ";" : fmt::format(" ({});", escape(source));
    } else if (!line.empty()) {
      line += ',';
    }
    line += line.empty() ? "" : " ";
    line += setting_clause(option, found->second.value);
    source = found->second.source;
  }
  if (line.empty()) {
    return target.conf_unknown_because.empty() ? "settings unknown"
                                               : "settings unknown: " + target.conf_unknown_because;
  }
  return source.empty() ? line : fmt::format("{} ({})", line, escape(source));
}

class TextOutput final : public Output {
 public:
  TextOutput(Sink& sink, const TextOptions& options) : sink_(sink), options_(options) {}

  void header(const ledger::Header& header) override { start_ = header; }

  void target(const ledger::TargetInfo& target) override {
    put(target_text(target, options_));
    rows_since_header_ = live_ ? header_every_lines : 0;  // the columns' names have scrolled on
    sink_.flush();
  }

  void interval(const ledger::Interval& interval) override {
    // Decided once: columns that come and go cannot be read.
    if (!live_) {
      live_.emplace(options_, any_known(interval.states));
      put(fmt::format("\n{}\n", bold(live_->header(), options_)));
    } else if (options_.repeat_header && rows_since_header_ >= header_every_lines) {
      put(bold(live_->header(), options_) + "\n");
      rows_since_header_ = 0;
    }
    put(live_->row(interval) + "\n");
    ++rows_since_header_;
    sink_.flush();
  }

  void transition(const ledger::TransitionEvent& event) override { put(events().row(event.raw) + "\n"); }
  void sweep(const ledger::SweepEvent& event) override { put(events().row(event) + "\n"); }

  void summary(const ledger::Summary& summary) override {
    put(fmt::format("\n{}", summary_text(summary, options_, !legend_shown_)));
    legend_shown_ = true;
    sink_.flush();
  }

  void list(const std::vector<ListRow>& rows) override { put_now(list_text(rows, options_)); }
  void image(const ImageReport& report) override { put_now(image_text(report, options_)); }
  void stats(const StatsReport& report) override {
    put_now(target_text(report.target, options_) + '\n' + stats_text(report, options_));
  }
  void check(const std::vector<CheckItem>& items) override { put_now(check_text(items, options_)); }
  void diagnosis(const DiagnosisReport& report) override {
    put_now((diagnosed_ ? "\n" : "") + diagnosis_text(report, options_));
    diagnosed_ = true;
  }
  void flush(const FlushReport& report) override { put_now(flush_text(report, options_)); }
  void merged(const ledger::Fleet& fleet) override { put_now(merged_text(fleet, options_)); }
  void series(const advise::Input& /*input*/) override {}
  void advice(const advise::Advice& advice) override { put_now(advice_text(advice, options_)); }
  void trials(const advise::SweepReport& report) override { put_now(sweep_text(report, options_)); }

 private:
  void put(const std::string& lines) { sink_.write(lines); }
  void put_now(const std::string& lines) {
    put(lines);
    sink_.flush();
  }

  EventTable& events() {
    if (!events_) {
      events_.emplace(options_, start_);
      put(fmt::format("\n{}\n", bold(events_->header(), options_)));
    }
    return *events_;
  }

  Sink& sink_;
  TextOptions options_;
  ledger::Header start_;
  std::optional<LiveTable> live_;
  std::optional<EventTable> events_;
  size_t rows_since_header_ = 0;
  bool legend_shown_ = false;
  bool diagnosed_ = false;
};

}  // namespace

std::string bold(const std::string& line, const TextOptions& options) {
  return options.colour ? "\x1b[1m" + line + "\x1b[0m" : line;
}

std::string dim(const std::string& line, const TextOptions& options) {
  return options.colour ? "\x1b[2m" + line + "\x1b[0m" : line;
}

std::string target_text(const ledger::TargetInfo& target, const TextOptions& options) {
  const std::string who = fmt::format("{} ({})", cut_middle(escape(target.comm), 40), target.pid);
  std::string out;
  for (const ledger::ImageInfo& image : target.images) {
    out += out.empty() ? wrap(who + "  ", image_clause(image, target.pid), options.width,
                              std::min<size_t>(display_width(who) + 2, 24))
                       : wrap("", "and " + image_clause(image, target.pid), options.width, 4);
  }
  if (out.empty()) {
    out = who + "  no jemalloc seen yet\n";
  }
  return out + wrap("", settings_line(target), options.width, 0);
}

std::unique_ptr<Output> make_text(Sink& sink, const TextOptions& options) {
  return std::make_unique<TextOutput>(sink, options);
}

}  // namespace jemtrace::render
