/* Lookup tables for Huffman codes: made here, read by huffman.c. */
#ifndef AUGD_HUFFMAN_TABLE_H
#define AUGD_HUFFMAN_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <jpeglib.h>

enum {
    AUGD_LOOK_BITS = 10,
    AUGD_LEAP_BITS = 11,
    AUGD_BLOCK_SIZE = 64,
    AUGD_MAX_CODE_BITS = 16,
    AUGD_SPECIAL = 0x80,
    AUGD_ZEROS_16 = 0xF0,
    AUGD_LEAP_ENDS = 1 << 11,
};

/* A table turned into lookups. See huffman.c for the entries. Zero at first. */
typedef struct {
    int32_t look[1 << AUGD_LOOK_BITS];
    uint16_t leap[1 << AUGD_LEAP_BITS];
    int32_t code_end[17]; /* by length, left-aligned to 16 bits: codes below it are as long */
    int32_t place_offset[17];
    uint8_t symbols[256];
    UINT8 bits[17]; /* what it was made from: images of one camera have the same tables */
    bool is_ac, is_made, has_leaps;
} AugdTable;

static inline int augd_length_of(int32_t entry) { return entry & 0xFF; }
static inline int augd_run_of(int32_t entry) { return entry >> 8 & 0xFF; }
static inline int augd_value_of(int32_t entry) { return entry >> 16; }
static inline bool augd_is_whole(int32_t entry) { return entry != 0 && !(entry & AUGD_SPECIAL << 8); }

/* T.81, F.12: a value of `size` bits, of which those with a leading 0 are negative. */
static inline int augd_extend(int bits, int size) {
    const int is_negative = (bits >> (size - 1)) - 1; /* all ones, or none */
    return bits - (is_negative & ((1 << size) - 1));
}

/* Make the lookups of a table of an image, unless they are those that it has. */
void augd_make_table(AugdTable *table, const JHUFF_TBL *source, bool is_ac);

/* Make the leaps of an AC table. */
void augd_make_leaps(AugdTable *ac);

#endif
