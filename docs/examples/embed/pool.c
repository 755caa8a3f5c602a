/* A pool in a poll loop: functions called in several interpreters at once, with plain values.
 *
 *   cc pool.c $(pkg-config --cflags --libs subhost) -o pool && ./pool */
#include <poll.h>
#include <stdio.h>

#include <subhost.h>

#define CALLS 4

static int fail(subhost_error *err)
{
    fprintf(stderr, "%s\n", subhost_error_message(err));
    subhost_error_free(err);
    return 1;
}

/* math.sqrt(16), math.sqrt(1), math.sqrt(-2), ... */
static void fill(subhost_call *call, int i)
{
    subhost_value *argument = subhost_call_argument(call);
    subhost_value_clear(argument);
    subhost_value_add_float(argument, i == 2 ? -2 : (4 - i) * (4 - i));
}

static void print(int i, const subhost_call *call)
{
    subhost_outcome outcome = SUBHOST_OUTCOME_INIT;
    subhost_item item = SUBHOST_ITEM_INIT;
    size_t at = 0;
    subhost_call_outcome(call, &outcome);
    if (outcome.kind != SUBHOST_RETURNED)
        printf("%d: %s: %s\n", i, subhost_outcome_name(outcome.kind), outcome.detail);
    else if (subhost_value_next(subhost_call_result(call), &at, &item, NULL) == 1)
        printf("%d: %s %g\n", i, subhost_value_kind_name(item.kind), item.number);
}

/* On the main thread, out of subhost_dispatch(). */
static void on_done(subhost_pool *pool, void *data)
{
    int *taken = (int *)data;
    subhost_call *calls[CALLS]; /* the same again, as they end */
    *taken += subhost_pool_take(pool, calls, CALLS, 0, NULL);
}

int main(void)
{
    subhost_error *err = NULL;
    subhost_host *host;
    subhost_pool *pool;
    subhost_function *function;
    subhost_call *calls[CALLS];
    int taken = 0;
    subhost_pool_options options = SUBHOST_POOL_OPTIONS_INIT;
    options.workers = 2;
    options.timeout = SUBHOST_MSEC(5000); /* of each call */
    options.on_done = on_done;
    options.on_done_data = &taken;
    if (subhost_open(NULL, &host, &err) ||
        subhost_pool_open(host, &options, &pool, &err) ||
        subhost_pool_function(pool, "math:sqrt", &function, &err))
        return fail(err);
    for (int i = 0; i < CALLS; i++) {
        if (subhost_call_new(function, NULL, &calls[i], &err))
            return fail(err);
        fill(calls[i], i);
    }
    if (subhost_pool_submit(pool, calls, CALLS, 0, &err) != CALLS)
        return fail(err);
    /* The program's loop. One with threads may take on any of them, without on_done. */
    struct pollfd fd = {subhost_fd(host), POLLIN, 0};
    while (taken < CALLS)
        if (poll(&fd, 1, -1) > 0 && subhost_dispatch(host, 0, &err) < 0)
            return fail(err);
    for (int i = 0; i < CALLS; i++) {
        print(i, calls[i]);
        subhost_call_free(calls[i]);
    }
    if (subhost_pool_close(pool, SUBHOST_MSEC(1000), &err))
        return fail(err);
    return subhost_close(host, SUBHOST_CLOSE_FINALIZE, SUBHOST_MSEC(2000), NULL) != 0;
}
