#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "ledger/fleet.hpp"
#include "ledger/model.hpp"
#include "render/diagnosis.hpp"
#include "render/reports.hpp"
#include "render/sink.hpp"

namespace jemtrace::advise {
struct Input;
struct Advice;
struct Trial;
struct SweepReport;
}  // namespace jemtrace::advise

/// Results as text for people or as NDJSON for programs (docs: the output contract). Diagnostics go
/// elsewhere.
namespace jemtrace::render {

/// One call per thing that happened, in the order it happened. Not thread-safe. Strings that come from
/// targets are escaped here; nobody else needs to.
class Output {
 public:
  Output() = default;
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;
  virtual ~Output() = default;

  virtual void header(const ledger::Header& header) = 0;
  /// When a target is first seen.
  virtual void target(const ledger::TargetInfo& target) = 0;
  virtual void interval(const ledger::Interval& interval) = 0;
  virtual void transition(const ledger::TransitionEvent& event) = 0;
  virtual void sweep(const ledger::SweepEvent& event) = 0;
  virtual void summary(const ledger::Summary& summary) = 0;

  virtual void list(const std::vector<ListRow>& rows) = 0;
  virtual void image(const ImageReport& report) = 0;
  virtual void stats(const StatsReport& report) = 0;
  virtual void check(const std::vector<CheckItem>& items) = 0;
  virtual void diagnosis(const DiagnosisReport& report) = 0;
  virtual void flush(const FlushReport& report) = 0;
  /// Its strings were escaped by the host that they are from.
  virtual void merged(const ledger::Fleet& fleet) = 0;

  /// What advise recorded: NDJSON only, to be read again.
  virtual void series(const advise::Input& input) = 0;
  virtual void advice(const advise::Advice& advice) = 0;
  virtual void trials(const advise::SweepReport& report) = 0;
};

struct TextOptions {
  size_t width = 80;             // columns; text is laid out to fit 80 or more
  bool colour = false;           // bold headers, dim legend. The caller looks at NO_COLOR and the terminal
  bool several_targets = false;  // each line of an interval starts with PID and NAME
  bool repeat_header = false;    // every 20 lines: for a terminal, where it scrolls away
};

/// The sink must outlive the output.
std::unique_ptr<Output> make_text(Sink& sink, const TextOptions& options);
std::unique_ptr<Output> make_ndjson(Sink& sink);

/// What Output::merged() says, as one HTML file that needs nothing else: no script, no network.
std::string merged_html(const ledger::Fleet& fleet);

/// A JSON Schema (2020-12) that every line of make_ndjson() validates against.
std::string json_schema();

}  // namespace jemtrace::render
