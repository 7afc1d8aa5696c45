#pragma once

#include "advise/advice.hpp"

namespace jemtrace::advise {

/// What no counter says: how much of the memory in use is replaced all the time, and how much of what comes
/// back is touched. Both are chosen so that each recording, played under its own settings, is as it was
/// measured.
void calibrate(Input& input);

}  // namespace jemtrace::advise
