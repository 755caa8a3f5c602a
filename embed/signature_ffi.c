/* What libffi needs of a signature, made once: types, the call interface, and where the
 * arguments of a call stand in its memory. */
#include "signature.h"

#include <stdlib.h>
#include <string.h>

static ffi_type *const scalars[] = {
#define FFI(kind, word, type, ffi) [kind] = &ffi,
    SIG_SCALARS(FFI)
#undef FFI
};

static int prepare_type(struct sig_type *type, subhost_error **err);

/* An ffi_type with its list of elements behind it, in one piece. */
static int prepare_struct(struct sig_type *type, subhost_error **err)
{
    size_t n = type->n_fields, offsets[SIG_MAX_FIELDS];
    ffi_type *ffi = calloc(1, sizeof *ffi + (n + 1) * sizeof(ffi_type *));
    if (!ffi)
        return subhost__fail(err, SUBHOST_ENOMEM, "out of memory");
    type->ffi = ffi;
    ffi->type = FFI_TYPE_STRUCT;
    ffi->elements = (ffi_type **)(ffi + 1);
    for (size_t i = 0; i < n; i++) {
        int code = prepare_type(&type->fields[i].type, err);
        if (code)
            return code;
        ffi->elements[i] = type->fields[i].type.ffi;
    }
    if (ffi_get_struct_offsets(FFI_DEFAULT_ABI, ffi, offsets) != FFI_OK)
        return subhost__fail(err, SUBHOST_EUNSUPPORTED,
                             "libffi does not support this struct");
    for (size_t i = 0; i < n; i++)
        type->fields[i].offset = offsets[i];
    return 0;
}

static int prepare_type(struct sig_type *type, subhost_error **err)
{
    if (type->kind <= SIG_BOOL)
        type->ffi = scalars[type->kind];
    else if (type->kind == SIG_STRUCT)
        return prepare_struct(type, err);
    else if (type->kind == SIG_VOID)
        type->ffi = &ffi_type_void;
    else if (type->kind == SIG_LEN)
        type->ffi = scalars[type->item];
    else
        type->ffi = &ffi_type_pointer;
    return type->function ? subhost__signature_prepare(type->function, err) : 0;
}

/* Room for a value in the memory of a call. */
static size_t room(struct signature *s, size_t size)
{
    const size_t align = sizeof(max_align_t) > 16 ? 16 : _Alignof(max_align_t);
    size_t at = (s->frame_size + align - 1) / align * align;
    s->frame_size = at + size;
    return at;
}

int subhost__signature_prepare(struct signature *s, subhost_error **err)
{
    int code = prepare_type(&s->result, err);
    for (size_t i = 0; i < s->n_params && !code; i++) {
        struct sig_param *param = &s->params[i];
        code = prepare_type(&param->type, err);
        if (code)
            break;
        bool by_pointer = param->way != SIG_VALUE;
        s->ffi_params[i] = by_pointer ? &ffi_type_pointer : param->type.ffi;
        param->slot = room(s, by_pointer ? sizeof(void *) : param->type.ffi->size);
        param->store = by_pointer ? room(s, param->type.ffi->size) : 0;
    }
    if (code)
        return code;
    /* libffi widens small integers to a register. */
    size_t size = s->result.ffi->size;
    s->result_slot = room(s, size < sizeof(ffi_arg) ? sizeof(ffi_arg) : size);
    room(s, 0); /* a call puts more behind it, aligned as well */
    /* That of a variadic function is prepared at each call. */
    ffi_status status = ffi_prep_cif(&s->cif, FFI_DEFAULT_ABI, (unsigned)s->n_params,
                                     s->result.ffi, s->ffi_params);
    if (status != FFI_OK)
        return subhost__fail(err, SUBHOST_EUNSUPPORTED,
                             "libffi does not support this function (status %d)",
                             (int)status);
    return 0;
}
