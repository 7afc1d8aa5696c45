/* SPDX-License-Identifier: LGPL-2.1 OR BSD-2-Clause */
/*
 * In which bucket of struct jt_hist a latency is: the same for bpf/ and for the tests of it.
 *
 * A binary search of the bounds takes 35 ns, two for each purge. Here the latency is cut like a floating-point number,
 * into its highest bit and the five below it. Such a slice is at most 1/32 of its values wide, and a bucket at least
 * 1/12, so that no more than one bound is in it. Without a branch, which the verifier would follow both sides of.
 */
#pragma once

#include "jemtrace/abi.h"

#define JT_HIST_SLOTS 256 /* the next power of two after JT_HIST_FINITE: what is beyond is 2^63 - 1 */
#define JT_SLICE_BITS 5
#define JT_HIST_SLICES (64 << JT_SLICE_BITS)
#define JT_HIST_FIRST_NS (1u << JT_SLICE_BITS) /* all that is less is in the first bucket, too */

struct jt_buckets {
  uint64_t bounds[JT_HIST_SLOTS]; /* whole nanoseconds, inclusive */
  uint8_t slices[JT_HIST_SLICES]; /* the bucket of the smallest latency of each slice */
  uint8_t highest_bit[64];        /* by the product below */
};

/* Such that the six highest bits of its product with 2^(n + 1) - 1 differ for each n. */
#define JT_HIGHEST_BIT_FACTOR 0x03f79d71b4cb0a89ull

static inline uint32_t jt_highest_bit_slot(uint64_t value) {
  value |= value >> 1;
  value |= value >> 2;
  value |= value >> 4;
  value |= value >> 8;
  value |= value >> 16;
  value |= value >> 32;
  return (uint32_t)((value * JT_HIGHEST_BIT_FACTOR) >> 58);
}

/* `ns` from JT_HIST_FIRST_NS to 2^63 - 1. */
static inline uint64_t jt_slice_of(const struct jt_buckets* buckets, uint64_t ns) {
  uint64_t bit = buckets->highest_bit[jt_highest_bit_slot(ns)];
  uint64_t slice = bit << JT_SLICE_BITS | ((ns >> ((bit - JT_SLICE_BITS) & 63)) & (JT_HIST_FIRST_NS - 1));

  __asm__("" : "+r"(slice)); /* or the compiler, who knows that it is small, does not tell the verifier */
  return slice & (JT_HIST_SLICES - 1);
}

/* `ns` below 2^63. */
static inline uint32_t jt_bucket_of(const struct jt_buckets* buckets, uint64_t ns) {
  uint64_t below = (ns - JT_HIST_FIRST_NS) >> 63; /* 1: less than that */
  uint32_t bucket;

  ns += (JT_HIST_FIRST_NS - ns) & -below;
  bucket = buckets->slices[jt_slice_of(buckets, ns)];
  return bucket + (uint32_t)((buckets->bounds[bucket] - ns) >> 63);
}
