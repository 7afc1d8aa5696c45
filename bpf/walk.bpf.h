/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * walk.bpf.h: from a user stack to the reason of a call.
 *
 * User space has listed every call instruction of jemalloc's functions that can lead to a memory syscall or to a
 * sweep, each with the rule for its frame (taken from .eh_frame). A walk is then: read a return address, look it up,
 * step over the frame, until a function settles the question. Four words are read in the deepest build seen. This
 * works without frame pointers, without symbols in the target, and needs no probe.
 */
#pragma once

#include "maps.bpf.h"

struct walk {
	__u64 frames[3]; /* file offsets of return addresses in `image`, innermost first */
	__u32 image;	 /* of the innermost; JT_NO_IMAGE: the caller is in no jemalloc */
	__u8 purpose;
	__u8 cause;
};

struct user_regs {
	__u64 ip, sp, bp;
};

struct task_struct___stack {
	void *stack;
} __attribute__((preserve_access_index));

enum bpf_func_id___jt {
	BPF_FUNC_task_pt_regs___jt = 175,
};

#define KERNEL_STACK_SIZE 16384 /* x86_64 before 5.15, no KASAN */

/* The registers that the current thread entered the kernel with. */
static __always_inline bool read_user_regs(struct user_regs *out)
{
	struct pt_regs *regs;

	if (bpf_core_enum_value_exists(enum bpf_func_id___jt, BPF_FUNC_task_pt_regs___jt)) {
		regs = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf()); /* 5.15 */
	} else {
		struct task_struct___stack *task = (void *)bpf_get_current_task();

		regs = BPF_CORE_READ(task, stack) + KERNEL_STACK_SIZE - sizeof(struct pt_regs);
	}
	out->ip = PT_REGS_IP_CORE(regs);
	out->sp = PT_REGS_SP_CORE(regs);
	out->bp = PT_REGS_FP_CORE(regs);
	return out->sp != 0;
}

static __always_inline struct jt_target_image *image_at(struct jt_target *target, __u64 ip)
{
	struct jt_target_image *image;
	__u32 i;

	for (i = 0; i < JT_MAX_TARGET_IMAGES; i++) {
		image = &target->images[i];
		if (i < target->n_images && ip >= image->start && ip < image->end)
			return image;
	}
	return NULL;
}

static __always_inline struct jt_site *site_at(const struct jt_target_image *image, __u64 ip)
{
	__u32 index = image->image;
	__u64 offset = ip - image->start + image->file_offset;
	void *inner = bpf_map_lookup_elem(&sites, &index);

	return inner ? bpf_map_lookup_elem(inner, &offset) : NULL;
}

/* One step outwards. False: the stack cannot be followed. */
static __always_inline bool step_frame(const struct jt_site *site, __u64 *slot, __u64 *bp)
{
	__u64 cfa;

	switch (site->cfa_register) {
	case JT_CFA_SP:
		cfa = *slot + 8 + site->cfa_offset;
		break;
	case JT_CFA_BP:
		cfa = *bp + site->cfa_offset;
		break;
	default:
		return false;
	}
	if (site->saved_bp && bpf_probe_read_user(bp, sizeof(*bp), (void *)(cfa + site->saved_bp)))
		return false;
	*slot = cfa - 8;
	return true;
}

/* What is said of a call from inside an image until a function up the stack says better. */
static __always_inline __u8 purpose_within(const struct jt_target_image *image, const struct jt_site *site)
{
	__u32 index = image->image;
	struct jt_image *info = bpf_map_lookup_elem(&images, &index);

	if (info && info->tier == JT_TIER_SYSCALL)
		return JT_PURGE_UNPROVEN;
	/* Every call site of a jemalloc with symbols is known: one that is not is the program's own. */
	return site ? JT_UNCLASSIFIED : JT_FOREIGN;
}

/* Why this memory syscall: `slot` is where the caller's return address is. */
static __noinline int walk_purpose(struct jt_target *target, __u64 slot, __u64 bp, struct walk *walk)
{
	struct jt_target_image *image;
	struct jt_site *site;
	__u64 ip;
	int i;

	walk->image = JT_NO_IMAGE;
	walk->purpose = JT_FOREIGN;
	for (i = 0; i < JT_MAX_FRAMES; i++) {
		if (bpf_probe_read_user(&ip, sizeof(ip), (void *)slot)) {
			count_loss(JT_LOSS_UNREAD_STACK);
			return 0;
		}
		image = image_at(target, ip);
		if (!image)
			return 0;
		site = site_at(image, ip);
		if (i == 0) {
			walk->image = image->image;
			walk->purpose = purpose_within(image, site);
		}
		if (i < 3)
			walk->frames[i] = ip - image->start + image->file_offset;
		if (!site)
			return 0;
		if (site->purpose != JT_PASS) {
			walk->purpose = site->purpose;
			return 0;
		}
		if (!step_frame(site, &slot, &bp))
			return 0;
	}
	return 0;
}

/* Why this sweep: leaving jemalloc's decay functions without a reason means the ticker of some malloc or free. */
static __noinline int walk_cause(struct jt_target *target, __u64 slot, __u64 bp)
{
	struct jt_target_image *image;
	struct jt_site *site;
	__u64 ip;
	int i;

	for (i = 0; i < JT_MAX_FRAMES; i++) {
		if (bpf_probe_read_user(&ip, sizeof(ip), (void *)slot))
			return JT_CAUSE_UNKNOWN;
		image = image_at(target, ip);
		site = image ? site_at(image, ip) : NULL;
		if (!site)
			return i == 0 ? JT_CAUSE_UNKNOWN : JT_CAUSE_TICK;
		if (site->cause)
			return site->cause;
		if (!step_frame(site, &slot, &bp))
			return JT_CAUSE_UNKNOWN;
	}
	return JT_CAUSE_UNKNOWN;
}
