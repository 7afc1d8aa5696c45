#include "locate/strings.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

#include "locate/version.hpp"
#include "util/file.hpp"

namespace jemtrace::locate {
namespace {

constexpr size_t chunk_size = size_t{1} << 20;
constexpr size_t longest_string = 256;  // a version is at most ~70 characters, a needle ~30
constexpr size_t max_versions = 32;
constexpr size_t max_anchors = 64;

/// memmem(3), which is several times faster than string_view::find on megabytes.
bool contains(std::string_view chunk, std::string_view needle) {
  return ::memmem(chunk.data(), chunk.size(), needle.data(), needle.size()) != nullptr;
}

template <typename Visit>
void for_each_match(std::string_view chunk, std::string_view needle, Visit visit) {
  size_t from = 0;
  while (from < chunk.size()) {
    const void* found = ::memmem(chunk.data() + from, chunk.size() - from, needle.data(), needle.size());
    if (found == nullptr) {
      return;
    }
    const auto at = static_cast<size_t>(static_cast<const char*>(found) - chunk.data());
    visit(at);
    from = at + 1;
  }
}

void note_versions(std::string_view chunk, uint64_t offset, Strings& out) {
  for_each_match(chunk, "-g", [&](size_t at) {
    if (out.versions.size() >= max_versions) {
      return;
    }
    const std::string_view text = version_around(chunk, at);
    const uint64_t where = offset + static_cast<uint64_t>(text.data() - chunk.data());
    const auto same = [&](const Strings::Candidate& c) { return c.offset == where; };
    if (!text.empty() && std::none_of(out.versions.begin(), out.versions.end(), same)) {
      out.versions.push_back({std::string(text), where});
    }
  });
}

void note_anchors(std::string_view chunk, uint64_t offset, std::string_view needle, Strings& out) {
  for_each_match(chunk, needle, [&](size_t at) {
    if (out.anchors.size() < max_anchors) {
      out.anchors.push_back(offset + at);
    }
  });
}

/// How many bytes from `offset` on are a hole: a file of gigabytes that takes no room on disk costs nobody
/// anything to make, and seconds to read.
uint64_t hole_at(int fd, uint64_t offset) {
  const off_t data = ::lseek(fd, static_cast<off_t>(offset), SEEK_DATA);
  if (data < 0) {
    return errno == ENXIO ? std::numeric_limits<uint64_t>::max() : 0;
  }
  return static_cast<uint64_t>(data) - offset;
}

}  // namespace

std::string message_tag() {
  // Through a volatile key, or the compiler folds the loop and stores the string after all.
  static constexpr unsigned char masked[] = {'<' ^ 1, 'j' ^ 1, 'e' ^ 1, 'm' ^ 1, 'a' ^ 1, 'l' ^ 1,
                                             'l' ^ 1, 'o' ^ 1, 'c' ^ 1, '>' ^ 1, ':' ^ 1, ' ' ^ 1};
  const volatile unsigned char key = 1;
  std::string tag;
  for (const unsigned char c : masked) {
    tag += static_cast<char>(c ^ key);
  }
  return tag;
}

Status scan_ranges(int fd, std::span<const ElfFile::Range> ranges, size_t overlap,
                   const std::function<bool(std::string_view chunk, uint64_t offset)>& visit) {
  uint64_t longest = 0;
  for (const ElfFile::Range& range : ranges) {
    longest = std::max(longest, range.size);
  }
  std::string buffer(std::min<uint64_t>(longest, chunk_size) + overlap, '\0');
  for (const ElfFile::Range& range : ranges) {
    size_t kept = 0;  // bytes at the start of the buffer that were the end of the last chunk
    uint64_t done = 0;
    while (done < range.size) {
      if (const uint64_t hole = hole_at(fd, range.offset + done); hole > 0) {
        done += std::min(hole, range.size - done);
        kept = 0;
        continue;
      }
      const size_t want = std::min<uint64_t>(chunk_size, range.size - done);
      TRY(read_at(fd, range.offset + done, buffer.data() + kept, want));
      const size_t have = kept + want;
      if (!visit(std::string_view(buffer.data(), have), range.offset + done - kept)) {
        return {};
      }
      done += want;
      kept = std::min(overlap, have);
      std::memmove(buffer.data(), buffer.data() + have - kept, kept);
    }
  }
  return {};
}

Result<Strings> read_strings(int fd, std::span<const ElfFile::Range> ranges) {
  Strings out;
  const std::string tag = message_tag();
  const auto features = feature_strings();
  TRY(scan_ranges(fd, ranges, longest_string, [&](std::string_view chunk, uint64_t offset) {
    out.message_tag = out.message_tag || contains(chunk, tag);
    out.decay_option = out.decay_option || contains(chunk, decay_option);
    out.old_decay_option = out.old_decay_option || contains(chunk, old_decay_option);
    // musl's strerror(0); glibc says "Success".
    out.musl = out.musl || contains(chunk, "No error information");
    for (size_t i = 0; i < features.size(); ++i) {
      if ((out.features >> i & 1) == 0 && contains(chunk, features[i].text)) {
        out.features |= 1U << i;
      }
    }
    note_versions(chunk, offset, out);
    note_anchors(chunk, offset, decay_option, out);
    note_anchors(chunk, offset, old_decay_option, out);
    return true;
  }));
  return out;
}

}  // namespace jemtrace::locate
