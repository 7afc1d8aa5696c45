// Any bytes as what another host wrote: refused, or counted; and what is counted is still the same after it
// was written and read again, and merged with nothing. With WRITE_SEED=FOLDER it writes lines to start from.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include "../unit/render/samples.hpp"
#include "record/summaries.hpp"
#include "render/output.hpp"

namespace {

using namespace jemtrace;

Result<record::Summaries> read(std::string text) {
  if (text.empty()) {
    return fail(Errc::malformed, "nothing");
  }
  std::FILE* file = ::fmemopen(text.data(), text.size(), "r");
  auto result = record::read_summaries(file, "fuzz");
  std::fclose(file);
  return result;
}

std::string merged(const ledger::Fleet& fleet) {
  render::StringSink sink;
  render::make_ndjson(sink)->merged(fleet);
  return sink.text();
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  if (const char* to = std::getenv("WRITE_SEED")) {
    render::StringSink run;
    const auto out = render::make_ndjson(run);
    out->header(render::samples::header());
    out->target(render::samples::target());
    out->summary(render::samples::summary());
    std::ofstream(std::string(to) + "/run") << run.text();
    std::ofstream(std::string(to) + "/merged") << merged(read(run.text())->fleet);
    std::exit(0);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto first = read(std::string(reinterpret_cast<const char*>(data), size));
  if (!first) {
    return 0;
  }
  const std::string once = merged(first->fleet);
  const auto second = read(once);
  if (!second || merged(second->fleet) != once) {
    std::abort();
  }
  ledger::Fleet both;
  if (!both.merge(first->fleet) || merged(both) != once) {
    std::abort();
  }
  render::StringSink text;
  render::make_text(text, {})->merged(first->fleet);
  (void)render::merged_html(first->fleet);
  return 0;
}
