/* A value's memory, for the parts of the library that make and read them. */
#ifndef SUBHOST_VALUE_H
#define SUBHOST_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "subhost.h"

/* The encoding: a tag; then nothing, or a number of fixed width, or a length and so many
 * bytes, or a count and so many values. In the machine's byte order. */
#define VALUE_TAGS(X)                                                                    \
    X(TAG_NONE, 'N')                                                                     \
    X(TAG_TRUE, 'T')                                                                     \
    X(TAG_FALSE, 'F')                                                                    \
    X(TAG_INT8, 'i')                                                                     \
    X(TAG_INT64, 'I')                                                                    \
    X(TAG_BIGINT, 'G')                                                                   \
    X(TAG_FLOAT, 'd')                                                                    \
    X(TAG_STR8, 's') /* its length is one byte */                                        \
    X(TAG_STR, 'S')                                                                      \
    X(TAG_BYTES, 'B')                                                                    \
    X(TAG_LIST, 'l')                                                                     \
    X(TAG_TUPLE, 't')                                                                    \
    X(TAG_DICT, 'm')                                                                     \
    X(TAG_PICKLE, 'p')                                                                   \
    X(TAG_JSON, 'j')                                                                     \
    X(TAG_BUFFER, 'b') /* its number in the value's table */                             \
    X(TAG_APART, 'P')  /* a pickle with buffers: the first one's number, how many */

enum value_tag {
#define VALUE_TAG_ENUM(name, letter) name = (letter),
    VALUE_TAGS(VALUE_TAG_ENUM)
#undef VALUE_TAG_ENUM
};

struct subhost_value {
    unsigned char *data;
    size_t size, room;
    int code;         /* of the first failure; 0: none */
    const char *why;  /* static */
    uint32_t values;  /* whole ones at the outermost level */
    unsigned depth;   /* begun, and not ended */
    unsigned n_opens; /* room in opens */
    struct value_open {
        size_t at; /* of its count */
        uint32_t count;
        bool is_dict;
    } * opens;
    /* What it refers to: a reference each. */
    subhost_buffer **buffers;
    uint32_t n_buffers, buffers_room;
};

/* Frees what it holds, and not itself. */
void subhost__value_release(struct subhost_value *value);
/* Gives memory back of which a value of ordinary size has no need. */
void subhost__value_trim(struct subhost_value *value);
/* Notes a failure; returns its code. `why` is static. */
int subhost__value_fail(struct subhost_value *value, int code, const char *why);
int subhost__value_add_pickle(struct subhost_value *value, const void *bytes,
                              size_t length);
/* The same with buffers that are not in it (PEP 574); takes a reference of each. */
int subhost__value_add_apart(struct subhost_value *value, const void *bytes,
                             size_t length, subhost_buffer *const *buffers, uint32_t n);
/* Puts buffers into its table without a value that refers to them. The references are taken
 * over, unless it fails. */
int subhost__value_adopt_buffers(struct subhost_value *value, subhost_buffer **buffers,
                                 uint32_t n);
/* Gives back the references to its buffers. */
void subhost__value_drop_buffers(struct subhost_value *value);
/* The same as subhost_value_load(), where its buffers are there already. */
int subhost__value_load_bytes(struct subhost_value *value, const void *data, size_t size,
                              subhost_error **err);
/* value_wire.c: with copies of its buffers. False: it makes no sense, or no memory. */
struct pack;
struct unpack;
void subhost__value_pack(struct pack *pack, const struct subhost_value *value);
bool subhost__value_unpack(struct unpack *unpack, struct subhost_value *value);
/* The next item of encoded bytes: 1; 0 at the end; a negative code, and why. A buffer has its
 * number in `integer`, a pickle with buffers how many (high half) and the first's (low). */
int subhost__value_step(const unsigned char *data, size_t size, size_t *at,
                        subhost_item *item, const char **why);

#endif
