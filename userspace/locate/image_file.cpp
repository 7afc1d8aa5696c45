#include "locate/image_file.hpp"

#include <algorithm>
#include <limits>

#include "util/wire.hpp"

// One line a field.

namespace jemtrace {

static void fields(auto& archive, wire::Is<Error> auto& it) {
  archive(1, it.code, Errc::no_target);
  archive(2, it.what);
  archive(3, it.sys);
  archive(4, it.hint);
}

}  // namespace jemtrace

namespace jemtrace::locate {

static void fields(auto& archive, wire::Is<Version> auto& it) {
  archive(1, it.major);
  archive(2, it.minor);
  archive(3, it.patch);
  archive(4, it.text);
}

static void fields(auto& archive, wire::Is<FoundRole> auto& it) {
  archive(1, it.role);
  archive(2, it.symbol);
  archive(3, it.vaddr);
  archive(4, it.offset);
  archive(5, it.size);
  archive(6, it.found_by);
  archive(7, it.evidence);
}

static void fields(auto& archive, wire::Is<ProbeSite> auto& it) {
  archive(1, it.role);
  archive(2, it.offset);
  archive(3, it.cost, CostClass::single_step);
  archive(4, it.instruction);
  archive.plain(5, it.site);
}

static void fields(auto& archive, wire::Is<TextSegment> auto& it) {
  archive(1, it.vaddr);
  archive(2, it.offset);
  archive(3, it.size);
}

static void fields(auto& archive, wire::Is<Image> auto& it) {
  archive(1, it.build_id);
  archive(2, it.version);
  archive(3, it.symbol_prefix);
  archive(4, it.linkage, Linkage::static_linked);
  archive(5, it.tier, Tier::syscall);
  archive(6, it.musl);
  archive(7, it.text);
  archive(8, it.exe_code_vaddr);
  archive(9, it.roles);
  archive(10, it.missing);
  archive(11, it.probes);
  archive.plain(12, it.call_sites);
  archive(13, it.cache_state_offset);
  archive(14, it.cache_ind_offset);
  archive(15, it.notes);
}

namespace {

enum class Kind { none, image, error };

/// An Outcome as a plain struct.
struct Envelope {
  Kind kind = Kind::none;
  Image image;
  Error error;
};

void fields(auto& archive, wire::Is<Envelope> auto& it) {
  archive(1, it.kind, Kind::error);
  archive(2, it.image);
  archive(3, it.error);
}

// What the kernel side is told has to be what it was written for, whoever wrote the bytes.
constexpr int32_t max_frame = 64 << 10;
constexpr uint64_t max_offset = uint64_t{1} << 40;  // of a place in a file
constexpr uint8_t last_argument = 6;

bool sound(const jt_site& site) {
  return site.cfa_offset >= 0 && site.cfa_offset <= max_frame && site.saved_bp <= 0 &&
         site.saved_bp >= -max_frame && site.cfa_register <= JT_CFA_NONE && site.purpose < JT_PURPOSES &&
         site.cause < JT_CAUSES && site.role <= JT_ROLE_EVICT && site.cache_arg[0] <= last_argument &&
         site.cache_arg[1] <= last_argument && site.pad == 0;
}

bool sound(const ProbeSite& probe) {
  return probe.offset < max_offset && probe.site.role != JT_ROLE_NONE && sound(probe.site);
}

bool sound(const CallSite& call) {
  return call.return_offset < max_offset && call.site.role == JT_ROLE_NONE && sound(call.site);
}

bool sound(const TextSegment& text) {
  return text.offset < max_offset && text.size < max_offset &&
         text.vaddr <= std::numeric_limits<uint64_t>::max() - text.size;
}

bool sound(const Image& image) {
  const auto each = [](const auto& all) {
    return std::all_of(all.begin(), all.end(), [](const auto& one) { return sound(one); });
  };
  const auto ascending =
      std::is_sorted(image.call_sites.begin(), image.call_sites.end(),
                     [](const CallSite& a, const CallSite& b) { return a.return_offset < b.return_offset; });
  return sound(image.text) && each(image.probes) && each(image.call_sites) && ascending;
}

}  // namespace

std::string encode(const Outcome& outcome) {
  Envelope envelope;
  if (!outcome) {
    envelope.kind = Kind::error;
    envelope.error = outcome.error();
  } else if (*outcome) {
    envelope.kind = Kind::image;
    envelope.image = **outcome;
  }
  return wire::encode(envelope);
}

std::optional<Outcome> decode(std::string_view bytes) {
  Envelope envelope;
  if (bytes.size() > max_encoded_image || !wire::decode(bytes, envelope)) {
    return std::nullopt;
  }
  switch (envelope.kind) {
    case Kind::none:
      return Outcome(std::nullopt);
    case Kind::error:
      return Outcome(tl::unexpect, std::move(envelope.error));
    case Kind::image:
      break;
  }
  if (!sound(envelope.image)) {
    return std::nullopt;
  }
  return Outcome(std::move(envelope.image));
}

}  // namespace jemtrace::locate
