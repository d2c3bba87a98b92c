/* ncnn's Vulkan inference of ViT-B/16 as a peer of peers.py: the same layers with made-up weights, in
 * float32.
 *
 * Build ncnn with -DNCNN_VULKAN=ON and install it somewhere, then
 *
 *     export PKG_CONFIG_PATH=WHERE/lib/pkgconfig
 *     cc -O2 -o ncnn-peer tests/peers/ncnn.c $(pkg-config --cflags --libs ncnn) -lstdc++ -lm
 *     tests/peers/peers.sh --ncnn ./ncnn-peer --only 'ncnn-*'
 *
 * and, on another driver, give --terrane and --ncnn the same wrapper. Which device it takes: the first one.
 * Speaks the protocol of peers.py's workers: a line of JSON about itself, then an answer to each line with a
 * number of runs. Float16 and matrix cores are off, as on CPU drivers both make ncnn slower. */
#define _POSIX_C_SOURCE 200809L
#include <ncnn/c_api.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SIDE = 224, PATCH = 16, WIDTH = 768, HIDDEN = 4 * WIDTH, HEADS = 12, BLOCKS = 12 };
enum { PATCHES = (SIDE / PATCH) * (SIDE / PATCH), TOKENS = PATCHES + 1 };
enum { TEXT_BYTES = 1 << 16, RUNS_MAX = 1000 };

/* ---- the network, as text ---- */

typedef struct {
    char text[TEXT_BYTES];
    size_t used;
    int layers, blobs;
} network;

static void fail(const char *what)
{
    fprintf(stderr, "ncnn-peer: %s\n", what);
    exit(1);
}

/* One layer: "type name inputs outputs names.. settings..". */
static void add_layer(network *net, int outputs, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(net->text + net->used, TEXT_BYTES - net->used, format, args);
    va_end(args);
    if (length < 0 || net->used + (size_t)length + 1 >= TEXT_BYTES) fail("the network is too large");
    net->used += (size_t)length;
    net->text[net->used++] = '\n';
    net->text[net->used] = '\0';
    net->layers++;
    net->blobs += outputs;
}

static void add_linear(network *net, const char *name, int block, const char *from, int in, int out)
{
    add_layer(net, 1, "Gemm %s%d 1 1 %s%d %s%d 3=1 5=1 6=1 8=%d 9=%d 10=4", name, block, from, block, name,
              block, out, in);
}

static void add_block(network *net, int i)
{
    add_layer(net, 2, "Split keep%d 1 2 x%d a%d b%d", i, i, i, i);
    add_layer(net, 1, "LayerNorm norm%d 1 1 b%d n%d 0=%d 1=1e-6 2=1", i, i, i, WIDTH);
    add_layer(net, 3, "Split qkv%d 1 3 n%d q%d k%d v%d", i, i, i, i, i);
    add_layer(net, 1, "MultiHeadAttention attend%d 3 1 q%d k%d v%d o%d 0=%d 1=%d 2=%d", i, i, i, i, i, WIDTH,
              HEADS, WIDTH * WIDTH);
    add_layer(net, 1, "BinaryOp residual%d 2 1 a%d o%d y%d 0=0", i, i, i, i);
    add_layer(net, 2, "Split mlp%d 1 2 y%d c%d d%d", i, i, i, i);
    add_layer(net, 1, "LayerNorm norms%d 1 1 d%d m%d 0=%d 1=1e-6 2=1", i, i, i, WIDTH);
    add_linear(net, "fc", i, "m", WIDTH, HIDDEN);
    add_layer(net, 1, "GELU gelu%d 1 1 fc%d g%d 0=0", i, i, i);
    add_linear(net, "project", i, "g", HIDDEN, WIDTH);
    add_layer(net, 1, "BinaryOp residuals%d 2 1 c%d project%d x%d 0=0", i, i, i, i + 1);
}

static void describe(network *net)
{
    add_layer(net, 1, "Input image 0 1 image");
    add_layer(net, 1, "MemoryData token 0 1 token 0=%d 1=1", WIDTH);
    add_layer(net, 1, "MemoryData positions 0 1 positions 0=%d 1=%d", WIDTH, TOKENS);
    add_layer(net, 1, "Convolution patches 1 1 image patches 0=%d 1=%d 11=%d 2=1 12=1 3=%d 13=%d 5=1 6=%d",
              WIDTH, PATCH, PATCH, PATCH, PATCH, 3 * PATCH * PATCH * WIDTH);
    add_layer(net, 1, "Reshape flat 1 1 patches flat 0=-1 1=%d", WIDTH);
    add_layer(net, 1, "Permute rows 1 1 flat rows 0=1");
    add_layer(net, 1, "Concat tokens 2 1 token rows tokens 0=0");
    add_layer(net, 1, "BinaryOp placed 2 1 tokens positions x0 0=0");
    for (int i = 0; i < BLOCKS; i++)
        add_block(net, i);
    add_layer(net, 1, "LayerNorm last 1 1 x%d y 0=%d 1=1e-6 2=1", BLOCKS, WIDTH);
}

/* Multiplications and additions of the convolution, the linear layers and both products of attention. */
static double count_flops(void)
{
    double linear = (double)TOKENS * (4.0 * WIDTH * WIDTH + 2.0 * WIDTH * HIDDEN);
    double attention = 2.0 * TOKENS * TOKENS * WIDTH;
    return 2.0 * (PATCHES * 3.0 * PATCH * PATCH * WIDTH + BLOCKS * (linear + attention));
}

/* ---- weights ---- */

static float next_weight(unsigned *state)
{
    *state = *state * 1664525u + 1013904223u;
    return ((float)(*state >> 8) / (float)(1u << 24) - 0.5f) * 0.05f;
}

/* Four bytes are a tag before the values of a layer: 0 means float32. */
static size_t read_weights(ncnn_datareader_t reader, void *out, size_t size)
{
    static unsigned state = 1;
    (void)reader;
    memset(out, 0, size);
    if (size == 4) return size;
    float *values = out;
    for (size_t i = 0; i < size / sizeof *values; i++)
        values[i] = next_weight(&state);
    return size;
}

static ncnn_net_t load(void)
{
    static network body;
    static char text[TEXT_BYTES + 64];
    describe(&body);
    snprintf(text, sizeof text, "7767517\n%d %d\n%s", body.layers, body.blobs, body.text);
    ncnn_net_t net = ncnn_net_create();
    ncnn_option_t option = ncnn_option_create();
    ncnn_option_set_use_vulkan_compute(option, 1);
    ncnn_option_set_use_fp16_packed(option, 0);
    ncnn_option_set_use_fp16_storage(option, 0);
    ncnn_option_set_use_fp16_arithmetic(option, 0);
    ncnn_option_set_use_cooperative_matrix(option, 0);
    ncnn_net_set_option(net, option);
    ncnn_net_set_vulkan_device(net, 0);
    if (ncnn_net_load_param_memory(net, text)) fail("ncnn does not take the network");
    ncnn_datareader_t reader = ncnn_datareader_create();
    reader->read = read_weights;
    if (ncnn_net_load_model_datareader(net, reader)) fail("ncnn does not take the weights");
    ncnn_datareader_destroy(reader);
    return net;
}

/* ---- runs ---- */

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void run(ncnn_net_t net, ncnn_mat_t image)
{
    ncnn_mat_t out = NULL;
    ncnn_extractor_t extractor = ncnn_extractor_create(net);
    if (ncnn_extractor_input(extractor, "image", image) || ncnn_extractor_extract(extractor, "y", &out))
        fail("ncnn did not run the network");
    if (ncnn_mat_get_w(out) != WIDTH || ncnn_mat_get_h(out) != TOKENS) fail("an output of another shape");
    float first = ((float *)ncnn_mat_get_data(out))[0];
    if (!(first > -1e6f && first < 1e6f)) fail("the output has no sensible values");
    ncnn_mat_destroy(out);
    ncnn_extractor_destroy(extractor);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, by_size);
    return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

static void time_runs(ncnn_net_t net, ncnn_mat_t image, int runs)
{
    double wall[RUNS_MAX], cpu[RUNS_MAX];
    for (int i = 0; i < runs; i++) {
        double wall_start = seconds(CLOCK_MONOTONIC), cpu_start = seconds(CLOCK_PROCESS_CPUTIME_ID);
        run(net, image);
        wall[i] = seconds(CLOCK_MONOTONIC) - wall_start;
        cpu[i] = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu_start;
    }
    printf("{\"seconds\": %.9f, \"cpu\": %.9f}\n", median(wall, runs), median(cpu, runs));
    fflush(stdout);
}

int main(void)
{
    ncnn_net_t net = load();
    ncnn_mat_t image = ncnn_mat_create_3d(SIDE, SIDE, 3, NULL);
    ncnn_mat_fill_float(image, 0.01f);
    run(net, image); /* not counted */
    printf("{\"flops\": %.0f, \"blas\": \"none\"}\n", count_flops());
    fflush(stdout);
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        long runs = strtol(line, NULL, 10);
        if (runs < 1 || runs > RUNS_MAX) fail("a line without a number of runs");
        time_runs(net, image, (int)runs);
    }
    ncnn_mat_destroy(image);
    ncnn_net_destroy(net);
    return 0;
}
