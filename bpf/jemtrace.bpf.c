// SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause
/* The one BPF object: each concern is a header of its own. */
#include "vmlinux.h"
#include "maps.bpf.h"
#include "thread.bpf.h"
#include "walk.bpf.h"
#include "syscalls.bpf.h"
#include "sweep.bpf.h"
#include "lifecycle.bpf.h"
#include "hooks.bpf.h"
#include "context.bpf.h"
#include "collapse.bpf.h"
#include "mallctl.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";
