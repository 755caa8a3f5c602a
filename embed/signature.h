/* The signature language of bound functions and callbacks (docs/native.md): text into types,
 * and types into what libffi needs. Knows nothing of Python. */
#ifndef SUBHOST_SIGNATURE_H
#define SUBHOST_SIGNATURE_H

#include <ffi.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "error.h"

/* One list of what fits into a register: kind, word, C type, ffi type. */
#define SIG_INTEGERS(X)                                                                  \
    X(SIG_I8, "i8", int8_t, ffi_type_sint8)                                              \
    X(SIG_U8, "u8", uint8_t, ffi_type_uint8)                                             \
    X(SIG_I16, "i16", int16_t, ffi_type_sint16)                                          \
    X(SIG_U16, "u16", uint16_t, ffi_type_uint16)                                         \
    X(SIG_I32, "i32", int32_t, ffi_type_sint32)                                          \
    X(SIG_U32, "u32", uint32_t, ffi_type_uint32)                                         \
    X(SIG_I64, "i64", int64_t, ffi_type_sint64)                                          \
    X(SIG_U64, "u64", uint64_t, ffi_type_uint64)                                         \
    X(SIG_SIZE, "size", size_t, ffi_type_pointer_sized_unsigned)                         \
    X(SIG_SSIZE, "ssize", ssize_t, ffi_type_pointer_sized_signed)
#define SIG_SCALARS(X)                                                                   \
    SIG_INTEGERS(X)                                                                      \
    X(SIG_F32, "f32", float, ffi_type_float)                                             \
    X(SIG_F64, "f64", double, ffi_type_double)                                           \
    X(SIG_BOOL, "bool", _Bool, ffi_type_uint8)

#if SIZE_MAX == UINT64_MAX
#define ffi_type_pointer_sized_unsigned ffi_type_uint64
#define ffi_type_pointer_sized_signed ffi_type_sint64
#else
#define ffi_type_pointer_sized_unsigned ffi_type_uint32
#define ffi_type_pointer_sized_signed ffi_type_sint32
#endif

enum sig_kind {
#define SIG_KIND(kind, word, type, ffi) kind,
    SIG_SCALARS(SIG_KIND)
#undef SIG_KIND
        SIG_VOID,
    SIG_STR,    /* char *, UTF-8 */
    SIG_PTR,    /* an opaque handle */
    SIG_BUF,    /* the memory of a bytes-like object */
    SIG_BUFFER, /* the same as a subhost_buffer *, which C may hold */
    SIG_LEN,    /* the length of the buffer in front of it */
    SIG_STRUCT, /* by value */
    SIG_FN,     /* a Python callable, as a function pointer */
};

/* How a parameter's value travels. */
enum sig_way {
    SIG_VALUE, /* T */
    SIG_IN,    /* pointer to a T that is read */
    SIG_OUT,   /* pointer to a T that is written */
    SIG_INOUT, /* both */
};

struct sig_type {
    enum sig_kind kind;
    enum sig_kind item; /* BUF: of what, SIG_VOID: bytes; LEN: the integer that it is */
    bool nullable;      /* None is NULL */
    bool writable;      /* BUF */
    const char *tag;    /* PTR: of the handles it takes, interned; NULL: any */
    struct sig_field *fields;
    size_t n_fields;
    struct signature *function; /* FN; owned */
    ffi_type *ffi;              /* owned when the kind is SIG_STRUCT */
};

struct sig_field {
    struct sig_type type;
    char *name; /* NULL: none */
    size_t offset;
};

struct sig_param {
    struct sig_type type;
    enum sig_way way;
    char *name;    /* NULL: none; then it is positional only */
    size_t buffer; /* LEN: the parameter it is the length of */
    size_t slot;   /* where its argument stands in the memory of a call */
    size_t store;  /* and where what that points to; ways other than SIG_VALUE */
    size_t extra;  /* BUF, FN: its number among these */
    size_t number; /* for messages: as Python counts arguments, from 1; 0: not one */
};

/* When the result of a bound function is an error. */
enum sig_error {
    SIG_NO_ERRORS,
    SIG_ERRNO,    /* -1 or NULL: OSError of errno */
    SIG_NEGERRNO, /* below 0: OSError of -result */
    SIG_NEGATIVE, /* below 0: RuntimeError */
    SIG_NONZERO,  /* not 0: RuntimeError */
};

enum { SIG_MAX_PARAMS = 32, SIG_MAX_FIELDS = 32, SIG_MAX_DEPTH = 8, SIG_MAX_TEXT = 4096 };

struct signature {
    char *text; /* as it was written, white space collapsed */
    char *name; /* NULL: none was given */
    struct sig_type result;
    struct sig_param params[SIG_MAX_PARAMS];
    size_t n_params;
    size_t n_arguments;  /* those that Python passes */
    size_t n_positional; /* the first so many of these have no names to be passed by */
    size_t n_results;    /* parameters that Python gets back */
    size_t n_buffers, n_functions, n_held; /* parameters: BUF, FN, BUFFER */
    bool variadic;
    bool keep_gil;
    bool free_result;
    enum sig_error error;
    double default_float; /* of a callback; both say the same, as far as they can */
    int64_t default_integer;
    /* Of libffi, and the memory of a call: slots, stores. */
    ffi_cif cif;
    ffi_type *ffi_params[SIG_MAX_PARAMS];
    size_t frame_size, result_slot;
};

enum sig_use { SIG_FOR_FUNCTION, SIG_FOR_CALLBACK };

/* Parses and prepares `text`. 0 with a signature that the caller frees, or a negative code
 * with a message that says where. */
int subhost__signature_parse(const char *text, enum sig_use use,
                             struct signature **signature, subhost_error **err);
void subhost__signature_free(struct signature *signature);
/* Whether a function pointer of one may be used as the other. */
bool subhost__signature_same(const struct signature *a, const struct signature *b);
/* A single type: "i32", "ptr<node>", "{f64, f64}". The same conventions. */
int subhost__signature_parse_type(const char *text, struct signature **holder,
                                  subhost_error **err);

/* The word of a kind: "i32". */
const char *subhost__sig_word(enum sig_kind kind);
static inline bool subhost__sig_is_integer(enum sig_kind kind)
{
    return kind <= SIG_SSIZE;
}
static inline bool subhost__sig_is_signed(enum sig_kind kind)
{
    return kind == SIG_I8 || kind == SIG_I16 || kind == SIG_I32 || kind == SIG_I64 ||
           kind == SIG_SSIZE;
}

/* Of a number or bool. */
static inline size_t subhost__sig_size(enum sig_kind kind)
{
    static const unsigned char sizes[] = {
#define SIG_SIZE_OF(kind, word, type, ffi) [kind] = sizeof(type),
        SIG_SCALARS(SIG_SIZE_OF)
#undef SIG_SIZE_OF
    };
    return sizes[kind];
}

/* Of an integer; the smallest is -largest - 1 where it is signed, else 0. */
static inline uint64_t subhost__sig_largest(enum sig_kind kind)
{
    size_t bits = 8 * subhost__sig_size(kind) - subhost__sig_is_signed(kind);
    return UINT64_MAX >> (64 - bits);
}

/* signature_ffi.c: fills in what is libffi's. 0 or a negative code. */
int subhost__signature_prepare(struct signature *signature, subhost_error **err);

#endif
