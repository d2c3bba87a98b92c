// Rows of q, k, v and their like as the kernels of any GPU read and write them: four channels at a time, HEAD4 times, with
// zeros behind the head. After attention.glsl, with HEAD and WORKERS defined. VEC4: every row begins at a multiple of four elements,
// and the head size is one, so that four come at once.
#define HEAD4 ((HEAD + 3) / 4)
const uint STEP4 = HEAD4 | 1; // rows of a tile in shared memory, in vec4s: odd steps spread over the banks

#ifdef VEC4
#define ROW4(name, start, d) VALUE4(name, (start) / 4u + (d))
#define PUT_ROW4(name, start, d, value) STORE4(name, (start) / 4u + (d), value);
#else
#if HEAD % 4 == 0
#define IN_HEAD(d, i, value) value
#else
#define IN_HEAD(d, i, value) (4u * (d) + i < HEAD ? value : 0.0)
#endif
#define ROW4(name, start, d)                                                                                  \
    vec4(IN_HEAD(d, 0u, VALUE(name, (start) + 4u * (d))),                                                 \
         IN_HEAD(d, 1u, VALUE(name, (start) + 4u * (d) + 1u)),                                            \
         IN_HEAD(d, 2u, VALUE(name, (start) + 4u * (d) + 2u)),                                            \
         IN_HEAD(d, 3u, VALUE(name, (start) + 4u * (d) + 3u)))
#define PUT_ROW4(name, start, d, value)                                                                       \
    [[unroll]] for (uint i_ = 0; i_ < 4; i_++) {                                                              \
        if (4u * (d) + i_ < HEAD) STORE(name, (start) + 4u * (d) + i_, (value)[i_]);                            \
    }
#endif

// A tile of `size` rows on its way to shared memory, in registers: fetched while something else is computed. Its
// invocations are numbered `worker`, of WORKERS. With DIRECT it goes there at once, when it is kept: for few registers.
#ifdef DIRECT
#define COMING(parts, size)
#define FETCH(parts, size, name, base, step, first, rows)                                                     \
    {                                                                                                         \
    }
#define KEEP(parts, size, tile, tile_base, name, base, step, first, rows)                                     \
    [[dont_unroll]] for (uint t_ = worker; t_ < size * HEAD4; t_ += WORKERS) {                                \
        uint r_ = min((first) + t_ / HEAD4, (rows) - 1u);                                                     \
        tile[tile_base + t_ / HEAD4 * STEP4 + t_ % HEAD4] = ROW4(name, base + r_ * step, t_ % HEAD4);         \
    }
#else
#define PARTS(size) ((size * HEAD4 + WORKERS - 1) / WORKERS)
#define COMING(parts, size) vec4 parts[PARTS(size)];
#define FETCH(parts, size, name, base, step, first, rows)                                                     \
    [[unroll]] for (uint t_ = 0; t_ < PARTS(size); t_++) {                                                    \
        uint at_ = min(worker + t_ * WORKERS, size * HEAD4 - 1), r_ = min((first) + at_ / HEAD4, (rows) - 1u); \
        parts[t_] = ROW4(name, base + r_ * step, at_ % HEAD4);                                                \
    }
#define KEEP(parts, size, tile, tile_base, name, base, step, first, rows)                                     \
    [[unroll]] for (uint t_ = 0; t_ < PARTS(size); t_++) {                                                    \
        uint at_ = worker + t_ * WORKERS;                                                                     \
        if (at_ < size * HEAD4) tile[tile_base + at_ / HEAD4 * STEP4 + at_ % HEAD4] = parts[t_];              \
    }
#endif
