/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * walk.bpf.h: from a user stack to the reason of a call.
 *
 * User space has listed every call instruction of jemalloc's functions that can lead to a memory syscall or to a
 * sweep, each with the rule for its frame (taken from .eh_frame). A walk is then: read a return address, look it up,
 * step over the frame, until a function settles the question. This works without frame pointers, without symbols in the
 * target, and needs no probe.
 *
 * The top of the stack is read at once (a user read costs 50 ns, whatever its length), and a walk that finds the same
 * return addresses in the same places as the thread's last one is known to end where that ended.
 */
#pragma once

#include "cpu.bpf.h"

struct task_struct___stack {
	void *stack;
} __attribute__((preserve_access_index));

enum bpf_func_id___jt {
	BPF_FUNC_task_pt_regs___jt = 175,
};

#define KERNEL_STACK_SIZE 16384 /* x86_64 before 5.15, no KASAN */

#if defined(__TARGET_ARCH_arm64)
#define FIRST_ARG orig_x0 /* regs[0] is the result by the time of the exit */
#define ARG(n) regs[n]
#else
#define FIRST_ARG di
#define ARG(n) ARG_##n
#define ARG_1 si
#define ARG_2 dx
#define ARG_3 r10
#define ARG_4 r8
#define ARG_5 r9
#endif

/* 5.15: a typed pointer, read with plain loads. */
static __always_inline bool has_typed_regs(void)
{
	return bpf_core_enum_value_exists(enum bpf_func_id___jt, BPF_FUNC_task_pt_regs___jt);
}

static __always_inline struct pt_regs *typed_regs(void)
{
	return (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
}

static __always_inline struct pt_regs *untyped_regs(void)
{
	struct task_struct___stack *task = (void *)bpf_get_current_task();

	return BPF_CORE_READ(task, stack) + KERNEL_STACK_SIZE - bpf_core_type_size(struct pt_regs);
}

/*
 * The registers that the current thread entered the kernel with; 0: not to be had. Global: for each load through a
 * typed pointer the verifier searches the kernel's BTF from end to end, so it shall come along here only once.
 */
__noinline __u64 user_sp(void)
{
	return has_typed_regs() ? PT_REGS_SP(typed_regs()) : PT_REGS_SP_CORE(untyped_regs());
}

__noinline __u64 user_bp(void)
{
	return has_typed_regs() ? PT_REGS_FP(typed_regs()) : PT_REGS_FP_CORE(untyped_regs());
}

/*
 * The arguments of the system call that the current thread is in; they are still there at its exit. Not from the
 * tracepoint's context: that holds as many as the call has, and a program that reads one more cannot be attached to it.
 */
static __always_inline void read_args(__u64 arg[6])
{
	struct pt_regs *regs;

	if (has_typed_regs()) {
		regs = typed_regs();
		arg[0] = regs->FIRST_ARG;
		arg[1] = regs->ARG(1);
		arg[2] = regs->ARG(2);
		arg[3] = regs->ARG(3);
		arg[4] = regs->ARG(4);
		arg[5] = regs->ARG(5);
	} else {
		regs = untyped_regs();
		arg[0] = BPF_CORE_READ(regs, FIRST_ARG);
		arg[1] = BPF_CORE_READ(regs, ARG(1));
		arg[2] = BPF_CORE_READ(regs, ARG(2));
		arg[3] = BPF_CORE_READ(regs, ARG(3));
		arg[4] = BPF_CORE_READ(regs, ARG(4));
		arg[5] = BPF_CORE_READ(regs, ARG(5));
	}
}

static __always_inline struct jt_target_image *image_at(struct jt_target *target, __u64 ip)
{
	__u64 found = 0, index = 0, i;

#pragma unroll
	for (i = 0; i < JT_MAX_TARGET_IMAGES; i++) {
		const struct jt_target_image *image = &target->images[i];
		__u64 here = is_less(i, target->n_images) & ~is_less(ip, image->start) & is_less(ip, image->end);

		found |= here;
		index ^= (index ^ i) & -here; /* the last one: an earlier one there was unmapped */
	}
	return found ? &target->images[within(index, JT_MAX_TARGET_IMAGES)] : NULL;
}

static __always_inline struct jt_site *site_at(const struct jt_target_image *image, __u64 ip)
{
	__u32 index = image->image;
	__u64 offset = ip - image->start + image->file_offset;
	void *inner = bpf_map_lookup_elem(&sites, &index);

	return inner ? bpf_map_lookup_elem(inner, &offset) : NULL;
}

/* A word of the user stack, from the copy where it reaches that far. `out` is in the thread. */
static __always_inline bool read_word(struct thread *thread, __u64 at, __u64 *out)
{
	__u64 slot = (at - thread->step.sp) / 8;

	if (slot < thread->step.words) {
		*out = thread->stack[within(slot, STACK_WORDS)];
		return true;
	}
	return bpf_probe_read_user(out, sizeof(*out), (void *)at) == 0;
}

static __always_inline bool read_words(__u64 *to, __u64 sp, __u32 words)
{
	barrier_var(words);
	return likely(words <= STACK_WORDS && bpf_probe_read_user(to, words * 8, (void *)sp) == 0);
}

static __always_inline bool read_stack(struct thread *thread, __u64 sp, __u32 words)
{
	if (!read_words(thread->stack, sp, words))
		return false;
	thread->step.words = words;
	return true;
}

/* One step outwards. False: the stack cannot be followed. */
static __always_inline bool step_frame(struct thread *thread, const struct jt_site *site)
{
	struct step *step = &thread->step;
	__u64 cfa;

	switch (site->cfa_register) {
	case JT_CFA_SP:
		cfa = step->slot + 8 + site->cfa_offset;
		break;
	case JT_CFA_BP:
		cfa = step->bp + site->cfa_offset;
		step->repeatable = false;
		break;
	default:
		step->repeatable = false;
		return false;
	}
	step->slot = cfa - 8;
	return !site->saved_bp || read_word(thread, cfa + site->saved_bp, &step->bp);
}

static __always_inline bool is_known(const __u64 *stack, const struct known_walk *walk)
{
	__u32 i;

	for (i = 0; i < MAX_WALK_FRAMES; i++) {
		if (i >= walk->depth)
			break;
		if (unlikely(stack[within(walk->slot[i], STACK_WORDS)] != walk->word[i]))
			return false;
	}
	return true;
}

/* Is the stack still as it was at this walk? No more of it is read than was looked at then. */
static __always_inline bool is_repeated(struct thread *thread, const struct known_walk *walk, __u64 sp)
{
	__u64 *stack = stack_buffer(thread);

	return walk->version == thread->target.version && stack && read_words(stack, sp, walk->words) &&
	       is_known(stack, walk);
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

static __always_inline __u32 is_nonzero(__u32 value)
{
	value |= -value;
	barrier_var(value); /* or the compiler makes a branch of it */
	return value >> 31;
}

/*
 * Does the walk end here, at a call site that has a purpose, and for WALK_FIRST a cause? Without a branch: the verifier
 * would follow both sides of each in every round.
 */
static __always_inline bool is_settled(struct step *step, struct known_walk *walk, const struct jt_site *site,
				       __u32 frame)
{
	__u32 found = (is_nonzero(step->sweep) ^ 1) & is_nonzero(site->purpose ^ JT_PASS);
	__u32 goes_on =
		found & (is_nonzero(step->kind ^ WALK_FIRST) ^ 1) & (is_nonzero(site->purpose ^ JT_PURGE_SWEEP) ^ 1);
	__u32 cause;

	walk->purpose ^= (walk->purpose ^ site->purpose) & -found;
	step->sweep |= (frame + 1) & -goes_on;
	cause = site->cause & -is_nonzero(step->sweep);
	walk->cause = cause;
	return (found & (goes_on ^ 1)) | is_nonzero(cause);
}

/* Leaving jemalloc's decay functions without a reason: the ticker of some malloc or free. */
static __always_inline void settle_tick(const struct thread *thread, struct known_walk *walk, __u32 frame)
{
	__u32 sweep = thread->step.sweep;

	walk->cause = JT_CAUSE_TICK * (is_nonzero(sweep) & (is_less(sweep, frame) | thread->sweep.by_eviction));
}

/*
 * Walks from the return address at `sp` to the function that says why this call was made, and for WALK_FIRST on to why
 * this sweep was. The answer is left in current_walk().
 *
 * Where the walk is stands in thread->step and not in variables: what comes out of memory is any number to the
 * verifier, so that all ways through one round meet at the head of the next. With variables this was most of the time
 * to load.
 */
__noinline int walk_frames(__u64 sp)
{
	struct thread *thread = find_thread();
	struct jt_target_image *image;
	struct known_walk *walk;
	struct jt_target *target;
	struct jt_site *site;
	struct step *step;
	__u64 word, at;
	__u32 i;

	if (!thread)
		return 0;
	walk = current_walk(thread);
	step = &thread->step;
	step->sp = step->slot = sp;
	step->repeatable = true;
	step->sweep = 0;
	walk->version = 0;
	walk->depth = 0;
	walk->image = JT_NO_IMAGE;
	walk->cause = JT_CAUSE_UNKNOWN;
	walk->frames[0] = walk->frames[1] = walk->frames[2] = 0;
	walk->purpose = JT_UNCLASSIFIED;
	target = current_target();
	if (!target)
		return 0;
	/* Near the end of the stack's mapping less than all can be read: then the few words that are always there. */
	if (!read_stack(thread, sp, STACK_WORDS) && !read_stack(thread, sp, 8)) {
		count_loss(JT_LOSS_UNREAD_STACK);
		return 0;
	}
	walk->purpose = JT_FOREIGN;
	step->bp = user_bp();
	barrier(); /* or the compiler enters the loop in its middle, which kernels before 6.12 take for a jump back */
	for (i = 0; i < MAX_WALK_FRAMES; i++) {
		if (!read_word(thread, step->slot, &step->word))
			return 0;
		barrier();
		word = step->word;
		at = (step->slot - step->sp) / 8;
		step->repeatable &= is_less(at, step->words);
		walk->word[i] = word;
		walk->slot[i] = at;
		walk->words = at + 1;
		walk->depth = i + 1;
		image = image_at(target, word);
		site = image ? site_at(image, word) : NULL;
		if (i == 0 && image) {
			walk->image = image->image;
			walk->purpose = purpose_within(image, site);
		}
		if (i < 3 && image)
			walk->frames[i] = word - image->start + image->file_offset;
		if (!site) {
			settle_tick(thread, walk, i);
			break;
		}
		if (is_settled(step, walk, site, i) || !step_frame(thread, site))
			break;
		barrier();
	}
	if (step->repeatable)
		walk->version = thread->target.version;
	return 0;
}

/* The same, unless the thread's last walk of this kind says it. */
static __always_inline void walk_stack(struct thread *thread, __u32 kind, __u64 sp)
{
	thread->step.kind = kind;
	if (unlikely(!is_repeated(thread, current_walk(thread), sp)))
		walk_frames(sp);
}
