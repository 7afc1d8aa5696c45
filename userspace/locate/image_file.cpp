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

static void fields(auto& archive, wire::Is<Global> auto& it) {
  archive(1, it.vaddr);
  archive(2, it.size);
  archive(3, it.is_signed);
  archive(4, it.kind, Global::Kind::choice);
  archive(5, it.names);
}

static void fields(auto& archive, wire::Is<CacheLayout> auto& it) {
  archive.plain(1, it.npages);
  archive(2, it.state);
  archive(3, it.ind);
  archive.plain(4, it.lru);
}

static void fields(auto& archive, wire::Is<DecayLayout> auto& it) {
  archive(1, it.time_ms);
  archive(2, it.interval);
  archive(3, it.epoch);
  archive(4, it.deadline);
  archive(5, it.npages_limit);
  archive(6, it.nunpurged);
  archive(7, it.backlog);
}

static void fields(auto& archive, wire::Is<CounterLayout> auto& it) {
  archive(1, it.through);
  archive(2, it.npurge);
  archive(3, it.nmadvise);
  archive(4, it.purged);
}

static void fields(auto& archive, wire::Is<ExtentLayout> auto& it) {
  archive(1, it.bits);
  archive(2, it.address);
  archive(3, it.size_esn);
  archive(4, it.next);
  archive(5, it.state_shift);
  archive(6, it.state_width);
}

static void fields(auto& archive, wire::Is<BaseLayout> auto& it) {
  archive(1, it.ind);
  archive(2, it.blocks);
  archive(3, it.allocated);
}

static void fields(auto& archive, wire::Is<ClassLayout> auto& it) {
  archive(1, it.infos);
  archive(2, it.bins);
  archive(3, it.large);
  archive(4, it.tcaches);
  archive(5, it.bin_bytes);
  archive(6, it.bin_stats);
  archive(7, it.large_bytes);
  archive(8, it.large_active);
  archive(9, it.kind, ClassLayout::Bins::behind);
}

static void fields(auto& archive, wire::Is<Structures> auto& it) {
  archive(1, it.found_by);
  archive(2, it.arenas);
  archive(3, it.max_arenas);
  archive(4, it.narenas_total);
  archive(5, it.page_shift);
  archive(6, it.stats);
  archive(7, it.nthreads);
  archive(8, it.nactive);
  archive(9, it.ind);
  archive(10, it.base);
  archive(11, it.internal);
  archive(12, it.dirty);
  archive(13, it.muzzy);
  archive(14, it.retained);
  archive(15, it.dirty_decay);
  archive(16, it.muzzy_decay);
  archive(17, it.dirty_counters);
  archive(18, it.muzzy_counters);
  archive(19, it.extent);
  archive(20, it.base_layout);
  archive(21, it.options);
  archive(22, it.evidence);
  archive(23, it.missing);
  archive(24, it.classes);
}

static void fields(auto& archive, wire::Is<ConfVariable> auto& it) {
  archive(1, it.name);
  archive(2, it.vaddr);
  archive(3, it.through_got);
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
  archive(16, it.structures);
  archive(40, it.mallctl_vaddr);
  archive(41, it.conf_variables);
  archive(42, it.api);
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
         site.cache_arg[1] <= last_argument && site.pad[0] == 0 && site.pad[1] == 0;
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

// What a reader adds to addresses of the target and multiplies sizes of buffers with.
constexpr uint32_t max_member = 1 << 20;
constexpr uint32_t most_arenas = 4095;

bool sound(const std::optional<uint32_t>& member) {
  return !member || *member < max_member;
}

bool sound(const Global& global) {
  const bool whole = global.size == 1 || global.size == 2 || global.size == 4 || global.size == 8;
  return whole && (global.kind != Global::Kind::text || global.size == 8);
}

bool sound(const CacheLayout& cache) {
  const auto small = [](const std::vector<uint32_t>& members) {
    return members.size() <= 2 &&
           std::all_of(members.begin(), members.end(), [](uint32_t m) { return m < max_member; });
  };
  return small(cache.npages) && small(cache.lru) && sound(cache.state) && sound(cache.ind);
}

bool sound(const DecayLayout& decay) {
  return sound(decay.time_ms) && sound(decay.interval) && sound(decay.epoch) && sound(decay.deadline) &&
         sound(decay.npages_limit) && sound(decay.nunpurged) && sound(decay.backlog);
}

bool sound(const CounterLayout& counters) {
  return sound(counters.through) && sound(counters.npurge) && sound(counters.nmadvise) &&
         sound(counters.purged);
}

bool sound(const ExtentLayout& extent) {
  return sound(extent.bits) && sound(extent.address) && sound(extent.size_esn) && sound(extent.next) &&
         extent.state_shift < 32 && extent.state_width < 8;
}

bool sound(const ClassLayout& classes) {
  constexpr uint32_t most = 4096;  // bytes of one bin or one entry
  return sound(classes.bins) && sound(classes.large) && sound(classes.tcaches) && classes.bin_bytes <= most &&
         classes.bin_stats <= most && classes.large_bytes <= most && classes.large_active.value_or(0) <= most;
}

bool sound(const Structures& s) {
  return s.max_arenas <= most_arenas && s.page_shift >= 12 && s.page_shift <= 16 && sound(s.nthreads) &&
         sound(s.nactive) && sound(s.ind) && sound(s.base) && sound(s.internal) && sound(s.dirty) &&
         sound(s.muzzy) && sound(s.retained) && sound(s.dirty_decay) && sound(s.muzzy_decay) &&
         sound(s.dirty_counters) && sound(s.muzzy_counters) && sound(s.extent) && sound(s.base_layout.ind) &&
         sound(s.base_layout.blocks) && sound(s.base_layout.allocated) && sound(s.classes) &&
         (!s.narenas_total || sound(*s.narenas_total)) &&
         std::all_of(s.options.begin(), s.options.end(),
                     [](const auto& option) { return sound(option.second); });
}

bool sound(const Image& image) {
  const auto each = [](const auto& all) {
    return std::all_of(all.begin(), all.end(), [](const auto& one) { return sound(one); });
  };
  const auto ascending =
      std::is_sorted(image.call_sites.begin(), image.call_sites.end(),
                     [](const CallSite& a, const CallSite& b) { return a.return_offset < b.return_offset; });
  return sound(image.text) && (!image.structures || sound(*image.structures)) && each(image.probes) &&
         each(image.call_sites) && ascending;
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
