/* Policies at work: who has which, and what it refuses. See policing.c. */
#ifndef SUBHOST_POLICING_H
#define SUBHOST_POLICING_H

#include "interp.h"
#include "policies/policy.h"
#include "wire.h"

/* host.c: the host's policy, with what its other options say. */
int subhost__policing_open(subhost_host *host, subhost_error **err);

/* interp.c: the policy of an interpreter that is being made; a reference, NULL for one with
 * nothing given. Refuses what the host's or this policy forbids. */
int subhost__policing_interp(subhost_host *host, const subhost_interp_options *options,
                             subhost_policy **policy, subhost_error **err);
/* Whether that interpreter has a GIL of its own. */
enum subhost_gil subhost__policing_gil(const subhost_policy *policy);

bool subhost__policing_own_obmalloc(const subhost_policy *policy);
/* Imports what the policy preloads, in the current interpreter. 0, or -1 with an exception
 * set. GIL held. */
int subhost__policing_preload(const subhost_policy *policy);

/* task.c: a task gets its interpreter's policy, and times that keep to it. */
void subhost__policing_task(subhost_task *task, const subhost_task_options *options);
/* Narrows the policy of a task that is not queued yet. */
int subhost__policing_narrow(subhost_task *task, const subhost_policy *policy,
                             subhost_error **err);

/* What becomes of a child that runs the task when its parent is gone. */
enum subhost_orphan subhost__policing_orphan(const subhost_policy *policy);

/* To and from another process. */
void subhost__policing_pack(struct pack *pack, const subhost_policy *policy);
/* A reference, NULL for one with nothing given; unpack->failed: it makes no sense. */
subhost_policy *subhost__policing_unpack(struct unpack *unpack);
/* In a forked child: that is the policy from now on. Main thread, nothing runs. */
void subhost__policing_child(subhost_interp *interp, subhost_policy *policy);

/* The policy that holds for the calling thread; a reference, which may be NULL. */
subhost_policy *subhost__policing_current(void);

/* Before a task runs: what the audit hook does not see, or CPython does not do. -1 with an
 * exception set: the task must not run. Driver, GIL held. */
int subhost__policing_begin(subhost_interp *interp, const subhost_task *task);
/* How a task that a module has refused may begin anew. */
enum policing_anew { ANEW_NOT, ANEW_SHARED, ANEW_PROCESS };
enum policing_anew subhost__policing_anew(const subhost_interp *interp,
                                          const subhost_task *task);
/* Whether the policy has tasks begin anew in a process. */
bool subhost__policing_moves(const subhost_policy *policy);
/* Whether modules without support for this interpreter's GIL are loaded all the same. */
bool subhost__policing_loads_anything(const subhost_interp *interp);
/* In a forked child, before its task: limits, standard input. Main thread. */
void subhost__policing_confine(const subhost_policy *policy);

/* Refuses one more interpreter, when there are enough. Under host->lock. */
int subhost__policing_room(subhost_host *host, const subhost_interp *interp,
                           subhost_error **err);
/* One more was abandoned. Any thread. */
void subhost__policing_abandoned(subhost_host *host);
/* In the root: whether one process more may live beside `alive`; else `why` says it. */
bool subhost__policing_child_allowed(subhost_host *host, unsigned alive, char *why,
                                     size_t size);

/* Whether the calling thread may start what has this policy: a thread that an earlier task of
 * the interpreter has started may not have more than that one. */
bool subhost__policing_may_start(const subhost_policy *policy);
/* 0, or -1 with an exception set when the calling thread's policy says no to that key. */
int subhost__policing_check(enum policy_key key, PyObject *type, const char *what);
/* fence.c: -1 with an exception set when the event is forbidden, else 0. GIL held. */
int subhost__policing_event(const char *event, PyObject *args);
/* Sets the exception for what `key` forbids, notes it in the trail; -1. GIL held. */
int subhost__policing_refuse(const subhost_policy *policy, enum policy_key key,
                             PyObject *type, const char *what);

#endif
