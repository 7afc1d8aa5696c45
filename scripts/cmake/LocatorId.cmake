# Writes OUTPUT: a header with a digest of the sources that decide what is found in a file (SOURCES). What another
# locator found is no answer of this one's.
set(all "")
foreach(source ${SOURCES})
  file(SHA256 ${source} digest)
  string(APPEND all ${digest})
endforeach()
string(SHA256 id "${all}")
file(CONFIGURE OUTPUT ${OUTPUT} CONTENT "#pragma once\n\n#define JEMTRACE_LOCATOR \"${id}\"\n" @ONLY)
