/* SPDX-License-Identifier: MIT
 *
 * What the unit programs share that make calls through a pool: a module of their own, a call
 * of one of its functions, what came of it. */
#ifndef UNIT_POOL_H
#define UNIT_POOL_H

#include "unit.h"

#include "pool.h"

/* `folder` is a template of mkdtemp(3); 0, or -1. */
static inline int unit_make_module(char *folder, const char *name, const char *text)
{
    char path[80];
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/%s.py", folder, name);
    FILE *file = fopen(path, "w");
    if (!file)
        return -1;
    fputs(text, file);
    return fclose(file);
}

static inline int unit_remove_folder(const char *folder)
{
    char command[80];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

struct unit_pool {
    subhost_host *host;
    subhost_pool *pool;
    atomic_bool recycled, done; /* for a test's own callbacks and threads */
};

static inline struct unit_pool unit_pool_open(const subhost_pool_options *options)
{
    struct unit_pool p = {.host = unit_open()};
    subhost_error *err = NULL;
    int code = subhost_pool_open(p.host, options, &p.pool, &err);
    if (code)
        fail_msg("subhost_pool_open: %s", subhost_error_message(err));
    return p;
}

static inline void unit_pool_close(struct unit_pool *p)
{
    assert_int_equal(subhost_pool_close(p->pool, unit_patience(2), NULL), 0);
    unit_close(p->host);
}

/* A call of "module:function". */
static inline subhost_call *unit_call_new(struct unit_pool *p, const char *name)
{
    subhost_function *function = NULL;
    subhost_call *call = NULL;
    assert_int_equal(subhost_pool_function(p->pool, name, &function, NULL), 0);
    assert_int_equal(subhost_call_new(function, NULL, &call, NULL), 0);
    return call;
}

/* The main thread is here: it dispatches until the call, the only one, has ended. */
static inline subhost_outcome unit_call_wait(struct unit_pool *p, subhost_call *call)
{
    subhost_outcome outcome = {.size = sizeof outcome};
    subhost_call *taken = NULL;
    int64_t deadline = subhost__now() + unit_patience(20);
    while (subhost_pool_take(p->pool, &taken, 1, 0, NULL) == 0) {
        if (subhost__now() > deadline)
            fail_msg("a call has not ended");
        subhost_dispatch(p->host, SUBHOST_MSEC(5), NULL);
    }
    assert_ptr_equal(taken, call);
    subhost_call_outcome(call, &outcome);
    return outcome;
}

static inline subhost_outcome unit_call(struct unit_pool *p, subhost_call *call)
{
    subhost_error *err = NULL;
    int n = subhost_pool_submit(p->pool, &call, 1, 0, &err);
    if (n != 1)
        fail_msg("subhost_pool_submit: %s", err ? subhost_error_message(err) : "full");
    return unit_call_wait(p, call);
}

/* Of a function with one integer. */
static inline subhost_outcome unit_call_int(struct unit_pool *p, const char *name,
                                            int64_t integer, subhost_call **call)
{
    *call = unit_call_new(p, name);
    subhost_value_add_int(subhost_call_argument(*call), integer);
    return unit_call(p, *call);
}

static inline subhost_item unit_call_item(const subhost_call *call)
{
    subhost_item item = SUBHOST_ITEM_INIT;
    size_t at = 0;
    assert_int_equal(subhost_value_next(subhost_call_result(call), &at, &item, NULL), 1);
    return item;
}

static inline int64_t unit_call_result_int(const subhost_call *call)
{
    subhost_item item = unit_call_item(call);
    assert_int_equal(item.kind, SUBHOST_VALUE_INT);
    return item.integer;
}

#endif
