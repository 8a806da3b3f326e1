/* Gaussian blur: down, then across, with weights that sum to one in whole numbers.
 *
 * Lines that were blurred down are kept in steps of 1/64 level, so that levels are rounded once. Places
 * outside are reflected about the middles of the outermost pixels (OpenCV's REFLECT_101).
 */
#include "program.h"

#include <math.h>
#include <string.h>

#if AUGD_HAS_AVX2_CODE
#include <immintrin.h>
#endif

enum { WEIGHT_BITS = 14, KEPT_BITS = 6 };
enum { DOWN_BITS = WEIGHT_BITS - KEPT_BITS, ACROSS_BITS = WEIGHT_BITS + KEPT_BITS };
enum { MOST_TAPS = AUGD_RADIUS_MAX + 2 }; /* an even number */

/* Each tap is the sum of two pixels, as far away to either side. Of the middle, too: it weighs half.
 * Vectors take two taps at a time; a last one alone gets one that weighs nothing. */
typedef struct {
    int count, radius;
    int16_t weights[MOST_TAPS];
} Taps;

/* As augd/plan/random/numerics.py, to the last bit. */
static const double LN2_HIGH = 6.93147180369123816490e-01, LN2_LOW = 1.90821492927058770002e-10;

static double exponential(double x) {
    const double k = nearbyint(x / (LN2_HIGH + LN2_LOW));
    const double r = (x - k * LN2_HIGH) - k * LN2_LOW;
    double total = 1.0;
    for (int n = 14; n > 0; n--) total = 1.0 + total * r / n;
    return ldexp(total, (int)k);
}

/* Sums are rounded, from the ends inwards, so that errors spread and do not gather in the middle. */
static Taps weigh(double sigma, int radius) {
    Taps taps = {radius + 1 + (radius + 1) % 2, radius, {0}};
    double side[MOST_TAPS], total = 0.0;
    for (int away = radius; away > 0; away--) {
        const double place = away / sigma;
        side[away] = exponential(fmax(-0.5 * place * place, -700.0));
        total += side[away];
    }
    total = 2.0 * total + 1.0;
    double sum = 0.0;
    int before = 0;
    for (int away = radius; away > 0; away--) {
        sum += side[away];
        const int rounded = (int)nearbyint(sum * (1 << WEIGHT_BITS) / total);
        taps.weights[away] = (int16_t)(rounded - before);
        before = rounded;
    }
    taps.weights[0] = (int16_t)((1 << (WEIGHT_BITS - 1)) - before);
    return taps;
}

static int reflect(int at, int size) {
    if (size == 1) return 0;
    const int period = 2 * (size - 1);
    at = (at < 0 ? -at : at) % period;
    return at < size ? at : period - at;
}

/* The lines that the taps of a line touch; the last one twice where it weighs nothing. */
typedef struct {
    const uint8_t *above[MOST_TAPS], *below[MOST_TAPS];
} Lines;

static void find_lines(Lines *lines, const uint8_t *copy, AugdRow row, int y, const Taps *taps) {
    const size_t stride = (size_t)row.width * AUGD_CHANNELS;
    for (int tap = 0; tap < taps->count; tap++) {
        const int away = tap <= taps->radius ? tap : 0;
        lines->above[tap] = copy + (size_t)reflect(y - away, row.height) * stride;
        lines->below[tap] = copy + (size_t)reflect(y + away, row.height) * stride;
    }
}

/* Some sums at a time, of all taps: plain loops that become vectors. */
enum { BLOCK = 16 };

static int block_at(int x, int count) { return count - x < BLOCK ? count - x : BLOCK; }

static void blur_down(int16_t *line, const Lines *lines, int count, const Taps *taps) {
    for (int start = 0; start < count; start += BLOCK) {
        const int size = block_at(start, count);
        int32_t sums[BLOCK] = {0};
        for (int tap = 0; tap < taps->count; tap++) {
            const uint8_t *above = lines->above[tap] + start, *below = lines->below[tap] + start;
            const int16_t weight = taps->weights[tap];
            for (int x = 0; x < size; x++) sums[x] += (int16_t)(above[x] + below[x]) * weight;
        }
        for (int x = 0; x < size; x++)
            line[start + x] = (int16_t)((sums[x] + (1 << (DOWN_BITS - 1))) >> DOWN_BITS);
    }
}

static void blur_across(uint8_t *out, const int16_t *line, int count, const Taps *taps) {
    for (int start = 0; start < count; start += BLOCK) {
        const int size = block_at(start, count);
        int32_t sums[BLOCK] = {0};
        for (int tap = 0; tap < taps->count; tap++) {
            const int16_t *left = line + start - tap * AUGD_CHANNELS;
            const int16_t *right = line + start + tap * AUGD_CHANNELS;
            const int16_t weight = taps->weights[tap];
            for (int x = 0; x < size; x++) sums[x] += (int16_t)(left[x] + right[x]) * weight;
        }
        for (int x = 0; x < size; x++)
            out[start + x] = (uint8_t)((sums[x] + (1 << (ACROSS_BITS - 1))) >> ACROSS_BITS);
    }
}

#if AUGD_HAS_AVX2_CODE

enum { VECTOR = 16 }; /* numbers of 16 bits */

typedef struct {
    __m256i low, high; /* of both lanes: their first and last four sums */
} Sums;

/* Add two taps, of VECTOR pixels' sums each. */
AUGD_AVX2 static inline Sums add_taps(Sums sums, __m256i first, __m256i second, const int16_t *weights) {
    int32_t both;
    memcpy(&both, weights, sizeof both);
    const __m256i weight = _mm256_set1_epi32(both);
    sums.low = _mm256_add_epi32(
        sums.low, _mm256_madd_epi16(_mm256_unpacklo_epi16(first, second), weight));
    sums.high = _mm256_add_epi32(
        sums.high, _mm256_madd_epi16(_mm256_unpackhi_epi16(first, second), weight));
    return sums;
}

AUGD_AVX2 static inline __m256i add_bytes(const uint8_t *above, const uint8_t *below) {
    return _mm256_add_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)above)),
                            _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)below)));
}

AUGD_AVX2 static inline __m256i add_kept(const int16_t *at, int away) {
    return _mm256_add_epi16(_mm256_loadu_si256((const __m256i *)(at - away)),
                            _mm256_loadu_si256((const __m256i *)(at + away)));
}

AUGD_AVX2 static void blur_vector_down(int16_t *line, const Lines *lines, int x, const Taps *taps) {
    const __m256i half = _mm256_set1_epi32(1 << (DOWN_BITS - 1));
    Sums sums = {half, half};
    for (int tap = 0; tap < taps->count; tap += 2)
        sums = add_taps(sums, add_bytes(lines->above[tap] + x, lines->below[tap] + x),
                        add_bytes(lines->above[tap + 1] + x, lines->below[tap + 1] + x),
                        taps->weights + tap);
    _mm256_storeu_si256((__m256i *)(line + x),
                        _mm256_packs_epi32(_mm256_srai_epi32(sums.low, DOWN_BITS),
                                           _mm256_srai_epi32(sums.high, DOWN_BITS)));
}

AUGD_AVX2 static void blur_vector_across(uint8_t *out, const int16_t *line, int x, const Taps *taps) {
    const __m256i half = _mm256_set1_epi32(1 << (ACROSS_BITS - 1));
    Sums sums = {half, half};
    for (int tap = 0; tap < taps->count; tap += 2)
        sums = add_taps(sums, add_kept(line + x, tap * AUGD_CHANNELS),
                        add_kept(line + x, (tap + 1) * AUGD_CHANNELS), taps->weights + tap);
    const __m256i levels = _mm256_packs_epi32(_mm256_srai_epi32(sums.low, ACROSS_BITS),
                                              _mm256_srai_epi32(sums.high, ACROSS_BITS));
    _mm_storeu_si128((__m128i *)(out + x), _mm_packus_epi16(_mm256_castsi256_si128(levels),
                                                            _mm256_extracti128_si256(levels, 1)));
}

/* Vectors up to the line's end: the last one begins where it fits, and makes some again. */
AUGD_AVX2 static void blur_line_down(int16_t *line, const Lines *lines, int count, const Taps *taps) {
    for (int x = 0; x < count - VECTOR; x += VECTOR) blur_vector_down(line, lines, x, taps);
    blur_vector_down(line, lines, count - VECTOR, taps);
}

AUGD_AVX2 static void blur_line_across(uint8_t *out, const int16_t *line, int count, const Taps *taps) {
    for (int x = 0; x < count - VECTOR; x += VECTOR) blur_vector_across(out, line, x, taps);
    blur_vector_across(out, line, count - VECTOR, taps);
}

static bool suits_vectors(int count) { return augd_use_avx2() && count >= VECTOR; }

#else

static bool suits_vectors(int count) {
    (void)count;
    return false;
}
#define blur_line_down(line, lines, count, taps) (void)0
#define blur_line_across(out, line, count, taps) (void)0

#endif

/* Reflect a line, so that blurring across finds pixels on both sides of it. */
static void reflect_ends(int16_t *line, int width, int num_outside) {
    const size_t size = AUGD_CHANNELS * sizeof *line;
    for (int away = 1; away <= num_outside; away++) {
        memcpy(line - away * AUGD_CHANNELS, line + reflect(-away, width) * AUGD_CHANNELS, size);
        const int right = width - 1 + away;
        memcpy(line + right * AUGD_CHANNELS, line + reflect(right, width) * AUGD_CHANNELS, size);
    }
}

void augd_blur(AugdRow row, double sigma, int radius, const AugdScratch *scratch) {
    const Taps taps = weigh(sigma, radius);
    const int count = row.width * AUGD_CHANNELS;
    int16_t *const line = scratch->line + MOST_TAPS * AUGD_CHANNELS;
    memcpy(scratch->copy, row.pixels, (size_t)count * (size_t)row.height);
    for (int y = 0; y < row.height; y++) {
        uint8_t *const out = row.pixels + (size_t)y * (size_t)count;
        Lines lines;
        find_lines(&lines, scratch->copy, row, y, &taps);
        if (suits_vectors(count)) {
            blur_line_down(line, &lines, count, &taps);
            reflect_ends(line, row.width, taps.count);
            blur_line_across(out, line, count, &taps);
        } else {
            blur_down(line, &lines, count, &taps);
            reflect_ends(line, row.width, taps.count);
            blur_across(out, line, count, &taps);
        }
    }
}
