/* terrane models show: what an encoder wants, what it gives, and its settings. */
#include "model_info.h"
#include "graph.h"

#include <math.h>
#include <string.h>

typedef struct shown_grid {
    int64_t rows, columns, channels;
    double stride;
} shown_grid;

typedef struct shown_model {
    const trn_model_info *info;
    trn_encoder *encoder;
    const trn_encoder_spec *spec;
    trn_stored stored;
    trn_error damage; /* of the stored file */
    trn_text settings, values;
    shown_grid grids[TRN_MAX_GRIDS]; /* of one window */
    int grid_count;
} shown_model;

/* Of the first sensor that has a band of this common name; 0: none has, or it has no wavelength. */
static double wavelength_of(const char *common)
{
    static const char preferred[] = "sentinel2-l2a"; /* its bands have the names that encoders use */
    const trn_sensor *first = trn_sensor_find(preferred, NULL);
    for (size_t i = 0; i <= trn_sensor_count(); i++) {
        const trn_sensor *sensor = i ? trn_sensor_at(i - 1) : first;
        for (size_t b = 0; sensor && b < sensor->band_count; b++) {
            const trn_band *band = &sensor->bands[b];
            if (band->common && !strcmp(band->common, common) && band->wavelength_um > 0)
                return band->wavelength_um;
        }
    }
    return 0;
}

/* ---- the outputs, from a graph of one window that is never run ---- */

static trn_status build_window(shown_model *m, trn_encoder *probe, trn_graph *graph, size_t channels,
                               trn_error *err)
{
    const trn_encoder_spec *spec = trn_encoder_get_spec(probe);
    const trn_encode_options options = {.normalize = TRN_NORMALIZE_MODEL, .pool = TRN_FEATURES_DENSE};
    int64_t c = (int64_t)channels, side = spec->tile;
    trn_shape shape = spec->max_dates > 1 ? TRN_SHAPE(1, TRN_MAX(1, spec->min_dates), c, side, side)
                                          : TRN_SHAPE(1, c, side, side);
    trn_features features = {0};
    trn_tensor *image = trn_input(graph, "image", TRN_F32, shape);
    trn_status status = trn_encoder_build(probe, graph, image, &options, &features, err);
    if (status != TRN_OK) return status;
    m->grid_count = features.grid_count;
    for (int i = 0; i < m->grid_count; i++) {
        const trn_tensor *grid = features.grids[i];
        m->grids[i] = (shown_grid){trn_tensor_dim(grid, 1), trn_tensor_dim(grid, 2), trn_tensor_dim(grid, 3),
                                   features.stride[i]};
    }
    return TRN_OK;
}

/* An encoder of its own: once bands are chosen its specification speaks of those. */
static trn_status find_outputs(shown_model *m, trn_error *err)
{
    if (m->spec->needs_fit) return TRN_OK; /* they depend on the scene */
    size_t channels = 0;
    trn_encoder *probe = NULL;
    trn_weights *weights = NULL;
    trn_graph *graph = NULL;
    trn_status status = trn_encoder_create(m->info->name, NULL, 0, &probe, err);
    if (status == TRN_OK) status = trn_encoder_choose_all_bands(probe, &channels, err);
    if (status == TRN_OK && m->spec->needs_weights) {
        status = trn_weights_open_synthetic(&weights, err);
        if (status == TRN_OK) status = trn_encoder_load(probe, weights, NULL, err);
    }
    if (status == TRN_OK) {
        graph = trn_graph_create();
        status = graph ? build_window(m, probe, graph, channels, err) : trn_fail_memory(err, 0, "a graph");
    }
    trn_graph_destroy(graph);
    trn_encoder_destroy(probe);
    trn_weights_close(weights);
    return status;
}

static trn_status load(shown_model *m, const char *name, trn_error *err)
{
    m->info = model_info_find(name, err);
    if (!m->info) return TRN_ERR_ARGUMENT;
    trn_status status = trn_encoder_create(name, NULL, 0, &m->encoder, err);
    if (status != TRN_OK) return status;
    m->spec = trn_encoder_get_spec(m->encoder);
    status = find_outputs(m, err);
    if (status == TRN_OK) status = trn_model_settings(name, &m->settings, err);
    if (status != TRN_OK) return status;
    trn_encoder_describe(m->encoder, &m->values);
    if (m->info->source) trn_store_find(name, &m->stored, &m->damage);
    return m->settings.failed || m->values.failed ? trn_fail_memory(err, m->settings.length, "settings")
                                                  : TRN_OK;
}

static void unload(shown_model *m)
{
    trn_encoder_destroy(m->encoder);
    trn_stored_free(&m->stored);
    trn_text_free(&m->settings);
    trn_text_free(&m->values);
}

/* ---- settings: "key=fallback (range): about" beside "key=value" of this encoder, in the same order ---- */

typedef struct shown_setting {
    trn_text key, value, allowed, about;
} shown_setting;

static void setting_free(shown_setting *s)
{
    trn_text_free(&s->key);
    trn_text_free(&s->value);
    trn_text_free(&s->allowed);
    trn_text_free(&s->about);
}

/* Takes one line off each text; false when there is none. */
static bool next_setting(const char **rules, const char **values, shown_setting *out)
{
    *out = (shown_setting){0};
    size_t rule = strcspn(*rules, "\n"), value = strcspn(*values, "\n");
    const char *equals = memchr(*values, '=', value), *end = *rules + rule;
    if (!rule || !equals) return false;
    trn_text_add_n(&out->key, *values, (size_t)(equals - *values));
    trn_text_add_n(&out->value, equals + 1, (size_t)(*values + value - equals - 1));
    const char *colon = strstr(*rules, ": ");
    if (colon && colon < end) {
        const char *open = strstr(*rules, " (");
        if (open && open < colon && colon[-1] == ')')
            trn_text_add_n(&out->allowed, open + 2, (size_t)(colon - 1 - open - 2));
        trn_text_add_n(&out->about, colon + 2, (size_t)(end - colon - 2));
    }
    *rules = end + (*end == '\n');
    *values += value + ((*values)[value] == '\n');
    return true;
}

/* ---- as text ---- */

static void show_bands(const trn_encoder_spec *spec, trn_text *out)
{
    if (!spec->band_count) {
        trn_text_printf(out, "bands       any%s\n",
                        spec->by_wavelength ? " with a wavelength" : ", as they come");
        return;
    }
    trn_text_printf(out, "bands       %-12s %9s  %-12s %12s %12s  %s\n", "name", "um", "unit", "mean",
                    "deviation", "group");
    for (size_t i = 0; i < spec->band_count; i++) {
        const trn_encoder_band *band = &spec->bands[i];
        char wavelength[32] = "-", group[32] = "required";
        double um = wavelength_of(band->name);
        if (um > 0) snprintf(wavelength, sizeof wavelength, "%.4g", um);
        if (band->group >= 0) snprintf(group, sizeof group, "%d", band->group);
        trn_text_printf(out, "            %-12s %9s  %-12s %12.6g %12.6g  %s\n", band->name, wavelength,
                        trn_unit_name(band->unit), band->mean, band->std, group);
    }
}

static void show_input(const trn_encoder_spec *spec, trn_text *out)
{
    trn_text_printf(out, "window      %d x %d pixels; sides in multiples of %d%s\n", spec->tile, spec->tile,
                    spec->side_multiple, spec->square ? ", square" : "");
    trn_text_printf(out, "dates       %d", spec->min_dates);
    if (spec->max_dates > spec->min_dates) trn_text_printf(out, " to %d", spec->max_dates);
    trn_text_add(out, "\n");
    if (spec->location_values) trn_text_add(out, "place       used when it is known\n");
    trn_text_printf(out, "unit        %s", trn_unit_name(spec->unit));
    if (spec->value_scale != 1) trn_text_printf(out, " * %g", spec->value_scale);
    trn_text_add(out, "\n");
    show_bands(spec, out);
}

static void show_outputs(const shown_model *m, trn_text *out)
{
    if (!m->grid_count)
        trn_text_printf(out, "outputs     cells of %d pixels; their channels depend on settings and scene\n",
                        m->spec->stride);
    for (int i = 0; i < m->grid_count; i++) {
        const shown_grid *grid = &m->grids[i];
        trn_text_printf(out, "%-12s%lld x %lld cells of %g pixels, %lld channels\n", i ? "" : "outputs",
                        (long long)grid->rows, (long long)grid->columns, grid->stride,
                        (long long)grid->channels);
    }
    trn_text_printf(out, "            pooled: %d channels; class token: %s\n", m->spec->channels,
                    m->spec->has_cls ? "yes" : "no");
}

static void show_settings(const shown_model *m, trn_text *out)
{
    const char *rules = trn_text_get(&m->settings), *values = trn_text_get(&m->values);
    shown_setting s;
    trn_text_add(out, "settings    -c KEY=VALUE, with this encoder's values:\n");
    for (; next_setting(&rules, &values, &s); setting_free(&s)) {
        trn_text_printf(out, "  %s=%s", trn_text_get(&s.key), trn_text_get(&s.value));
        if (s.allowed.length) trn_text_printf(out, " (%s)", s.allowed.data);
        trn_text_printf(out, ": %s\n", trn_text_get(&s.about));
    }
    setting_free(&s);
}

static void show_file(const shown_model *m, trn_text *out)
{
    const trn_model_info *info = m->info;
    char warning[256], bytes[32];
    if (!info->source) {
        trn_text_add(out, "weights     none needed\n");
        return;
    }
    trn_text_printf(out, "licence     %s\n", info->licence ? info->licence : "not known");
    if (model_licence_warning(info, warning, sizeof warning))
        trn_text_printf(out, "            %s\n", warning);
    trn_text_printf(out, "source      %s%s\n", info->source, model_source_is_file(info) ? "" : " (a page)");
    if (info->bytes) trn_text_printf(out, "size        %s\n", trn_format_bytes(info->bytes, bytes));
    trn_text_printf(out, "sha256      %s%s\n", info->sha256 ? info->sha256 : "recorded on the first download",
                    info->sha256 && strlen(info->sha256) < 64 ? "..." : "");
    if (m->stored.path)
        trn_text_printf(out, "store       %s (%s, sha256 %s, %s)\n", m->stored.path,
                        trn_format_bytes(m->stored.bytes, bytes), m->stored.sha256, m->stored.date);
    else if (m->damage.message[0])
        trn_text_printf(out, "store       damaged: %s\n", m->damage.message);
    else
        trn_text_printf(out, "store       not there; terrane pull %s%s fetches it\n", info->name,
                        model_source_is_file(info) ? "" : " --url URL-OF-THE-FILE");
}

static void show_text(const shown_model *m, trn_text *out)
{
    const trn_model_info *info = m->info;
    trn_text_printf(out, "%s: %s (family %s)\n", info->name, info->title, info->family);
    if (info->parameters) trn_text_printf(out, "parameters  %llu\n", (unsigned long long)info->parameters);
    show_file(m, out);
    show_input(m->spec, out);
    show_outputs(m, out);
    show_settings(m, out);
}

/* ---- as JSON ---- */

static void add_member(trn_text *out, const char *key, const char *value)
{
    trn_text_printf(out, "\"%s\": ", key);
    trn_text_json(out, value);
    trn_text_add(out, ", ");
}

static void add_positive(trn_text *out, const char *key, double value)
{
    if (value > 0)
        trn_text_printf(out, "\"%s\": %.17g, ", key, value);
    else
        trn_text_printf(out, "\"%s\": null, ", key);
}

static void json_file(const shown_model *m, trn_text *out)
{
    const trn_model_info *info = m->info;
    char warning[256];
    add_member(out, "name", info->name);
    add_member(out, "family", info->family);
    add_member(out, "title", info->title);
    add_member(out, "licence", info->licence);
    add_member(out, "licence_warning", model_licence_warning(info, warning, sizeof warning) ? warning : NULL);
    add_member(out, "source", info->source);
    trn_text_printf(out, "\"source_is_file\": %s, ", model_source_is_file(info) ? "true" : "false");
    add_member(out, "sha256", info->sha256);
    add_positive(out, "parameters", (double)info->parameters);
    add_positive(out, "bytes", (double)info->bytes);
    trn_text_add(out, "\n \"stored\": ");
    if (!m->stored.path) {
        trn_text_add(out, "null, ");
    } else {
        trn_text_add(out, "{");
        add_member(out, "path", m->stored.path);
        add_member(out, "url", m->stored.url);
        add_member(out, "sha256", m->stored.sha256);
        add_member(out, "date", m->stored.date);
        trn_text_printf(out, "\"bytes\": %llu}, ", (unsigned long long)m->stored.bytes);
    }
    if (m->damage.message[0]) add_member(out, "damage", m->damage.message);
}

static void json_input(const trn_encoder_spec *spec, trn_text *out)
{
    trn_text_printf(
        out,
        "\n \"input\": {\"window\": %d, \"side_multiple\": %d, \"square\": %s, \"min_dates\": %d, "
        "\"max_dates\": %d, \"location\": %s, \"by_wavelength\": %s, \"unit\": \"%s\", \"value_scale\": "
        "%.17g, \"bands\": [",
        spec->tile, spec->side_multiple, spec->square ? "true" : "false", spec->min_dates, spec->max_dates,
        spec->location_values ? "true" : "false", spec->by_wavelength ? "true" : "false",
        trn_unit_name(spec->unit), spec->value_scale);
    for (size_t i = 0; i < spec->band_count; i++) {
        const trn_encoder_band *band = &spec->bands[i];
        trn_text_add(out, i ? ",\n  {" : "\n  {");
        add_member(out, "name", band->name);
        add_positive(out, "wavelength_um", wavelength_of(band->name));
        add_member(out, "unit", trn_unit_name(band->unit));
        trn_text_printf(out, "\"value_scale\": %.17g, \"mean\": %.17g, \"std\": %.17g, \"group\": ",
                        band->value_scale, band->mean, band->std);
        if (band->group >= 0)
            trn_text_printf(out, "%d}", band->group);
        else
            trn_text_add(out, "null}");
    }
    trn_text_add(out, "]},");
}

static void json_outputs(const shown_model *m, trn_text *out)
{
    trn_text_add(out, "\n \"outputs\": {\"grids\": [");
    for (int i = 0; i < m->grid_count; i++) {
        const shown_grid *grid = &m->grids[i];
        trn_text_printf(out, "%s{\"rows\": %lld, \"columns\": %lld, \"stride\": %.17g, \"channels\": %lld}",
                        i ? ", " : "", (long long)grid->rows, (long long)grid->columns, grid->stride,
                        (long long)grid->channels);
    }
    trn_text_printf(out, "], \"pooled_channels\": %d, \"cls\": %s},", m->spec->channels,
                    m->spec->has_cls ? "true" : "false");
}

static void json_settings(const shown_model *m, trn_text *out)
{
    const char *rules = trn_text_get(&m->settings), *values = trn_text_get(&m->values);
    shown_setting s;
    trn_text_add(out, "\n \"settings\": [");
    for (bool first = true; next_setting(&rules, &values, &s); setting_free(&s), first = false) {
        trn_text_add(out, first ? "\n  {" : ",\n  {");
        add_member(out, "key", trn_text_get(&s.key));
        add_member(out, "value", trn_text_get(&s.value));
        add_member(out, "allowed", s.allowed.data);
        trn_text_add(out, "\"about\": ");
        trn_text_json(out, trn_text_get(&s.about));
        trn_text_add(out, "}");
    }
    setting_free(&s);
    trn_text_add(out, "]");
}

static void show_json(const shown_model *m, trn_text *out)
{
    trn_text_add(out, "{\"ok\": true, \"model\": {");
    json_file(m, out);
    json_input(m->spec, out);
    json_outputs(m, out);
    json_settings(m, out);
    trn_text_add(out, "}}\n");
}

trn_status model_show(const char *name, bool json, trn_text *out, trn_error *err)
{
    shown_model m = {0};
    trn_status status = load(&m, name, err);
    if (status == TRN_OK && json)
        show_json(&m, out);
    else if (status == TRN_OK)
        show_text(&m, out);
    unload(&m);
    return status;
}
