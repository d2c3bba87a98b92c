/* The GLSL of a fused pointwise chain: what it reads, and its text. */
#include "graph_internal.h"

#include <string.h>

/* Index of the chain node that makes this tensor, -1 when it comes from outside; -2 for the root's value. */
static int inside(const trn_group *group, trn_tensor *tensor)
{
    const trn_tensor *base = trn_tensor_base(tensor);
    if (group->root && base == group->root->out) return -2;
    for (int i = 0; i < group->chain_count; i++) {
        if (group->chain[i]->out == base) return i;
    }
    return -1;
}

static bool same_broadcast(const trn_broadcast *a, const trn_broadcast *b)
{
    return a->kind == b->kind && !memcmp(a->div, b->div, sizeof a->div) &&
           !memcmp(a->mod, b->mod, sizeof a->mod);
}

static int find_operand(const trn_chain *chain, trn_tensor *tensor, const trn_broadcast *broadcast)
{
    for (int i = 0; i < chain->operand_count; i++) {
        if (chain->operands[i].tensor == trn_tensor_base(tensor) &&
            same_broadcast(&chain->operands[i].broadcast, broadcast))
            return i;
    }
    return -1;
}

/* A column of the output's last axis: the kernel knows it and no division is needed. */
static bool is_column(const trn_group *group, const trn_broadcast *b)
{
    const trn_tensor *value = group->root ? group->root->out : group->out;
    return b->kind == TRN_BROADCAST_MOD && (int64_t)b->mod[0] == trn_tensor_dim(value, -1);
}

/* div and mod numbers an operand needs as scalars */
static int broadcast_scalars(const trn_group *group, const trn_broadcast *b, uint32_t out[4])
{
    if (is_column(group, b)) return 0;
    switch (b->kind) {
    case TRN_BROADCAST_MOD:
        out[0] = b->mod[0];
        return 1;
    case TRN_BROADCAST_DIVMOD:
        out[0] = b->div[0], out[1] = b->mod[0];
        return 2;
    case TRN_BROADCAST_TWO:
        out[0] = b->div[0], out[1] = b->mod[0], out[2] = b->div[1], out[3] = b->mod[1];
        return 4;
    default:
        return 0;
    }
}

static bool add_scalar(trn_chain *chain, trn_scalar scalar)
{
    if (chain->scalar_count == TRN_MAX_SCALARS) return false;
    chain->scalars[chain->scalar_count++] = scalar;
    return true;
}

bool trn_chain_collect(const trn_group *group, int own_operands, int own_scalars, trn_chain *chain)
{
    memset(chain, 0, sizeof *chain);
    for (int n = 0; n < group->chain_count; n++) {
        const trn_node *node = group->chain[n];
        const trn_pointwise_attr *attr = trn_pointwise_get(node);
        for (int i = 0; i < node->input_count; i++) {
            const trn_broadcast *b = &attr->broadcast[i];
            if (inside(group, node->inputs[i]) != -1 || find_operand(chain, node->inputs[i], b) >= 0)
                continue;
            if (own_operands + chain->operand_count == TRN_MAX_BINDINGS) return false;
            chain->operands[chain->operand_count++] = (trn_chain_operand){
                .tensor = trn_tensor_base(node->inputs[i]), .broadcast = *b, .column = is_column(group, b)};
            uint32_t numbers[4];
            int count = broadcast_scalars(group, b, numbers);
            for (int k = 0; k < count; k++) {
                if (!add_scalar(chain, (trn_scalar){.u = numbers[k]})) return false;
            }
        }
    }
    for (int n = 0; n < group->chain_count; n++) {
        const trn_pointwise_attr *attr = trn_pointwise_get(group->chain[n]);
        for (int k = 0; k < attr->constant_count; k++) {
            if (!add_scalar(chain, (trn_scalar){.f = attr->constants[k]})) return false;
        }
    }
    int operands = own_operands + chain->operand_count, scalars = own_scalars + chain->scalar_count;
    return scalars <= TRN_MAX_SCALARS && 8 * operands + 4 * scalars <= TRN_PUSH_BYTES;
}

/* The operand's element that belongs to one of the result. */
static void add_element(const trn_chain_operand *from, int operand, trn_text *out)
{
    const trn_broadcast *b = &from->broadcast;
    /* whether neighbours of the result, up to 64 from a multiple of 64 on, have the same element */
    const char *index = b->div[0] % 64 == 0 ? "SHARED_INDEX(index_)" : "index_";
    if (from->column) {
        trn_text_printf(out, "COLUMN_VALUE(e%d, column_)", operand);
        return;
    }
    switch (b->kind) {
    case TRN_BROADCAST_FULL:
        trn_text_printf(out, "FULL_VALUE(e%d, index_)", operand);
        break;
    case TRN_BROADCAST_MOD:
        trn_text_printf(out, "VALUE(e%d, index_ %% p.e%d_0)", operand, operand);
        break;
    case TRN_BROADCAST_DIVMOD:
        trn_text_printf(out, "VALUE(e%d, (%s / p.e%d_0) %% p.e%d_1)", operand, index, operand, operand);
        break;
    case TRN_BROADCAST_TWO:
        trn_text_printf(out,
                        "VALUE(e%d, (index_ / p.e%d_0) %% p.e%d_1 + ((index_ / p.e%d_2) %% p.e%d_3) * "
                        "p.e%d_1)",
                        operand, operand, operand, operand, operand, operand);
        break;
    default:
        trn_text_printf(out, "VALUE(e%d, 0)", operand);
        break;
    }
}

static void add_operand_value(const trn_group *group, const trn_chain *chain, const trn_node *node, int input,
                              trn_text *out)
{
    int from = inside(group, node->inputs[input]);
    const trn_broadcast *b = &trn_pointwise_get(node)->broadcast[input];
    if (from == -2) {
        trn_text_add(out, "value_");
    } else if (from >= 0) {
        trn_text_printf(out, "t%d", from);
    } else {
        int operand = find_operand(chain, node->inputs[input], b);
        add_element(&chain->operands[operand], operand, out);
    }
}

static void add_node(const trn_group *group, const trn_chain *chain, int n, int *constant, trn_text *out)
{
    static const char *const names[] = {"a", "b", "c"};
    const trn_node *node = group->chain[n];
    const trn_pointwise_attr *attr = trn_pointwise_get(node);
    trn_text_printf(out, " \\\n    float t%d; {", n);
    for (int i = 0; i < node->input_count; i++) {
        trn_text_printf(
            out, " float %s = ", i < attr->operand_count && i < (int)TRN_COUNT(names) ? names[i] : "g");
        add_operand_value(group, chain, node, i, out);
        trn_text_add(out, ";");
    }
    for (int k = 0; k < attr->constant_count; k++)
        trn_text_printf(out, " float k%d = p.k_%d;", k, (*constant)++);
    trn_text_printf(out, " t%d = %s; }", n, trn_pointwise_expression(node));
}

trn_status trn_chain_generate(const trn_group *group, int first_binding, const trn_chain *chain,
                              trn_text *out, trn_error *err)
{
    /* a kernel may have faster ways to some operands (pointwise.comp) */
    trn_text_add(out, "#ifndef FULL_VALUE\n"
                      "#define FULL_VALUE(name, index) VALUE(name, index)\n"
                      "#define COLUMN_VALUE(name, column) VALUE(name, column)\n"
                      "#define SHARED_INDEX(index) index\n"
                      "#endif\n");
    trn_text_add(out, "#define EXTRA_BUFFERS(B)");
    for (int i = 0; i < chain->operand_count; i++)
        trn_text_printf(out, " B(%d, %s, e%d)", first_binding + i, chain->operands[i].half ? "Half" : "Float",
                        i);
    trn_text_add(out, "\n#define EXTRA_SCALARS");
    for (int i = 0; i < chain->operand_count; i++) {
        uint32_t numbers[4];
        int count = broadcast_scalars(group, &chain->operands[i].broadcast, numbers);
        for (int k = 0; k < count; k++)
            trn_text_printf(out, " uint e%d_%d;", i, k);
    }
    int constants = 0;
    for (int n = 0; n < group->chain_count; n++) {
        for (int k = 0; k < trn_pointwise_get(group->chain[n])->constant_count; k++)
            trn_text_printf(out, " float k_%d;", constants++);
    }
    trn_text_add(out, "\n#define EPILOGUE(value, index, column) {");
    if (group->chain_count) {
        trn_text_add(out, " float value_ = (value); uint index_ = (index); uint column_ = (column);");
        int constant = 0;
        for (int n = 0; n < group->chain_count; n++)
            add_node(group, chain, n, &constant, out);
        trn_text_printf(out, " \\\n    value = t%d;", group->chain_count - 1);
    }
    trn_text_add(out, " }\n");
    return out->failed ? trn_fail_memory(err, out->length, "a kernel's text") : TRN_OK;
}
