/* terrane embed: one encoder over one scene or a folder of images, without a recipe. */
#include "command.h"

#include <stdlib.h>
#include <string.h>

typedef struct embed_values {
    common_values common;
    const char *model, *weights, *wrapper, *sensor, *device, *compression;
    text_list config, bands, band_names, outputs, dates, location;
    int tile, overlap, batch, pool, normalize, unit, resize, cell, date, precision;
    number_value scale, offset, nodata, display;
    uint64_t memory_limit;
    bool remove_position, strict, explain, each, float16;
} embed_values;

static const char *const pools[] = {"none", "mean", "cls", NULL};
static const char *const normalizations[] = {"model", "none", "zscore", NULL};
static const char *const precisions[] = {"float32", "float16", "auto", NULL};
static const char *const units[] = {"auto", "reflectance", "decibel", "byte", "kelvin", NULL};

#define AT(member) offsetof(embed_values, member)
static const trn_option options[] = {
    OPTION_MODEL(AT(model)),
    {.name = "weights",
     .letter = 'w',
     .kind = OPTION_TEXT,
     .offset = AT(weights),
     .placeholder = "FILE",
     .help = "its checkpoint: safetensors, or PyTorch .pt/.pth"},
    {.name = "wrapper",
     .kind = OPTION_TEXT,
     .offset = AT(wrapper),
     .placeholder = "KEY",
     .help = "which weights of a checkpoint that holds several sets, such as teacher"},
    {.name = "output",
     .letter = 'o',
     .kind = OPTION_LIST,
     .offset = AT(outputs),
     .placeholder = "FILE",
     .help = "where to write: .tif (GeoTIFF), .npy (with a JSON sidecar), .png (preview); may be repeated"},
    OPTION_CONFIG(AT(config)),
    {.name = "sensor",
     .letter = 's',
     .kind = OPTION_TEXT,
     .offset = AT(sensor),
     .placeholder = "NAME",
     .help = "sensor of the scene (sentinel2-l2a, landsat7, rgb, ...): names its bands and the meaning of "
             "its numbers"},
    {.name = "bands",
     .letter = 'b',
     .kind = OPTION_COMMAS,
     .offset = AT(bands),
     .placeholder = "LIST",
     .help = "bands that the encoder may use, any spelling, with commas between them; default: all it can"},
    {.name = "band-names",
     .kind = OPTION_COMMAS,
     .offset = AT(band_names),
     .placeholder = "LIST",
     .help = "names for the file's bands in order, when file and sensor do not tell"},
    {.name = "dates",
     .kind = OPTION_COMMAS,
     .offset = AT(dates),
     .placeholder = "LIST",
     .help = "when the dates of the scene were taken (2018-01-28,2018-06-02,...); default: from the files' "
             "names, "
             "else their DateTime tag"},
    {.name = "date",
     .kind = OPTION_INT,
     .offset = AT(date),
     .placeholder = "N",
     .min = 1,
     .max = 366,
     .help = "which date of a series the encoder sees, from 1; default: all of them"},
    {.name = "location",
     .kind = OPTION_COMMAS,
     .offset = AT(location),
     .placeholder = "LAT,LON",
     .help = "place of the scene in degrees, for encoders that look at it; default: by its georeference"},
    {.name = "tile",
     .letter = 't',
     .kind = OPTION_INT,
     .offset = AT(tile),
     .placeholder = "N",
     .min = 1,
     .max = 16384,
     .help = "window side in pixels; default: the encoder's own"},
    {.name = "overlap",
     .kind = OPTION_INT,
     .offset = AT(overlap),
     .placeholder = "N",
     .min = 0,
     .max = 8192,
     .initial = -1,
     .help = "pixels that neighbouring windows share, blended smoothly; default: an eighth of the tile"},
    {.name = "cell",
     .kind = OPTION_INT,
     .offset = AT(cell),
     .placeholder = "N",
     .min = 1,
     .max = 4096,
     .help = "pixels per cell of the output; default: the encoder's stride"},
    {.name = "batch",
     .kind = OPTION_INT,
     .offset = AT(batch),
     .placeholder = "N",
     .min = 1,
     .max = 4096,
     .help = "windows at once; default: as many as suit the device's memory"},
    {.name = "pool",
     .kind = OPTION_CHOICE,
     .offset = AT(pool),
     .choices = pools,
     .help = "none: dense features; mean or cls: one vector per window (a grid of one cell per window) or "
             "image. Images "
             "are pooled by mean unless told otherwise"},
    {.name = "normalize",
     .kind = OPTION_CHOICE,
     .offset = AT(normalize),
     .choices = normalizations,
     .help = "model: the encoder's own statistics; none: numbers as read; zscore: statistics of the scene"},
    {.name = "remove-position",
     .kind = OPTION_FLAG,
     .offset = AT(remove_position),
     .help = "dense features less those of a window of the scene's mean colour: takes out what the encoder "
             "says of "
             "where in the window a cell lies"},
    {.name = "scale",
     .kind = OPTION_NUMBER,
     .offset = AT(scale),
     .placeholder = "X",
     .help = "physical value = stored * scale + offset, in place of what file and sensor say"},
    {.name = "offset",
     .kind = OPTION_NUMBER,
     .offset = AT(offset),
     .placeholder = "X",
     .help = "see --scale"},
    {.name = "unit",
     .kind = OPTION_CHOICE,
     .offset = AT(unit),
     .choices = units,
     .help = "what scale and offset lead to; auto means reflectance when --scale is given"},
    {.name = "display",
     .kind = OPTION_NUMBER,
     .offset = AT(display),
     .placeholder = "X",
     .help = "for encoders of display bytes over scenes of reflectance: the reflectance that becomes 255, "
             "such as "
             "0.3; values are held within 0 to 255"},
    {.name = "nodata",
     .kind = OPTION_NUMBER,
     .offset = AT(nodata),
     .placeholder = "V",
     .help = "stored value that means no data, in place of the file's own"},
    {.name = "resize",
     .kind = OPTION_INT,
     .offset = AT(resize),
     .placeholder = "N",
     .min = 1,
     .max = 16384,
     .help = "images: side to which each is resized"},
    {.name = "each",
     .kind = OPTION_FLAG,
     .offset = AT(each),
     .help = "every file is an image of its own that gives one vector (a folder is always so)"},
    {.name = "compression",
     .kind = OPTION_TEXT,
     .offset = AT(compression),
     .placeholder = "NAME",
     .help = "GeoTIFF: none, lzw, deflate (default) or zstd"},
    {.name = "float16", .kind = OPTION_FLAG, .offset = AT(float16), .help = "write half precision"},
    {.name = "precision",
     .kind = OPTION_CHOICE,
     .offset = AT(precision),
     .choices = precisions,
     .help = "how values lie in device memory: float32; float16, half of it, for devices that are faster so; "
             "auto: float16 where the device has it and is not known to be slower"},
    {.name = "strict",
     .kind = OPTION_FLAG,
     .offset = AT(strict),
     .help = "warnings about the input are errors"},
    {.name = "explain",
     .kind = OPTION_FLAG,
     .offset = AT(explain),
     .help = "say what would be done, on which kernels and with how much memory, and do nothing"},
    OPTION_DEVICE(AT(device)),
    OPTION_MEMORY_LIMIT(AT(memory_limit)),
    {.name = NULL},
};

static trn_status check_values(const embed_values *values, trn_error *err)
{
    if (!values->model)
        return trn_fail(err, TRN_ERR_ARGUMENT, "no encoder: give --model NAME; terrane models lists them");
    if (!values->outputs.count && !values->explain)
        return trn_fail(err, TRN_ERR_ARGUMENT, "no output: give -o FILE (.tif, .npy or .png)");
    if (values->offset.given && !values->scale.given)
        return trn_fail(err, TRN_ERR_ARGUMENT, "--offset needs --scale");
    if (values->display.given && !(values->display.value > 0))
        return trn_fail(err, TRN_ERR_ARGUMENT, "--display is %g; wanted a reflectance above 0, such as 0.3",
                        values->display.value);
    return TRN_OK;
}

static trn_status read_dates(const text_list *texts, trn_arena *arena, trn_job_scene *scene, trn_error *err)
{
    trn_date *dates = trn_arena_array(arena, texts->count + 1, sizeof *dates);
    if (!dates) return trn_fail_memory(err, texts->count * sizeof *dates, "dates");
    for (size_t i = 0; i < texts->count; i++)
        if (!trn_date_parse(texts->items[i], &dates[i]))
            return trn_fail(err, TRN_ERR_ARGUMENT, "--dates: '%s' is no date; wanted one such as 2018-06-02",
                            texts->items[i]);
    scene->acquired = texts->count ? dates : NULL;
    scene->acquired_count = texts->count;
    return TRN_OK;
}

static trn_status read_location(const text_list *texts, trn_job_scene *scene, trn_error *err)
{
    if (!texts->count) return TRN_OK;
    scene->has_location = texts->count == 2 && trn_parse_double(texts->items[0], &scene->latitude) &&
                          trn_parse_double(texts->items[1], &scene->longitude);
    return scene->has_location
               ? TRN_OK
               : trn_fail(
                     err, TRN_ERR_ARGUMENT,
                     "--location wants latitude and longitude in degrees, such as --location=-33.9,18.4");
}

static trn_job_scene describe_scene(const embed_values *values)
{
    trn_job_scene scene = {
        .paths = values->common.words.items,
        .path_count = values->common.words.count,
        .each = values->each,
        .sensor = values->sensor,
        .band_names = values->band_names.count ? values->band_names.items : NULL,
        .band_name_count = values->band_names.count,
        .has_nodata = values->nodata.given,
        .nodata = values->nodata.value,
        .resize = values->resize,
    };
    if (values->scale.given || values->unit) {
        scene.has_scale = true;
        scene.scale = values->scale.given ? values->scale.value : 1;
        scene.offset = values->offset.given ? values->offset.value : 0;
        scene.unit = values->unit ? (trn_unit)values->unit : TRN_UNIT_REFLECTANCE;
    }
    return scene;
}

static trn_status run(const trn_command *command, void *user, trn_error *err)
{
    (void)command;
    const embed_values *values = user;
    trn_status status = check_values(values, err);
    if (status != TRN_OK) return status;
    trn_arena *arena = trn_arena_create();
    trn_setting *settings = NULL;
    trn_job_export *exports =
        arena ? trn_arena_array(arena, values->outputs.count + 1, sizeof *exports) : NULL;
    if (!exports) {
        status = trn_fail_memory(err, sizeof *exports, "the job");
        goto fail;
    }
    status = options_settings(&values->config, arena, &settings, err);
    trn_job_scene scene = describe_scene(values);
    if (status == TRN_OK) status = read_dates(&values->dates, arena, &scene, err);
    if (status == TRN_OK) status = read_location(&values->location, &scene, err);
    if (status != TRN_OK) goto fail;
    for (size_t i = 0; i < values->outputs.count; i++) {
        bool preview = !strcmp(trn_path_extension(values->outputs.items[i]), "png");
        exports[i] = (trn_job_export){
            .path = values->outputs.items[i],
            .options = {.type = values->float16 && !preview ? TRN_EXPORT_F16 : TRN_EXPORT_F32,
                        .compression = values->compression},
        };
    }
    trn_job_encoder encoder = {
        .model = values->model,
        .weights = values->weights,
        .wrapper = values->wrapper,
        .settings = settings,
        .setting_count = values->config.count,
        .bands = values->bands.count ? values->bands.items : NULL,
        .band_count = values->bands.count,
        .normalize = (trn_normalize)values->normalize,
        .pool = (trn_feature_pool)values->pool,
        .remove_position = values->remove_position,
        .date = values->date,
        .display = values->display.given ? values->display.value : 0,
    };
    trn_embed_job job = {
        .scene = scene,
        .encoders = &encoder,
        .encoder_count = 1,
        .compose = {.cell = values->cell},
        .tile = values->tile,
        .overlap = values->overlap,
        .batch = values->batch,
        .memory_limit = values->memory_limit,
        .precision = (trn_precision)values->precision,
        .tile_vectors = values->pool != TRN_FEATURES_DENSE,
        .exports = exports,
        .export_count = values->outputs.count,
        .strict = values->strict,
        .no_result = true,
    };
    const any_job described = {&embed_kind, {.embed = job}};
    job_request request = {.job = &described,
                           .hooks = console_hooks(),
                           .device = values->device,
                           .explain = values->explain,
                           .json = values->common.json};
    status = job_request_run(&request, err);
fail:
    trn_arena_destroy(arena);
    return status;
}

const trn_command embed_command = {
    .name = "embed",
    .usage = "embed SCENE... --model NAME [--weights FILE] -o OUT [OPTIONS]",
    .summary = "embeds a scene or a folder of images with one encoder",
    .details =
        "Embeds a scene with one encoder. SCENE is a GeoTIFF, several files of one scene (their bands follow "
        "each "
        "other; a file whose bands are there already begins the next date of a series), or a folder of "
        "images, "
        "each of which gives one vector. The output of a scene is a grid of "
        "vectors on the scene's own coordinates; cells without data are NaN. Nothing appears under the "
        "output's "
        "name before it is complete.",
    .example = "  terrane embed L7_ETMs.tif --sensor landsat7 --model rcf -c features=128 -o embedding.tif "
               "-o preview.png\n"
               "  terrane embed images/ --sensor rgb --scale 0.0010784 --model galileo-nano --weights "
               "galileo-nano.pt "
               "-o vectors.npy",
    .options = options,
    .values_size = sizeof(embed_values),
    .min_words = 1,
    .max_words = SIZE_MAX,
    .run = run,
};
