/* SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause */
/*
 * lifecycle.bpf.h: targets come and go.
 *
 * A process becomes a target here, in the kernel, the moment it maps a known image, so that nothing is missed between
 * exec and the first purge. Only files that user space has never looked at need its help (JT_EV_NEW_FILE).
 */
#pragma once

#include "thread.bpf.h"

#define SIGSTOP 19

static __always_inline void fill_header(struct jt_event_header *h, __u32 type, const struct jt_target_id *id)
{
	h->type = type;
	h->size = sizeof(struct jt_lifecycle_event);
	h->ts_ns = bpf_ktime_get_ns();
	h->id = *id;
	h->tid = (__u32)bpf_get_current_pid_tgid();
	h->cpu = bpf_get_smp_processor_id();
	bpf_get_current_comm(h->comm, sizeof(h->comm));
}

static __always_inline struct jt_lifecycle_event *begin_event(__u32 type, const struct jt_target_id *id)
{
	struct jt_lifecycle_event *event = bpf_ringbuf_reserve(&lifecycle, sizeof(*event), 0);

	if (!event) {
		count_loss(JT_LOSS_LIFECYCLE);
		return NULL;
	}
	__builtin_memset(event, 0, sizeof(*event));
	fill_header(&event->h, type, id);
	event->image = JT_NO_IMAGE;
	return event;
}

static __always_inline struct jt_target_id fresh_id(__u32 tgid)
{
	struct jt_target_id id = {.born_ns = bpf_ktime_get_ns(), .tgid = tgid};

	return id;
}

/* Which file this is, and its size as a check against an inode that was reused. */
static __always_inline __u64 identify_file(struct file *file, struct jt_file *key)
{
	struct inode *inode = BPF_CORE_READ(file, f_inode);

	key->ino = BPF_CORE_READ(inode, i_ino);
	key->dev = BPF_CORE_READ(inode, i_sb, s_dev);
	key->pad = 0;
	return BPF_CORE_READ(inode, i_size);
}

/* NULL: user space has to look at it first. */
static __always_inline struct jt_file_info *known_file(const struct jt_file *key, __u64 size)
{
	struct jt_file_info *info = bpf_map_lookup_elem(&files, key);

	return info && info->size == size ? info : NULL;
}

static __always_inline bool add_image(struct jt_target *target, const struct jt_file_info *info, __u64 start, __u64 len,
				      __u64 file_offset)
{
	__u32 n = target->n_images;
	struct jt_target_image *image;

	if (n >= JT_MAX_TARGET_IMAGES) {
		count_loss(JT_LOSS_TARGET_FULL);
		return false;
	}
	image = &target->images[n];
	image->start = start;
	image->end = start + len;
	image->file_offset = file_offset;
	image->image = info->image;
	image->wrapper_words = info->wrapper_words;
	target->n_images = n + 1;
	return true;
}

static __always_inline bool hold(const struct jt_target *target)
{
	return target && (target->flags & JT_TARGET_HOLD) && bpf_send_signal(SIGSTOP) == 0;
}

/* Where a file was mapped, and how large it is. */
struct mapping {
	__u64 addr, len, file_offset, size;
};

/* `image`: JT_NO_IMAGE asks user space to look at the file. */
static __always_inline void tell_file(const struct jt_file *key, const struct jt_target *target, __u32 image,
				      const struct mapping *at)
{
	struct jt_target_id none = {.tgid = bpf_get_current_pid_tgid() >> 32};
	struct jt_lifecycle_event *event;

	event = begin_event(image == JT_NO_IMAGE ? JT_EV_NEW_FILE : JT_EV_NEW_IMAGE, target ? &target->id : &none);
	if (!event)
		return;
	event->file = *key;
	event->addr = at->addr;
	event->len = at->len;
	event->file_offset = at->file_offset;
	event->file_size = at->size;
	event->image = image;
	event->held = image == JT_NO_IMAGE && hold(target);
	bpf_ringbuf_submit(event, 0);
}

static __always_inline void insert_target(__u32 tgid, const struct jt_target *target)
{
	if (bpf_map_update_elem(&targets, &tgid, target, BPF_ANY))
		count_loss(JT_LOSS_TARGET_FULL);
}

SEC("raw_tp/sched_process_fork")
int on_fork(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *parent = (void *)ctx->args[0], *child = (void *)ctx->args[1];
	__u32 tgid = BPF_CORE_READ(child, tgid), parent_tgid = BPF_CORE_READ(parent, tgid);
	struct jt_lifecycle_event *event;
	struct jt_target *from, copy;

	if (stopped || (__u32)BPF_CORE_READ(child, pid) != tgid)
		return 0; /* a thread */
	from = bpf_map_lookup_elem(&targets, &parent_tgid);
	if (!from)
		return 0;
	copy = *from;
	copy.flags &= ~JT_TARGET_PINNED;
	if (BPF_CORE_READ(child, mm) == BPF_CORE_READ(parent, mm)) {
		/* vfork: until exec it works on the parent's memory, and so for the parent's account. */
		insert_target(tgid, &copy);
		return 0;
	}
	if (!(copy.flags & JT_TARGET_TREE) && !register_all)
		return 0;
	copy.id = fresh_id(tgid);
	insert_target(tgid, &copy);
	event = begin_event(JT_EV_FORK, &copy.id);
	if (!event)
		return 0;
	event->parent = parent_tgid;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

static __always_inline void tell_exec(const struct jt_target_id *now, __u64 ended_ns)
{
	struct jt_lifecycle_event *event = begin_event(JT_EV_EXEC, now);

	if (!event)
		return;
	event->addr = ended_ns;
	bpf_ringbuf_submit(event, 0);
}

SEC("raw_tp/sched_process_exec")
int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *)ctx->args[0];
	struct linux_binprm *bprm = (void *)ctx->args[2];
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct jt_target *old = bpf_map_lookup_elem(&targets, &tgid), now = {};
	struct jt_file_info *info;
	struct jt_file key = {};
	struct mapping at = {};
	__u64 start, ended_ns = 0;
	bool keep = false;

	if (stopped || (!old && !register_all))
		return 0;
	at.size = identify_file(BPF_CORE_READ(bprm, file), &key);
	info = known_file(&key, at.size);
	now.id = fresh_id(tgid);
	if (old) {
		if (old->id.tgid == tgid)
			ended_ns = old->id.born_ns;
		now.flags = old->flags;
		keep = now.flags & (JT_TARGET_TREE | JT_TARGET_PINNED);
	}
	if (info && info->image != JT_NO_IMAGE && (keep || register_all)) {
		start = BPF_CORE_READ(task, mm, start_code) - info->exe_code_vaddr + info->text_vaddr;
		add_image(&now, info, start, info->text_len, info->text_offset);
		keep = true;
	}
	if (keep)
		insert_target(tgid, &now);
	else if (old)
		bpf_map_delete_elem(&targets, &tgid);
	forget_target(); /* this thread is the only one that lives on */
	if (old)
		tell_exec(&now.id, ended_ns);
	if (!info) {
		tell_file(&key, keep ? &now : NULL, JT_NO_IMAGE, &at);
	} else if (now.n_images) {
		at.addr = now.images[0].start;
		at.len = info->text_len;
		at.file_offset = info->text_offset;
		tell_file(&key, &now, info->image, &at);
	}
	return 0;
}

SEC("raw_tp/sched_process_exit")
int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *)ctx->args[0];
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct jt_lifecycle_event *event;
	struct jt_target *target;
	struct jt_target_id id;

	forget_thread();
	if (stopped || BPF_CORE_READ(task, signal, live.counter) != 0)
		return 0; /* or other threads live on */
	target = bpf_map_lookup_elem(&targets, &tgid);
	if (!target)
		return 0;
	id = target->id;
	bpf_map_delete_elem(&targets, &tgid);
	if (id.tgid != tgid)
		return 0; /* a vfork child */
	event = begin_event(JT_EV_EXIT, &id);
	if (event)
		bpf_ringbuf_submit(event, 0);
	return 0;
}

/* ---- executable files are mapped ----------------------------------------------------------------------------- */

static __always_inline struct file *file_of(__u32 fd)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **slots, *file = NULL;

	if (fd >= BPF_CORE_READ(table, max_fds))
		return NULL;
	slots = BPF_CORE_READ(table, fd);
	bpf_probe_read_kernel(&file, sizeof(file), slots + fd);
	return file;
}

/* Not inlined: with its stack, an exit program's own and those of what it calls would be beyond the 512 bytes. */
static __noinline int mapped_file(__u32 fd, __u64 start, __u64 len, __u64 file_offset)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct jt_target *target = bpf_map_lookup_elem(&targets, &tgid);
	struct file *file = file_of(fd);
	struct mapping at = {start, len, file_offset, 0};
	struct jt_target fresh = {};
	struct jt_file_info *info;
	struct jt_file key = {};

	if (!file)
		return 0;
	at.size = identify_file(file, &key);
	info = known_file(&key, at.size);
	if (!info) {
		tell_file(&key, target, JT_NO_IMAGE, &at);
		return 0;
	}
	if (info->image == JT_NO_IMAGE)
		return 0;
	if (target) {
		add_image(target, info, start, len, file_offset);
		__sync_fetch_and_add(&targets_version, 1);
	} else {
		fresh.id = fresh_id(tgid);
		add_image(&fresh, info, start, len, file_offset);
		insert_target(tgid, &fresh);
	}
	tell_file(&key, target ? target : &fresh, info->image, &at);
	return 0;
}
