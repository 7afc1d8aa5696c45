#include "locate/recover/find_structures.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "locate/known_layouts.hpp"
#include "locate/recover/data_uses.hpp"
#include "locate/recover/instructions.hpp"

namespace jemtrace::locate::recover {
namespace {

constexpr uint64_t max_arenas = 4095;  // MALLOCX_ARENA_LIMIT, and one
constexpr uint64_t max_code = 64 << 10;
constexpr uint64_t max_handler = 4 << 10;
constexpr uint64_t max_getter = 16;
constexpr size_t max_functions = 200;
constexpr uint32_t page = 4096;
constexpr uint32_t no_entry = 2;  // ENOENT

using Kind = Global::Kind;

struct Option {
  const char* name;
  Kind kind;
  uint32_t size;
  bool is_signed = false;
  uint64_t choices = 0;
};

// What configures memory. Their variables have the same types in all of 5.x.
constexpr Option wanted_options[] = {
    {"abort", Kind::boolean, 1},
    {"abort_conf", Kind::boolean, 1},
    {"background_thread", Kind::boolean, 1},
    {"cache_oblivious", Kind::boolean, 1},
    {"dirty_decay_ms", Kind::number, 8, true},
    {"dss", Kind::text, 8},
    {"hpa", Kind::boolean, 1},
    {"lg_extent_max_active_fit", Kind::number, 8},
    {"lg_tcache_max", Kind::number, 8, true},
    {"max_background_threads", Kind::number, 8},
    {"metadata_thp", Kind::choice, 4, false, 3},
    {"muzzy_decay_ms", Kind::number, 8, true},
    {"narenas", Kind::number, 4},
    {"oversize_threshold", Kind::number, 8},
    {"percpu_arena", Kind::choice, 4, false, 5},
    {"process_madvise_max_batch", Kind::number, 8},
    {"prof", Kind::boolean, 1},
    {"retain", Kind::boolean, 1},
    {"stats_print", Kind::boolean, 1},
    {"tcache", Kind::boolean, 1},
    {"tcache_max", Kind::number, 8},
    {"thp", Kind::choice, 4, false, 4},
    {"trust_madvise", Kind::boolean, 1},
    {"xmalloc", Kind::boolean, 1},
    {"zero", Kind::boolean, 1},
    {"zero_realloc", Kind::choice, 4, false, 3},
};

class Finder {
 public:
  Finder(const ElfFile& file, const Survey& survey) : file_(file), survey_(survey), graph_(*survey.graph) {}

  std::optional<Structures> find() {
    if (!pages_fit()) {
      return std::nullopt;
    }
    find_options();
    find_stats();
    find_arenas();
    find_narenas();
    find_bins();
    find_layout();
    return std::move(out_);
  }

 private:
  /// Distances of which one is in the code: from the start of arena_t, or from a struct inside it.
  using Fact = std::vector<uint32_t>;

  [[nodiscard]] bool writable(uint64_t vaddr, uint64_t size) const {
    const auto segments = file_.segments();
    return std::any_of(segments.begin(), segments.end(), [&](const Elf64_Phdr& s) {
      return s.p_type == PT_LOAD && (s.p_flags & PF_W) != 0 && vaddr >= s.p_vaddr && size <= s.p_memsz &&
             vaddr - s.p_vaddr <= s.p_memsz - size;
    });
  }

  [[nodiscard]] FunctionId handler(const std::string& ctl) const {
    const uint64_t vaddr = survey_.tree.handler(ctl);
    return vaddr == 0 ? no_function : graph_.find(vaddr);
  }

  [[nodiscard]] std::vector<Instruction> code_of(FunctionId id, uint64_t limit) const {
    if (id == no_function || graph_.at(id).size() > limit) {
      return {};
    }
    const CodeFunction& function = graph_.at(id);
    const auto code = file_.read_vaddr(function.start, function.size(), limit);
    return code ? decode(*code, function.start) : std::vector<Instruction>{};
  }

  [[nodiscard]] DataUses uses_of(FunctionId id) const {
    DataUses uses;
    if (id == no_function) {
      return uses;
    }
    for (const CodeFunction::Piece& piece : graph_.at(id).pieces) {
      const auto code = file_.read_vaddr(piece.start, piece.size, max_code);
      if (!code) {
        continue;
      }
      const DataUses more = data_uses(*code, piece.start, survey_.data);
      uses.reads.insert(uses.reads.end(), more.reads.begin(), more.reads.end());
      uses.members.insert(uses.members.end(), more.members.begin(), more.members.end());
    }
    return uses;
  }

  /// arenas.page says what it was built for; all layouts known are for 4 kB.
  bool pages_fit() {
    const auto code = code_of(handler("arenas.page"), max_handler);
    std::optional<uint64_t> other;
    for (const Instruction& in : code) {
      const uint64_t value = in.immediate.value_or(0);
      if (value == page) {
        return true;
      }
      const bool power = value > page && value <= (uint64_t{4} << 20) && (value & (value - 1)) == 0;
      other = power ? in.immediate : other;
    }
    return !other;
  }

  void find_options() {
    for (const Option& option : wanted_options) {
      const FunctionId id = handler("opt." + std::string(option.name));
      if (id == no_function || graph_.at(id).size() > max_handler) {
        continue;
      }
      if (auto global = option_of(option, uses_of(id))) {
        out_.options.emplace(option.name, std::move(*global));
      }
    }
    if (!out_.options.empty()) {
      out_.evidence.push_back(fmt::format(
          "{} options: each is the one variable that its mallctl handler reads", out_.options.size()));
    } else {
      out_.missing.emplace_back("options: their mallctl handlers were not understood");
    }
  }

  /// The one variable of the option's size that its handler reads.
  [[nodiscard]] std::optional<Global> option_of(const Option& option, const DataUses& uses) const {
    std::optional<Global> found;
    std::vector<uint64_t> tables;
    for (const DataUse& read : uses.reads) {
      if (read.element) {
        tables.push_back(read.vaddr);
      } else if (writable(read.vaddr, option.size)) {
        if (found || read.bytes != option.size) {
          return std::nullopt;
        }
        found = Global{read.vaddr, option.size, option.is_signed, option.kind, {}};
      }
    }
    if (!found || option.kind != Kind::choice) {
      return tables.empty() ? found : std::nullopt;
    }
    if (tables.size() != 1) {
      return std::nullopt;
    }
    for (uint64_t i = 0; i < option.choices; ++i) {
      const std::string_view word = survey_.data.text(survey_.data.word(tables.front() + 8 * i).value_or(0));
      if (word.empty()) {
        break;
      }
      found->names.emplace_back(word);
    }
    return found->names.empty() ? std::nullopt : found;
  }

  /// Without --enable-stats stats.allocated is a function that returns ENOENT and does nothing else.
  void find_stats() {
    const auto code = code_of(handler("stats.allocated"), max_handler);
    const bool plain = std::none_of(code.begin(), code.end(), [](const Instruction& in) {
      return in.kind == Instruction::Kind::call || in.kind == Instruction::Kind::branch || in.address != 0;
    });
    const bool absent =
        std::any_of(code.begin(), code.end(), [](const Instruction& in) { return in.immediate == no_entry; });
    out_.stats = !(plain && absent);
    if (!out_.stats) {
      out_.missing.emplace_back("counters: built without statistics");
    }
  }

  /// The arrays of pointers, with room for all arenas, that a handler or what it calls reads.
  [[nodiscard]] std::set<uint64_t> arrays_below(const std::string& ctl, int depth) const {
    std::set<uint64_t> arrays;
    const FunctionId id = handler(ctl);
    const auto reached = id == no_function ? std::map<FunctionId, int>{} : graph_.reached(id, depth);
    size_t n = 0;
    for (const auto& [callee, distance] : reached) {
      if (++n > max_functions) {
        break;
      }
      for (const DataUse& read : uses_of(callee).reads) {
        if (read.element && writable(read.vaddr, 8 * max_arenas)) {
          arrays.insert(read.vaddr);
        }
      }
    }
    return arrays;
  }

  void find_arenas() {
    // Handlers that get an arena by its index. One alone may lack the code: 5.0 and 5.1 have no pactivep.
    constexpr const char* handlers[] = {"experimental.arenas.i.pactivep", "arena.i.dirty_decay_ms",
                                        "arena.i.muzzy_decay_ms", "arena.i.decay", "arena.i.purge"};
    for (const int depth : {1, 2}) {
      std::map<uint64_t, int> votes;
      for (const char* ctl : handlers) {
        for (const uint64_t array : arrays_below(ctl, depth)) {
          ++votes[array];
        }
      }
      int most = 0;
      std::vector<uint64_t> best;
      for (const auto& [array, n] : votes) {
        if (n > most) {
          best.clear();
        }
        if (n >= most) {
          best.push_back(array);
          most = n;
        }
      }
      if (best.size() == 1 && most >= 2) {
        out_.arenas = best.front();
        out_.evidence.push_back(fmt::format("arenas: {} mallctl handlers of arenas index the array at {:#x}",
                                            most, *out_.arenas));
        return;
      }
    }
    out_.missing.emplace_back("arenas: no single array of pointers is what the handlers of arenas index");
  }

  /// narenas_total_get: a getter that a handler of arenas calls.
  void find_narenas() {
    std::set<uint64_t> found;
    for (const char* ctl : {"experimental.arenas.i.pactivep", "arena.i.decay", "arena.i.purge"}) {
      const FunctionId id = handler(ctl);
      const auto reached = id == no_function ? std::map<FunctionId, int>{} : graph_.reached(id, 2);
      for (const auto& [callee, depth] : reached) {
        if (graph_.at(callee).size() > max_getter || callee == id) {
          continue;
        }
        const DataUses uses = uses_of(callee);
        if (uses.reads.size() == 1 && uses.reads.front().bytes == 4 &&
            writable(uses.reads.front().vaddr, 4)) {
          found.insert(uses.reads.front().vaddr);
        }
      }
    }
    if (found.size() == 1) {
      out_.narenas_total = Global{*found.begin(), 4, false, Kind::number, {}};
    }
  }

  /// Addresses of data that a handler's code has in it: to take, or to index.
  [[nodiscard]] std::set<uint64_t> addresses_in(const std::string& ctl) const {
    std::set<uint64_t> found;
    const FunctionId id = handler(ctl);
    if (id == no_function || graph_.at(id).size() > max_handler) {
      return found;
    }
    for (const CodeFunction::Piece& piece : graph_.at(id).pieces) {
      const auto code = file_.read_vaddr(piece.start, piece.size, max_handler);
      for (const Instruction& in : code ? decode(*code, piece.start) : std::vector<Instruction>{}) {
        const bool indexed = in.indexed && in.array == no_register;
        const uint64_t address = in.address != 0 ? in.address
                                 : indexed       ? static_cast<uint64_t>(in.displacement)
                                                 : in.immediate.value_or(0);
        const auto* segment = file_.segment_of(address);
        const bool in_file = segment != nullptr && (segment->p_flags & PF_X) == 0;
        // Small numbers are error codes and sizes.
        if (address >= page && address % 8 == 0 && (in_file || writable(address, 8))) {
          found.insert(address);
        }
      }
    }
    return found;
  }

  /// bin_infos: what the handlers of arenas.bin.<i>.size and arenas.bin.<i>.slab_size both index. The second
  /// may have the offset of its member in the address.
  void find_bins() {
    const std::set<uint64_t> slab_sizes = addresses_in("arenas.bin.i.slab_size");
    std::vector<uint64_t> both;
    for (const uint64_t address : addresses_in("arenas.bin.i.size")) {
      if (slab_sizes.contains(address) || slab_sizes.contains(address + 8)) {
        both.push_back(address);
      }
    }
    if (both.size() == 1) {
      out_.classes.infos = both.front();
      out_.evidence.push_back(
          fmt::format("bins: the handlers of their sizes index the array at {:#x}", both.front()));
    } else {
      out_.missing.emplace_back("size classes: the handlers of their sizes were not understood");
    }
  }

  /// What the handler of pactivep adds to an arena's address. nullopt: it is not there, or not understood.
  [[nodiscard]] std::optional<uint32_t> nactive_in_code() const {
    std::set<uint32_t> offsets;
    for (const MemberUse& use : uses_of(handler("experimental.arenas.i.pactivep")).members) {
      if (use.array == out_.arenas) {
        offsets.insert(use.offset);
      }
    }
    return offsets.size() == 1 ? std::optional(*offsets.begin()) : std::nullopt;
  }

  static std::vector<Fact> facts_of(const KnownLayout& known) {
    const auto in = [&](uint32_t offset, uint32_t member) {
      std::vector<uint32_t> distances = {offset + member};
      if (known.pac != 0) {
        distances.push_back(offset + member - known.pac);
      }
      return distances;
    };
    std::vector<Fact> facts = {
        {known.nactive},
        {known.base},
        in(known.dirty, 0),
        in(known.muzzy, 0),
        in(known.retained, 0),
        in(known.decay_dirty, 0),
        in(known.decay_muzzy, 0),
        in(known.decay_dirty, known.parts.decay.time_ms),
        in(known.decay_muzzy, known.parts.decay.time_ms),
        {known.base_allocated},
    };
    if (known.ind != 0) {
      facts.push_back({known.ind});
    }
    if (known.stats != 0) {
      facts.push_back(in(known.stats, 0));
    }
    return facts;
  }

  /// How many of a layout's distances are in the code.
  [[nodiscard]] size_t agreeing(const std::vector<Fact>& facts) const {
    return static_cast<size_t>(std::count_if(facts.begin(), facts.end(), [&](const Fact& fact) {
      return std::any_of(fact.begin(), fact.end(),
                         [&](uint32_t distance) { return graph_.uses_member(distance); });
    }));
  }

  /// Differ at most in base_t.
  static bool same_arena(const KnownLayout& a, const KnownLayout& b) {
    return a.nactive == b.nactive && a.base == b.base && a.ind == b.ind;
  }

  /// Of the layouts the one with the largest share of its distances in the code. On upstream's builds of all
  /// releases, Debian's and rustc the right one has 90 % or more, any other release's at most half.
  void find_layout() {
    constexpr size_t least_percent = 75;
    const auto nactive = nactive_in_code();
    KnownLayout best{};
    size_t best_agree = 0, best_all = 1;
    bool tie = true;
    for (const KnownLayout& known : known_layouts()) {
      const auto facts = facts_of(known);
      const size_t n = agreeing(facts);
      if ((nactive && *nactive != known.nactive) || n * best_all < best_agree * facts.size()) {
        continue;
      }
      if (n * best_all > best_agree * facts.size()) {
        best = known;
        best_agree = n;
        best_all = facts.size();
        tie = false;
      } else if (same_arena(best, known)) {
        best.base_allocated = 0;
      } else {
        tie = true;
      }
    }
    if (tie || best_agree * 100 < least_percent * best_all) {
      out_.missing.emplace_back("members of arenas: no known layout agrees with the code");
      return;
    }
    use(best);
    out_.evidence.push_back(fmt::format("layout of {}: {} of {} of its distances are in the code{}",
                                        best.release, best_agree, best_all,
                                        nactive ? ", nactive's in the handler of pactivep" : ""));
  }

  void use(const KnownLayout& known) {
    const auto optional = [](uint32_t value) { return value == 0 ? std::nullopt : std::optional(value); };
    out_.found_by = fmt::format("known layout of {}", known.release);
    out_.nthreads = 0;
    out_.nactive = known.nactive;
    out_.ind = optional(known.ind);
    out_.base = known.base;
    out_.internal = optional(known.internal);
    const auto cache = [&](uint32_t at) {
      CacheLayout layout;
      for (size_t i = 0; i < std::size(known.parts.cache.npages) && known.parts.cache.npages[i] != 0; ++i) {
        layout.npages.push_back(at + known.parts.cache.npages[i]);
        layout.lru.push_back(at + known.parts.cache.lru[i]);
      }
      layout.state = at + known.parts.cache.state;
      layout.ind = known.parts.cache.ind == 0 ? std::nullopt : std::optional(at + known.parts.cache.ind);
      return layout;
    };
    out_.dirty = cache(known.dirty);
    out_.muzzy = cache(known.muzzy);
    out_.retained = cache(known.retained);
    const auto decay = [&](uint32_t at) {
      const KnownDecay& d = known.parts.decay;
      DecayLayout layout;
      layout.time_ms = at + d.time_ms;
      layout.interval = at + d.interval;
      layout.epoch = at + d.epoch;
      layout.deadline = at + d.deadline;
      layout.npages_limit = d.npages_limit == 0 ? std::nullopt : std::optional(at + d.npages_limit);
      layout.nunpurged = at + d.nunpurged;
      layout.backlog = at + d.backlog;
      return layout;
    };
    out_.dirty_decay = decay(known.decay_dirty);
    out_.muzzy_decay = decay(known.decay_muzzy);
    if (out_.stats) {
      const auto counters = [&](uint32_t at) {
        return CounterLayout{optional(known.stats), at, at + 8, at + 16};
      };
      out_.dirty_counters = counters(known.counters);
      out_.muzzy_counters = counters(known.counters + 24);
    }
    out_.extent = {
        0, 8, 16, known.parts.extent.next, known.parts.extent.state_shift, known.parts.extent.state_width};
    out_.base_layout.blocks = known.base_blocks;
    out_.base_layout.ind = known.ind == 0 ? std::optional<uint32_t>(0) : std::nullopt;
    if (out_.stats) {
      out_.classes.kind = known.parts.classes.kind;
      out_.classes.bins = known.parts.classes.bins;
      out_.classes.bin_bytes = known.parts.classes.bin_bytes;
      out_.classes.bin_stats = known.parts.classes.bin_stats;
      out_.classes.large = known.parts.classes.large;
      out_.classes.large_bytes = known.parts.classes.large_bytes;
      out_.classes.large_active = optional(known.parts.classes.large_active);
      out_.classes.tcaches = optional(known.parts.classes.tcaches);
    }
    out_.base_layout.allocated = out_.stats ? optional(known.base_allocated) : std::nullopt;
  }

  const ElfFile& file_;
  const Survey& survey_;
  const CodeGraph& graph_;
  Structures out_;
};

}  // namespace

std::optional<Structures> find_structures(const ElfFile& file, const Survey& survey, Family family) {
  if (!survey.graph || family < Family::v50) {
    return std::nullopt;
  }
  return Finder(file, survey).find();
}

}  // namespace jemtrace::locate::recover
