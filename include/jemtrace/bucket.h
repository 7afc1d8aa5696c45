/* SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause */
/*
 * In which bucket of struct jt_hist a latency is: the same for bpf/ and for the tests of it.
 *
 * By arithmetic alone: a binary search of the bounds takes 35 ns, and each look into a table 5, as what a
 * program of ours looks at has left the CPU's first cache since the purge before.
 */
#pragma once

#include "jemtrace/abi.h"

/* The bounds within any power of two of nanoseconds, as parts of 2^64: 10^9 * 2^(i/8) by as many twos as it
 * takes. */
#define JT_BOUND_1 0x81ffa7a9549ca6e3ull
#define JT_BOUND_2 0x8dc3b8960164a7d9ull
#define JT_BOUND_3 0x9a9867054d512391ull
#define JT_BOUND_4 0xa8965f74bf065071ull
#define JT_BOUND_5 0xb7d88a12d0dd9ea0ull
#define JT_BOUND_6 0xc87c3e7d03cdbec3ull
#define JT_BOUND_7 0xdaa17c2cd19555dbull
#define JT_BOUND_8 0xee6b280000000000ull

/* 1: a < b, both of 2^63 or more. No branch: the verifier would follow both sides of each. */
static inline uint32_t jt_is_less(uint64_t a, uint64_t b) {
  return (uint32_t)((a - b) >> 63);
}

static inline uint32_t jt_bucket_of(uint64_t ns) {
  uint32_t bit = 63, step, bucket;

  if (ns < 32) {
    return 0; /* and for the rest a bit of 5 or more */
  }
  /* Branches here: latencies are much alike, so that the CPU foresees them. */
  for (step = 32; step > 0; step /= 2) {
    if (ns >> (64 - step) == 0) {
      ns <<= step;
      bit -= step;
      /* Or the compiler makes two conditional moves of it, which BPF has not. */
      __asm__ volatile("" : "+r"(ns));
    }
  }
  bucket = 8 * (bit - 5) + jt_is_less(JT_BOUND_1, ns) + jt_is_less(JT_BOUND_2, ns) +
           jt_is_less(JT_BOUND_3, ns) + jt_is_less(JT_BOUND_4, ns) + jt_is_less(JT_BOUND_5, ns) +
           jt_is_less(JT_BOUND_6, ns) + jt_is_less(JT_BOUND_7, ns) + jt_is_less(JT_BOUND_8, ns);
  if (bucket <= 7) {
    return 0; /* all up to 2^-24 s, of the bounds from 32 ns on the eighth */
  }
  return bucket - 7 < JT_HIST_FINITE ? bucket - 7 : JT_HIST_FINITE;
}
