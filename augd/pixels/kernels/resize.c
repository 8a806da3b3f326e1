/* Separable resize of a region straight into a row of a slot, in whole numbers.
 *
 * Columns first, then rows of pixels: for every output row, the source rows under it are summed to
 * one line of 16-bit numbers, 7 bits of them behind the point, and this line is then summed to pixels. The
 * larger the reduction, the more this saves against the other order, which would filter each source
 * row along its length. Only the window is made, and mirroring is the order of the weights.
 *
 * Weights have 14 bits and sum to exactly 1: they are differences of rounded sums, so that a flat
 * area keeps its level and rounding doesn't gather anywhere. No sum leaves 32 bits.
 *
 * The bicubic filter has negative lobes, so that sums leave 0..255 on both sides. Its lines hold levels
 * less 128, which leaves room for -128..383, and pixels alone are clipped. Its taps are many: each product
 * is rounded to the line's 7 bits, so that 16 bits are enough to add them up. That is within a 40th of a
 * level for six taps.
 *
 * Source: Pillow, `Resample.c`, for the filters and where their taps lie; half-pixel centres. Keys
 * 1981, "Cubic convolution interpolation", for the cubic, whose a is -1/2.
 */
#include "buffer.h"
#include "resize.h"

#include <stdlib.h>
#include <string.h>

#if AUGD_HAS_AVX2_CODE
#include <immintrin.h>
#endif

#define INLINED inline __attribute__((always_inline))

enum {
    WEIGHT_BITS = 14,
    WEIGHT_SUM = 1 << WEIGHT_BITS,
    LINE_BITS = 7,
    DOWN_SHIFT = WEIGHT_BITS - LINE_BITS, /* 255 << LINE_BITS fits 15 bits */
    ACROSS_SHIFT = WEIGHT_BITS + LINE_BITS,
    MIDDLE = 128, /* level 0 of a bicubic line */
    PADDING = 64,    /* samples that vectors may read or write beyond a line */
    SAMPLES = 32,    /* of a line, made at a time */
    GROUP = 4,       /* output pixels, made at a time */
    FETCH_AHEAD = 2, /* output rows whose source lines are on their way */
    PAIRS_SIZE = 16, /* of two output pixels: two weights four times, for each */
};

/* Outputs are made in groups. Those beyond the last have the first tap and no weight. */
static int round_up(int num_outputs) { return (num_outputs + GROUP - 1) / GROUP * GROUP; }

static double smaller(double a, double b) { return a < b ? a : b; }
static double larger(double a, double b) { return a > b ? a : b; }

static double triangle(int tap, double centre, double per_support) {
    const double distance = (tap + 0.5 - centre) * per_support;
    return larger(0.0, 1.0 - (distance < 0.0 ? -distance : distance));
}

static double cubic(int tap, double centre, double per_support) {
    const double apart = (tap + 0.5 - centre) * per_support * 2.0;
    const double x = smaller(apart < 0.0 ? -apart : apart, 2.0);
    const double near = (1.5 * x - 2.5) * x * x + 1.0;
    const double far = ((2.5 - 0.5 * x) * x - 4.0) * x + 2.0; /* 0 at 2 */
    return x < 1.0 ? near : far;
}

static double weight_of(Filter filter, int tap, double centre, double per_support) {
    return filter == AUGD_BICUBIC ? cubic(tap, centre, per_support)
                                  : triangle(tap, centre, per_support);
}

static int to_nearest(double number) {
    return number < 0.0 ? -(int)(0.5 - number) : (int)(number + 0.5);
}

/* Write the weights of the taps [first, end) under a filter of half width `support`. */
static INLINED void weigh(int16_t *weights, int first, int end, double centre, double support,
                          Filter filter) {
    enum { NUM_KEPT = 32 }; /* that need not be computed twice */
    const double per_support = 1.0 / support;
    double kept[NUM_KEPT], total = 0.0, sum = 0.0;
    for (int tap = first; tap < end; tap++) {
        const double weight = weight_of(filter, tap, centre, per_support);
        if (tap - first < NUM_KEPT) kept[tap - first] = weight;
        total += weight;
    }
    const double per_total = WEIGHT_SUM / total;
    int given = 0;
    for (int tap = first; tap < end; tap++) {
        sum += tap - first < NUM_KEPT ? kept[tap - first]
                                      : weight_of(filter, tap, centre, per_support);
        const int until_here = to_nearest(sum * per_total);
        weights[tap - first] = (int16_t)(until_here - given);
        given = until_here;
    }
}

/* The support is one source pixel where a side grows, and for the linear filter always; the cubic's is
 * twice as wide. */
static double support_of(int source_side, int scaled_side, Filter filter) {
    const double step = (double)source_side / scaled_side;
    const double scale = filter != AUGD_LINEAR && step > 1.0 ? step : 1.0;
    return filter == AUGD_BICUBIC ? 2.0 * scale : scale;
}

static int count_taps(int source_side, double support) {
    int most = (int)(2.0 * support);
    if (most < 2.0 * support) most++;
    if (most > source_side) most = source_side;
    return (most + 1) & ~1;
}

/* Fill in the taps of the outputs [start, start + num_outputs) of an axis of `scaled_side`. */
static void place_taps(AugdTaps *taps, int source_side, int scaled_side, int start, Filter filter,
                       bool mirror) {
    const double support = support_of(source_side, scaled_side, filter);
    const double step = (double)source_side / scaled_side;
    const size_t num_weights = (size_t)round_up(taps->num_outputs) * (size_t)taps->num_taps;
    memset(taps->weights, 0, sizeof *taps->weights * num_weights);
    for (int number = 0; number < taps->num_outputs; number++) {
        double centre = (start + number + 0.5) * step;
        int first = (int)larger(0.0, centre - support + 0.5);
        int end = (int)smaller(source_side, centre + support + 0.5);
        /* Rounding may add a tap at the very end of the support, where it weighs nothing. */
        if (end > first + taps->num_taps) end = first + taps->num_taps;
        int at = mirror ? taps->num_outputs - 1 - number : number;
        taps->first[at] = first;
        int16_t *weights = taps->weights + (size_t)at * (size_t)taps->num_taps;
        if (filter == AUGD_BICUBIC)
            weigh(weights, first, end, centre, support, AUGD_BICUBIC);
        else
            weigh(weights, first, end, centre, support, AUGD_ANTIALIAS);
    }
}

/* columns first: a line from the source rows under one output row */

/* The source lines under an output row. There may be fewer of them than taps. */
typedef struct {
    const uint8_t *first;
    ptrdiff_t stride;
    int count, size; /* samples of each */
} Lines;

static void sum_down_portably(int16_t *line, const Lines *source, const int16_t *weights) {
    for (int at = 0; at < source->size; at++) {
        const uint8_t *from = source->first + at;
        int32_t sum = 1 << (DOWN_SHIFT - 1);
        for (int tap = 0; tap < source->count; tap++, from += source->stride)
            sum += weights[tap] * *from;
        line[at] = (int16_t)(sum >> DOWN_SHIFT);
    }
}

/* As it is done by vectors: each product rounded. */
static void sum_cubics_down_portably(int16_t *line, const Lines *source, const int16_t *weights) {
    for (int at = 0; at < source->size; at++) {
        const uint8_t *from = source->first + at;
        int32_t sum = 0;
        for (int tap = 0; tap < source->count; tap++, from += source->stride)
            sum += (weights[tap] * (*from - MIDDLE) + (1 << (DOWN_SHIFT - 1))) >> DOWN_SHIFT;
        line[at] = (int16_t)sum;
    }
}

/* then rows: pixels from the line */

static inline uint8_t to_byte(int32_t sum) {
    const int32_t level = sum >> ACROSS_SHIFT;
    return (uint8_t)(level < 0 ? 0 : level > 255 ? 255 : level);
}

/* What a sum begins with: its rounding, and the level that a line's 0 stands for. */
static inline int32_t start_of(int line_zero) {
    return (1 << (ACROSS_SHIFT - 1)) + (line_zero << ACROSS_SHIFT);
}

static void sum_across_portably(uint8_t *out, const int16_t *line, const AugdTaps *across,
                                int line_zero) {
    for (int x = 0; x < across->num_outputs; x++) {
        const int16_t *from = line + across->first[x] * AUGD_CHANNELS;
        const int16_t *weights = across->weights + (size_t)x * (size_t)across->num_taps;
        int32_t red = start_of(line_zero), green = red, blue = red;
        for (int tap = 0; tap < across->num_taps; tap++, from += AUGD_CHANNELS) {
            red += weights[tap] * from[0];
            green += weights[tap] * from[1];
            blue += weights[tap] * from[2];
        }
        out[x * AUGD_CHANNELS] = to_byte(red);
        out[x * AUGD_CHANNELS + 1] = to_byte(green);
        out[x * AUGD_CHANNELS + 2] = to_byte(blue);
    }
}

#if AUGD_HAS_AVX2_CODE

static inline int32_t weight_pair(const int16_t *weights) {
    int32_t pair;
    memcpy(&pair, weights, sizeof pair);
    return pair;
}

/* 32 samples of two rows, interleaved to pairs and summed under a pair of weights. Unpacking and
 * packing both work within lanes, so that samples keep their order. */
AUGD_AVX2 static inline void sum_samples(int16_t *line, const uint8_t *from, const Lines *source,
                                         const int16_t *weights) {
    enum { HALF = SAMPLES / 2 };
    const __m256i rounding = _mm256_set1_epi32(1 << (DOWN_SHIFT - 1));
    __m256i sum0 = rounding, sum1 = rounding, sum2 = rounding, sum3 = rounding;
    for (int tap = 0; tap < source->count; tap += 2, from += 2 * source->stride) {
        /* The last of an odd number is paired with itself, under a weight of 0. */
        const uint8_t *below = tap + 1 < source->count ? from + source->stride : from;
        const __m256i weight = _mm256_set1_epi32(weight_pair(weights + tap));
        __m256i a = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)from));
        __m256i b = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)below));
        sum0 = _mm256_add_epi32(sum0, _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), weight));
        sum1 = _mm256_add_epi32(sum1, _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), weight));
        a = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(from + HALF)));
        b = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(below + HALF)));
        sum2 = _mm256_add_epi32(sum2, _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), weight));
        sum3 = _mm256_add_epi32(sum3, _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), weight));
    }
    _mm256_storeu_si256((__m256i *)line, _mm256_packs_epi32(_mm256_srai_epi32(sum0, DOWN_SHIFT),
                                                            _mm256_srai_epi32(sum1, DOWN_SHIFT)));
    _mm256_storeu_si256((__m256i *)(line + HALF),
                        _mm256_packs_epi32(_mm256_srai_epi32(sum2, DOWN_SHIFT),
                                           _mm256_srai_epi32(sum3, DOWN_SHIFT)));
}

/* The same for cubics, in 16 bits: a level less 128, times 256, times a weight, over 2^15, rounded. */
AUGD_AVX2 static inline void sum_cubic_samples(int16_t *line, const uint8_t *from,
                                               const Lines *source, const int16_t *weights) {
    enum { HALF = SAMPLES / 2 };
    const __m256i middle = _mm256_set1_epi8((char)MIDDLE), zero = _mm256_setzero_si256();
    __m256i sum0 = zero, sum1 = zero;
    for (int tap = 0; tap < source->count; tap++, from += source->stride) {
        const __m256i weight = _mm256_set1_epi16(weights[tap]);
        const __m256i levels =
            _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)from), middle);
        sum0 = _mm256_add_epi16(
            sum0, _mm256_mulhrs_epi16(_mm256_unpacklo_epi8(zero, levels), weight));
        sum1 = _mm256_add_epi16(
            sum1, _mm256_mulhrs_epi16(_mm256_unpackhi_epi8(zero, levels), weight));
    }
    _mm256_storeu_si256((__m256i *)line, _mm256_permute2x128_si256(sum0, sum1, 0x20));
    _mm256_storeu_si256((__m256i *)(line + HALF), _mm256_permute2x128_si256(sum0, sum1, 0x31));
}

/* The last samples are made with some before them, a second time. */
AUGD_AVX2 static void sum_down_by_avx2(int16_t *line, const Lines *source, const int16_t *weights) {
    int at = 0;
    for (; at + SAMPLES <= source->size; at += SAMPLES)
        sum_samples(line + at, source->first + at, source, weights);
    if (at < source->size) {
        at = source->size - SAMPLES;
        sum_samples(line + at, source->first + at, source, weights);
    }
}

AUGD_AVX2 static void sum_cubics_down_by_avx2(int16_t *line, const Lines *source,
                                              const int16_t *weights) {
    int at = 0;
    for (; at + SAMPLES <= source->size; at += SAMPLES)
        sum_cubic_samples(line + at, source->first + at, source, weights);
    if (at < source->size) {
        at = source->size - SAMPLES;
        sum_cubic_samples(line + at, source->first + at, source, weights);
    }
}

/* Lay out the weights across once per image, not once per row. */
static void lay_out_pairs(int16_t *pairs, const AugdTaps *across) {
    for (int x = 0; x < round_up(across->num_outputs); x += 2)
        for (int tap = 0; tap < across->num_taps; tap += 2, pairs += PAIRS_SIZE)
            for (int number = 0; number < PAIRS_SIZE; number++) {
                const int output = x + number / (PAIRS_SIZE / 2);
                pairs[number] =
                    across->weights[(size_t)output * (size_t)across->num_taps +
                                    (size_t)(tap + number % 2)];
            }
}

/* One output pixel in each lane: two taps at a time, their channels interleaved to pairs. */
AUGD_AVX2 static INLINED __m256i sum_two_pixels(const int16_t *line, const int *first,
                                                const int16_t *pairs, int num_taps,
                                                int line_zero) {
    const __m256i interleave = _mm256_setr_epi8(
        0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11, -1, -1, -1, -1,
        0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11, -1, -1, -1, -1);
    const int16_t *from = line + first[0] * AUGD_CHANNELS;
    const int16_t *next = line + first[1] * AUGD_CHANNELS;
    __m256i sum = _mm256_set1_epi32(start_of(line_zero));
    for (int tap = 0; tap < num_taps; tap += 2, pairs += PAIRS_SIZE) {
        __m256i samples = _mm256_inserti128_si256(
            _mm256_castsi128_si256(
                _mm_loadu_si128((const __m128i *)(from + tap * AUGD_CHANNELS))),
            _mm_loadu_si128((const __m128i *)(next + tap * AUGD_CHANNELS)), 1);
        __m256i weights = _mm256_loadu_si256((const __m256i *)pairs);
        sum = _mm256_add_epi32(
            sum, _mm256_madd_epi16(_mm256_shuffle_epi8(samples, interleave), weights));
    }
    return _mm256_srai_epi32(sum, ACROSS_SHIFT);
}

/* Inlined for each usual number of taps, so that the loop over them goes away. */
AUGD_AVX2 static INLINED void sum_across_taps(uint8_t *out, const int16_t *line,
                                              const AugdTaps *across, const int16_t *pairs,
                                              int num_taps, int line_zero) {
    /* Bytes R G B 0 of four pixels to twelve bytes. */
    const __m128i drop_fourth =
        _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
    const size_t step = (size_t)num_taps / 2 * PAIRS_SIZE;
    for (int x = 0; x < across->num_outputs; x += GROUP, pairs += 2 * step) {
        const int *first = across->first + x;
        __m256i both =
            _mm256_packs_epi32(sum_two_pixels(line, first, pairs, num_taps, line_zero),
                               sum_two_pixels(line, first + 2, pairs + step, num_taps, line_zero));
        /* 64-bit quarters hold pixels 0, 2 | 1, 3: to 0, 1, 2, 3 */
        both = _mm256_permute4x64_epi64(both, 0xD8);
        const __m128i bytes = _mm_shuffle_epi8(
            _mm_packus_epi16(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1)),
            drop_fourth);
        uint8_t *to = out + x * AUGD_CHANNELS;
        if (x + 6 <= across->num_outputs) { /* 16 bytes are written for 12 */
            _mm_storeu_si128((__m128i *)to, bytes);
        } else {
            uint8_t last[16];
            const int num_left = across->num_outputs - x;
            _mm_storeu_si128((__m128i *)last, bytes);
            memcpy(to, last, (size_t)(num_left < GROUP ? num_left : GROUP) * AUGD_CHANNELS);
        }
    }
}

AUGD_AVX2 static void sum_across_by_avx2(uint8_t *out, const int16_t *line, const AugdTaps *across,
                                         const int16_t *pairs) {
    switch (across->num_taps) {
    case 2: sum_across_taps(out, line, across, pairs, 2, 0); break;
    case 4: sum_across_taps(out, line, across, pairs, 4, 0); break;
    case 6: sum_across_taps(out, line, across, pairs, 6, 0); break;
    default: sum_across_taps(out, line, across, pairs, across->num_taps, 0);
    }
}

AUGD_AVX2 static void sum_cubics_across_by_avx2(uint8_t *out, const int16_t *line, const AugdTaps *across,
                                         const int16_t *pairs) {
    switch (across->num_taps) {
    case 4: sum_across_taps(out, line, across, pairs, 4, MIDDLE); break;
    case 6: sum_across_taps(out, line, across, pairs, 6, MIDDLE); break;
    case 8: sum_across_taps(out, line, across, pairs, 8, MIDDLE); break;
    case 10: sum_across_taps(out, line, across, pairs, 10, MIDDLE); break;
    default: sum_across_taps(out, line, across, pairs, across->num_taps, MIDDLE);
    }
}

#endif

static void scale_by_triangles(const AugdScaler *scaler, const Lines *source,
                               const int16_t *weights, uint8_t *out) {
#if AUGD_HAS_AVX2_CODE
    if (augd_use_avx2() && source->size >= SAMPLES) {
        sum_down_by_avx2(scaler->line, source, weights);
        sum_across_by_avx2(out, scaler->line, &scaler->across, scaler->pairs);
        return;
    }
#endif
    sum_down_portably(scaler->line, source, weights);
    sum_across_portably(out, scaler->line, &scaler->across, 0);
}

static void scale_by_cubics(const AugdScaler *scaler, Lines source, const int16_t *weights,
                            uint8_t *out) {
    while (source.count > 1 && weights[source.count - 1] == 0) source.count--;
#if AUGD_HAS_AVX2_CODE
    if (augd_use_avx2() && source.size >= SAMPLES) {
        sum_cubics_down_by_avx2(scaler->line, &source, weights);
        sum_cubics_across_by_avx2(out, scaler->line, &scaler->across, scaler->pairs);
        return;
    }
#endif
    sum_cubics_down_portably(scaler->line, &source, weights);
    sum_across_portably(out, scaler->line, &scaler->across, MIDDLE);
}

void augd_scale_row(const AugdScaler *scaler, int y, const uint8_t *lines, ptrdiff_t stride,
                    int num_lines, uint8_t *out) {
    const AugdTaps *down = &scaler->down;
    const int16_t *weights = down->weights + (size_t)y * (size_t)down->num_taps;
    const Lines source = {lines, stride, num_lines < down->num_taps ? num_lines : down->num_taps,
                          scaler->needed.width * AUGD_CHANNELS};
    const int to = scaler->is_flipped ? down->num_outputs - 1 - y : y;
    out += (size_t)to * (size_t)scaler->across.num_outputs * AUGD_CHANNELS;
    if (scaler->is_bicubic)
        scale_by_cubics(scaler, source, weights, out);
    else
        scale_by_triangles(scaler, &source, weights, out);
}

/* Count the taps from the first of all, and return how far they reach. */
static int count_from_first(AugdTaps *taps, int source_side, int *first) {
    int end = 0;
    *first = source_side;
    for (int at = 0; at < taps->num_outputs; at++) {
        if (taps->first[at] < *first) *first = taps->first[at];
        if (taps->first[at] + taps->num_taps > end) end = taps->first[at] + taps->num_taps;
    }
    for (int at = 0; at < taps->num_outputs; at++) taps->first[at] -= *first;
    return (end < source_side ? end : source_side) - *first;
}

bool augd_prepare_scaler(AugdScaler *scaler, int source_width, int source_height, Scaling scaling) {
    static _Thread_local AugdBuffer kept;
    const Region window = scaling.window;
    const double support_x = support_of(source_width, scaling.scaled_width, scaling.filter);
    const double support_y = support_of(source_height, scaling.scaled_height, scaling.filter);
    AugdTaps across = {.num_outputs = window.width, .num_taps = count_taps(source_width, support_x)};
    AugdTaps down = {.num_outputs = window.height, .num_taps = count_taps(source_height, support_y)};
    const size_t columns = (size_t)round_up(window.width), rows = (size_t)round_up(window.height);
    const size_t num_first = columns + rows;
    const size_t num_across = columns * (size_t)across.num_taps;
    const size_t num_down = rows * (size_t)down.num_taps;
    const size_t line_size =
        ((size_t)source_width + (size_t)across.num_taps) * AUGD_CHANNELS + PADDING;
    const size_t num_pairs = AUGD_HAS_AVX2_CODE ? num_across / 4 * PAIRS_SIZE : 0;
    int *first = augd_grow_buffer(&kept, num_first * sizeof(int) +
                                      (num_across + num_down + num_pairs + line_size) *
                                          sizeof(int16_t));
    if (!first) return false;
    across.first = first;
    down.first = first + columns;
    memset(first, 0, num_first * sizeof *first);
    across.weights = (int16_t *)(first + num_first);
    down.weights = across.weights + num_across;
    place_taps(&across, source_width, scaling.scaled_width, window.x, scaling.filter, scaling.mirror);
    place_taps(&down, source_height, scaling.scaled_height, window.y, scaling.filter, false);
    Region needed;
    needed.width = count_from_first(&across, source_width, &needed.x);
    needed.height = count_from_first(&down, source_height, &needed.y);
    int16_t *pairs = down.weights + num_down;
    int16_t *line = pairs + num_pairs;
    /* Taps without weight may lie beyond the line's end: any numbers will do that are there. */
    const size_t size = (size_t)needed.width * AUGD_CHANNELS;
    memset(line + size, 0, (line_size - size) * sizeof *line);
#if AUGD_HAS_AVX2_CODE
    lay_out_pairs(pairs, &across);
#endif
    *scaler = (AugdScaler){scaling.filter == AUGD_BICUBIC, scaling.flip, needed, down, across, line,
                           pairs};
    return true;
}

/* Prefetch the source lines [first, end) before they are used: a crop of an image that lies in
 * memory is no stream that a processor foresees, since every line begins on another page. */
static void fetch_lines(const uint8_t *begin, ptrdiff_t stride, size_t size, int first, int end) {
    enum { CACHE_LINE = 64 };
    for (int line = first; line < end; line++)
        for (size_t at = 0; at < size; at += CACHE_LINE)
            __builtin_prefetch(begin + line * stride + at);
}

bool augd_resize(Image source, Scaling scaling, uint8_t *out) {
    AugdScaler scaler;
    if (!augd_prepare_scaler(&scaler, source.width, source.height, scaling)) return false;
    const Region needed = scaler.needed;
    const uint8_t *begin = source.data + needed.y * source.stride + needed.x * AUGD_CHANNELS;
    int fetched = 0;
    for (int y = 0; y < scaling.window.height; y++) {
        int first = scaler.down.first[y];
        if (y + FETCH_AHEAD < scaling.window.height) {
            const int next = scaler.down.first[y + FETCH_AHEAD];
            const int end = next + scaler.down.num_taps;
            if (fetched < next) fetched = next;
            fetch_lines(begin, source.stride, (size_t)needed.width * AUGD_CHANNELS, fetched,
                        end < needed.height ? end : needed.height);
            fetched = end;
        }
        augd_scale_row(&scaler, y, begin + first * source.stride, source.stride,
                       needed.height - first, out);
    }
    return true;
}
