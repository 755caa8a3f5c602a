/* SPDX-License-Identifier: MIT
 *
 * timeout: 240
 * The pending-call channel: the ring alone, then under a storm from eight threads. */
#include "unit.h"

/* ---- the ring alone ------------------------------------------------------------- */

struct ring {
    subhost_interp interp; /* as much of one as a drain looks at */
    int next, wrong;
};

static struct ring ring;
static subhost_host *ring_host;

static void expect_next(void *data)
{
    if ((int)(intptr_t)data != ring.next++)
        ring.wrong++;
}

static int ring_setup(void **state)
{
    (void)state;
    memset(&ring, 0, sizeof ring);
    return subhost__channel_init(&ring.interp.channel);
}

static int ring_teardown(void **state)
{
    (void)state;
    subhost__channel_destroy(&ring.interp.channel);
    return 0;
}

/* Takes and runs everything, as the interpreter would. No message leaves an exception,
 * but a drain asks for one: so it needs a thread state. */
static int drain(void)
{
    PyEval_RestoreThread(subhost__host()->main_tstate);
    int result = subhost__channel_drain(&ring.interp);
    subhost__host()->main_tstate = PyEval_SaveThread();
    return result;
}

static void an_empty_ring_has_nothing(void **state)
{
    (void)state;
    assert_true(subhost__channel_is_empty(&ring.interp.channel));
    assert_int_equal(drain(), 0);
    assert_int_equal(atomic_load(&ring.interp.channel.drained), 0);
}

static void messages_come_in_order(void **state)
{
    (void)state;
    struct channel *channel = &ring.interp.channel;
    int sent = 0;
    /* Round the ring several times, with a number that does not divide it. */
    for (int round = 0; round < 40; round++) {
        for (int i = 0; i < 100; i++)
            assert_true(
                subhost__channel_put(channel, expect_next, (void *)(intptr_t)sent++));
        assert_false(subhost__channel_is_empty(channel));
        assert_int_equal(drain(), 0);
        assert_true(subhost__channel_is_empty(channel));
        assert_int_equal(ring.next, sent);
    }
    assert_int_equal(ring.wrong, 0);
    assert_int_equal(atomic_load(&channel->drained), sent);
}

static void a_full_ring_refuses(void **state)
{
    (void)state;
    struct channel *channel = &ring.interp.channel;
    for (int round = 0; round < 3; round++) {
        ring.next = 0;
        for (int i = 0; i < CHANNEL_CELLS; i++)
            assert_true(subhost__channel_put(channel, expect_next, (void *)(intptr_t)i));
        for (int i = 0; i < 3; i++)
            assert_false(subhost__channel_put(channel, expect_next, NULL));
        assert_int_equal(drain(), 0);
        assert_int_equal(ring.next, CHANNEL_CELLS);
        assert_int_equal(ring.wrong, 0);
    }
}

static void put_one_more(void *data)
{
    expect_next(data);
    subhost__channel_put(&ring.interp.channel, expect_next, (void *)((intptr_t)data + 1));
}

static void drain_again(void *data)
{
    expect_next(data);
    subhost__channel_drain(&ring.interp);
}

static void a_message_may_put_and_drain(void **state)
{
    (void)state;
    struct channel *channel = &ring.interp.channel;
    assert_true(subhost__channel_put(channel, drain_again, (void *)0));
    assert_true(subhost__channel_put(channel, put_one_more, (void *)1));
    while (!subhost__channel_is_empty(channel))
        assert_int_equal(drain(), 0);
    assert_int_equal(ring.next, 3);
    assert_int_equal(ring.wrong, 0);
}

/* ---- the ring with many producers, no interpreter ------------------------------- */

enum { SENDERS = 8 };

struct sender;
struct sent {
    struct sender *sender;
    int number;
};

struct storm {
    subhost_interp *interp;
    int per_sender;
    atomic_int failed; /* sends that failed with anything but EAGAIN */
    atomic_int done;   /* senders that have sent all */
    atomic_llong refused;
};

struct sender {
    struct storm *storm;
    pthread_t thread;
    /* With the GIL held: */
    int next, lost, twice;
};

/* The sender's number and the message's in one pointer: nothing to allocate. */
static struct sender senders[SENDERS];

static void receive(void *data)
{
    uintptr_t word = (uintptr_t)data;
    struct sender *sender = &senders[word % SENDERS];
    int number = (int)(word / SENDERS);
    if (number < sender->next)
        sender->twice++; /* twice, or out of its sender's order */
    else
        sender->lost += number - sender->next;
    sender->next = number + 1;
}

static void back_off(int tries)
{
    if (tries < 10)
        sched_yield();
    else
        usleep(100);
}

static void *send_all(void *arg)
{
    struct sender *sender = arg;
    struct storm *storm = sender->storm;
    uintptr_t me = (uintptr_t)(sender - senders);
    for (int i = 0; i < storm->per_sender; i++) {
        void *word = (void *)((uintptr_t)i * SENDERS + me);
        int code;
        for (int tries = 0;; tries++) {
            code = subhost_interp_send(storm->interp, receive, word, NULL);
            if (code != SUBHOST_EAGAIN)
                break;
            atomic_fetch_add_explicit(&storm->refused, 1, memory_order_relaxed);
            back_off(tries);
        }
        if (code) {
            atomic_fetch_add(&storm->failed, 1);
            break;
        }
    }
    atomic_fetch_add(&storm->done, 1);
    return NULL;
}

static void start_storm(struct storm *storm)
{
    memset(senders, 0, sizeof senders);
    for (int i = 0; i < SENDERS; i++) {
        senders[i].storm = storm;
        assert_int_equal(pthread_create(&senders[i].thread, NULL, send_all, &senders[i]),
                         0);
    }
}

static uint64_t messages(subhost_host *host)
{
    subhost_stats stats = {.size = sizeof stats};
    subhost_get_stats(host, &stats);
    return stats.messages;
}

struct checked {
    int arrived, lost, twice;
};

static void add_up(void *data)
{
    struct checked *checked = data;
    for (int i = 0; i < SENDERS; i++) {
        checked->arrived += senders[i].next;
        checked->lost += senders[i].lost;
        checked->twice += senders[i].twice;
    }
}

/* The storm over an interpreter that runs `code`. */
static void storm_over(const char *code, enum subhost_doorbell doorbell)
{
    int total = unit_count(1000000, 80000, 4000);
    subhost_options options = SUBHOST_OPTIONS_INIT;
    options.doorbell = doorbell;
    subhost_host *host;
    assert_int_equal(subhost_open(&options, &host, NULL), 0);
    struct storm storm = {.interp = unit_interp(host), .per_sender = total / SENDERS};
    subhost_task *task = unit_submit(storm.interp, code, NULL);
    unit_until_running(host, task);

    uint64_t before = messages(host);
    size_t rss = 0, rss_max = 0;
    int64_t began = subhost__now(), deadline = subhost__deadline(unit_patience(100));
    start_storm(&storm);
    while (messages(host) - before < (uint64_t)total && !atomic_load(&storm.failed) &&
           subhost__now() < deadline) {
        assert_true(subhost_dispatch(host, SUBHOST_MSEC(10), NULL) >= 0);
        size_t now = unit_rss();
        /* The first tenth of it is for what is allocated once. */
        if (!rss && messages(host) - before > (uint64_t)total / 10)
            rss = now;
        if (now > rss_max)
            rss_max = now;
    }
    int64_t took = subhost__now() - began;
    if (messages(host) - before < (uint64_t)total)
        print_error("after %lld ms %llu of %d messages had arrived, %d failed\n",
                    (long long)(took / 1000000),
                    (unsigned long long)(messages(host) - before), total,
                    atomic_load(&storm.failed));
    assert_int_equal(messages(host) - before, total);
    assert_int_equal(atomic_load(&storm.failed), 0);
    for (int i = 0; i < SENDERS; i++)
        assert_int_equal(pthread_join(senders[i].thread, NULL), 0);

    /* One more message, behind all others: it sees what they left. */
    struct checked checked = {0, 0, 0};
    atomic_int seen = 0;
    assert_int_equal(subhost_interp_send(storm.interp, add_up, &checked, NULL), 0);
    assert_int_equal(subhost_interp_send(storm.interp, unit_count_message, &seen, NULL),
                     0);
    assert_true(unit_reaches(host, &seen, 1));
    assert_int_equal(checked.arrived, total);
    assert_int_equal(checked.lost, 0);
    assert_int_equal(checked.twice, 0);
    print_message("# %d messages in %lld ms, %lld times full, RSS +%ld KiB\n", total,
                  (long long)(took / 1000000), (long long)atomic_load(&storm.refused),
                  rss ? (long)((rss_max - rss) / 1024) : 0L);
    if (unit_memory_counts() && rss)
        assert_true(rss_max - rss < (size_t)2 << 20);

    /* It still can be cancelled. */
    subhost_task_cancel(task, SUBHOST_BY_REQUEST, NULL);
    subhost_outcome outcome = unit_wait(task);
    unit_expect(&outcome, SUBHOST_CANCELLED);
    subhost_task_release(task);
    subhost_interp_release(storm.interp);
    unit_close(host);
}

static void storm_over_a_busy_loop(void **state)
{
    (void)state;
    storm_over(UNIT_QUIET "while True: pass", SUBHOST_DOORBELL_AUTO);
}

static void storm_over_a_sleep(void **state)
{
    (void)state;
    storm_over(UNIT_QUIET "import time\ntime.sleep(3600)", SUBHOST_DOORBELL_AUTO);
}

static void storm_over_a_busy_loop_by_attaching(void **state)
{
    (void)state;
    storm_over(UNIT_QUIET "while True: pass", SUBHOST_DOORBELL_ATTACH);
}

static void storm_over_a_sleep_by_attaching(void **state)
{
    (void)state;
    storm_over(UNIT_QUIET "import time\ntime.sleep(3600)", SUBHOST_DOORBELL_ATTACH);
}

/* ---- a cancel in the middle of a storm ------------------------------------------ */

static void *send_until_ended(void *arg)
{
    struct sender *sender = arg;
    int code;
    for (int tries = 0; atomic_load(&sender->storm->done) == 0; tries++) {
        code = subhost_interp_send(sender->storm->interp, receive, NULL, NULL);
        if (code == SUBHOST_EAGAIN)
            back_off(tries % 11);
        else if (code)
            atomic_fetch_add(&sender->storm->failed, 1);
    }
    return NULL;
}

static void a_storm_does_not_hold_up_a_cancel(void **state)
{
    (void)state;
    subhost_host *host = unit_open();
    struct storm storm = {.interp = unit_interp(host)};
    subhost_task_options options = SUBHOST_TASK_OPTIONS_INIT;
    options.grace = unit_patience(4);
    subhost_task *task =
        unit_submit(storm.interp, UNIT_QUIET "while True: pass", &options);
    unit_until_running(host, task);
    memset(senders, 0, sizeof senders);
    for (int i = 0; i < SENDERS; i++) {
        senders[i].storm = &storm;
        assert_int_equal(
            pthread_create(&senders[i].thread, NULL, send_until_ended, &senders[i]), 0);
    }
    int64_t until = subhost__deadline(SUBHOST_MSEC(100));
    while (subhost__now() < until)
        assert_true(subhost_dispatch(host, SUBHOST_MSEC(10), NULL) >= 0);
    int64_t asked = subhost__now();
    subhost_task_cancel(task, SUBHOST_BY_REQUEST, NULL);
    subhost_outcome outcome = unit_wait(task);
    int64_t took = subhost__now() - asked;
    atomic_store(&storm.done, 1);
    for (int i = 0; i < SENDERS; i++)
        assert_int_equal(pthread_join(senders[i].thread, NULL), 0);
    print_message("# cancelled after %lld ms\n", (long long)(took / 1000000));
    unit_expect(&outcome, SUBHOST_CANCELLED);
    assert_true(took < options.grace / 2);
    assert_int_equal(atomic_load(&storm.failed), 0);
    subhost_task_release(task);
    subhost_interp_release(storm.interp);
    unit_close(host);
}

/* ---- messages through the public function --------------------------------------- */

static void raise_from_message(void *data)
{
    atomic_fetch_add((atomic_int *)data, 1);
    PyErr_SetString(PyExc_LookupError, "from a message");
}

/* An exception that a message leaves is raised in the program; what is behind it still
 * arrives. */
static void a_message_raises_in_the_program(void **state)
{
    (void)state;
    subhost_host *host = unit_open();
    subhost_interp *interp = unit_interp(host);
    static const char *const programs[] = {
        UNIT_QUIET "while True: pass",
        UNIT_QUIET "import time\ntime.sleep(3600)",
    };
    for (size_t i = 0; i < ARRAY_LENGTH(programs); i++) {
        subhost_task *task = unit_submit(interp, programs[i], NULL);
        unit_until_running(host, task);
        atomic_int count = 0;
        assert_int_equal(subhost_interp_send(interp, raise_from_message, &count, NULL),
                         0);
        assert_int_equal(subhost_interp_send(interp, unit_count_message, &count, NULL),
                         0);
        subhost_outcome outcome = unit_wait(task);
        unit_expect(&outcome, SUBHOST_RAISED);
        assert_string_equal(outcome.detail, "LookupError: from a message");
        assert_int_equal(outcome.cancel_reason, -1);
        assert_true(unit_reaches(host, &count, 2));
        subhost_task_release(task);
    }
    subhost_interp_release(interp);
    unit_close(host);
}

/* An idle interpreter answers as well, one that has not been created yet later. */
static void an_idle_interpreter_answers(void **state)
{
    (void)state;
    subhost_host *host = unit_open();
    subhost_interp *interp = unit_interp(host);
    atomic_int count = 0;
    for (int i = 1; i <= 20; i++) {
        assert_int_equal(subhost_interp_send(interp, unit_count_message, &count, NULL),
                         0);
        assert_true(unit_reaches(host, &count, i));
    }
    unit_run(interp, "pass", SUBHOST_RETURNED);
    unit_ping(host, interp);
    subhost_interp_release(interp);
    unit_close(host);
}

/* Each message that was accepted is called, also by an interpreter that is about to end. */
static void accepted_messages_are_called(void **state)
{
    (void)state;
    subhost_host *host = unit_open();
    int rounds = unit_count(50, 10, 3);
    for (int round = 0; round < rounds; round++) {
        subhost_interp *interp = unit_interp(host);
        subhost__interp_ref(interp); /* to send to it after its release */
        unit_run(interp, "pass", SUBHOST_RETURNED);
        atomic_int count = 0;
        int accepted = 0, code = 0;
        subhost_interp_release(interp);
        int64_t deadline = subhost__deadline(unit_patience(20));
        while (code != SUBHOST_ESTATE && subhost__now() < deadline) {
            code = subhost_interp_send(interp, unit_count_message, &count, NULL);
            accepted += code == 0;
        }
        assert_int_equal(code, SUBHOST_ESTATE);
        assert_true(unit_reaches(host, &count, accepted));
        for (bool gone = false; !gone && subhost__now() < deadline;) {
            pthread_mutex_lock(&interp->lock);
            gone = interp->driver_gone;
            pthread_mutex_unlock(&interp->lock);
            assert_true(subhost_dispatch(host, SUBHOST_MSEC(1), NULL) >= 0);
        }
        assert_int_equal(atomic_load(&count), accepted);
        subhost__interp_unref(interp);
    }
    unit_close(host);
}

/* The ring's own tests need a CPython to run in. */
static int ring_test_setup(void **state)
{
    return subhost_open(NULL, &ring_host, NULL) || ring_setup(state);
}

static int ring_test_teardown(void **state)
{
    return ring_teardown(state) || unit_close_left(state);
}

#define RING_TEST(test)                                                                  \
    cmocka_unit_test_setup_teardown(test, ring_test_setup, ring_test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RING_TEST(an_empty_ring_has_nothing),
        RING_TEST(messages_come_in_order),
        RING_TEST(a_full_ring_refuses),
        RING_TEST(a_message_may_put_and_drain),
        UNIT_TEST(an_idle_interpreter_answers),
        UNIT_TEST(a_message_raises_in_the_program),
        UNIT_TEST(accepted_messages_are_called),
        UNIT_TEST(storm_over_a_busy_loop),
        UNIT_TEST(storm_over_a_sleep),
        UNIT_TEST(storm_over_a_busy_loop_by_attaching),
        UNIT_TEST(storm_over_a_sleep_by_attaching),
        UNIT_TEST(a_storm_does_not_hold_up_a_cancel),
    };
    return UNIT_MAIN(tests);
}
