/* Sharpness: a blend of a row with its smoothed self. Below 1 it blurs, above 1 it sharpens.
 *
 * Source: Pillow, ImageEnhance.Sharpness and ImageFilter.SMOOTH, within one level: what is smoothed has
 * equal bytes, and the blend is rounded, not cut.
 */
#include "program.h"

#include <math.h>
#include <string.h>

/* The middle weighs 5, its eight neighbours 1. A sum of up to 13 * 255 is divided by 13 by a product:
 * 5042 / 65536 is 1 / 13 plus 9e-7, too little to reach the next whole number. */
enum { MIDDLE_WEIGHT = 5, WEIGHT_SUM = 13, RECIPROCAL = 5042, RECIPROCAL_BITS = 16 };
enum { FACTOR_BITS = 16, HALF = 1 << (FACTOR_BITS - 1) };

/* Three lines summed, byte by byte. Plain loops, which become vectors. */
static inline __attribute__((always_inline)) void sum_lines(uint16_t *restrict sums,
                                                            const uint8_t *restrict above,
                                                            size_t stride) {
    const uint8_t *restrict at = above + stride, *restrict below = at + stride;
    for (size_t x = 0; x < stride; x++) sums[x] = (uint16_t)(above[x] + at[x] + below[x]);
}

/* `count` bytes of a line, from the sums that begin a pixel left of the first one. */
static inline __attribute__((always_inline)) void sharpen_line(uint8_t *restrict out,
                                                               const uint8_t *restrict at,
                                                               const uint16_t *restrict sums,
                                                               size_t count, int32_t factor) {
    enum { MIDDLE = AUGD_CHANNELS, RIGHT = 2 * AUGD_CHANNELS };
    for (size_t x = 0; x < count; x++) {
        const uint16_t sum = (uint16_t)(sums[x] + sums[x + MIDDLE] + sums[x + RIGHT] +
                                        (MIDDLE_WEIGHT - 1) * at[x] + WEIGHT_SUM / 2);
        const int16_t smooth = (int16_t)((uint32_t)sum * RECIPROCAL >> RECIPROCAL_BITS);
        const int16_t apart = (int16_t)(at[x] - smooth);
        const int16_t change = (int16_t)((factor * apart + HALF) >> FACTOR_BITS);
        const int16_t level = (int16_t)(smooth + change);
        out[x] = (uint8_t)(level < 0 ? 0 : level > UINT8_MAX ? UINT8_MAX : level);
    }
}

static inline __attribute__((always_inline)) void sharpen_lines(AugdRow row, int32_t factor,
                                                                const AugdScratch *scratch) {
    const size_t stride = (size_t)row.width * AUGD_CHANNELS;
    uint16_t *const sums = (uint16_t *)scratch->line;
    if (row.width <= 2) return;
    for (int y = 1; y < row.height - 1; y++) {
        const size_t start = (size_t)y * stride + AUGD_CHANNELS;
        sum_lines(sums, scratch->copy + (size_t)(y - 1) * stride, stride);
        sharpen_line(row.pixels + start, scratch->copy + start, sums, stride - 2 * AUGD_CHANNELS,
                     factor);
    }
}

#if AUGD_HAS_AVX2_CODE
AUGD_AVX2 static void sharpen_by_avx2(AugdRow row, int32_t factor, const AugdScratch *scratch) {
    sharpen_lines(row, factor, scratch);
}
#endif

static void sharpen_portably(AugdRow row, int32_t factor, const AugdScratch *scratch) {
    sharpen_lines(row, factor, scratch);
}

void augd_sharpen(AugdRow row, double factor, const AugdScratch *scratch) {
    const int32_t steps = (int32_t)nearbyint(factor * (1 << FACTOR_BITS));
    memcpy(scratch->copy, row.pixels, (size_t)row.width * (size_t)row.height * AUGD_CHANNELS);
#if AUGD_HAS_AVX2_CODE
    if (augd_use_avx2()) {
        sharpen_by_avx2(row, steps, scratch);
        return;
    }
#endif
    sharpen_portably(row, steps, scratch);
}
