/* Value tables: of 256 levels, for all channels alike or, from the row's histograms, for each its own.
 *
 * Source: Pillow, ImageOps, with equal bytes.
 */
#include "program.h"

#include <string.h>

#if AUGD_HAS_AVX2_CODE
#include <immintrin.h>

enum { PART = 16, PARTS_OF_HALF = AUGD_LEVELS / 2 / PART, VECTOR_BYTES = 32 };

/* The 128 levels of half a table in parts of 16, of which a shuffle finds one by the low four bits. A
 * shuffle gives 0 for negative bytes. Level v less 16 k is negative from part k = v / 16 + 1 on, so
 * that it finds all parts up to its own; each part but the first is written as the difference to the
 * one before, by exclusive or, and what is found adds up to the level wanted. */
AUGD_AVX2 static inline void split_half(const uint8_t *levels, __m256i parts[PARTS_OF_HALF]) {
    __m128i before = _mm_setzero_si128();
    for (int k = 0; k < PARTS_OF_HALF; k++) {
        const __m128i part = _mm_loadu_si128((const __m128i *)(levels + k * PART));
        parts[k] = _mm256_broadcastsi128_si256(_mm_xor_si128(part, before));
        before = part;
    }
}

/* Bytes below 128 to levels, others to 0. */
AUGD_AVX2 static inline __m256i look_up_half(__m256i bytes, const __m256i parts[PARTS_OF_HALF]) {
    const __m256i step = _mm256_set1_epi8(PART);
    __m256i found = _mm256_shuffle_epi8(parts[0], bytes);
    for (int k = 1; k < PARTS_OF_HALF; k++) {
        bytes = _mm256_subs_epi8(bytes, step);
        found = _mm256_xor_si256(found, _mm256_shuffle_epi8(parts[k], bytes));
    }
    return found;
}

AUGD_AVX2 static size_t look_up_by_avx2(uint8_t *bytes, size_t count,
                                        const uint8_t table[AUGD_LEVELS]) {
    __m256i lower[PARTS_OF_HALF], upper[PARTS_OF_HALF];
    const __m256i sign = _mm256_set1_epi8((char)0x80);
    size_t done = 0;
    split_half(table, lower);
    split_half(table + AUGD_LEVELS / 2, upper);
    for (; count - done >= VECTOR_BYTES; done += VECTOR_BYTES) {
        const __m256i source = _mm256_loadu_si256((const __m256i *)(bytes + done));
        const __m256i found = _mm256_or_si256(
            look_up_half(source, lower), look_up_half(_mm256_xor_si256(source, sign), upper));
        _mm256_storeu_si256((__m256i *)(bytes + done), found);
    }
    return done;
}
#endif

static size_t count_bytes(AugdRow row) {
    return (size_t)row.width * (size_t)row.height * AUGD_CHANNELS;
}

void augd_look_up(AugdRow row, const uint8_t table[AUGD_LEVELS]) {
    const size_t count = count_bytes(row);
    size_t done = 0;
#if AUGD_HAS_AVX2_CODE
    if (augd_use_avx2()) done = look_up_by_avx2(row.pixels, count, table);
#endif
    for (; done < count; done++) row.pixels[done] = table[row.pixels[done]];
}

static void look_up_channels(AugdRow row, uint8_t tables[AUGD_CHANNELS][AUGD_LEVELS]) {
    uint8_t *const end = row.pixels + count_bytes(row);
    for (uint8_t *pixel = row.pixels; pixel < end; pixel += AUGD_CHANNELS)
        for (int of = 0; of < AUGD_CHANNELS; of++) pixel[of] = tables[of][pixel[of]];
}

typedef uint32_t Histogram[AUGD_LEVELS];

/* Count levels. Every other pixel has counters of its own, since a counter that was just written is
 * slow to read. */
static void count_levels(AugdRow row, Histogram counts[AUGD_CHANNELS]) {
    Histogram odd[AUGD_CHANNELS];
    memset(odd, 0, sizeof odd);
    memset(counts, 0, AUGD_CHANNELS * sizeof *counts);
    const size_t num_pixels = (size_t)row.width * (size_t)row.height;
    const uint8_t *pixel = row.pixels;
    for (size_t pair = 0; pair < num_pixels / 2; pair++, pixel += 2 * AUGD_CHANNELS)
        for (int of = 0; of < AUGD_CHANNELS; of++) {
            counts[of][pixel[of]]++;
            odd[of][pixel[AUGD_CHANNELS + of]]++;
        }
    for (int of = 0; of < AUGD_CHANNELS; of++) {
        if (num_pixels % 2) counts[of][pixel[of]]++;
        for (int level = 0; level < AUGD_LEVELS; level++) counts[of][level] += odd[of][level];
    }
}

static void keep_levels(uint8_t table[AUGD_LEVELS]) {
    for (int level = 0; level < AUGD_LEVELS; level++) table[level] = (uint8_t)level;
}

/* The sum of a level leaves out its own pixels, as Pillow's does. */
static void write_equalized(const Histogram counts, uint32_t num_pixels,
                            uint8_t table[AUGD_LEVELS]) {
    uint32_t last = 0;
    for (int level = 0; level < AUGD_LEVELS; level++)
        if (counts[level]) last = counts[level];
    const uint32_t step = (num_pixels - last) / (AUGD_LEVELS - 1);
    if (!step) { /* so where all pixels are of one level */
        keep_levels(table);
        return;
    }
    uint32_t sum = step / 2;
    for (int level = 0; level < AUGD_LEVELS; level++) {
        const uint32_t found = sum / step;
        table[level] = (uint8_t)(found < AUGD_LEVELS ? found : AUGD_LEVELS - 1);
        sum += counts[level];
    }
}

void augd_equalize(AugdRow row) {
    Histogram counts[AUGD_CHANNELS];
    uint8_t tables[AUGD_CHANNELS][AUGD_LEVELS];
    count_levels(row, counts);
    for (int of = 0; of < AUGD_CHANNELS; of++)
        write_equalized(counts[of], (uint32_t)row.width * (uint32_t)row.height, tables[of]);
    look_up_channels(row, tables);
}

typedef struct {
    uint8_t least[AUGD_CHANNELS], most[AUGD_CHANNELS];
} Ranges;

/* The least and the largest level of each channel, over whole groups of bytes that vectors take. */
static Ranges find_ranges(AugdRow row) {
    enum { GROUP = 32 * AUGD_CHANNELS };
    uint8_t least[GROUP], most[GROUP];
    const size_t count = count_bytes(row);
    memset(least, UINT8_MAX, sizeof least);
    memset(most, 0, sizeof most);
    size_t done = 0;
    for (; count - done >= GROUP; done += GROUP)
        for (int at = 0; at < GROUP; at++) {
            const uint8_t level = row.pixels[done + (size_t)at];
            least[at] = level < least[at] ? level : least[at];
            most[at] = level > most[at] ? level : most[at];
        }
    for (int at = 0; done < count; done++, at++) {
        const uint8_t level = row.pixels[done];
        least[at] = level < least[at] ? level : least[at];
        most[at] = level > most[at] ? level : most[at];
    }
    Ranges ranges = {{least[0], least[1], least[2]}, {most[0], most[1], most[2]}};
    for (int at = 0; at < GROUP; at++) {
        uint8_t *low = &ranges.least[at % AUGD_CHANNELS], *high = &ranges.most[at % AUGD_CHANNELS];
        *low = least[at] < *low ? least[at] : *low;
        *high = most[at] > *high ? most[at] : *high;
    }
    return ranges;
}

static void write_stretched(int least, int most, uint8_t table[AUGD_LEVELS]) {
    if (most <= least) {
        keep_levels(table);
        return;
    }
    const double scale = 255.0 / (most - least), offset = -least * scale;
    for (int level = 0; level < AUGD_LEVELS; level++) {
        const int found = (int)(level * scale + offset); /* cut towards zero, as Pillow does */
        table[level] = (uint8_t)(found < 0 ? 0 : found >= AUGD_LEVELS ? AUGD_LEVELS - 1 : found);
    }
}

void augd_stretch_contrast(AugdRow row) {
    const Ranges ranges = find_ranges(row);
    uint8_t tables[AUGD_CHANNELS][AUGD_LEVELS];
    for (int of = 0; of < AUGD_CHANNELS; of++)
        write_stretched(ranges.least[of], ranges.most[of], tables[of]);
    look_up_channels(row, tables);
}
