/* Huffman tables of an image turned into lookups. Most images have tables of their own, so the time
 * counts. */
#include "kernels.h"

#if AUGD_OWN_ENTROPY

#include "huffman_table.h"

#include <string.h>

enum { PASSES_TOO_FAR = 0x7F }; /* what a leap holds where no symbol lies whole */

static inline int32_t entry_of(int value, int run, int length) {
    return (int32_t)((uint32_t)value << 16 | (uint32_t)run << 8 | (uint32_t)length);
}

/* Fill in the entries of a code, which are followed by any bits: T.81, C.2 and F.2.2.1. */
static void add_code(AugdTable *table, int code, int code_length, int symbol) {
    const int rest_length = AUGD_LOOK_BITS - code_length, size = symbol & 15;
    int32_t *entries = table->look + ((size_t)code << rest_length);
    if ((size == 0 && table->is_ac) || size > rest_length) {
        for (int rest = 0; rest < 1 << rest_length; rest++)
            entries[rest] = entry_of(symbol, AUGD_SPECIAL, code_length);
        return;
    }
    const int run = table->is_ac ? symbol >> 4 : 0, num_rests = 1 << (rest_length - size);
    for (int bits = 0; bits < 1 << size; bits++) {
        const int value = size ? augd_extend(bits, size) : 0;
        const int32_t entry = entry_of(value, run, code_length + size);
        for (int rest = 0; rest < num_rests; rest++) *entries++ = entry;
    }
}

void augd_make_leaps(AugdTable *ac) {
    ac->has_leaps = true;
    enum { NUM_LOOKS = 1 << AUGD_LOOK_BITS, WINDOW = 1 << AUGD_LEAP_BITS, TOO_LONG = 64 };
    /* Of each symbol: length with its value, places << 8, end << 15. */
    uint16_t steps[NUM_LOOKS];
    for (int bits = 0; bits < NUM_LOOKS; bits++) {
        const int32_t entry = ac->look[bits];
        const int symbol = augd_value_of(entry), size = symbol & 15;
        if (entry == 0)
            steps[bits] = TOO_LONG;
        else if (augd_is_whole(entry))
            steps[bits] = (uint16_t)(augd_length_of(entry) | (augd_run_of(entry) + 1) << 8);
        else if (size == 0 && symbol != AUGD_ZEROS_16)
            steps[bits] = (uint16_t)(augd_length_of(entry) | 1 << 15);
        else
            steps[bits] = (uint16_t)((augd_length_of(entry) + size) | ((symbol >> 4) + 1) << 8);
    }
    for (unsigned bits = 0; bits < WINDOW; bits++) {
        int length = 0, passed = 0;
        bool ends = false;
        do {
            const unsigned rest = bits << length & (WINDOW - 1);
            const unsigned step = steps[rest >> (AUGD_LEAP_BITS - AUGD_LOOK_BITS)];
            /* Bits beyond the window were taken for zeros; what needed them is too long. */
            if (length + (int)(step & 0xFF) > AUGD_LEAP_BITS) break;
            length += (int)(step & 0xFF);
            passed += (int)(step >> 8 & 0x7F);
            ends = step >> 15;
        } while (!ends && passed < AUGD_BLOCK_SIZE);
        ac->leap[bits] = (uint16_t)(length | (length ? passed : PASSES_TOO_FAR) << 4 |
                                    (ends ? AUGD_LEAP_ENDS : 0));
    }
}

/* T.81, C.2: codes of one length are consecutive. libjpeg has checked the table when it started a
 * scan of DCT coefficients: codes fit their lengths, and a DC symbol is at most 15. */
void augd_make_table(AugdTable *table, const JHUFF_TBL *source, bool is_ac) {
    if (table->is_made && table->is_ac == is_ac &&
        memcmp(table->bits, source->bits, sizeof table->bits) == 0 &&
        memcmp(table->symbols, source->huffval, sizeof table->symbols) == 0)
        return;
    memcpy(table->bits, source->bits, sizeof table->bits);
    memcpy(table->symbols, source->huffval, sizeof table->symbols);
    memset(table->look, 0, sizeof table->look);
    table->is_ac = is_ac;
    table->is_made = true;
    int code = 0, place = 0;
    for (int length = 1; length <= AUGD_MAX_CODE_BITS; length++, code <<= 1) {
        table->place_offset[length] = place - code;
        for (int i = 0; i < source->bits[length]; i++, code++, place++)
            if (length <= AUGD_LOOK_BITS) add_code(table, code, length, source->huffval[place]);
        table->code_end[length] = code << (AUGD_MAX_CODE_BITS - length);
    }
    table->has_leaps = false;
}

#endif
