/* SPDX-License-Identifier: MIT
 *
 * timeout: 120
 *
 * Buffers: both sides see the same memory, and each is given back exactly once, however the
 * interpreters that had it have ended. SUBHOST_TEST_ROUNDS: of the storm. */
#define _GNU_SOURCE
#include "unit_pool.h"

#include <sys/wait.h>

static const char module_text[] =
    "import array, ctypes, gc, os, re, time\n"
    "kept = []\n"
    "deleted = 0\n"
    "class Mine(bytearray):\n"
    "    def __del__(self):\n"
    "        global deleted\n"
    "        deleted += 1\n"
    "def total(x): return sum(x)\n"
    "def describe(x):\n"
    "    return (x.format, x.itemsize, x.shape, x.readonly, x.nbytes, x.contiguous)\n"
    "def items(x): return x.tolist()\n"
    "def fill(x):\n"
    "    for i in range(len(x)): x[i] = i % 256\n"
    "def fill_read_only(x):\n"
    "    try: x[0] = 1\n"
    "    except TypeError as error: return str(error)\n"
    "def middle(x): return x[2:5]\n"
    "def every_other(x): return x[::2]\n"
    "def keep(x): kept.append(x)\n"
    "def cycle(x):\n"
    "    a = [x]; a.append(a)\n"
    "def drop(x):\n"
    "    kept.clear(); gc.collect()\n"
    "def leak(x):\n"
    "    kept.append(x); ctypes.pythonapi.Py_IncRef(ctypes.py_object(x))\n"
    "def lend(n): return memoryview(Mine(b'abc' * n))\n"
    "def lend_pickled(n): return [PickleBuffer(Mine(b'abc' * n)), b'abc', {1: "
    "memoryview(Mine(b'x'))}]\n"
    "from pickle import PickleBuffer\n"
    "def count(x): gc.collect(); return deleted\n"
    "def over(x): return memoryview((ctypes.c_ubyte * len(x)).from_buffer(x)).cast('B')\n"
    "def fails(x): kept.append(x); raise ValueError('no')\n"
    "def spin(x):\n"
    "    kept.append(x)\n"
    "    while True: pass\n"
    "def stuck(x):\n"
    "    kept.append(x); re.match(r'(a+)+$', 'a' * 40 + 'b')\n"
    "def die(x): os.kill(os.getpid(), 9)\n"
    "def array_of(x): return array.array('d', x)\n"
    "def whole(x): return bytes(x)\n"
    "def as_numpy(x):\n"
    "    import numpy\n"
    "    a = numpy.asarray(x)\n"
    "    a *= 2\n"
    "    return a.dtype.char, a.shape, a.ctypes.data, float(a.sum())\n"
    "def make_numpy(n):\n"
    "    import numpy\n"
    "    kept.append(numpy.arange(n, dtype='d').reshape(2, -1))\n"
    "    return kept[-1]\n"
    "def numpy_address(x): return kept[-1].ctypes.data\n"
    "def numpy_frombuffer(x):\n"
    "    import numpy\n"
    "    return numpy.frombuffer(x, dtype='u1').ctypes.data\n";

static char folder[] = "/tmp/subhost-buffers-XXXXXX";

static int make_module(void **state)
{
    (void)state;
    return unit_make_module(folder, "bufmod", module_text);
}

static int remove_module(void **state)
{
    (void)state;
    return unit_remove_folder(folder);
}

/* ---- memory that counts its releases ------------------------------------------------ */

struct counted {
    atomic_int released, in_use;
    void *address;
    bool frees; /* what is used after its release is then an error of the sanitizer's */
};

static void on_release(void *address, int in_use, void *data)
{
    struct counted *counted = data;
    if (address != counted->address)
        abort();
    if (in_use)
        atomic_fetch_add(&counted->in_use, 1);
    else if (counted->frees)
        free(address);
    atomic_fetch_add(&counted->released, 1);
}

static subhost_buffer *make_buffer(struct counted *counted, size_t length)
{
    *counted = (struct counted){.address = malloc(length), .frees = true};
    subhost_memory memory = SUBHOST_MEMORY_INIT;
    memory.address = counted->address;
    memory.length = length;
    memory.writable = 1;
    memset(memory.address, 1, length);
    subhost_buffer *buffer = NULL;
    assert_int_equal(subhost_buffer_new(&memory, on_release, counted, &buffer, NULL), 0);
    return buffer;
}

/* ---- pools --------------------------------------------------------------------------- */

/* Calls of spin() and stuck() need a `timeout`. */
static struct unit_pool open_pool(enum subhost_isolation isolation, enum subhost_gil gil,
                                  int64_t timeout)
{
    subhost_pool_options options = SUBHOST_POOL_OPTIONS_INIT;
    options.path0 = folder;
    options.workers = 1;
    options.isolation = isolation;
    options.gil = gil;
    options.timeout = timeout;
    options.grace = SUBHOST_MSEC(200) * unit_count(1, 2, 5);
    return unit_pool_open(&options);
}

static subhost_call *new_call(struct unit_pool *p, const char *name)
{
    char full[64];
    snprintf(full, sizeof full, "bufmod:%s", name);
    return unit_call_new(p, full);
}

/* A call with a buffer, which is the call's alone afterwards. */
static subhost_call *call_buffer(struct unit_pool *p, const char *name,
                                 subhost_buffer *buffer, enum subhost_outcome_kind kind)
{
    subhost_call *call = new_call(p, name);
    assert_int_equal(subhost_value_add_buffer(subhost_call_argument(call), buffer), 0);
    subhost_buffer_release(buffer);
    subhost_outcome outcome = unit_call(p, call);
    unit_expect(&outcome, kind);
    return call;
}

static subhost_call *call_int(struct unit_pool *p, const char *name, int64_t integer)
{
    subhost_call *call = new_call(p, name);
    subhost_value_add_int(subhost_call_argument(call), integer);
    subhost_outcome outcome = unit_call(p, call);
    unit_expect(&outcome, SUBHOST_RETURNED);
    return call;
}

static int64_t take_int(subhost_call *call)
{
    int64_t integer = unit_call_result_int(call);
    subhost_call_free(call);
    return integer;
}

/* ---- without Python -------------------------------------------------------------------- */

static void wrong_memory(void **state)
{
    (void)state;
    static char bytes[16];
    static const size_t two_by_three[] = {2, 3}, huge[] = {SIZE_MAX, 2}, zero[] = {0, 4};
    const struct {
        subhost_memory memory;
        const char *text;
    } cases[] = {
        {{.size = 0}, "size field is 0"},
        {{.size = 5000}, "size field is 5000"},
        {{.length = 4}, "address is NULL"},
        {{.address = bytes, .length = SIZE_MAX}, "PTRDIFF_MAX"},
        {{.address = bytes, .length = 16, .format = ""}, "format is empty"},
        {{.address = bytes, .length = 16, .format = "dd"}, "not of one letter"},
        {{.address = bytes, .length = 15, .format = "d"}, "no multiple"},
        {{.address = bytes, .length = 16, .format = "d", .item_size = 4},
         "not that of the format"},
        {{.address = bytes, .length = 16, .dimensions = 17}, "dimensions is not"},
        {{.address = bytes, .length = 16, .dimensions = 2}, "shape is NULL"},
        {{.address = bytes, .length = 16, .dimensions = 2, .shape = two_by_three},
         "length / item_size"},
        {{.address = bytes, .length = 16, .dimensions = 2, .shape = huge},
         "length / item_size"},
        {{.address = bytes, .length = 16, .dimensions = 2, .shape = zero},
         "length / item_size"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        subhost_memory memory = cases[i].memory;
        subhost_error *err = NULL;
        subhost_buffer *buffer = NULL;
        if (memory.address || memory.length)
            memory.size = sizeof memory;
        assert_int_equal(subhost_buffer_new(&memory, on_release, NULL, &buffer, &err),
                         SUBHOST_EINVAL);
        if (!strstr(subhost_error_message(err), cases[i].text))
            fail_msg("'%s' is not in: %s", cases[i].text, subhost_error_message(err));
        assert_null(buffer);
        subhost_error_free(err);
    }
    assert_int_equal(subhost_buffer_new(NULL, NULL, NULL, NULL, NULL), SUBHOST_EINVAL);
}

static void values_hold_them(void **state)
{
    (void)state;
    struct counted counted;
    subhost_buffer *buffer = make_buffer(&counted, 100);
    subhost_value *value, *copy;
    subhost_value_new(&value, NULL);
    subhost_value_new(&copy, NULL);
    subhost_value_begin(value, SUBHOST_VALUE_LIST);
    subhost_value_add_buffer(value, buffer);
    subhost_value_add_int(value, 7);
    subhost_value_add_buffer(value, buffer);
    subhost_value_end(value);
    assert_ptr_equal(subhost_buffer_hold(buffer), buffer);
    subhost_buffer_release(buffer);
    subhost_buffer_release(buffer);
    assert_int_equal(subhost_value_copy(copy, value, NULL), 0);
    assert_int_equal(subhost_value_copy(copy, copy, NULL), 0);
    subhost_value_clear(value);
    assert_int_equal(counted.released, 0);

    subhost_item item = SUBHOST_ITEM_INIT;
    size_t at = 0, size;
    assert_int_equal(subhost_value_next(copy, &at, &item, NULL), 1);
    assert_int_equal(item.length, 3);
    assert_int_equal(subhost_value_next(copy, &at, &item, NULL), 1);
    assert_int_equal(item.kind, SUBHOST_VALUE_BUFFER);
    assert_ptr_equal(item.data, counted.address);
    assert_int_equal(item.length, 100);
    assert_ptr_equal(item.buffer, buffer);

    /* Bytes alone do not have it. */
    subhost_error *err = NULL;
    const void *data = subhost_value_data(copy, &size);
    assert_int_equal(subhost_value_load(value, data, size, &err), SUBHOST_EINVAL);
    assert_non_null(strstr(subhost_error_message(err), "subhost_value_copy"));
    subhost_error_free(err);
    assert_int_equal(subhost_value_add_buffer(value, NULL), SUBHOST_EINVAL);
    subhost_value_free(value);
    assert_int_equal(counted.released, 0);
    subhost_value_free(copy);
    assert_int_equal(counted.released, 1);
    assert_int_equal(counted.in_use, 0);
    subhost_buffer_release(NULL);
    assert_null(subhost_buffer_hold(NULL));
}

/* ---- C's memory in Python -------------------------------------------------------------- */

static void both_see_the_same(void **state)
{
    (void)state;
    struct unit_pool p = open_pool(SUBHOST_ISOLATION_INTERPRETER, SUBHOST_GIL_OWN, 0);
    struct counted counted;
    subhost_buffer *buffer = make_buffer(&counted, 1000);
    unsigned char *bytes = counted.address;
    subhost_call *call = call_buffer(&p, "total", subhost_buffer_hold(buffer), 0);
    assert_int_equal(take_int(call), 1000);
    subhost_call_free(
        call_buffer(&p, "fill", subhost_buffer_hold(buffer), SUBHOST_RETURNED));
    for (int i = 0; i < 1000; i++)
        assert_int_equal(bytes[i], i % 256);

    /* A part of it comes back as a part of it. */
    call = call_buffer(&p, "middle", buffer, SUBHOST_RETURNED);
    subhost_item item = unit_call_item(call);
    assert_int_equal(item.kind, SUBHOST_VALUE_BUFFER);
    assert_ptr_equal(item.data, bytes + 2);
    assert_int_equal(item.length, 3);
    /* And may stay when the call goes. */
    subhost_buffer *part = subhost_buffer_hold(item.buffer);
    subhost_call_free(call);
    subhost_call_free(call_int(&p, "count", 0));
    assert_int_equal(counted.released, 0);
    subhost_buffer_release(part);
    assert_int_equal(counted.released, 1);

    /* What is not in one piece is copied. */
    buffer = make_buffer(&counted, 6);
    call = call_buffer(&p, "every_other", buffer, SUBHOST_RETURNED);
    assert_int_equal(unit_call_item(call).kind, SUBHOST_VALUE_PICKLE);
    subhost_call_free(call);
    subhost_call_free(call_int(&p, "count", 0));
    assert_int_equal(counted.released, 1);
    unit_pool_close(&p);
}

static void check_described(enum subhost_isolation isolation)
{
    struct unit_pool p = open_pool(isolation, SUBHOST_GIL_OWN, 0);
    static double numbers[2][3] = {{1, 2, 3}, {4, 5, 6}};
    static const size_t shape[] = {2, 3};
    subhost_memory memory = SUBHOST_MEMORY_INIT;
    memory.address = numbers;
    memory.length = sizeof numbers;
    memory.format = "d";
    memory.dimensions = 2;
    memory.shape = shape;
    subhost_buffer *buffer;
    assert_int_equal(subhost_buffer_new(&memory, NULL, NULL, &buffer, NULL), 0);
    subhost_call *call =
        call_buffer(&p, "describe", subhost_buffer_hold(buffer), SUBHOST_RETURNED);
    size_t n;
    const char *data = subhost_value_data(subhost_call_result(call), &n);
    static const char expected[] = "t\6\0\0\0s\1di\x08t\2\0\0\0i\2i\3Ti\x30T";
    assert_int_equal(n, sizeof expected - 1);
    assert_memory_equal(data, expected, n);
    subhost_call_free(call);
    call = call_buffer(&p, "items", subhost_buffer_hold(buffer), SUBHOST_RETURNED);
    subhost_item item = SUBHOST_ITEM_INIT;
    size_t at = 0;
    double sum = 0;
    while (subhost_value_next(subhost_call_result(call), &at, &item, NULL) == 1)
        sum += item.number;
    assert_true(sum == 21);
    subhost_call_free(call);
    call = call_buffer(&p, "fill_read_only", buffer, SUBHOST_RETURNED);
    item = unit_call_item(call);
    assert_int_equal(item.kind, SUBHOST_VALUE_STR);
    assert_non_null(memmem(item.data, item.length, "read-only", 9));
    subhost_call_free(call);
    unit_pool_close(&p);
}

static void described(void **state)
{
    (void)state;
    check_described(SUBHOST_ISOLATION_INTERPRETER);
    if (unit_can_fork())
        check_described(SUBHOST_ISOLATION_PROCESS);
}

/* ---- Python's memory in C -------------------------------------------------------------- */

static void python_lends(void **state)
{
    (void)state;
    struct unit_pool p = open_pool(SUBHOST_ISOLATION_INTERPRETER, SUBHOST_GIL_OWN, 0);
    subhost_call *call = call_int(&p, "lend", 1000);
    subhost_item item = unit_call_item(call);
    assert_int_equal(item.kind, SUBHOST_VALUE_BUFFER);
    assert_int_equal(item.length, 3000);
    assert_memory_equal((const char *)item.data + 2997, "abc", 3);
    subhost_memory memory = {.size = offsetof(subhost_memory, format)};
    subhost_buffer_get(item.buffer, &memory);
    assert_ptr_equal(memory.address, item.data);
    assert_true(memory.writable);
    /* To another interpreter, which writes: the bytes are the same. */
    subhost_call *fill = new_call(&p, "fill");
    assert_int_equal(
        subhost_value_copy(subhost_call_argument(fill), subhost_call_result(call), NULL),
        0);
    assert_int_equal(unit_call(&p, fill).kind, SUBHOST_RETURNED);
    assert_memory_equal(item.data, "\0\1\2\3", 4);
    subhost_call_free(fill);
    assert_int_equal(take_int(call_int(&p, "count", 0)), 0);
    subhost_call_free(call);
    assert_int_equal(take_int(call_int(&p, "count", 0)), 1);

    call = call_int(&p, "lend_pickled", 10);
    size_t at = 0, n = 0;
    while (subhost_value_next(subhost_call_result(call), &at, &item, NULL) == 1)
        n += item.kind == SUBHOST_VALUE_BUFFER;
    assert_int_equal(n, 2);
    subhost_call_free(call);
    assert_int_equal(take_int(call_int(&p, "count", 0)), 3);
    unit_pool_close(&p);
}

/* What is lent outlives its interpreter, and the host; so does what it is made of. */
static void lent_for_longer(void **state)
{
    (void)state;
    static const int64_t sizes[] = {2, 100, 1000, 100000};
    subhost_call *calls[ARRAY_LENGTH(sizes)];
    struct unit_pool p = open_pool(SUBHOST_ISOLATION_INTERPRETER, SUBHOST_GIL_OWN, 0);
    for (size_t i = 0; i < ARRAY_LENGTH(sizes); i++)
        calls[i] = call_int(&p, "lend", sizes[i]);
    struct counted counted;
    subhost_call *over =
        call_buffer(&p, "over", make_buffer(&counted, 1000), SUBHOST_RETURNED);
    subhost_buffer *buffer = subhost_buffer_hold(unit_call_item(over).buffer);
    assert_ptr_equal(unit_call_item(over).data, counted.address);
    subhost_call_free(over);
    unit_pool_close(&p);
    assert_int_equal(counted.released, 0);
    assert_memory_equal(counted.address, "\1\1\1", 3);
    subhost_buffer_release(buffer);
    p = open_pool(SUBHOST_ISOLATION_INTERPRETER, SUBHOST_GIL_OWN, 0);
    assert_int_equal(take_int(call_int(&p, "count", 0)), 0);
    unit_pool_close(&p);
    for (size_t i = 0; i < ARRAY_LENGTH(sizes); i++) {
        subhost_item item = unit_call_item(calls[i]);
        assert_int_equal(item.length, 3 * sizes[i]);
        for (size_t j = 0; j < item.length; j++)
            assert_int_equal(((const char *)item.data)[j], "abc"[j % 3]);
        /* Any of it may be made of what the interpreter had. */
        assert_int_equal(counted.released, 0);
        subhost_call_free(calls[i]);
    }
    assert_int_equal(counted.released, 1);
}

/* ---- each way to end -------------------------------------------------------------------- */

/* Short: it is waited for. */
#define TIMEOUT (SUBHOST_MSEC(500) * unit_count(1, 2, 8))

static void expect_released(struct unit_pool *p, struct counted *counted, int in_use)
{
    int64_t deadline = subhost__now() + unit_patience(20);
    while (counted->released == 0 && subhost__now() < deadline)
        subhost_dispatch(p->host, SUBHOST_MSEC(5), NULL);
    assert_int_equal(counted->released, 1);
    assert_int_equal(counted->in_use, in_use);
}

static void released_once(enum subhost_isolation isolation)
{
    static const struct {
        const char *function;
        enum subhost_outcome_kind kind;
    } ways[] = {
        {"total", SUBHOST_RETURNED}, {"keep", SUBHOST_RETURNED},
        {"cycle", SUBHOST_RETURNED}, {"leak", SUBHOST_RETURNED},
        {"fails", SUBHOST_RAISED},   {"nothing", SUBHOST_FAILED},
        {"spin", SUBHOST_TIMED_OUT},
    };
    struct counted counted[ARRAY_LENGTH(ways)], unused, refused;
    struct unit_pool p = open_pool(isolation, SUBHOST_GIL_OWN, TIMEOUT);
    for (size_t i = 0; i < ARRAY_LENGTH(ways); i++)
        subhost_call_free(call_buffer(&p, ways[i].function,
                                      make_buffer(&counted[i], 10000), ways[i].kind));
    assert_int_equal(counted[0].released, 1);
    subhost_call *never = new_call(&p, "total");
    subhost_buffer *buffer = make_buffer(&unused, 10);
    subhost_value_add_buffer(subhost_call_argument(never), buffer);
    subhost_buffer_release(buffer);
    subhost_call_free(never);
    assert_int_equal(unused.released, 1);
    /* A value that is none is refused, and goes as any other. */
    never = new_call(&p, "total");
    buffer = make_buffer(&refused, 10);
    subhost_value_begin(subhost_call_argument(never), SUBHOST_VALUE_LIST);
    subhost_value_add_buffer(subhost_call_argument(never), buffer);
    subhost_buffer_release(buffer);
    assert_int_equal(subhost_pool_submit(p.pool, &never, 1, 0, NULL), SUBHOST_EINVAL);
    subhost_call_free(never);
    assert_int_equal(refused.released, 1);
    unit_pool_close(&p);
    for (size_t i = 0; i < ARRAY_LENGTH(ways); i++) {
        assert_int_equal(counted[i].released, 1);
        assert_int_equal(counted[i].in_use, 0);
    }
}

static void however_it_ends(void **state)
{
    (void)state;
    released_once(SUBHOST_ISOLATION_INTERPRETER);
    if (unit_can_fork())
        released_once(SUBHOST_ISOLATION_PROCESS);
}

/* Calls that the pool never began, and one that it cancels. */
static void when_the_pool_closes(void **state)
{
    (void)state;
    struct unit_pool p = open_pool(SUBHOST_ISOLATION_INTERPRETER, SUBHOST_GIL_OWN, 0);
    struct counted counted[20];
    subhost_call *calls[20];
    for (int i = 0; i < 20; i++) {
        calls[i] = new_call(&p, "spin");
        subhost_buffer *buffer = make_buffer(&counted[i], 100);
        subhost_value_add_buffer(subhost_call_argument(calls[i]), buffer);
        subhost_buffer_release(buffer);
    }
    assert_int_equal(subhost_pool_submit(p.pool, calls, 20, 0, NULL), 20);
    subhost_dispatch(p.host, SUBHOST_MSEC(50), NULL);
    unit_pool_close(&p);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(counted[i].released, 0); /* the call's own reference */
        subhost_call_free(calls[i]);
        assert_int_equal(counted[i].released, 1);
    }
}

/* The thread that is lost may still use the memory: who gave it is told so. */
static void when_it_is_abandoned(void **state)
{
    (void)state;
    if (fork() == 0) { /* an abandoned thread stays in its process */
        struct unit_pool p =
            open_pool(SUBHOST_ISOLATION_INTERPRETER, SUBHOST_GIL_OWN, TIMEOUT);
        struct counted counted, after;
        subhost_call *call =
            call_buffer(&p, "stuck", make_buffer(&counted, 100), SUBHOST_TIMED_OUT);
        assert_int_equal(counted.released, 0);
        subhost_call_free(call);
        expect_released(&p, &counted, 1);
        subhost_call_free(
            call_buffer(&p, "total", make_buffer(&after, 100), SUBHOST_RETURNED));
        assert_int_equal(after.released, 1);
        assert_int_equal(counted.released, 1);
        _exit(after.in_use == 0 ? 33 : 1);
    }
    int status;
    assert_true(wait(&status) > 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 33);
}

/* ---- by a signature ------------------------------------------------------------------------ */

static subhost_buffer *held;
static struct counted given;

static void hold(subhost_buffer *buffer) { held = subhost_buffer_hold(buffer); }

static int64_t length(subhost_buffer *buffer)
{
    subhost_memory memory = SUBHOST_MEMORY_INIT;
    if (!buffer)
        return -1;
    subhost_buffer_get(buffer, &memory);
    return (int64_t)memory.length;
}

static subhost_buffer *give(int none) { return none ? NULL : make_buffer(&given, 77); }

/* Python's callable gives C a buffer, of which C has the reference. */
static int64_t ask(subhost_buffer *(*callable)(subhost_buffer *), subhost_buffer *buffer)
{
    subhost_buffer *answer = callable(buffer);
    int64_t n = length(answer);
    subhost_buffer_release(answer);
    return n;
}

static void bound_functions(void **state)
{
    (void)state;
    static const struct {
        const char *signature;
        subhost_native_function function;
    } rows[] = {
        {"void hold(buffer)", (subhost_native_function)hold},
        {"i64 length(buffer?) gil", (subhost_native_function)length},
        {"buffer give(i32 none)", (subhost_native_function)give},
        {"i64 ask(fn buffer(buffer), buffer)", (subhost_native_function)ask},
    };
    subhost_host *host = unit_open();
    for (size_t i = 0; i < ARRAY_LENGTH(rows); i++)
        assert_int_equal(
            subhost_bind(host, NULL, rows[i].function, rows[i].signature, NULL, NULL), 0);
    subhost_interp *interp = unit_interp(host);
    unit_run(
        interp,
        "import subhost.native as n\n"
        "deleted = []\n"
        "class Mine(bytearray):\n"
        "    def __del__(self): deleted.append(1)\n"
        "assert n.length(None) == -1 and n.length(b'abc') == 3\n"
        "assert n.length(Mine(b'ab')) == 2 and deleted == [1]\n"
        "assert n.give(1) is None\n"
        "view = n.give(0)\n"
        "assert sum(view) == 77 and n.length(view[7:]) == 70\n"
        "assert n.ask(lambda v: v[1:3], view) == 2\n"
        "assert n.ask(lambda v: b'four', view) == 4\n"
        "n.ask.__doc__\n"
        "for wrong in 3, memoryview(b'abcdef')[::2]:\n"
        "    try: n.length(wrong)\n"
        "    except TypeError as error: assert 'argument 1 must be' in str(error)\n"
        "    else: assert 0\n"
        "try: n.ask(lambda v: 3, view)\n"
        "except TypeError as error: assert 'the result must be' in str(error), error\n"
        "else: assert 0\n"
        "del view\n"
        "mine = Mine(b'abc'); n.hold(mine); del mine\n"
        "assert deleted == [1]\n",
        SUBHOST_RETURNED);
    assert_int_equal(given.released, 1);
    assert_int_equal(length(held), 3);
    subhost_buffer_release(held);
    subhost_interp_release(interp);
    unit_close(host);
}

static void let_go(void) { subhost_buffer_release(held); }

static subhost_interp *born;

static int32_t bear(void)
{
    return subhost_interp_create(subhost__host(), NULL, &born, NULL);
}

/* A hosted thread, without a GIL, or with one, has the host start a thread of its own: the
 * attendant, for a buffer that is to be given back, or a driver. With a policy in use. */
static void by_attaching(void **state)
{
    (void)state;
    subhost_policy *policy = NULL;
    assert_int_equal(subhost_policy_load(NULL, &policy, NULL), 0);
    assert_int_equal(subhost_policy_set(policy, "exec.allow=false", NULL, NULL), 0);
    subhost_options options = SUBHOST_OPTIONS_INIT;
    options.doorbell = SUBHOST_DOORBELL_ATTACH;
    options.policy = policy;
    subhost_host *host;
    assert_int_equal(subhost_open(&options, &host, NULL), 0);
    subhost_policy_free(policy);
    assert_int_equal(subhost_bind(host, NULL, (subhost_native_function)hold,
                                  "void hold(buffer)", NULL, NULL),
                     0);
    assert_int_equal(subhost_bind(host, NULL, (subhost_native_function)let_go,
                                  "void let_go()", NULL, NULL),
                     0);
    assert_int_equal(subhost_bind(host, NULL, (subhost_native_function)bear,
                                  "i32 bear() gil", NULL, NULL),
                     0);
    subhost_interp *interp = unit_interp(host);
    unit_run(interp,
             "import time, subhost.native as n\n"
             "mine = bytearray(b'abc'); n.hold(mine)\n"
             "n.let_go()\n"
             "for i in range(1000):\n"
             "    try: mine.append(0); break\n"
             "    except BufferError: time.sleep(0.01)\n"
             "assert len(mine) == 4\n"
             "assert n.bear() == 0",
             SUBHOST_RETURNED);
    unit_run(born, "pass", SUBHOST_RETURNED);
    subhost_interp_release(born);
    subhost_interp_release(interp);
    unit_close(host);
}

/* ---- numpy ------------------------------------------------------------------------------- */

static void numpy_has_no_copy(void **state)
{
    (void)state;
    struct unit_pool p = open_pool(SUBHOST_ISOLATION_INTERPRETER, SUBHOST_GIL_SHARED, 0);
    static double numbers[] = {1, 2, 3};
    subhost_memory memory = SUBHOST_MEMORY_INIT;
    memory.address = numbers;
    memory.length = sizeof numbers;
    memory.format = "d";
    memory.writable = 1;
    subhost_buffer *buffer;
    subhost_outcome outcome;
    assert_int_equal(subhost_buffer_new(&memory, NULL, NULL, &buffer, NULL), 0);
    subhost_call *call = new_call(&p, "as_numpy");
    subhost_value_add_buffer(subhost_call_argument(call), buffer);
    outcome = unit_call(&p, call);
    if (outcome.kind == SUBHOST_RAISED && strstr(outcome.detail, "No module named")) {
        subhost_call_free(call);
        subhost_buffer_release(buffer);
        unit_pool_close(&p);
        skip(); /* there is no numpy */
    }
    unit_expect(&outcome, SUBHOST_RETURNED);
    assert_true(numbers[0] == 2 && numbers[1] == 4 && numbers[2] == 6);
    subhost_item item = SUBHOST_ITEM_INIT;
    size_t at = 0;
    for (int i = 0; i < 5; i++) /* ("d", (3,), address, */
        subhost_value_next(subhost_call_result(call), &at, &item, NULL);
    assert_int_equal(item.integer, (intptr_t)numbers);
    subhost_call_free(call);
    call = call_buffer(&p, "numpy_frombuffer", buffer, SUBHOST_RETURNED);
    assert_int_equal(take_int(call), (intptr_t)numbers);

    /* An array comes back as a pickle that refers to its memory; so it can go on. */
    call = call_int(&p, "make_numpy", 1000);
    assert_int_equal(unit_call_item(call).kind, SUBHOST_VALUE_PICKLE);
    subhost_call *frombuffer = new_call(&p, "numpy_frombuffer");
    subhost_value_copy(subhost_call_argument(frombuffer), subhost_call_result(call),
                       NULL);
    outcome = unit_call(&p, frombuffer);
    unit_expect(&outcome, SUBHOST_RETURNED);
    int64_t address = take_int(frombuffer);
    assert_int_equal(take_int(call_int(&p, "numpy_address", 0)), address);
    subhost_call_free(call);
    unit_pool_close(&p);
}

/* ---- a storm ------------------------------------------------------------------------------ */

#define STORM_THREADS 4

struct storm {
    struct unit_pool *p;
    atomic_int made, released;
    atomic_bool stop;
    /* What one thread leaves for another to release. */
    _Atomic(subhost_buffer *) exchange[16];
};

static void on_storm_release(void *address, int in_use, void *data)
{
    struct storm *storm = data;
    if (in_use)
        abort();
    free(address);
    atomic_fetch_add(&storm->released, 1);
}

static void *throw_about(void *arg)
{
    struct storm *storm = arg;
    for (unsigned i = 0; !atomic_load(&storm->stop); i++) {
        subhost_buffer *buffer =
            atomic_exchange(&storm->exchange[i % ARRAY_LENGTH(storm->exchange)], NULL);
        subhost_buffer_release(buffer);
        if (!buffer)
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    return NULL;
}

/* Buffers of either side, held by several interpreters and released by other threads, while
 * interpreters come and go. */
static void a_storm(void **state)
{
    (void)state;
    static const char *const names[] = {"total", "keep", "middle",
                                        "lend",  "over", "drop"};
    const char *text = getenv("SUBHOST_TEST_ROUNDS");
    int rounds = text ? atoi(text) : unit_count(1500, 400, 24);
    struct unit_pool p = {.host = unit_open()};
    struct storm storm = {.p = &p};
    subhost_pool_options options = SUBHOST_POOL_OPTIONS_INIT;
    options.path0 = folder;
    options.workers = 3;
    options.spares = 1;
    options.recycle_calls = 150;
    assert_int_equal(subhost_pool_open(p.host, &options, &p.pool, NULL), 0);
    pthread_t threads[STORM_THREADS];
    for (int i = 0; i < STORM_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, throw_about, &storm), 0);
    subhost_call *calls[32] = {0};
    int sent = 0, ended = 0;
    while (ended < rounds) {
        for (; sent < rounds && sent - ended < 16; sent++) {
            subhost_call *call = new_call(&p, names[sent % (int)ARRAY_LENGTH(names)]);
            subhost_value *argument = subhost_call_argument(call);
            if (strcmp(names[sent % (int)ARRAY_LENGTH(names)], "lend") == 0) {
                subhost_value_add_int(argument, 50 + sent);
            } else {
                subhost_memory memory = SUBHOST_MEMORY_INIT;
                memory.length = 600;
                memory.address = calloc(1, memory.length);
                memory.writable = 1;
                subhost_buffer *buffer;
                subhost_buffer_new(&memory, on_storm_release, &storm, &buffer, NULL);
                atomic_fetch_add(&storm.made, 1);
                subhost_value_add_buffer(argument, buffer);
                subhost_buffer_release(buffer);
            }
            assert_int_equal(subhost_pool_submit(p.pool, &call, 1, 0, NULL), 1);
        }
        subhost_dispatch(p.host, SUBHOST_MSEC(1), NULL);
        int n = subhost_pool_take(p.pool, calls, ARRAY_LENGTH(calls), 0, NULL);
        for (int i = 0; i < n; i++, ended++) {
            subhost_outcome outcome = {.size = sizeof outcome};
            subhost_call_outcome(calls[i], &outcome);
            unit_expect(&outcome, SUBHOST_RETURNED);
            subhost_item item = unit_call_item(calls[i]);
            if (item.kind == SUBHOST_VALUE_BUFFER)
                subhost_buffer_release(atomic_exchange(
                    &storm.exchange[(unsigned)ended % ARRAY_LENGTH(storm.exchange)],
                    subhost_buffer_hold(item.buffer)));
            subhost_call_free(calls[i]);
        }
    }
    assert_int_equal(subhost_pool_close(p.pool, unit_patience(5), NULL), 0);
    unit_close(p.host);
    atomic_store(&storm.stop, true);
    for (int i = 0; i < STORM_THREADS; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < ARRAY_LENGTH(storm.exchange); i++)
        subhost_buffer_release(storm.exchange[i]);
    assert_int_equal(storm.released, storm.made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(wrong_memory),
        UNIT_TEST(values_hold_them),
        UNIT_TEST(both_see_the_same),
        UNIT_TEST(described),
        UNIT_TEST(python_lends),
        UNIT_TEST(lent_for_longer),
        UNIT_TEST(however_it_ends),
        UNIT_TEST(when_the_pool_closes),
        UNIT_TEST(when_it_is_abandoned),
        UNIT_TEST(bound_functions),
        UNIT_TEST(by_attaching),
        UNIT_TEST(numpy_has_no_copy),
        UNIT_TEST(a_storm),
    };
    return cmocka_set_test_filter(getenv("UNIT_FILTER")),
           cmocka_run_group_tests(tests, make_module, remove_module);
}
