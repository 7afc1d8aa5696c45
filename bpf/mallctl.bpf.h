/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * mallctl.bpf.h: what a program asks its own jemalloc (--passive). Nothing is called; answers that it gets anyway are
 * copied on their way back.
 *
 * One program at both ends of a call (a uprobe session, Linux 6.13): the entry decides whether the return is probed at
 * all. An answer is there only when the function has returned, and where it was put may be used for something else by
 * the time of the next call. All are plain C functions that no exception passes.
 */
#pragma once

#include "maps.bpf.h"

#define MALLCTL_PER_SECOND 400 /* of all targets: a program that asks without end is not slowed down for it */
#define NO_RETURN_PROBE 1

struct asked {
	__u64 oldp;
	__u64 oldlenp;
	__u32 mib_len;
	__u8 api;
	__u8 wrote;
	__u8 pad[2];
	__u64 mib[JT_MIB_LEN];
	char name[JT_MALLCTL_NAME_LEN];
};

/* By thread. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct asked);
} asking SEC(".maps");

volatile __u64 mallctl_second = 0, mallctl_in_second = 0;
volatile __u64 mallctl_skipped = 0;

static __always_inline bool too_many(__u64 now)
{
	__u64 second = now >> 30;

	if (second != mallctl_second) { /* a race lets a few more through */
		mallctl_second = second;
		mallctl_in_second = 0;
	}
	if (__sync_fetch_and_add(&mallctl_in_second, 1) < MALLCTL_PER_SECOND)
		return false;
	__sync_fetch_and_add(&mallctl_skipped, 1);
	return true;
}

/* "stats." or "epoch" */
static __always_inline bool is_wanted(const char *name)
{
	return (name[0] == 's' && name[1] == 't' && name[2] == 'a' && name[3] == 't' && name[4] == 's') ||
	       (name[0] == 'e' && name[1] == 'p' && name[2] == 'o' && name[3] == 'c' && name[4] == 'h');
}

static __always_inline void read_mib(struct asked *asked, __u64 mib, __u64 len)
{
	__u32 words = within(len > JT_MIB_LEN ? JT_MIB_LEN : len, JT_MIB_LEN + 1);

	asked->mib_len = words;
	bpf_probe_read_user(asked->mib, sizeof(asked->mib[0]) * words, (void *)mib);
}

static __always_inline void announce(struct jt_target *target, const struct asked *asked, __u64 value, __u8 value_bytes)
{
	struct jt_mallctl_event *event = bpf_ringbuf_reserve(&lifecycle, sizeof(*event), 0);

	if (!event) {
		__sync_fetch_and_add(&mallctl_skipped, 1);
		return;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->h.type = JT_EV_MALLCTL;
	event->h.size = sizeof(*event);
	event->h.ts_ns = bpf_ktime_get_ns();
	event->h.id = target->id;
	event->h.tid = bpf_get_current_pid_tgid();
	event->api = asked->api;
	event->wrote = asked->wrote;
	event->value = value;
	event->value_bytes = value_bytes;
	event->mib_len = asked->mib_len;
	__builtin_memcpy(event->mib, asked->mib, sizeof(event->mib));
	__builtin_memcpy(event->name, asked->name, sizeof(event->name));
	bpf_ringbuf_submit(event, 0);
}

static __always_inline int on_ask(struct pt_regs *ctx, struct jt_target *target, __u32 tid, __u8 api)
{
	/* Before any branch: the compiler would make one load of two, which the verifier refuses. */
	__u64 arg1 = PT_REGS_PARM1(ctx), arg2 = PT_REGS_PARM2(ctx), arg3 = PT_REGS_PARM3(ctx);
	__u64 arg4 = PT_REGS_PARM4(ctx), arg5 = PT_REGS_PARM5(ctx);
	struct asked asked = {.api = api};

	barrier_var(arg1);
	barrier_var(arg2);
	barrier_var(arg3);
	barrier_var(arg4);
	barrier_var(arg5);
	if (too_many(bpf_ktime_get_ns()))
		return NO_RETURN_PROBE;
	if (api == JT_API_STATS_PRINT) {
		announce(target, &asked, 0, 0);
		return NO_RETURN_PROBE;
	}
	if (api == JT_API_BYMIB) {
		read_mib(&asked, arg1, arg2);
		asked.oldp = arg3;
		asked.oldlenp = arg4;
		asked.wrote = arg5 != 0;
	} else {
		if (bpf_probe_read_user_str(asked.name, sizeof(asked.name), (void *)arg1) < 0 || !is_wanted(asked.name))
			return NO_RETURN_PROBE;
		asked.oldp = arg2;
		asked.oldlenp = arg3;
		asked.wrote = api == JT_API_MALLCTL && arg4 != 0;
	}
	return bpf_map_update_elem(&asking, &tid, &asked, BPF_ANY) ? NO_RETURN_PROBE : 0;
}

static __always_inline void on_answer(struct pt_regs *ctx, struct jt_target *target, __u32 tid)
{
	struct asked *asked = bpf_map_lookup_elem(&asking, &tid);
	__u64 value = 0, len = 0;

	if (!asked)
		return;
	if ((__u32)PT_REGS_RC(ctx) == 0) {
		if (asked->oldlenp)
			bpf_probe_read_user(&len, sizeof(len), (void *)asked->oldlenp);
		if (asked->api == JT_API_NAMETOMIB) {
			read_mib(asked, asked->oldp, len);
			len = 0;
		} else if (!asked->oldp || len != sizeof(value) ||
			   bpf_probe_read_user(&value, sizeof(value), (void *)asked->oldp)) {
			len = 0;
		}
		announce(target, asked, value, len);
	}
	bpf_map_delete_elem(&asking, &tid);
}

SEC("uprobe")
int mallctl_probe(struct pt_regs *ctx)
{
	struct jt_target *target = current_target();
	__u32 tid = bpf_get_current_pid_tgid();

	if (!target)
		return NO_RETURN_PROBE;
	/* On the way back the instruction pointer is where the function returns to. */
	if (PT_REGS_IP(ctx) == bpf_get_func_ip(ctx))
		return on_ask(ctx, target, tid, bpf_get_attach_cookie(ctx));
	on_answer(ctx, target, tid);
	return 0;
}
