#pragma once

#include <functional>
#include <string>

#include "locate/image.hpp"
#include "locate/image_file.hpp"

namespace jemtrace::locate {

/// Told about each debug file that was looked for, and whether it was there.
using Witness = std::function<void(const std::string& path, const Result<Fd>& file)>;

/// As `analyse`, but the file is parsed by a child process without privileges (util/confined.hpp), which gets
/// it open. The child asks for separate debug files by path; they are opened here, if they are such that
/// `debug_files` looks for. That keeps the parsing that leads to their names (notes, sections) in the child.
///
/// A child that crashes, or takes more memory or time than such a file may, is an Error. Bounds: 256 MB and 3
/// bytes per byte of the file (at most 2 GB) of memory; 5 s and 10 s more per 100 MB of CPU time, twice
/// that by the clock; a debug file adds its own.
Outcome analyse_isolated(int fd, const std::string& path, const Options& options = {},
                         const Witness& witness = {});

}  // namespace jemtrace::locate
