/* Halving: means of 2x2 pixels, halves up. An odd side's last pixels count twice.
 *
 * The numbers are those of augd/pixels/halving.py without kernels, where OpenCV's area filter does this.
 */
#include "kernels.h"

#if AUGD_HAS_AVX2_CODE
#include <immintrin.h>
#endif

/* Two lines of the source, and how many pixels each has. */
typedef struct {
    const uint8_t *upper, *lower;
    int width;
} Pair;

/* Make the output pixels from `first` on. */
static void halve_portably(uint8_t *out, const Pair *pair, int first) {
    for (int x = first; x < (pair->width + 1) / 2; x++) {
        const size_t left = (size_t)x * 2 * AUGD_CHANNELS;
        const size_t right = 2 * x + 1 < pair->width ? left + AUGD_CHANNELS : left;
        for (size_t of = 0; of < AUGD_CHANNELS; of++)
            out[(size_t)x * AUGD_CHANNELS + of] =
                (uint8_t)((pair->upper[left + of] + pair->upper[right + of] +
                           pair->lower[left + of] + pair->lower[right + of] + 2) >> 2);
    }
}

#if AUGD_HAS_AVX2_CODE

/* Four pixels of a line in each lane; the sums of two neighbours in 16 bits. */
AUGD_AVX2 static inline __m256i sum_neighbours(const uint8_t *at) {
    enum { LANE_BYTES = 4 * AUGD_CHANNELS };
    const __m256i neighbours = _mm256_setr_epi8(
        0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11, -1, -1, -1, -1,
        0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11, -1, -1, -1, -1);
    const __m256i pixels = _mm256_inserti128_si256(
        _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)at)),
        _mm_loadu_si128((const __m128i *)(at + LANE_BYTES)), 1);
    return _mm256_maddubs_epi16(_mm256_shuffle_epi8(pixels, neighbours), _mm256_set1_epi8(1));
}

/* Four output pixels of twelve bytes at a time, for which 28 are read in each line and 14 written: two
 * pixels more than are used must be there. Returns how many were made. */
AUGD_AVX2 static int halve_by_avx2(uint8_t *out, const Pair *pair) {
    enum { TURN = 4, READ_PIXELS = 10, HALF_BYTES = 2 * AUGD_CHANNELS };
    int x = 0;
    for (; pair->width - 2 * x >= READ_PIXELS; x += TURN) {
        const size_t at = (size_t)x * 2 * AUGD_CHANNELS;
        const __m256i sums = _mm256_add_epi16(
            _mm256_add_epi16(sum_neighbours(pair->upper + at), sum_neighbours(pair->lower + at)),
            _mm256_set1_epi16(2));
        const __m256i levels = _mm256_srli_epi16(sums, 2);
        const __m256i bytes = _mm256_packus_epi16(levels, levels);
        uint8_t *to = out + x * AUGD_CHANNELS;
        _mm_storel_epi64((__m128i *)to, _mm256_castsi256_si128(bytes));
        _mm_storel_epi64((__m128i *)(to + HALF_BYTES), _mm256_extracti128_si256(bytes, 1));
    }
    return x;
}

#endif

void augd_halve(Image source, uint8_t *out) {
    for (int y = 0; y < source.height; y += 2) {
        const uint8_t *upper = source.data + y * source.stride;
        const uint8_t *lower = y + 1 < source.height ? upper + source.stride : upper;
        const Pair pair = {upper, lower, source.width};
        int done = 0;
#if AUGD_HAS_AVX2_CODE
        if (augd_use_avx2()) done = halve_by_avx2(out, &pair);
#endif
        halve_portably(out, &pair, done);
        out += (source.width + 1) / 2 * AUGD_CHANNELS;
    }
}
