/* The matrix path's bicubic samples: every pixel of a row is blended of 4x4 of the region.
 *
 * Columns first, then the line of four: as in resize.c, weights have 14 bits and sum to exactly 1, what
 * is between has 6 bits behind the point, and the pixel alone is clipped. augd/pixels/warp_cubic.py does the
 * same without kernels, number for number.
 *
 * Source: Keys 1981, "Cubic convolution interpolation", with a = -1/2.
 */
#include "warp.h"

#include <string.h>

#if AUGD_HAS_AVX2_CODE
#include <immintrin.h>
#endif

enum {
    NUM_TAPS = 4,
    WEIGHT_BITS = 14,
    BETWEEN_BITS = 6,
    DOWN_SHIFT = WEIGHT_BITS - BETWEEN_BITS,
    ACROSS_SHIFT = WEIGHT_BITS + BETWEEN_BITS,
    LINE_BYTES = 16, /* of four pixels, and four that vectors read beyond them */
};

/* The weights of the taps at -1, 0, 1 and 2 px from a place, by its fraction. */
static _Thread_local struct {
    bool is_made;
    int16_t of[STEPS][NUM_TAPS];
} weights;

/* In whole numbers: twice each weight, times STEPS^3. What rounding leaves goes to the nearest tap, so that a
 * place and its mirror image have the same weights. */
static void make_weights(void) {
    enum { SHIFT = 3 * PLACE_BITS + 1 - WEIGHT_BITS };
    for (int32_t at = 0; at < STEPS; at++) {
        const int32_t square = at * at, cube = square * at;
        const int32_t twice[NUM_TAPS] = {
            -cube + 2 * square * STEPS - at * STEPS * STEPS,
            3 * cube - 5 * square * STEPS + 2 * STEPS * STEPS * STEPS,
            -3 * cube + 4 * square * STEPS + at * STEPS * STEPS,
            cube - square * STEPS,
        };
        int left = 1 << WEIGHT_BITS;
        for (int tap = 0; tap < NUM_TAPS; tap++) {
            weights.of[at][tap] = (int16_t)((twice[tap] + (1 << (SHIFT - 1))) >> SHIFT);
            left -= weights.of[at][tap];
        }
        weights.of[at][at < STEPS / 2 ? 1 : 2] += (int16_t)left;
    }
    weights.is_made = true;
}

/* Put the taps of a pixel side by side, moved inside by the fill. */
static void gather(uint8_t taps[NUM_TAPS][LINE_BYTES], const Image *source, const Warp *warp, int x,
                   int y) {
    int columns[NUM_TAPS];
    for (int tap = 0; tap < NUM_TAPS; tap++)
        columns[tap] = bring_back(x - 1 + tap, source->width, warp->fill);
    for (int line = 0; line < NUM_TAPS; line++) {
        const int row = bring_back(y - 1 + line, source->height, warp->fill);
        const uint8_t *from = row < 0 ? NULL : source->data + row * source->stride;
        for (int tap = 0; tap < NUM_TAPS; tap++)
            memcpy(taps[line] + tap * AUGD_CHANNELS,
                   from && columns[tap] >= 0 ? from + columns[tap] * AUGD_CHANNELS
                                             : warp->fill_value,
                   AUGD_CHANNELS);
    }
}

static void blend_pixel(uint8_t *out, const uint8_t *taps, ptrdiff_t stride, const int16_t *across,
                        const int16_t *down) {
    for (int of = 0; of < AUGD_CHANNELS; of++) {
        int32_t sum = 1 << (ACROSS_SHIFT - 1);
        for (int tap = 0; tap < NUM_TAPS; tap++) {
            const uint8_t *from = taps + tap * AUGD_CHANNELS + of;
            int32_t column = 1 << (DOWN_SHIFT - 1);
            for (int line = 0; line < NUM_TAPS; line++) column += down[line] * from[line * stride];
            sum += across[tap] * (column >> DOWN_SHIFT);
        }
        const int32_t level = sum >> ACROSS_SHIFT;
        out[of] = (uint8_t)(level < 0 ? 0 : level > UINT8_MAX ? UINT8_MAX : level);
    }
}

#if AUGD_HAS_AVX2_CODE

static inline int32_t pair_of(const int16_t *two) {
    int32_t pair;
    memcpy(&pair, two, sizeof pair);
    return pair;
}

AUGD_AVX2 static inline void blend_by_avx2(uint8_t *out, const uint8_t *taps, ptrdiff_t stride,
                                           const int16_t *across, const int16_t *down) {
    const __m128i left_and_right =
        _mm_setr_epi8(0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11, -1, -1, -1, -1);
    const __m256i upper = _mm256_set1_epi32(pair_of(down)),
                  lower = _mm256_set1_epi32(pair_of(down + 2));
    const __m256i rounding = _mm256_set1_epi32(1 << (DOWN_SHIFT - 1));
    const __m128i line0 = _mm_loadu_si128((const __m128i *)taps);
    const __m128i line1 = _mm_loadu_si128((const __m128i *)(taps + stride));
    const __m128i line2 = _mm_loadu_si128((const __m128i *)(taps + 2 * stride));
    const __m128i line3 = _mm_loadu_si128((const __m128i *)(taps + 3 * stride));
    /* Eight samples of twelve, then four: of these the upper lines' pairs in one lane, the lower's in the
     * other. */
    const __m256i first = _mm256_add_epi32(
        _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_unpacklo_epi8(line0, line1)), upper),
        _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_unpacklo_epi8(line2, line3)), lower));
    const __m128i rest = _mm_unpacklo_epi64(_mm_unpackhi_epi8(line0, line1),
                                            _mm_unpackhi_epi8(line2, line3));
    const __m256i last = _mm256_madd_epi16(_mm256_cvtepu8_epi16(rest),
                                           _mm256_blend_epi32(upper, lower, 0xF0));
    const __m256i columns = _mm256_srai_epi32(_mm256_add_epi32(first, rounding), DOWN_SHIFT);
    const __m128i others = _mm_srai_epi32(
        _mm_add_epi32(_mm_add_epi32(_mm256_castsi256_si128(last), _mm256_extracti128_si256(last, 1)),
                      _mm256_castsi256_si128(rounding)),
        DOWN_SHIFT);
    const __m128i eight =
        _mm_packs_epi32(_mm256_castsi256_si128(columns), _mm256_extracti128_si256(columns, 1));
    const __m128i six = _mm_alignr_epi8(_mm_packs_epi32(others, others), eight, 12);
    const __m128i sum = _mm_add_epi32(
        _mm_madd_epi16(_mm_shuffle_epi8(eight, left_and_right), _mm_set1_epi32(pair_of(across))),
        _mm_madd_epi16(_mm_shuffle_epi8(six, left_and_right),
                       _mm_set1_epi32(pair_of(across + 2))));
    const __m128i levels =
        _mm_srai_epi32(_mm_add_epi32(sum, _mm_set1_epi32(1 << (ACROSS_SHIFT - 1))), ACROSS_SHIFT);
    const __m128i words = _mm_packs_epi32(levels, levels);
    const int32_t bytes = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
    memcpy(out, &bytes, AUGD_CHANNELS);
}

AUGD_AVX2 static void blend_line_by_avx2(uint8_t *out, const Image *source, const Warp *warp,
                                         const int32_t *x, const int32_t *y, int count) {
    enum { READ_PIXELS = 6 }; /* which LINE_BYTES reach into */
    const unsigned room_x = source->width >= READ_PIXELS ? (unsigned)(source->width - READ_PIXELS) : 0;
    const unsigned room_y = source->height >= NUM_TAPS ? (unsigned)(source->height - NUM_TAPS) : 0;
    const bool fits = source->width >= READ_PIXELS && source->height >= NUM_TAPS;
    uint8_t apart[NUM_TAPS][LINE_BYTES] = {{0}};
    for (int number = 0; number < count; number++, out += AUGD_CHANNELS) {
        if (is_outside(warp, x[number], y[number])) {
            memcpy(out, warp->fill_value, AUGD_CHANNELS);
            continue;
        }
        const int left = (x[number] >> PLACE_BITS) - 1, top = (y[number] >> PLACE_BITS) - 1;
        const int16_t *across = weights.of[x[number] & (STEPS - 1)];
        const int16_t *down = weights.of[y[number] & (STEPS - 1)];
        if (fits && (unsigned)left <= room_x && (unsigned)top <= room_y) {
            const uint8_t *taps =
                source->data + top * source->stride + (ptrdiff_t)left * AUGD_CHANNELS;
            blend_by_avx2(out, taps, source->stride, across, down);
        } else {
            gather(apart, source, warp, left + 1, top + 1);
            blend_by_avx2(out, apart[0], LINE_BYTES, across, down);
        }
    }
}

#endif

void augd_blend_cubics(uint8_t *out, const Image *source, const Warp *warp, const int32_t *x,
                       const int32_t *y, int count) {
    if (!weights.is_made) make_weights();
#if AUGD_HAS_AVX2_CODE
    if (augd_use_avx2()) {
        blend_line_by_avx2(out, source, warp, x, y, count);
        return;
    }
#endif
    uint8_t apart[NUM_TAPS][LINE_BYTES];
    for (int number = 0; number < count; number++, out += AUGD_CHANNELS) {
        if (is_outside(warp, x[number], y[number])) {
            memcpy(out, warp->fill_value, AUGD_CHANNELS);
            continue;
        }
        gather(apart, source, warp, x[number] >> PLACE_BITS, y[number] >> PLACE_BITS);
        blend_pixel(out, apart[0], LINE_BYTES, weights.of[x[number] & (STEPS - 1)],
                    weights.of[y[number] & (STEPS - 1)]);
    }
}
