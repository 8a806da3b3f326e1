/* The resample of the matrix path: every pixel of a row is blended of four of the region, at its own place;
 * of sixteen, in warp_cubic.c, where it is bicubic.
 *
 * Line by line: first the places of its pixels, in whole numbers of 1/256 px, then the pixels. Places
 * are computed in float32 by the operations of augd/pixels/warp_opencv.py, one for one, so that they are
 * those of NumPy. From there on all is whole numbers: weights of 8 bits for each axis, sums of
 * 24 bits, and one rounding to nearest, halves to even, as OpenCV 5 rounds its float32.
 *
 * Vectors blend eight pixels together. Where the taps of all eight lie inside the region they are read
 * where they are; else each pixel's taps are first moved inside by the fill, and put side by side. Only
 * then may a place be outside the limits.
 */
#include "buffer.h"
#include "warp.h"

#include <float.h>
#include <string.h>

#if AUGD_HAS_AVX2_CODE
#include <immintrin.h>
#endif

#if FLT_EVAL_METHOD != 0
#error "places must be computed in float32, neither wider nor narrower"
#endif

enum {
    GROUP = 8,               /* output pixels, made at a time */
    HALF_LEVEL = 1 << (2 * PLACE_BITS - 1),
};

/* Between 1 << 15 and 1 << 16 a float32 has steps of 1/256, and its bits count them: those of a sum,
 * less ROUNDER's, are a place. For numbers beyond they are some other place, which does no harm. */
static const float ROUNDER = 1.5f * (1 << 15);
static const uint32_t ROUNDER_BITS = 0x47400000;

/* What may be asked of whole pixels, so that their steps fit 32 bits. */
static const double LARGEST_WHOLE = 1 << 21;

/* What is known of one line, padded to whole groups: the last pixel again. */
typedef struct {
    float *across[2]; /* the part of each column, the same for all lines */
    float *at[2];     /* x and y, until they are places */
    int32_t *place[2];
    int32_t *offset, *weights[2]; /* for vectors: see weigh_line */
    uint8_t *is_inside;           /* of each group */
} Line;

static int round_up(int width) { return (width + GROUP - 1) / GROUP * GROUP; }

static bool prepare_line(Line *line, int width) {
    enum { NUM_FLOATS = 4, NUM_INTS = 5 };
    static _Thread_local AugdBuffer kept;
    const size_t padded = (size_t)round_up(width);
    float *floats =
        augd_grow_buffer(&kept, padded * (NUM_FLOATS * sizeof(float) + NUM_INTS * sizeof(int32_t) + 1));
    if (!floats) return false;
    int32_t *ints = (int32_t *)(floats + NUM_FLOATS * padded);
    *line = (Line){.across = {floats, floats + padded},
                   .at = {floats + 2 * padded, floats + 3 * padded},
                   .place = {ints, ints + padded},
                   .offset = ints + 2 * padded,
                   .weights = {ints + 3 * padded, ints + 4 * padded},
                   .is_inside = (uint8_t *)(ints + NUM_INTS * padded)};
    return true;
}

/* The middle of output pixel `number`, counted from the middle of the row. */
static double from_middle(int number, int size) { return number + (0.5 - size / 2.0); }

static void start_lines(const Line *line, const Warp *warp) {
    for (int axis = 0; axis < 2; axis++)
        for (int x = 0; x < warp->width; x++)
            line->across[axis][x] =
                (float)(from_middle(x, warp->width) * warp->steps[axis][0]);
}

static uint32_t whole_steps(double pixels) {
    const double most = pixels < LARGEST_WHOLE ? pixels : LARGEST_WHOLE; /* also for no number */
    return (uint32_t)(int32_t)(most > -LARGEST_WHOLE ? most : -LARGEST_WHOLE) * STEPS;
}

/* Find where the pixels of a line are read. Inlined for each kind of vectors: loops of plain floats. */
static inline __attribute__((always_inline)) void place_line(const Line *line,
                                                             const Warp *warp, int y) {
    const int width = warp->width;
    const size_t start = (size_t)y * (size_t)width;
    const bool is_warped = warp->grid || warp->field;
    for (int axis = 0; axis < 2; axis++) {
        const float *restrict across = line->across[axis];
        float *restrict at = line->at[axis];
        int32_t *restrict place = line->place[axis];
        const double *steps = warp->steps[axis];
        const float centre = (float)warp->centre[axis];
        const float down = (float)(from_middle(y, warp->height) * steps[1] +
                                   (is_warped ? 0.0 : warp->centre[axis]));
        for (int x = 0; x < width; x++) at[x] = across[x] + down;
        if (warp->grid) {
            const float *restrict grid = warp->grid + start;
            const float lens = (float)warp->lens;
            for (int x = 0; x < width; x++) at[x] *= grid[x] * lens + 1.0f;
        }
        for (int of = 0; warp->field && of < 2; of++) {
            const float *restrict field =
                warp->field + (size_t)of * (size_t)warp->height * (size_t)width + start;
            const float factor = (float)(steps[of] * warp->field_scale);
            for (int x = 0; x < width; x++) at[x] += field[x] * factor;
        }
        if (is_warped)
            for (int x = 0; x < width; x++) at[x] += centre;
        const uint32_t whole = whole_steps(warp->whole[axis]) - ROUNDER_BITS;
        for (int x = 0; x < width; x++) {
            const float rounded = at[x] + ROUNDER;
            uint32_t steps_up;
            memcpy(&steps_up, &rounded, sizeof steps_up);
            place[x] = (int32_t)(steps_up + whole);
        }
        for (int x = width; x < round_up(width); x++) place[x] = place[width - 1];
    }
}

/* one pixel, anywhere */

/* The four taps of a pixel, by line and column. */
typedef struct {
    const uint8_t *upper[2], *lower[2];
} Taps;

static inline Taps find_taps(const Image *source, const Warp *warp, int x, int y) {
    const uint8_t *const data = source->data;
    const ptrdiff_t stride = source->stride;
    const bool is_inside =
        (unsigned)x < (unsigned)source->width - 1 && (unsigned)y < (unsigned)source->height - 1;
    if (__builtin_expect(is_inside, 1)) {
        const uint8_t *first = data + y * stride + (ptrdiff_t)x * AUGD_CHANNELS;
        return (Taps){{first, first + AUGD_CHANNELS},
                      {first + stride, first + stride + AUGD_CHANNELS}};
    }
    const int left = bring_back(x, source->width, warp->fill);
    const int right = bring_back(x + 1, source->width, warp->fill);
    const int upper = bring_back(y, source->height, warp->fill);
    const int lower = bring_back(y + 1, source->height, warp->fill);
    const uint8_t *const fill = warp->fill_value;
    const uint8_t *const above = upper < 0 ? NULL : data + upper * stride;
    const uint8_t *const below = lower < 0 ? NULL : data + lower * stride;
    return (Taps){{above && left >= 0 ? above + left * AUGD_CHANNELS : fill,
                   above && right >= 0 ? above + right * AUGD_CHANNELS : fill},
                  {below && left >= 0 ? below + left * AUGD_CHANNELS : fill,
                   below && right >= 0 ? below + right * AUGD_CHANNELS : fill}};
}

static inline void blend_pixel(uint8_t *out, const Image *source, const Warp *warp,
                               int32_t place_x, int32_t place_y) {
    const Taps taps = find_taps(source, warp, place_x >> PLACE_BITS, place_y >> PLACE_BITS);
    const int32_t right = place_x & (STEPS - 1), low = place_y & (STEPS - 1);
    const int32_t lower_right = right * low, lower_left = STEPS * low - lower_right;
    const int32_t upper_right = STEPS * right - lower_right;
    const int32_t upper_left = STEPS * STEPS - STEPS * low - upper_right;
    for (int of = 0; of < AUGD_CHANNELS; of++) {
        const int32_t sum = taps.upper[0][of] * upper_left + taps.upper[1][of] * upper_right +
                            taps.lower[0][of] * lower_left + taps.lower[1][of] * lower_right;
        const int32_t is_odd = sum >> 2 * PLACE_BITS & 1;
        out[of] = (uint8_t)((sum + HALF_LEVEL - 1 + is_odd) >> 2 * PLACE_BITS);
    }
}

/* Set the pixels of `count` places that are outside the limits to the fill's value. */
static inline void fill_outside(uint8_t *out, const Warp *warp, const int32_t *x, const int32_t *y,
                                int count) {
    for (int number = 0; number < count; number++)
        if (is_outside(warp, x[number], y[number]))
            memcpy(out + number * AUGD_CHANNELS, warp->fill_value, AUGD_CHANNELS);
}

static void blend_portably(uint8_t *out, const Image *source, const Warp *warp,
                           const int32_t *x, const int32_t *y, int count) {
    for (int number = 0; number < count; number++)
        blend_pixel(out + number * AUGD_CHANNELS, source, warp, x[number], y[number]);
    fill_outside(out, warp, x, y, count);
}

static void warp_portably(const Image *source, const Warp *warp, const Line *line,
                          uint8_t *out) {
    for (int y = 0; y < warp->height; y++, out += warp->width * AUGD_CHANNELS) {
        place_line(line, warp, y);
        blend_portably(out, source, warp, line->place[0], line->place[1], warp->width);
    }
}

#if AUGD_HAS_AVX2_CODE

/* Of each pixel eight bytes are read in two lines: its two pixels of three, and two more. */
enum { TAP_PIXELS = 3, GROUP_BYTES = GROUP * AUGD_CHANNELS, WRITTEN_BYTES = 28 };

/* Turn the places of a line, a group at a time, into what blending needs: where the upper left taps
 * are, and weights as pairs of 16 bits: left and right of the columns, the lower line's twice. */
AUGD_AVX2 static void weigh_line(const Line *line, const Image *source, int width) {
    /* As unsigned numbers, places before the region are larger than any inside. */
    const __m256i last_x = _mm256_set1_epi32(source->width - TAP_PIXELS);
    const __m256i last_y = _mm256_set1_epi32(source->height - 2);
    const __m256i stride = _mm256_set1_epi32((int32_t)source->stride);
    const __m256i channels = _mm256_set1_epi32(AUGD_CHANNELS), all = _mm256_set1_epi32(STEPS);
    const __m256i fraction = _mm256_set1_epi32(STEPS - 1);
    for (int x = 0; x < width; x += GROUP) {
        const __m256i at_x = _mm256_loadu_si256((const __m256i *)(line->place[0] + x));
        const __m256i at_y = _mm256_loadu_si256((const __m256i *)(line->place[1] + x));
        const __m256i left = _mm256_srai_epi32(at_x, PLACE_BITS);
        const __m256i upper = _mm256_srai_epi32(at_y, PLACE_BITS);
        const __m256i right_part = _mm256_and_si256(at_x, fraction);
        const __m256i low_part = _mm256_and_si256(at_y, fraction);
        const __m256i inside = _mm256_and_si256(
            _mm256_cmpeq_epi32(_mm256_min_epu32(left, last_x), left),
            _mm256_cmpeq_epi32(_mm256_min_epu32(upper, last_y), upper));
        line->is_inside[x / GROUP] = _mm256_movemask_epi8(inside) == -1;
        const __m256i offset = _mm256_add_epi32(_mm256_mullo_epi32(upper, stride),
                                                _mm256_mullo_epi32(left, channels));
        _mm256_storeu_si256((__m256i *)(line->offset + x), offset);
        _mm256_storeu_si256((__m256i *)(line->weights[0] + x),
                            _mm256_or_si256(_mm256_sub_epi32(all, right_part),
                                            _mm256_slli_epi32(right_part, 16)));
        _mm256_storeu_si256((__m256i *)(line->weights[1] + x),
                            _mm256_or_si256(low_part, _mm256_slli_epi32(low_part, 16)));
    }
}

/* The taps of one pixel: the upper line's eight bytes, then the lower line's. */
AUGD_AVX2 static inline __m128i read_taps(const uint8_t *at, ptrdiff_t stride) {
    return _mm_unpacklo_epi64(_mm_loadl_epi64((const __m128i *)at),
                              _mm_loadl_epi64((const __m128i *)(at + stride)));
}

/* Two pixels, one in each lane, to levels in 32 bits: R G B 0. */
AUGD_AVX2 static inline __m256i blend_two(__m256i taps, __m256i across, __m256i down) {
    /* The upper line's bytes times 256, left beside right; and each with the one below it. */
    const __m256i upper_alone = _mm256_setr_epi8(
        -1, 0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1,
        -1, 0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1);
    const __m256i both_lines = _mm256_setr_epi8(
        0, 8, 3, 11, 1, 9, 4, 12, 2, 10, 5, 13, -1, -1, -1, -1,
        0, 8, 3, 11, 1, 9, 4, 12, 2, 10, 5, 13, -1, -1, -1, -1);
    const __m256i lower_less_upper = _mm256_set1_epi16(0x01FF);
    const __m256i upper = _mm256_shuffle_epi8(taps, upper_alone);
    const __m256i apart =
        _mm256_maddubs_epi16(_mm256_shuffle_epi8(taps, both_lines), lower_less_upper);
    /* 0..255 * 256: 16 bits without a sign, where the product alone would not fit. For `madd` they
     * get one: 1 << 15 less, which times 256 is 1 << 23 less in the sum. */
    const __m256i columns = _mm256_xor_si256(
        _mm256_add_epi16(upper, _mm256_mullo_epi16(apart, down)), _mm256_set1_epi16(INT16_MIN));
    const __m256i sum = _mm256_madd_epi16(columns, across);
    const __m256i is_odd =
        _mm256_and_si256(_mm256_srli_epi32(sum, 2 * PLACE_BITS), _mm256_set1_epi32(1));
    const __m256i rounding = _mm256_set1_epi32((1 << 23) + HALF_LEVEL - 1);
    return _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(sum, rounding), is_odd),
                             2 * PLACE_BITS);
}

/* Two pixels, four apart. */
AUGD_AVX2 static inline __m256i read_two(const uint8_t *data, ptrdiff_t stride,
                                         const int32_t *offset) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(read_taps(data + offset[0], stride)),
                                   read_taps(data + offset[4], stride), 1);
}

/* Eight pixels whose taps lie at these offsets of `data`. Writes WRITTEN_BYTES for GROUP_BYTES. */
AUGD_AVX2 static inline void blend_group(uint8_t *out, const uint8_t *data, ptrdiff_t stride,
                                         const int32_t *offset, const Line *line, int x) {
    const __m256i drop_fourth = _mm256_setr_epi8(
        0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1,
        0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
    const __m256i across = _mm256_loadu_si256((const __m256i *)(line->weights[0] + x));
    const __m256i down = _mm256_loadu_si256((const __m256i *)(line->weights[1] + x));
    const __m256i pixel0 =
        blend_two(read_two(data, stride, offset), _mm256_shuffle_epi32(across, 0x00),
                  _mm256_shuffle_epi32(down, 0x00));
    const __m256i pixel1 =
        blend_two(read_two(data, stride, offset + 1), _mm256_shuffle_epi32(across, 0x55),
                  _mm256_shuffle_epi32(down, 0x55));
    const __m256i pixel2 =
        blend_two(read_two(data, stride, offset + 2), _mm256_shuffle_epi32(across, 0xAA),
                  _mm256_shuffle_epi32(down, 0xAA));
    const __m256i pixel3 =
        blend_two(read_two(data, stride, offset + 3), _mm256_shuffle_epi32(across, 0xFF),
                  _mm256_shuffle_epi32(down, 0xFF));
    const __m256i bytes = _mm256_shuffle_epi8(
        _mm256_packus_epi16(_mm256_packs_epi32(pixel0, pixel1), _mm256_packs_epi32(pixel2, pixel3)),
        drop_fourth);
    _mm_storeu_si128((__m128i *)out, _mm256_castsi256_si128(bytes));
    _mm_storeu_si128((__m128i *)(out + GROUP_BYTES / 2), _mm256_extracti128_si256(bytes, 1));
}

static inline uint64_t pixel_bits(const uint8_t *pixel) {
    uint16_t red_green;
    memcpy(&red_green, pixel, sizeof red_green);
    return (uint64_t)pixel[2] << 16 | red_green;
}

/* Two pixels, side by side as in a line of the source; x86 has its lowest byte first. */
static inline uint64_t join(const uint8_t *left, const uint8_t *right) {
    return pixel_bits(right) << 8 * AUGD_CHANNELS | pixel_bits(left);
}

/* Set eight pixels to the fill's value if all of their places are outside the limits. */
static inline bool fill_group(uint8_t *out, const Warp *warp, const int32_t *x, const int32_t *y) {
    for (int number = 0; number < GROUP; number++)
        if (!is_outside(warp, x[number], y[number])) return false;
    for (int number = 0; number < GROUP; number++)
        memcpy(out + number * AUGD_CHANNELS, warp->fill_value, AUGD_CHANNELS);
    return true;
}

/* Eight pixels of which some have taps outside: all of them are put together first. */
AUGD_AVX2 static inline void blend_outside(uint8_t *out, const Image *source,
                                           const Warp *warp, const Line *line, int x) {
    enum { LINE_BYTES = sizeof(uint64_t), PIXEL_BYTES = 2 * LINE_BYTES };
    static const int32_t offset[GROUP] = {0 * PIXEL_BYTES, 1 * PIXEL_BYTES, 2 * PIXEL_BYTES,
                                          3 * PIXEL_BYTES, 4 * PIXEL_BYTES, 5 * PIXEL_BYTES,
                                          6 * PIXEL_BYTES, 7 * PIXEL_BYTES};
    if (fill_group(out, warp, line->place[0] + x, line->place[1] + x)) return;
    uint64_t pairs[2 * GROUP];
    for (int number = 0; number < GROUP; number++) {
        const Taps taps = find_taps(source, warp, line->place[0][x + number] >> PLACE_BITS,
                                    line->place[1][x + number] >> PLACE_BITS);
        pairs[2 * number] = join(taps.upper[0], taps.upper[1]);
        pairs[2 * number + 1] = join(taps.lower[0], taps.lower[1]);
    }
    blend_group(out, (const uint8_t *)pairs, LINE_BYTES, offset, line, x);
    fill_outside(out, warp, line->place[0] + x, line->place[1] + x, GROUP);
}

/* Whether a place whose taps are all in the region may be outside the limits. No plan has such. */
static bool cuts(const Warp *warp, const Image *source) {
    const int(*limits)[2] = warp->limits;
    return limits[0][0] > 0 || limits[0][1] < (source->width - TAP_PIXELS + 1) * STEPS ||
           limits[1][0] > 0 || limits[1][1] < (source->height - 1) * STEPS;
}

AUGD_AVX2 static void warp_by_avx2(const Image *source, const Warp *warp, const Line *line,
                                   uint8_t *out) {
    const int width = warp->width;
    const bool is_cut = cuts(warp, source);
    for (int y = 0; y < warp->height; y++, out += width * AUGD_CHANNELS) {
        place_line(line, warp, y);
        weigh_line(line, source, width);
        for (int x = 0; x < width; x += GROUP) {
            uint8_t *to = out + x * AUGD_CHANNELS, last[WRITTEN_BYTES];
            const bool fits = (width - x) * AUGD_CHANNELS >= WRITTEN_BYTES;
            uint8_t *group = fits ? to : last;
            if (line->is_inside[x / GROUP] && !is_cut)
                blend_group(group, source->data, source->stride, line->offset + x, line, x);
            else
                blend_outside(group, source, warp, line, x);
            if (!fits) memcpy(to, last, (size_t)(width - x) * AUGD_CHANNELS);
        }
    }
}

/* Vectors need taps of three columns and two lines, and offsets of 32 bits. */
static bool suits_vectors(const Image *source) {
    const ptrdiff_t apart = source->stride < 0 ? -source->stride : source->stride;
    return source->width >= TAP_PIXELS && source->height >= 2 &&
           apart <= INT32_MAX / (source->height + 1);
}

#endif

bool augd_warp(Image source, const Warp *warp, uint8_t *out) {
    Line line;
    if (!prepare_line(&line, warp->width)) return false;
    start_lines(&line, warp);
    if (warp->is_bicubic) {
        for (int y = 0; y < warp->height; y++, out += warp->width * AUGD_CHANNELS) {
            place_line(&line, warp, y);
            augd_blend_cubics(out, &source, warp, line.place[0], line.place[1], warp->width);
        }
        return true;
    }
#if AUGD_HAS_AVX2_CODE
    if (augd_use_avx2() && suits_vectors(&source)) {
        warp_by_avx2(&source, warp, &line, out);
        return true;
    }
#endif
    warp_portably(&source, warp, &line, out);
    return true;
}

#if AUGD_HAS_AVX2_CODE
/* Which of GROUP places are outside the limits: a bit for each. */
AUGD_AVX2 static inline unsigned find_outside(const Warp *warp, const int32_t *at_x,
                                              const int32_t *at_y) {
    const int(*limits)[2] = warp->limits;
    const __m256i x = _mm256_loadu_si256((const __m256i *)at_x);
    const __m256i y = _mm256_loadu_si256((const __m256i *)at_y);
    const __m256i before = _mm256_or_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(limits[0][0]), x),
                                           _mm256_cmpgt_epi32(_mm256_set1_epi32(limits[1][0]), y));
    const __m256i inside = _mm256_and_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(limits[0][1]), x),
                                            _mm256_cmpgt_epi32(_mm256_set1_epi32(limits[1][1]), y));
    const __m256i outside = _mm256_or_si256(before, _mm256_xor_si256(inside, _mm256_set1_epi32(-1)));
    return (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(outside));
}

AUGD_AVX2 static void refill_by_avx2(const Line *line, const Warp *warp, uint8_t *out) {
    const int width = warp->width;
    for (int y = 0; y < warp->height; y++, out += width * AUGD_CHANNELS) {
        place_line(line, warp, y);
        for (int x = 0; x < width; x += GROUP) {
            unsigned found = find_outside(warp, line->place[0] + x, line->place[1] + x);
            if (width - x < GROUP) found &= (1U << (width - x)) - 1;
            for (uint8_t *to = out + x * AUGD_CHANNELS; found; found >>= 1, to += AUGD_CHANNELS)
                if (found & 1) memcpy(to, warp->fill_value, AUGD_CHANNELS);
        }
    }
}
#endif

bool augd_refill(const Warp *warp, uint8_t *out) {
    Line line;
    if (!prepare_line(&line, warp->width)) return false;
    start_lines(&line, warp);
#if AUGD_HAS_AVX2_CODE
    if (augd_use_avx2()) {
        refill_by_avx2(&line, warp, out);
        return true;
    }
#endif
    for (int y = 0; y < warp->height; y++, out += warp->width * AUGD_CHANNELS) {
        place_line(&line, warp, y);
        fill_outside(out, warp, line.place[0], line.place[1], warp->width);
    }
    return true;
}
