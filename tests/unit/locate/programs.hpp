#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include "locate/image.hpp"
#include "util/file.hpp"

namespace jemtrace::locate::testing {

inline constexpr const char* archive = "/usr/lib/x86_64-linux-gnu/libjemalloc.a";
inline constexpr const char* library = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2";

/// A folder that goes with the object.
class TempFolder {
 public:
  TempFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "jemtrace-locate-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// Runs a shell command; false when it failed.
inline bool run(const std::string& command) {
  return std::system((command + " 2>&1").c_str()) == 0;
}

inline std::string output_of(const std::string& command) {
  std::string out;
  FILE* pipe = ::popen(command.c_str(), "r");
  char buffer[4096];
  while (pipe != nullptr) {
    const size_t n = std::fread(buffer, 1, sizeof buffer, pipe);
    if (n == 0) {
      break;
    }
    out.append(buffer, n);
  }
  return pipe == nullptr || ::pclose(pipe) != 0 ? std::string{} : out;
}

/// A C program with jemalloc linked in. False where the host has no compiler or no libjemalloc.a.
inline bool build_program(const TempFolder& folder, const std::string& to, const std::string& flags = {}) {
  const std::string source = folder / "program.c";
  std::ofstream(source)
      << "#include <stdlib.h>\nint main(void) { void *p = malloc(100); free(p); return p == 0; }\n";
  return run("cc -O1 " + flags + " -Wl,--build-id -o " + to + " " + source + " " + archive +
             " -lstdc++ -lm -lpthread -ldl");
}

inline std::optional<Image> analyse_file(const std::string& path, const Options& options = {}) {
  const auto fd = open_file(path, O_RDONLY);
  if (!fd) {
    return std::nullopt;
  }
  auto image = analyse(fd->get(), path, options);
  EXPECT_TRUE(image.has_value()) << (image ? "" : image.error().message());
  return image ? *image : std::nullopt;
}

inline const FoundRole* role(const Image& image, const std::string& name) {
  for (const FoundRole& found : image.roles) {
    if (found.role == name) {
      return &found;
    }
  }
  return nullptr;
}

inline const ProbeSite* probe(const Image& image, jt_role wanted) {
  for (const ProbeSite& found : image.probes) {
    if (found.site.role == wanted) {
      return &found;
    }
  }
  return nullptr;
}

}  // namespace jemtrace::locate::testing
