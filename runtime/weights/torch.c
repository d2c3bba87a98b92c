/* Tensors and storages as PyTorch pickles them: calls of a few known rebuild functions, read but never made.
 */
#include "torch.h"

#include <string.h>

/* A call: callable(*args), once what wraps a tensor (Parameter, subclasses) is taken off. */
typedef struct call {
    const trn_pickle_value *callable, *args;
} call;

static const trn_pickle_value *argument(const trn_pickle_value *args, size_t i)
{
    return args && args->kind == TRN_PICKLE_TUPLE && i < args->as.list.count ? args->as.list.items[i] : NULL;
}

static call get_call(const trn_pickle_value *value)
{
    if (!value || value->kind != TRN_PICKLE_OBJECT) return (call){NULL, NULL};
    return (call){value->as.object.callable, value->as.object.args};
}

static bool is_utils(const trn_pickle_value *callable, const char *name)
{
    return trn_pickle_is_global(callable, "torch._utils", name);
}

/* The call of a tensor's rebuild function that value comes down to, or {NULL, NULL}. */
static call tensor_call(const trn_pickle_value *value)
{
    call c = get_call(value);
    for (int depth = 0; depth < 4 && c.callable; depth++) {
        if (is_utils(c.callable, "_rebuild_tensor_v2") || is_utils(c.callable, "_rebuild_tensor") ||
            is_utils(c.callable, "_rebuild_tensor_v3"))
            return c;
        if (is_utils(c.callable, "_rebuild_parameter") ||
            is_utils(c.callable, "_rebuild_parameter_with_state") ||
            trn_pickle_is_global(c.callable, "torch.nn.parameter", "Parameter"))
            c = get_call(argument(c.args, 0));
        else if (trn_pickle_is_global(c.callable, "torch._tensor", "_rebuild_from_type_v2"))
            c = (call){argument(c.args, 0), argument(c.args, 2)}; /* (function, type, arguments, state) */
        else
            break;
    }
    return (call){NULL, NULL};
}

bool trn_torch_is_tensor(const trn_pickle_value *value)
{
    return tensor_call(value).callable != NULL;
}

static bool get_storage_class(const trn_pickle_value *value, trn_weight_type *type, size_t *item)
{
    static const struct {
        const char *name;
        trn_weight_type type;
        size_t item;
    } known[] = {
        {"FloatStorage", TRN_WEIGHT_F32, 4},
        {"HalfStorage", TRN_WEIGHT_F16, 2},
        {"BFloat16Storage", TRN_WEIGHT_BF16, 2},
        {"DoubleStorage", TRN_WEIGHT_F64, 8},
        {"LongStorage", TRN_WEIGHT_I64, 8},
        {"IntStorage", TRN_WEIGHT_I32, 4},
        {"ShortStorage", TRN_WEIGHT_I16, 2},
        {"CharStorage", TRN_WEIGHT_I8, 1},
        {"ByteStorage", TRN_WEIGHT_U8, 1},
        {"BoolStorage", TRN_WEIGHT_BOOL, 1},
        {"ComplexFloatStorage", TRN_WEIGHT_OTHER, 8},
        {"ComplexDoubleStorage", TRN_WEIGHT_OTHER, 16},
        {"QInt8Storage", TRN_WEIGHT_OTHER, 1},
        {"QUInt8Storage", TRN_WEIGHT_OTHER, 1},
        {"QInt32Storage", TRN_WEIGHT_OTHER, 4},
        {"QUInt4x2Storage", TRN_WEIGHT_OTHER, 1},
        {"QUInt2x4Storage", TRN_WEIGHT_OTHER, 1},
        {"UntypedStorage", TRN_WEIGHT_OTHER, 1},
    };
    if (!value || value->kind != TRN_PICKLE_GLOBAL || !trn_starts_with(value->as.global.module, "torch"))
        return false;
    for (size_t i = 0; i < TRN_COUNT(known); i++) {
        if (strcmp(value->as.global.name, known[i].name) != 0) continue;
        *type = known[i].type;
        *item = known[i].item;
        return true;
    }
    return false;
}

static bool get_int(const trn_pickle_value *value, int64_t *out)
{
    if (!value || value->kind != TRN_PICKLE_INT) return false;
    *out = value->as.integer;
    return true;
}

/* Keys end up in member names and messages. */
static bool is_plain_key(const char *key)
{
    size_t length = key ? strlen(key) : 0;
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)key[i] <= 0x20 || (unsigned char)key[i] >= 0x7f) return false;
    return length > 0 && length <= 64;
}

trn_status trn_torch_storage_parse(const trn_pickle_value *persid, trn_torch_storage *out, trn_error *err)
{
    const trn_pickle_value *id = persid && persid->kind == TRN_PICKLE_PERSID ? persid->as.persid : NULL;
    const char *kind = trn_pickle_text(argument(id, 0));
    *out = (trn_torch_storage){.key = trn_pickle_text(argument(id, 2))};
    if (!kind || strcmp(kind, "storage") != 0 || !is_plain_key(out->key))
        return trn_fail(err, TRN_ERR_FORMAT, "a reference of the pickle names no storage");
    if (!get_storage_class(argument(id, 1), &out->type, &out->item))
        return trn_fail(err, TRN_ERR_UNSUPPORTED, "storage '%s' is of a class that is not known here",
                        out->key);
    if (!get_int(argument(id, 4), &out->elements) || out->elements < 0 ||
        out->elements > INT64_MAX / (int64_t)out->item)
        return trn_fail(err, TRN_ERR_FORMAT, "storage '%s' has an impossible size", out->key);
    out->view_elements = out->elements;
    const trn_pickle_value *view = argument(id, 5);
    if (!view || view->kind == TRN_PICKLE_NONE) return TRN_OK;
    if (!get_int(argument(view, 1), &out->view_offset) || !get_int(argument(view, 2), &out->view_elements) ||
        out->view_offset < 0 || out->view_elements < 0 || out->view_offset > out->elements ||
        out->view_elements > out->elements - out->view_offset)
        return trn_fail(err, TRN_ERR_FORMAT, "a view of storage '%s' reaches beyond it", out->key);
    return TRN_OK;
}

/* A tuple of numbers, or torch.Size of one. Returns how many; -1 when it is none. */
static int get_ints(const trn_pickle_value *value, int64_t out[TRN_WEIGHTS_MAX_DIMS])
{
    if (value && value->kind == TRN_PICKLE_OBJECT &&
        trn_pickle_is_global(value->as.object.callable, "torch", "Size"))
        value = argument(value->as.object.args, 0);
    if (!value || (value->kind != TRN_PICKLE_TUPLE && value->kind != TRN_PICKLE_LIST)) return -1;
    if (value->as.list.count > TRN_WEIGHTS_MAX_DIMS) return -1;
    for (size_t i = 0; i < value->as.list.count; i++)
        if (!get_int(value->as.list.items[i], &out[i])) return -1;
    return (int)value->as.list.count;
}

static trn_status add_tensor(trn_weights *weights, const char *name, const trn_pickle_value *value,
                             trn_torch_locate locate, void *user, trn_error *err)
{
    call c = tensor_call(value);
    trn_torch_storage storage;
    trn_weight_place place = {0};
    int64_t shape[TRN_WEIGHTS_MAX_DIMS] = {0};
    trn_status status = trn_torch_storage_parse(argument(c.args, 0), &storage, err);
    if (status != TRN_OK) return status;
    int ndim = get_ints(argument(c.args, 2), shape);
    if (ndim < 0 || get_ints(argument(c.args, 3), place.stride) != ndim ||
        !get_int(argument(c.args, 1), &place.offset) || place.offset < 0)
        return trn_fail(err, TRN_ERR_FORMAT,
                        "its shape, strides or offset are not as PyTorch writes them (or it has "
                        "more than %d dimensions)",
                        TRN_WEIGHTS_MAX_DIMS);
    status = locate(weights, user, &storage, &place, err);
    if (status != TRN_OK) return status;
    if (place.offset > INT64_MAX - storage.view_offset)
        return trn_fail(err, TRN_ERR_FORMAT, "its offset is impossible");
    place.offset += storage.view_offset;
    uint64_t seen = (uint64_t)(storage.view_offset + storage.view_elements) * storage.item;
    place.bytes = TRN_MIN(place.bytes, seen);
    return trn_weights_add(weights, name, storage.type, ndim, shape, &place, err);
}

trn_status trn_torch_list(trn_weights *weights, const trn_pickle_value *root, trn_torch_locate locate,
                          void *user, trn_error *err)
{
    const trn_pickle_value *state;
    const char *wrapper = weights->options ? weights->options->wrapper : NULL;
    trn_status status = trn_torch_find_state(root, wrapper, &state, err);
    for (size_t i = 0; status == TRN_OK && i + 1 < state->as.list.count; i += 2) {
        const trn_pickle_value *value = state->as.list.items[i + 1];
        if (!trn_torch_is_tensor(value)) continue;
        const char *name = trn_pickle_text(state->as.list.items[i]);
        if (!name) return trn_fail(err, TRN_ERR_FORMAT, "tensor %zu has no text as name", weights->count);
        status = add_tensor(weights, name, value, locate, user, err);
        if (status != TRN_OK) trn_wrap(err, "tensor '%.200s'", name);
    }
    return status;
}
