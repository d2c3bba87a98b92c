/* gpu: devices, memory, kernels, programs, caches and faults, on every Vulkan device found. */
#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gpu.h"
#include "gpu_testing.h"

/* y = a*x + y over count elements */
static const char axpy_text[] = "#define BUFFERS(B) B(0, Float, x) B(1, Float, y)\n"
                                "#define SCALARS uint count; float a;\n"
                                "#include \"terrane.glsl\"\n"
                                "layout(local_size_x = 64) in;\n"
                                "void main() {\n"
                                "    uint i = INVOCATION_INDEX;\n"
                                "    if (i < p.count) AT(y, i) = p.a * AT(x, i) + AT(y, i);\n"
                                "}\n";
/* y[i] = LOOPS rounds of a map of x[i] */
static const char grind_text[] = "#define BUFFERS(B) B(0, Float, x) B(1, Float, y)\n"
                                 "#define SCALARS uint count, rounds;\n"
                                 "#include \"terrane.glsl\"\n"
                                 "layout(local_size_x = 64) in;\n"
                                 "void main() {\n"
                                 "    uint i = INVOCATION_INDEX;\n"
                                 "    if (i >= p.count) return;\n"
                                 "    float v = AT(x, i);\n"
                                 "    for (uint k = 0u; k < p.rounds; k++) v = v * 0.999 + 0.25;\n"
                                 "    AT(y, i) = v;\n"
                                 "}\n";

static trn_kernel_desc axpy_desc(void)
{
    return (trn_kernel_desc){.shader = "axpy", .buffers = 2, .scalars = 2};
}

static trn_kernel_desc grind_desc(void)
{
    return (trn_kernel_desc){.shader = "grind", .buffers = 2, .scalars = 2};
}

static trn_gpu *open_with(trn_gpu_options options)
{
    trn_error err = {0};
    trn_gpu *gpu = NULL;
    assert_trn_ok(trn_gpu_open(&options, &gpu, &err), err);
    return gpu;
}

static trn_gpu_buffer *make(trn_gpu *gpu, uint64_t size, const char *label)
{
    trn_error err = {0};
    trn_gpu_buffer *buffer = NULL;
    assert_trn_ok(trn_gpu_buffer_create(gpu, size, label, &buffer, &err), err);
    return buffer;
}

static trn_dispatch axpy(const trn_kernel *kernel, trn_gpu_buffer *x, trn_gpu_buffer *y, uint32_t count,
                         float a)
{
    trn_dispatch d = {.kernel = kernel, .label = "axpy", .groups = {(count + 63) / 64, 1, 1}};
    d.bindings[0] = (trn_binding){x, 0, count * 4ull, false};
    d.bindings[1] = (trn_binding){y, 0, count * 4ull, true};
    d.scalars[0].u = count;
    d.scalars[1].f = a;
    d.flops = 2.0 * count;
    return d;
}

/* Both ways of access that a device has. */
static int accesses(const trn_device_info *info, trn_access out[2])
{
    int n = 0;
    out[n++] = TRN_ACCESS_STORAGE;
    if (info->buffer_address && info->int64) out[n++] = TRN_ACCESS_ADDRESS;
    return n;
}

/* Runs a check on every usable device, with each access, with and without unified memory. */
static void on_each(void (*check)(trn_gpu *gpu), trn_gpu_options options)
{
    trn_error err = {0};
    trn_device_info *list;
    size_t count, checked = 0;
    assert_trn_ok(trn_gpu_enumerate(&list, &count, &err), err);
    for (size_t i = 0; i < count; i++) {
        trn_access access[2];
        int n = accesses(&list[i], access);
        char index[16];
        snprintf(index, sizeof index, "%d", list[i].index);
        if (!list[i].usable) continue;
        for (int k = 0; k < 2 * n; k++) {
            options.device = index;
            options.access = access[k / 2];
            if (k % 2) setenv("TERRANE_DISABLE", "unified", 1);
            trn_gpu *gpu = open_with(options);
            unsetenv("TERRANE_DISABLE");
            assert_false(k % 2 && trn_gpu_is_unified(gpu));
            assert_int_equal(trn_gpu_access(gpu), access[k / 2]);
            check(gpu);
            assert_int_equal(trn_gpu_get_stats(gpu).validation_messages, 0);
            trn_gpu_close(gpu);
            checked++;
        }
    }
    free(list);
    assert_true(checked > 0);
}

/* ---- devices ---- */

static void enumerates(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_device_info *list;
    size_t count;
    assert_trn_ok(trn_gpu_enumerate(&list, &count, &err), err);
    assert_true(count > 0);
    for (size_t i = 0; i < count; i++) {
        trn_text quirks = {0};
        trn_quirk_names(list[i].quirks, &quirks);
        print_message("device %d: %s (%s), %s, subgroup %u (%u..%u), quirks: %s, %s%s\n", list[i].index,
                      list[i].name, trn_device_type_name(list[i].type), list[i].driver, list[i].subgroup_size,
                      list[i].subgroup_min, list[i].subgroup_max, trn_text_get(&quirks),
                      list[i].usable ? "usable" : "not usable: ", list[i].why_not);
        assert_int_equal(list[i].index, i);
        assert_true(list[i].name[0]);
        assert_int_equal(list[i].usable, !list[i].why_not[0]);
        if (list[i].usable) {
            assert_true(list[i].max_allocation > 0 && list[i].max_allocation <= 1u << 30);
            assert_true(list[i].push_constant_bytes >= 128 && list[i].memory_bytes > 0);
            assert_int_equal(strlen(list[i].uuid), 32);
        }
        trn_text_free(&quirks);
    }
    free(list);
}

static void names_devices(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_gpu *gpu = NULL;
    trn_gpu_options options = {.device = "no such device"};
    assert_trn_fails(trn_gpu_open(&options, &gpu, &err), TRN_ERR_ARGUMENT, err, "no such device");
    assert_null(gpu);
    trn_device_info *list;
    size_t count;
    assert_trn_ok(trn_gpu_enumerate(&list, &count, &err), err);
    options.device = "99";
    assert_trn_fails(trn_gpu_open(&options, &gpu, &err), TRN_ERR_ARGUMENT, err, list[0].name);
    char part[16];
    snprintf(part, sizeof part, "%.8s", list[0].name);
    for (char *c = part; *c; c++)
        *c = (char)(*c >= 'a' && *c <= 'z' ? *c - 32 : *c);
    setenv("TERRANE_DEVICE", part, 1);
    assert_trn_ok(trn_gpu_open(NULL, &gpu, &err), err);
    unsetenv("TERRANE_DEVICE");
    trn_gpu_close(gpu);
    trn_gpu_close(NULL);
    free(list);
}

static void says_what_to_install(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_gpu *gpu = NULL;
    trn_device_info *list;
    size_t count;
    char *files = getenv("VK_DRIVER_FILES"), *before = files ? strdup(files) : NULL;
    setenv("VK_DRIVER_FILES", "/nonexistent", 1);
    trn_status opened = trn_gpu_open(NULL, &gpu, &err), listed = trn_gpu_enumerate(&list, &count, &err);
    if (before)
        setenv("VK_DRIVER_FILES", before, 1);
    else
        unsetenv("VK_DRIVER_FILES");
    free(before);
    assert_int_equal(opened, TRN_ERR_DEVICE);
    assert_trn_fails(listed, TRN_ERR_DEVICE, err, "apt install mesa-vulkan-drivers");
}

/* ---- memory ---- */

static void round_trip(trn_gpu *gpu, uint64_t size, uint64_t offset)
{
    trn_error err = {0};
    trn_gpu_buffer *buffer = make(gpu, size + offset, "round trip");
    assert_int_equal(trn_gpu_buffer_size(buffer), size + offset);
    uint8_t *sent = malloc(size), *got = calloc(1, size);
    for (uint64_t i = 0; i < size; i++)
        sent[i] = (uint8_t)trn_splitmix64(i / 8 + size) ^ (uint8_t)i;
    assert_trn_ok(trn_gpu_write(gpu, buffer, offset, sent, size, &err), err);
    assert_trn_ok(trn_gpu_read(gpu, buffer, offset, got, size, &err), err);
    assert_memory_equal(sent, got, size);
    free(sent);
    free(got);
    trn_gpu_buffer_destroy(gpu, buffer);
}

static void check_memory(trn_gpu *gpu)
{
    trn_error err = {0};
    round_trip(gpu, 1, 0);
    round_trip(gpu, 4097, 3);
    round_trip(gpu, 4 << 20, 0);
    round_trip(gpu, (37 << 20) + 13, 257);
    trn_gpu_buffer *buffer = make(gpu, 4096, "filled");
    uint32_t got[1024];
    assert_trn_ok(trn_gpu_fill(gpu, buffer, 0, 4096, 0xdeadbeef, &err), err);
    assert_trn_ok(trn_gpu_fill(gpu, buffer, 8, 4, 7, &err), err);
    assert_trn_ok(trn_gpu_read(gpu, buffer, 0, got, sizeof got, &err), err);
    for (int i = 0; i < 1024; i++)
        assert_int_equal(got[i], i == 2 ? 7 : 0xdeadbeef);
    assert_trn_fails(trn_gpu_fill(gpu, buffer, 2, 4, 0, &err), TRN_ERR_ARGUMENT, err, "multiples of 4");
    assert_trn_fails(trn_gpu_write(gpu, buffer, 4095, got, 2, &err), TRN_ERR_ARGUMENT, err, "filled");
    assert_trn_fails(trn_gpu_read(gpu, buffer, UINT64_MAX, got, 2, &err), TRN_ERR_ARGUMENT, err, "filled");
    assert_trn_ok(trn_gpu_write(gpu, buffer, 4096, got, 0, &err), err);
    trn_gpu_buffer_destroy(gpu, buffer);
    trn_gpu_buffer_destroy(gpu, NULL);
}

static void copies(void **state)
{
    (void)state;
    on_each(check_memory, (trn_gpu_options){0});
}

/* Pieces never overlap whatever the order of making and freeing, and all memory comes back. */
static void cuts_blocks(void **state)
{
    (void)state;
    enum { SLOTS = 64, ROUNDS = 2000 };
    trn_error err = {0};
    trn_gpu *gpu = open_with((trn_gpu_options){0});
    trn_gpu_buffer *slots[SLOTS] = {0};
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint64_t random = trn_splitmix64(round);
        uint32_t slot = random % SLOTS, tag = slot * 977 + 5;
        if (slots[slot]) {
            uint32_t ends[2];
            uint64_t size = trn_gpu_buffer_size(slots[slot]);
            assert_trn_ok(trn_gpu_read(gpu, slots[slot], 0, &ends[0], 4, &err), err);
            assert_trn_ok(trn_gpu_read(gpu, slots[slot], size - 4, &ends[1], 4, &err), err);
            assert_true(ends[0] == tag && ends[1] == tag);
            trn_gpu_buffer_destroy(gpu, slots[slot]);
            slots[slot] = NULL;
        } else {
            uint64_t size = 4 * (1 + (random >> 32) % 300000);
            slots[slot] = make(gpu, size, "slot");
            assert_trn_ok(trn_gpu_write(gpu, slots[slot], size - 4, &tag, 4, &err), err);
            assert_trn_ok(trn_gpu_write(gpu, slots[slot], 0, &tag, 4, &err), err);
        }
    }
    for (int i = 0; i < SLOTS; i++)
        trn_gpu_buffer_destroy(gpu, slots[i]);
    trn_gpu_stats stats = trn_gpu_get_stats(gpu);
    assert_true(stats.memory_bytes <= 48u << 20); /* one small block, and the ring if there is one */
    assert_true(stats.memory_peak >= stats.memory_bytes);
    trn_gpu_close(gpu);
}

static void refuses_what_does_not_fit(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_gpu *gpu = open_with((trn_gpu_options){0});
    trn_gpu_buffer *buffer = NULL;
    assert_trn_fails(trn_gpu_buffer_create(gpu, 1ull << 50, "huge", &buffer, &err), TRN_ERR_MEMORY, err,
                     "huge");
    assert_null(buffer);
    assert_trn_fails(trn_gpu_buffer_create(gpu, UINT64_MAX, "huge", &buffer, &err), TRN_ERR_MEMORY, err,
                     "huge");
    assert_trn_fails(trn_gpu_buffer_create(gpu, 0, "empty", &buffer, &err), TRN_ERR_ARGUMENT, err, "empty");
    assert_true(trn_gpu_memory_available(gpu) > 0);
    trn_gpu_close(gpu);
}

/* ---- kernels and programs ---- */

static const trn_kernel *kernel_of(trn_gpu *gpu, trn_kernel_desc desc, const char *text)
{
    trn_error err = {0};
    const trn_kernel *kernel = NULL;
    assert_trn_ok(trn_gpu_kernel_from_text(gpu, &desc, text, &kernel, &err), err);
    return kernel;
}

/* A chain of 100 dependent dispatches between two buffers: any missing barrier gives a wrong number. */
static void check_chain(trn_gpu *gpu)
{
    enum { COUNT = 1000, STEPS = 100 };
    trn_error err = {0};
    const trn_kernel *kernel = kernel_of(gpu, axpy_desc(), axpy_text);
    assert_ptr_equal(kernel, kernel_of(gpu, axpy_desc(), axpy_text));
    trn_gpu_buffer *x = make(gpu, COUNT * 4, "x"), *y = make(gpu, COUNT * 4, "y");
    trn_program *program;
    assert_trn_ok(trn_program_create(gpu, "chain", &program, &err), err);
    for (int i = 0; i < STEPS; i++) {
        trn_dispatch d = i % 2 ? axpy(kernel, y, x, COUNT, 0.5f) : axpy(kernel, x, y, COUNT, -0.25f);
        assert_trn_ok(trn_program_add(program, &d, &err), err);
    }
    assert_int_equal(trn_program_dispatch_count(program), STEPS);
    float ones[COUNT], got[COUNT], u = 1, v = 1;
    for (int i = 0; i < COUNT; i++)
        ones[i] = 1;
    for (int i = 0; i < STEPS; i++) {
        if (i % 2)
            u = 0.5f * v + u;
        else
            v = -0.25f * u + v;
    }
    for (int run = 0; run < 4; run++) {
        assert_trn_ok(trn_gpu_write(gpu, x, 0, ones, sizeof ones, &err), err);
        assert_trn_ok(trn_gpu_write(gpu, y, 0, ones, sizeof ones, &err), err);
        uint64_t ticket = 0;
        if (run % 2) {
            assert_trn_ok(trn_program_submit(program, &ticket, &err), err);
            assert_trn_ok(trn_gpu_wait(gpu, ticket, &err), err);
        } else {
            assert_trn_ok(trn_program_run(program, NULL, &err), err);
        }
        assert_trn_ok(trn_gpu_read(gpu, x, 0, got, sizeof got, &err), err);
        for (int i = 0; i < COUNT; i++)
            if (fabsf(got[i] - u) > 1e-4f)
                fail_msg("run %d: x[%d] is %g, not %g", run, i, (double)got[i], (double)u);
        assert_trn_ok(trn_gpu_read(gpu, y, 0, got, sizeof got, &err), err);
        for (int i = 0; i < COUNT; i++)
            if (fabsf(got[i] - v) > 1e-4f)
                fail_msg("run %d: y[%d] is %g, not %g", run, i, (double)got[i], (double)v);
    }
    assert_int_equal(trn_program_barrier_count(program) + trn_program_segment_count(program), STEPS);
    trn_program_destroy(program);
    trn_program_destroy(NULL);
    trn_gpu_buffer_destroy(gpu, x);
    trn_gpu_buffer_destroy(gpu, y);
}

static void orders_dependent_work(void **state)
{
    (void)state;
    on_each(check_chain, (trn_gpu_options){0});
}

/* Independent pieces of one buffer need no barrier; a reader of both needs one. */
static void check_barriers(trn_gpu *gpu)
{
    trn_error err = {0};
    const trn_kernel *kernel = kernel_of(gpu, axpy_desc(), axpy_text);
    trn_gpu_buffer *x = make(gpu, 4096, "x"), *y = make(gpu, 4096, "y");
    trn_program *program;
    assert_trn_ok(trn_program_create(gpu, "pieces", &program, &err), err);
    for (int i = 0; i < 4; i++) {
        trn_dispatch d = axpy(kernel, x, y, 64, 1);
        d.bindings[1].offset = (uint64_t)i * 1024;
        assert_trn_ok(trn_program_add(program, &d, &err), err);
    }
    trn_dispatch last = axpy(kernel, y, x, 512, 1);
    assert_trn_ok(trn_program_add(program, &last, &err), err);
    assert_trn_ok(trn_gpu_fill(gpu, x, 0, 4096, 0, &err), err);
    assert_trn_ok(trn_gpu_fill(gpu, y, 0, 4096, 0, &err), err);
    assert_trn_ok(trn_program_run(program, NULL, &err), err);
    assert_trn_ok(trn_program_run(program, NULL, &err), err);
    if (trn_program_segment_count(program) == 1) assert_int_equal(trn_program_barrier_count(program), 1);
    trn_program_destroy(program);
    trn_gpu_buffer_destroy(gpu, x);
    trn_gpu_buffer_destroy(gpu, y);
}

static void places_barriers(void **state)
{
    (void)state;
    on_each(check_barriers, (trn_gpu_options){0});
}

static trn_program *grind_program(trn_gpu *gpu, trn_gpu_buffer *x, trn_gpu_buffer *y, uint32_t count,
                                  int dispatches)
{
    trn_error err = {0};
    const trn_kernel *kernel = kernel_of(gpu, grind_desc(), grind_text);
    trn_program *program;
    assert_trn_ok(trn_program_create(gpu, "grinding", &program, &err), err);
    for (int i = 0; i < dispatches; i++) {
        trn_dispatch d = axpy(kernel, i % 2 ? y : x, i % 2 ? x : y, count, 0);
        char label[32];
        snprintf(label, sizeof label, "grind.%d", i);
        d.label = label;
        d.scalars[1].u = 50 + (uint32_t)i;
        d.flops = 100.0 * count;
        assert_trn_ok(trn_program_add(program, &d, &err), err);
    }
    return program;
}

/* Results of runs whose submissions aim at `seconds`; submissions of the last run in *segments. */
static float *grind(double seconds, trn_access access, uint32_t count, int dispatches, uint64_t *segments)
{
    trn_error err = {0};
    trn_gpu *gpu = open_with((trn_gpu_options){.submit_seconds = seconds, .access = access});
    trn_gpu_forget_speed(gpu);
    trn_gpu_buffer *x = make(gpu, count * 4ull, "x"), *y = make(gpu, count * 4ull, "y");
    trn_program *program = grind_program(gpu, x, y, count, dispatches);
    float *values = malloc(count * sizeof *values);
    for (int run = 0; run < 3; run++) {
        for (uint32_t i = 0; i < count; i++)
            values[i] = (float)(i % 1000) * 0.01f;
        assert_trn_ok(trn_gpu_write(gpu, x, 0, values, count * 4ull, &err), err);
        uint64_t before = trn_gpu_get_stats(gpu).submissions;
        assert_trn_ok(trn_program_run(program, NULL, &err), err);
        *segments = trn_gpu_get_stats(gpu).submissions - before;
    }
    assert_trn_ok(trn_gpu_read(gpu, dispatches % 2 ? y : x, 0, values, count * 4ull, &err), err);
    trn_program_destroy(program);
    trn_gpu_buffer_destroy(gpu, x);
    trn_gpu_buffer_destroy(gpu, y);
    trn_gpu_close(gpu);
    return values;
}

static void splits_long_work(void **state)
{
    (void)state;
    enum { COUNT = 100003, DISPATCHES = 5 };
    for (int access = TRN_ACCESS_AUTO; access <= TRN_ACCESS_STORAGE; access += TRN_ACCESS_STORAGE) {
        uint64_t whole_segments, split_segments;
        float *whole = grind(1000, (trn_access)access, COUNT, DISPATCHES, &whole_segments);
        float *split = grind(1e-6, (trn_access)access, COUNT, DISPATCHES, &split_segments);
        assert_int_equal(whole_segments, 1);
        assert_true(split_segments > DISPATCHES);
        assert_memory_equal(whole, split, COUNT * sizeof *whole);
        for (uint32_t i = 0; i < COUNT; i += 997) {
            float v = (float)(i % 1000) * 0.01f;
            for (uint32_t k = 0; k < 50 * DISPATCHES + DISPATCHES * (DISPATCHES - 1) / 2; k++)
                v = v * 0.999f + 0.25f;
            assert_true(fabsf(v - whole[i]) < 1e-3f);
        }
        free(whole);
        free(split);
    }
}

static void check_profile(trn_gpu *gpu)
{
    trn_error err = {0};
    trn_gpu_buffer *x = make(gpu, 1 << 20, "x"), *y = make(gpu, 1 << 20, "y");
    trn_program *program = grind_program(gpu, x, y, 1 << 18, 4);
    assert_trn_ok(trn_gpu_fill(gpu, x, 0, 1 << 20, 0, &err), err);
    trn_program_profile(program, true);
    assert_trn_ok(trn_program_run(program, NULL, &err), err);
    uint64_t start = trn_now_ns();
    assert_trn_ok(trn_program_run(program, NULL, &err), err);
    double wall = (double)(trn_now_ns() - start) * 1e-9, sum = 0;
    for (size_t i = 0; i < 4; i++) {
        char label[32];
        snprintf(label, sizeof label, "grind.%zu", i);
        trn_dispatch_time time = trn_program_time(program, i);
        assert_string_equal(time.label, label);
        assert_true(time.seconds > 0);
        assert_true(time.flops > 0);
        sum += time.seconds;
    }
    assert_true(sum <= wall * 1.01);
    trn_program_destroy(program);
    trn_gpu_buffer_destroy(gpu, x);
    trn_gpu_buffer_destroy(gpu, y);
}

static void profiles(void **state)
{
    (void)state;
    on_each(check_profile, (trn_gpu_options){0});
}

/* Submissions queue up without waiting, in order across programs; a program may grow after it ran. */
static void check_queueing(trn_gpu *gpu)
{
    enum { COUNT = 256, ROUNDS = 80 };
    trn_error err = {0};
    const trn_kernel *kernel = kernel_of(gpu, axpy_desc(), axpy_text);
    trn_gpu_buffer *x = make(gpu, COUNT * 4, "x"), *y = make(gpu, COUNT * 4, "y");
    trn_program *add, *halve;
    trn_dispatch d = axpy(kernel, x, y, COUNT, 1);
    assert_trn_ok(trn_program_create(gpu, "add", &add, &err), err);
    assert_trn_ok(trn_program_create(gpu, "halve", &halve, &err), err);
    assert_trn_ok(trn_program_add(add, &d, &err), err);
    d = axpy(kernel, y, y, COUNT, -0.5f); /* in place: y = y - y/2 */
    assert_trn_ok(trn_program_add(halve, &d, &err), err);
    assert_trn_ok(trn_gpu_fill(gpu, x, 0, COUNT * 4, 0x3f800000, &err), err);
    assert_trn_ok(trn_gpu_fill(gpu, y, 0, COUNT * 4, 0, &err), err);
    uint64_t ticket = 0, last = 0;
    float expected = 0, got[COUNT];
    for (int i = 0; i < ROUNDS; i++) {
        assert_trn_ok(trn_program_submit(add, &ticket, &err), err);
        assert_trn_ok(trn_program_submit(halve, &ticket, &err), err);
        assert_true(ticket > last);
        last = ticket;
        expected = (expected + 1) / 2;
    }
    assert_trn_ok(trn_gpu_wait(gpu, ticket, &err), err);
    assert_trn_fails(trn_gpu_wait(gpu, ticket + 1, &err), TRN_ERR_ARGUMENT, err, "ticket");
    d = axpy(kernel, x, y, COUNT, 10);
    assert_trn_ok(trn_program_add(add, &d, &err), err);
    assert_trn_ok(trn_program_run(add, NULL, &err), err);
    assert_trn_ok(trn_program_submit(add, &ticket, &err), err);
    assert_trn_ok(trn_gpu_read(gpu, y, 0, got, sizeof got, &err), err); /* waits for it */
    for (int i = 0; i < COUNT; i++)
        assert_true(fabsf(got[i] - (expected + 22)) < 1e-4f);
    trn_program_destroy(add);
    trn_program_destroy(halve);
    trn_gpu_buffer_destroy(gpu, x);
    trn_gpu_buffer_destroy(gpu, y);
}

static void queues_up(void **state)
{
    (void)state;
    on_each(check_queueing, (trn_gpu_options){.validation = true});
}

static bool cancel_at_once(void *user)
{
    ++*(int *)user;
    return true;
}

static void stops_on_request(void **state)
{
    (void)state;
    trn_error err = {0};
    int asked = 0;
    trn_gpu *gpu = open_with((trn_gpu_options){0});
    trn_gpu_buffer *x = make(gpu, 4096, "x"), *y = make(gpu, 4096, "y");
    trn_program *program = grind_program(gpu, x, y, 1024, 2);
    trn_progress progress = {.cancelled = cancel_at_once, .user = &asked};
    assert_int_equal(trn_program_run(program, &progress, &err), TRN_ERR_CANCELLED);
    assert_trn_ok(trn_program_run(program, NULL, &err), err);
    assert_int_equal(trn_program_run(program, &progress, &err), TRN_ERR_CANCELLED);
    assert_true(asked >= 2);
    trn_program_destroy(program);
    trn_gpu_buffer_destroy(gpu, x);
    trn_gpu_buffer_destroy(gpu, y);
    trn_gpu_close(gpu);
}

static void refuses_wrong_dispatches(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_gpu *gpu = open_with((trn_gpu_options){0});
    trn_gpu_buffer *x = make(gpu, 4096, "x"), *y = make(gpu, 4096, "the target");
    const trn_kernel *kernel = kernel_of(gpu, axpy_desc(), axpy_text);
    trn_program *program;
    assert_trn_ok(trn_program_create(gpu, "wrong", &program, &err), err);
    assert_trn_ok(trn_program_run(program, NULL, &err), err);
    trn_dispatch d = axpy(kernel, x, y, 1024, 1);
    d.bindings[1].size = 4100;
    assert_trn_fails(trn_program_add(program, &d, &err), TRN_ERR_INTERNAL, err, "the target");
    d = axpy(kernel, x, y, 1024, 1);
    d.groups[1] = 0;
    assert_trn_fails(trn_program_add(program, &d, &err), TRN_ERR_INTERNAL, err, "work groups");
    d = axpy(kernel, x, NULL, 1024, 1);
    assert_trn_fails(trn_program_add(program, &d, &err), TRN_ERR_INTERNAL, err, "binding 1 has no buffer");
    d = axpy(kernel, x, y, 16, 1);
    d.bindings[0].offset = 2;
    assert_trn_fails(trn_program_add(program, &d, &err), TRN_ERR_INTERNAL, err, "multiple of");
    assert_int_equal(trn_program_dispatch_count(program), 0);
    trn_program_destroy(program);
    trn_gpu_buffer_destroy(gpu, x);
    trn_gpu_buffer_destroy(gpu, y);
    trn_gpu_close(gpu);
}

static void refuses_wrong_kernels(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_gpu *gpu = open_with((trn_gpu_options){.no_disk_cache = true});
    const trn_kernel *kernel;
    trn_kernel_desc desc = axpy_desc();
    assert_trn_fails(trn_gpu_kernel_from_text(gpu, &desc, "void main() { nonsense; }", &kernel, &err),
                     TRN_ERR_INTERNAL, err, "nonsense");
    assert_non_null(strstr(err.message, "axpy"));
    assert_trn_fails(
        trn_gpu_kernel_from_text(gpu, &desc, "#include \"absent.glsl\"\nvoid main() {}", &kernel, &err),
        TRN_ERR_INTERNAL, err, "absent.glsl");
    desc.generated = "#include \"generated.glsl\"\n";
    assert_trn_fails(
        trn_gpu_kernel_from_text(gpu, &desc, "#include \"generated.glsl\"\nvoid main() {}", &kernel, &err),
        TRN_ERR_INTERNAL, err, "deeper");
    desc.generated = NULL;
    desc.buffers = 9;
    assert_trn_fails(trn_gpu_kernel_from_text(gpu, &desc, axpy_text, &kernel, &err), TRN_ERR_ARGUMENT, err,
                     "9 buffers");
    desc = axpy_desc();
    assert_trn_fails(trn_gpu_kernel(gpu, &desc, &kernel, &err), TRN_ERR_INTERNAL, err, "no shader 'axpy'");
    static const char big[] =
        "#define BUFFERS(B) B(0, Float, x) B(1, Float, y)\n#define SCALARS uint count; float a;\n"
        "#include \"terrane.glsl\"\nlayout(local_size_x = 1024, local_size_y = 1024) in;\n"
        "void main() { AT(y, 0) = p.a; }\n";
    assert_trn_fails(trn_gpu_kernel_from_text(gpu, &desc, big, &kernel, &err), TRN_ERR_UNSUPPORTED, err,
                     "1024x1024");
    trn_gpu_close(gpu);
}

/* A buffer read as texels, from an offset on, gives what an address gives; nothing lies behind its end. */
static void reads_texels(void **state)
{
    (void)state;
    enum { COUNT = 64 };
    static const char text[] =
        "#define BUFFERS(B) B(0, Vec4, x) B(1, Vec4, y)\n#define SCALARS uint count;\n"
        "#include \"terrane.glsl\"\nlayout(set = 0, binding = 0) uniform samplerBuffer x_texels;\n"
        "layout(local_size_x = 16) in;\n"
        "void main() { uint i = INVOCATION_INDEX; if (i < p.count) AT(y, i) = texelFetch(x_texels, int(i)) + "
        "(i * 4u < 32u ? AT(x, i) : vec4(1)); }\n";
    trn_error err = {0};
    trn_gpu *gpu = open_with((trn_gpu_options){0});
    trn_kernel_desc desc = {.shader = "texels", .buffers = 2, .scalars = 1, .texels = 1};
    const trn_kernel *kernel;
    if (trn_gpu_access(gpu) != TRN_ACCESS_ADDRESS || !trn_gpu_info(gpu)->max_texel_range) {
        assert_trn_fails(trn_gpu_kernel_from_text(gpu, &desc, text, &kernel, &err), TRN_ERR_ARGUMENT, err,
                         "texels");
        trn_gpu_close(gpu);
        return;
    }
    kernel = kernel_of(gpu, desc, text);
    trn_gpu_buffer *x = make(gpu, 4 * COUNT, "x"), *y = make(gpu, 4 * COUNT, "y");
    float values[COUNT], got[COUNT];
    for (int i = 0; i < COUNT; i++)
        values[i] = (float)i;
    assert_trn_ok(trn_gpu_write(gpu, x, 0, values, sizeof values, &err), err);
    trn_program *program;
    assert_trn_ok(trn_program_create(gpu, "texels", &program, &err), err);
    trn_dispatch d = {.kernel = kernel,
                      .bindings = {{x, 64, 128, false}, {y, 0, 4 * COUNT, true}},
                      .scalars = {{.u = COUNT / 4}},
                      .groups = {1, 1, 1}};
    d.bindings[0].offset = 4;
    assert_trn_fails(trn_program_add(program, &d, &err), TRN_ERR_INTERNAL, err, "texels of 16 bytes");
    d.bindings[0].offset = 64;
    for (int run = 0; run < 2; run++) { /* the second plan makes its views anew */
        assert_trn_ok(trn_program_add(program, &d, &err), err);
        assert_trn_ok(trn_program_run(program, NULL, &err), err);
        assert_trn_ok(trn_gpu_read(gpu, y, 0, got, sizeof got, &err), err);
        for (int i = 0; i < COUNT; i++)
            assert_true(got[i] == (i < 32 ? 2 * values[i + 16] : 1));
    }
    trn_program_destroy(program);
    trn_gpu_buffer_destroy(gpu, x);
    trn_gpu_buffer_destroy(gpu, y);
    trn_gpu_close(gpu);
}

/* Macros, generated text, and those macros that the device sets reach the shader. */
static void check_macros(trn_gpu *gpu)
{
    static const char text[] = "#define BUFFERS(B) B(0, Uint, y) B(1, Vec4, v) B(2, Int, n)\n"
                               "#define SCALARS uint a; uint b;\n"
                               "#include \"terrane.glsl\"\n"
                               "#include \"generated.glsl\"\n"
                               "layout(local_size_x = 1) in;\n"
                               "void main() { AT(y, 0) = p.a + p.b * FACTOR; AT(y, 1) = TRN_SUBGROUP_SIZE;\n"
                               "    AT(y, 2) = made(4u); AT(v, 1) = vec4(1, 2, 3, 4); AT(n, 0) = -3; }\n";
    trn_error err = {0};
    const trn_macro macros[] = {{"FACTOR", "100u"}};
    trn_kernel_desc desc = {.shader = "macros",
                            .generated = "uint made(uint x) { return x * x; }\n",
                            .macros = macros,
                            .macro_count = 1,
                            .buffers = 3,
                            .scalars = 2};
    const trn_kernel *kernel = kernel_of(gpu, desc, text);
    trn_gpu_buffer *y = make(gpu, 12, "y"), *v = make(gpu, 32, "v"), *n = make(gpu, 4, "n");
    trn_program *program;
    assert_trn_ok(trn_program_create(gpu, "macros", &program, &err), err);
    trn_dispatch d = {.kernel = kernel,
                      .bindings = {{y, 0, 12, true}, {v, 0, 32, true}, {n, 0, 4, true}},
                      .scalars = {{.u = 7}, {.u = 3}},
                      .groups = {1, 1, 1}};
    assert_trn_ok(trn_program_add(program, &d, &err), err);
    assert_trn_ok(trn_program_run(program, NULL, &err), err);
    uint32_t got[3];
    float vec[4];
    int32_t negative;
    assert_trn_ok(trn_gpu_read(gpu, y, 0, got, 12, &err), err);
    assert_trn_ok(trn_gpu_read(gpu, v, 16, vec, 16, &err), err);
    assert_trn_ok(trn_gpu_read(gpu, n, 0, &negative, 4, &err), err);
    assert_int_equal(got[0], 307);
    assert_int_equal(got[1], trn_gpu_info(gpu)->subgroup_size);
    assert_int_equal(got[2], 16);
    assert_true(vec[0] == 1 && vec[3] == 4);
    assert_int_equal(negative, -3);
    trn_program_destroy(program);
    trn_gpu_buffer_destroy(gpu, y);
    trn_gpu_buffer_destroy(gpu, v);
    trn_gpu_buffer_destroy(gpu, n);
}

static void passes_macros(void **state)
{
    (void)state;
    on_each(check_macros, (trn_gpu_options){0});
}

/* ---- caches ---- */

static trn_gpu_stats compile_one(bool no_disk_cache)
{
    trn_gpu *gpu = open_with((trn_gpu_options){.no_disk_cache = no_disk_cache});
    kernel_of(gpu, axpy_desc(), axpy_text);
    trn_gpu_stats stats = trn_gpu_get_stats(gpu);
    trn_gpu_close(gpu);
    return stats;
}

static void damage_files(const char *folder, long cut)
{
    trn_error err = {0};
    char **names;
    size_t count;
    assert_trn_ok(trn_list_dir(folder, &names, &count, &err), err);
    assert_true(count > 0);
    for (size_t i = 0; i < count; i++) {
        char *path = test_path(folder, names[i]);
        size_t size;
        char *data = trn_read_file(path, 1 << 28, &size, &err);
        assert_non_null(data);
        data[size - 5] ^= 0x10;
        assert_trn_ok(trn_write_file(path, data, cut ? TRN_MIN(size, (size_t)cut) : size, &err), err);
        free(data);
        free(path);
    }
    trn_names_free(names, count);
}

static void caches_shaders(void **state)
{
    (void)state;
    char *dir = strdup(test_temp_dir()), *shaders = test_path(dir, "terrane/shaders");
    char *pipelines = test_path(dir, "terrane/pipelines"), *old = getenv("XDG_CACHE_HOME");
    char *before = old ? strdup(old) : NULL;
    setenv("XDG_CACHE_HOME", dir, 1);
    trn_gpu_stats stats = compile_one(false);
    assert_true(stats.shaders_compiled == 1 && stats.shaders_from_cache == 0);
    stats = compile_one(false);
    assert_true(stats.shaders_compiled == 0 && stats.shaders_from_cache == 1);
    stats = compile_one(true);
    assert_true(stats.shaders_compiled == 1 && stats.shaders_from_cache == 0);
    for (long cut = 0; cut <= 40;
         cut += 20) { /* a flipped bit, a file shorter than its header, one just above it */
        damage_files(shaders, cut);
        damage_files(pipelines, cut);
        stats = compile_one(false);
        assert_true(stats.shaders_compiled == 1 && stats.shaders_from_cache == 0);
        stats = compile_one(false);
        assert_true(stats.shaders_compiled == 0 && stats.shaders_from_cache == 1);
    }
    if (before)
        setenv("XDG_CACHE_HOME", before, 1);
    else
        unsetenv("XDG_CACHE_HOME");
    free(before);
    free(dir);
    free(shaders);
    free(pipelines);
}

static void remembers_tuning(void **state)
{
    (void)state;
    char *dir = strdup(test_temp_dir()), *tuning = test_path(dir, "terrane/tuning");
    char *old = getenv("XDG_CACHE_HOME"), *before = old ? strdup(old) : NULL;
    double value = 0;
    setenv("XDG_CACHE_HOME", dir, 1);
    trn_gpu *gpu = open_with((trn_gpu_options){0}), *other = open_with((trn_gpu_options){0});
    assert_false(trn_gpu_tuning_get(gpu, "matmul 1 2 3", &value));
    trn_gpu_tuning_set(gpu, "matmul 1 2 3", 0.1);
    trn_gpu_tuning_set(other, "other", -7);
    assert_true(trn_gpu_tuning_get(gpu, "matmul 1 2 3", &value) && value == 0.1);
    trn_gpu_close(gpu);
    trn_gpu_close(other); /* does not lose the first one's key */
    gpu = open_with((trn_gpu_options){0});
    assert_true(trn_gpu_tuning_get(gpu, "matmul 1 2 3", &value) && value == 0.1);
    assert_true(trn_gpu_tuning_get(gpu, "other", &value) && value == -7);
    trn_gpu_close(gpu);
    damage_files(tuning, 0);
    gpu = open_with((trn_gpu_options){0});
    assert_false(trn_gpu_tuning_get(gpu, "other", &value));
    trn_gpu_close(gpu);
    if (before)
        setenv("XDG_CACHE_HOME", before, 1);
    else
        unsetenv("XDG_CACHE_HOME");
    free(before);
    free(tuning);
    free(dir);
}

/* ---- faults ---- */

static void names_lost_work(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_gpu *gpu = open_with((trn_gpu_options){.fail_submission = 2, .submit_seconds = 1e-6});
    trn_gpu_buffer *x = make(gpu, 4096, "x"), *y = make(gpu, 4096, "y");
    trn_gpu_forget_speed(gpu);
    trn_program *program = grind_program(gpu, x, y, 1024, 6), *second;
    trn_status status = trn_program_run(program, NULL, &err);
    assert_trn_fails(status, TRN_ERR_DEVICE_LOST, err, "grinding");
    assert_non_null(strstr(err.message, "grind.0"));
    assert_trn_fails(trn_program_run(program, NULL, &err), TRN_ERR_DEVICE_LOST, err, "grind.0");
    assert_trn_fails(trn_gpu_write(gpu, x, 0, "abcd", 4, &err), TRN_ERR_DEVICE_LOST, err, "lost");
    assert_trn_fails(trn_program_create(gpu, "more", &second, &err), TRN_ERR_DEVICE_LOST, err, "lost");
    trn_program_destroy(program);
    trn_gpu_buffer_destroy(gpu, x);
    trn_gpu_buffer_destroy(gpu, y);
    trn_gpu_close(gpu);
}

/* Several blocks and the ring: every allocation that fails leaves nothing behind (seen by the leak checker).
 */
static trn_status allocate_some(int fail, trn_error *err)
{
    trn_gpu_options options = {.fail_allocation = fail};
    trn_gpu *gpu = NULL;
    trn_gpu_buffer *buffers[4] = {0};
    trn_status status = trn_gpu_open(&options, &gpu, err);
    for (int i = 0; status == TRN_OK && i < 4; i++)
        status = trn_gpu_buffer_create(gpu, 20u << 20, "twenty", &buffers[i], err);
    for (int i = 0; status == TRN_OK && i < 4; i++)
        status = trn_gpu_write(gpu, buffers[i], 4, "abcd", 4, err);
    for (int i = 0; i < 4; i++)
        if (buffers[i]) trn_gpu_buffer_destroy(gpu, buffers[i]);
    trn_gpu_close(gpu);
    return status;
}

static void survives_failed_allocations(void **state)
{
    (void)state;
    int failed = 0;
    for (int staged = 0; staged < 2; staged++) {
        if (staged) setenv("TERRANE_DISABLE", "unified", 1);
        for (int n = 1; n < 100; n++) {
            trn_error err = {0};
            trn_status status = allocate_some(n, &err);
            if (status == TRN_OK && n > 8) break;
            if (status == TRN_OK) continue; /* a block made on the second try, of the bare need */
            assert_int_equal(status, TRN_ERR_MEMORY);
            assert_non_null(strstr(err.message, "VK_ERROR_OUT_OF_DEVICE_MEMORY"));
            failed++;
            assert_true(n < 99);
        }
    }
    unsetenv("TERRANE_DISABLE");
    assert_true(failed > 0);
}

static void validates(void **state)
{
    (void)state;
    on_each(check_chain, (trn_gpu_options){.validation = true});
    on_each(check_memory, (trn_gpu_options){.validation = true});
    on_each(check_macros, (trn_gpu_options){.validation = true});
    on_each(check_profile, (trn_gpu_options){.validation = true});
}

/* More shared memory than any device has is refused before a driver sees it. */
static void refuses_too_much_shared_memory(void **state)
{
    (void)state;
    static const char text[] = "#define BUFFERS(B) B(0, Float, x)\n#define SCALARS uint count;\n"
                               "#include \"terrane.glsl\"\nlayout(local_size_x = 64) in;\n"
                               "shared float big[100000000];\nvoid main() {\n"
                               "    big[gl_LocalInvocationIndex] = AT(x, p.count);\n    barrier();\n"
                               "    AT(x, 0) = big[p.count];\n}\n";
    trn_error err = {0};
    const trn_kernel *kernel;
    trn_gpu *gpu = open_with((trn_gpu_options){0});
    trn_kernel_desc desc = {.shader = "greedy", .buffers = 1, .scalars = 1};
    trn_status status = trn_gpu_kernel_from_text(gpu, &desc, text, &kernel, &err);
    assert_trn_fails(status, TRN_ERR_UNSUPPORTED, err, "400000000 bytes of shared memory");
    trn_gpu_close(gpu);
}

/* A device that $TERRANE_LIMIT makes weaker shows it, and kernels that need more are refused. */
static void weaker_devices_are_weaker(void **state)
{
    (void)state;
    static const char shuffles[] =
        "#define BUFFERS(B) B(0, Float, x)\n#define SCALARS uint count;\n#include \"terrane.glsl\"\n"
        "#extension GL_KHR_shader_subgroup_shuffle : require\nlayout(local_size_x = 64) in;\nvoid main() {\n"
        "    AT(x, 0) = subgroupShuffle(AT(x, p.count), 0u);\n}\n";
    trn_error err = {0};
    trn_gpu *gpu = NULL;
    const trn_kernel *kernel;
    trn_gpu_buffer *buffer;
    setenv("TERRANE_LIMIT", "shared-memory=1K,what=3", 1);
    assert_trn_fails(trn_gpu_open(NULL, &gpu, &err), TRN_ERR_ARGUMENT, err, "what=3");
    setenv("TERRANE_LIMIT",
           "shared-memory=16K, group=128,storage-range=16M,memory=64M,subgroup-operations=0,int64=0,"
           "subgroup-control=0,storage16=0,float16=0",
           1);
    gpu = open_with((trn_gpu_options){0});
    const trn_device_info *info = trn_gpu_info(gpu);
    assert_true(info->shared_memory_bytes <= 16384 && info->max_invocations <= 128 && !info->int64 &&
                !info->subgroup_shuffle && !info->subgroup_max && !info->storage16 && !info->float16);
    assert_true(info->max_storage_range <= 16 << 20 && info->memory_bytes <= 64 << 20);
    assert_int_equal(trn_gpu_access(gpu), TRN_ACCESS_STORAGE);
    trn_kernel_desc desc = {.shader = "shuffles", .buffers = 1, .scalars = 1};
    trn_status status = trn_gpu_kernel_from_text(gpu, &desc, shuffles, &kernel, &err);
    assert_trn_fails(status, TRN_ERR_UNSUPPORTED, err, "subgroup shuffles");
    assert_trn_fails(trn_gpu_buffer_create(gpu, 80 << 20, "large", &buffer, &err), TRN_ERR_MEMORY, err,
                     "large");
    assert_true(trn_gpu_memory_available(gpu) <= 64 << 20);
    trn_gpu_close(gpu);
    unsetenv("TERRANE_LIMIT");
}

/* The messages are seen at all: another memory model, which is not asked of the device and does no harm.
 * (SwiftShader ends the process on what it does not know, such as double precision.) */
static void reports_validation(void **state)
{
    (void)state;
    static const char text[] = "#pragma use_vulkan_memory_model\n#define BUFFERS(B) B(0, Float, x)\n"
                               "#define SCALARS uint count;\n#include \"terrane.glsl\"\n"
                               "layout(local_size_x = 64) in;\n"
                               "void main() {\n    AT(x, 0) = AT(x, p.count) * 2;\n}\n";
    trn_error err = {0};
    const trn_kernel *kernel;
    const char *outer = getenv("TERRANE_VALIDATE"); /* "abort" would end this test, whose message is wanted */
    char kept[16];
    snprintf(kept, sizeof kept, "%s", outer ? outer : "");
    if (outer) setenv("TERRANE_VALIDATE", "1", 1);
    setenv("TERRANE_DISABLE", "coopmat", 1); /* which ask for it */
    trn_gpu *gpu = open_with((trn_gpu_options){.validation = true});
    unsetenv("TERRANE_DISABLE");
    trn_kernel_desc desc = {.shader = "wrong", .buffers = 1, .scalars = 1};
    trn_status status = trn_gpu_kernel_from_text(gpu, &desc, text, &kernel, &err);
    assert_trn_fails(status, TRN_ERR_INTERNAL, err, "validation");
    assert_true(trn_gpu_get_stats(gpu).validation_messages > 0);
    trn_gpu_close(gpu);
    if (outer) setenv("TERRANE_VALIDATE", kept, 1);
}

/* A shader that takes more than its description says would read what nobody set. */
static void check_mismatch(trn_gpu *gpu)
{
    trn_error err = {0};
    const trn_kernel *kernel;
    trn_kernel_desc desc = axpy_desc();
    desc.scalars = 1;
    assert_trn_fails(trn_gpu_kernel_from_text(gpu, &desc, axpy_text, &kernel, &err), TRN_ERR_INTERNAL, err,
                     "of its description");
    desc = axpy_desc();
    desc.buffers = 1;
    assert_trn_fails(trn_gpu_kernel_from_text(gpu, &desc, axpy_text, &kernel, &err), TRN_ERR_INTERNAL, err,
                     "its description");
    assert_null(kernel);
}

static void refuses_mismatches(void **state)
{
    (void)state;
    on_each(check_mismatch, (trn_gpu_options){0});
}

static void knows_switches(void **state)
{
    (void)state;
    setenv("TERRANE_DISABLE", "fp16,address", 1);
    assert_true(trn_gpu_disabled("fp16") && trn_gpu_disabled("address"));
    assert_false(trn_gpu_disabled("fp1") || trn_gpu_disabled("coopmat") || trn_gpu_disabled("addresses"));
    trn_gpu *gpu = open_with((trn_gpu_options){0});
    unsetenv("TERRANE_DISABLE");
    assert_int_equal(trn_gpu_access(gpu), TRN_ACCESS_STORAGE);
    assert_false(trn_gpu_info(gpu)->float16);
    trn_gpu_close(gpu);
}

/* Two devices open at once do not disturb each other. */
static void opens_twice(void **state)
{
    (void)state;
    trn_gpu *one = open_with((trn_gpu_options){0}), *two = open_with((trn_gpu_options){0});
    check_chain(two);
    trn_gpu_close(two);
    check_chain(one);
    trn_gpu_close(one);
}

#ifdef __SANITIZE_ADDRESS__
/* Never closed: a driver that is unloaded takes its globals along, and then what they held looks leaked. */
static trn_gpu *keeps_driver_loaded;
#endif

int main(void)
{
#ifdef __SANITIZE_ADDRESS__
    if (trn_gpu_open(NULL, &keeps_driver_loaded, NULL) != TRN_OK) return 1;
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(enumerates),
        cmocka_unit_test(names_devices),
        cmocka_unit_test(says_what_to_install),
        cmocka_unit_test(knows_switches),
        cmocka_unit_test(copies),
        cmocka_unit_test(cuts_blocks),
        cmocka_unit_test(refuses_what_does_not_fit),
        cmocka_unit_test(orders_dependent_work),
        cmocka_unit_test(places_barriers),
        cmocka_unit_test(queues_up),
        cmocka_unit_test(splits_long_work),
        cmocka_unit_test(profiles),
        cmocka_unit_test(stops_on_request),
        cmocka_unit_test(refuses_wrong_dispatches),
        cmocka_unit_test(refuses_wrong_kernels),
        cmocka_unit_test(reads_texels),
        cmocka_unit_test(refuses_mismatches),
        cmocka_unit_test(passes_macros),
        cmocka_unit_test(caches_shaders),
        cmocka_unit_test(remembers_tuning),
        cmocka_unit_test(names_lost_work),
        cmocka_unit_test(survives_failed_allocations),
        cmocka_unit_test(validates),
        cmocka_unit_test(refuses_too_much_shared_memory),
        cmocka_unit_test(weaker_devices_are_weaker),
        cmocka_unit_test(reports_validation),
        cmocka_unit_test(opens_twice),
    };
    return cmocka_run_group_tests_name("gpu", tests, NULL, NULL);
}
