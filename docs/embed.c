/* Embeds one image with libterrane: reads its first pixels, runs an encoder on the best Vulkan device, prints
 * the vector. cc embed.c -o embed $(pkg-config --cflags --libs terrane)
 *   ./embed image.png rcf                            or, with weights:   ./embed image.png dinov2-small
 * weights.pth Numbers reach the encoder as the file stores them: trn_encode_options.value_scale brings them
 * to its units. */
#include <stdio.h>
#include <stdlib.h>
#include <terrane.h>

enum { BANDS = 3 };
/* the file's bands, in its order; an encoder that goes by wavelengths would want those, too */
static const char *const names[BANDS] = {"red", "green", "blue"};
static const trn_band_offer bands[BANDS] = {{"red", 0.665}, {"green", 0.56}, {"blue", 0.49}};

int main(int argc, char **argv)
{
    trn_error err = {0};
    trn_scene *scene = NULL;
    trn_encoder *encoder = NULL;
    trn_weights *weights = NULL;
    trn_gpu *gpu = NULL;
    float *image = NULL, *vector = NULL;

    if (argc < 3) return fprintf(stderr, "usage: embed IMAGE MODEL [WEIGHTS]\n"), 2;
    if (trn_encoder_create(argv[2], NULL, 0, &encoder, &err)) goto done;
    /* which of the file's bands the encoder wants, in its order: channel i of the image is band order[i] */
    const trn_encoder_spec *spec = trn_encoder_get_spec(encoder);
    int order[BANDS], side = spec->tile;
    size_t count;
    if (trn_encoder_choose_bands(encoder, bands, BANDS, order, BANDS, &count, NULL, &err)) goto done;
    if (argc > 3 && trn_weights_open(argv[3], NULL, &weights, &err)) goto done;
    if (weights && trn_encoder_load(encoder, weights, NULL, &err)) goto done;
    if (!(image = calloc(count * (size_t)side * (size_t)side, sizeof *image))) goto done;
    const trn_scene_options options = {.band_names = names, .band_name_count = BANDS};
    if (trn_scene_open((const char *const *)&argv[1], 1, &options, &scene, &err)) goto done;
    if (trn_scene_read(scene, order, count, 0, 0, side, side, image, NULL, &err)) goto done;
    if (spec->needs_fit && trn_encoder_fit(encoder, image, 1, (int)count, side, &err)) goto done;
    if (trn_gpu_open(NULL, &gpu, &err)) goto done;
    if (!(vector = calloc((size_t)spec->channels, sizeof *vector))) goto done;
    if (trn_embed_image(gpu, encoder, image, (int)count, side, NULL, vector, &err)) goto done;
    for (int i = 0; i < spec->channels; i++)
        printf("%g\n", vector[i]);
done:
    if (err.code || !vector) fprintf(stderr, "embed: %s\n", err.code ? err.message : "out of memory");
    int failed = err.code || !vector;
    trn_gpu_close(gpu), trn_encoder_destroy(encoder), trn_weights_close(weights), trn_scene_close(scene);
    return free(image), free(vector), failed;
}
