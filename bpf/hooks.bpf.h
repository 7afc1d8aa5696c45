/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * hooks.bpf.h: where the kernel tells us of memory syscalls.
 *
 * Up to 6.x by the raw tracepoints that every system call of the host passes: a program that wants four of them costs
 * the others some 10 ns, a purge 40 ns less than a perf event would, and tracing ends without a grace period per
 * system call, 50 ms each. Since 7.0 three programs are needed at each end (see below), which is too much for all
 * system calls: there it is a perf event for each that is wanted.
 */
#pragma once

#include "lifecycle.bpf.h"
#include "syscalls.bpf.h"

/* jemalloc's way with vm.overcommit_memory=2: mapped over. */
static __always_inline bool is_decommit(const __u64 arg[6])
{
	return arg[2] == PROT_NONE && (arg[3] & MAP_FIXED) && (arg[3] & MAP_ANONYMOUS);
}

static __always_inline bool is_code(const __u64 arg[6])
{
	return (arg[2] & PROT_EXEC) && !(arg[3] & MAP_ANONYMOUS) && arg[1];
}

/* Global: the verifier looks at it once, and not again where an exit makes up for an enter. */
__noinline int enter(__s32 nr)
{
	__u64 arg[6];

	read_args(arg);
	if (nr == madvise_nr)
		begin_call(request(JT_SYS_MADVISE, arg[2], 1), arg[0], arg[1], user_sp());
	else if (nr == munmap_nr)
		begin_call(request(JT_SYS_MUNMAP, 0, 1), arg[0], arg[1], user_sp());
	else if (nr == mmap_nr && is_decommit(arg))
		begin_call(request(JT_SYS_MMAP, 0, 1), arg[0], arg[1], user_sp());
	else if (nr == process_madvise_nr)
		begin_vector((const struct iovec *)arg[1], arg[2], arg[3]);
	else if (nr == mremap_nr)
		begin_call(request(JT_SYS_MREMAP, 0, 1), arg[0], arg[1], user_sp());
	return 0;
}

/*
 * The exit of a call whose enter was skipped (Linux 7.x skips a program while another thread was preempted in it),
 * came before tracing, or never was, as where seccomp refuses a call: arguments and stack are still what they were, so
 * all but its duration, and what RSS was before it, is known.
 */
static __always_inline void recover_call(__s32 nr, __s64 ret)
{
	struct thread *thread;

	enter(nr);
	thread = find_thread();
	if (!thread || thread->call.syscall == JT_SYS_NONE) {
		count_loss(JT_LOSS_UNMATCHED_EXIT);
		return;
	}
	thread->call.start_ns = thread->call.enter_ns = 0;
	thread->call.rss_pages = -1;
	end_call(ret);
}

/* All that there is to know of an mmap is known at its end, but how long it took. */
static __always_inline void leave_mmap(__s64 ret)
{
	bool failed = errno_or_zero(ret) != 0;
	struct thread *thread;
	__u64 arg[6];

	if (!register_all && !current_target())
		return;
	thread = find_thread();
	if (thread && thread->call.syscall == JT_SYS_MMAP) {
		end_call(ret);
		return;
	}
	read_args(arg);
	if (is_decommit(arg)) {
		if (current_target())
			recover_call(mmap_nr, ret);
	} else if (is_code(arg) && !failed) {
		thread = make_thread();
		if (thread)
			thread->ended = true;
		mapped_file(arg[4], ret, arg[1], arg[5]);
	}
}

static __always_inline void leave(__s32 nr, __s64 ret)
{
	if (unlikely(nr == mmap_nr)) {
		leave_mmap(ret);
	} else if (unlikely(!end_call(ret))) {
		if (!current_target())
			return;
		recover_call(nr, ret);
	}
	finish_call();
}

/* ---- raw tracepoints ------------------------------------------------------------------------------------------ */

/* The numbers of 32-bit programs mean other system calls. */
static __always_inline bool is_native(const struct pt_regs *regs)
{
#if defined(__TARGET_ARCH_arm64)
	return !(regs->pstate & 0x10); /* PSR_MODE32_BIT */
#else
	return regs->cs != 0x23; /* __USER32_CS */
#endif
}

static __always_inline __s32 number_of(const struct pt_regs *regs)
{
#if defined(__TARGET_ARCH_arm64)
	return regs->syscallno;
#else
	return regs->orig_ax;
#endif
}

static __always_inline bool gives_back(__s32 nr)
{
	return nr == madvise_nr || nr == munmap_nr || nr == process_madvise_nr || (nr == mremap_nr && traces_mremap);
}

SEC("tp_btf/sys_enter")
int BPF_PROG(syscall_enter, struct pt_regs *regs, long nr)
{
	if (likely(!gives_back(nr) && nr != mmap_nr) || stopped || !is_native(regs))
		return 0;
	/* Most are this one. Its arguments are at hand: what enter() does takes 20 ns more. */
	if (nr == madvise_nr)
		begin_call(request(JT_SYS_MADVISE, regs->ARG(2), 1), regs->FIRST_ARG, regs->ARG(1), PT_REGS_SP(regs));
	else
		enter(nr);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(syscall_exit, struct pt_regs *regs, long ret)
{
	__s32 nr = number_of(regs);

	if ((gives_back(nr) || nr == mmap_nr) && !stopped && is_native(regs))
		leave(nr, ret);
	return 0;
}

/* ---- perf events: one program for all enters and one for all exits, as the verifier's time is per program -------- */

/* The number is an int in a long's place. */

SEC("tracepoint/syscalls/sys_enter_madvise")
int enter_first(struct trace_event_raw_sys_enter *ctx)
{
	if (!stopped)
		enter((__s32)ctx->id);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_madvise")
int exit_first(struct trace_event_raw_sys_exit *ctx)
{
	if (!stopped)
		leave((__s32)ctx->id, ctx->ret);
	return 0;
}

/*
 * Linux 7.x runs these programs preemptibly, and skips a program for a thread when another one was preempted in it on
 * that CPU. So two copies of each are attached behind it, and do the work when those before were skipped.
 */
static __always_inline bool is_begun(const struct thread *thread, const __u64 arg[6])
{
	const struct call *call = &thread->call;

	if (call->syscall == JT_SYS_PROCESS_MADVISE)
		return true;
	return call->syscall != JT_SYS_NONE && call->addr == arg[0] && call->len == arg[1];
}

static __always_inline int enter_again(const struct trace_event_raw_sys_enter *ctx)
{
	struct thread *thread;
	__u64 arg[6];

	if (stopped || !current_target())
		return 0;
	read_args(arg);
	thread = find_thread();
	if (thread && is_begun(thread, arg))
		return 0;
	enter((__s32)ctx->id);
	thread = find_thread();
	if (thread && is_begun(thread, arg))
		count_loss(JT_RESCUED_RUN);
	return 0;
}

static __always_inline void exit_again(const struct trace_event_raw_sys_exit *ctx, bool last)
{
	struct thread *thread = find_thread();

	if (stopped)
		return;
	if (!thread || !thread->ended) {
		leave((__s32)ctx->id, ctx->ret);
		thread = find_thread();
		if (thread && thread->ended)
			count_loss(JT_RESCUED_RUN);
	}
	/* Not for the next call to find, whose other programs may all be skipped. */
	if (last && thread)
		thread->ended = false;
}

SEC("tracepoint/syscalls/sys_enter_madvise")
int enter_second(struct trace_event_raw_sys_enter *ctx)
{
	return enter_again(ctx);
}

SEC("tracepoint/syscalls/sys_enter_madvise")
int enter_third(struct trace_event_raw_sys_enter *ctx)
{
	return enter_again(ctx);
}

SEC("tracepoint/syscalls/sys_exit_madvise")
int exit_second(struct trace_event_raw_sys_exit *ctx)
{
	exit_again(ctx, false);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_madvise")
int exit_third(struct trace_event_raw_sys_exit *ctx)
{
	exit_again(ctx, true);
	return 0;
}
